"""The command line of one of several processes of a run: it is interrupted when the process that started it is gone.

Whoever kills that one (``kill -9``, a machine without memory) means the run, and cannot be told on.
"""

from __future__ import annotations

import os
import runpy
import signal
import threading


def interrupt_with_parent() -> None:
    """When stdin ends, nobody holds its other end: stop as SIGTERM does."""
    while os.read(0, 1024):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


def main() -> None:
    """``python -m b2bench.cli.with_parent run ...``: the command line, as long as its parent lives."""
    threading.Thread(target=interrupt_with_parent, daemon=True).start()
    runpy.run_module("b2bench", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
