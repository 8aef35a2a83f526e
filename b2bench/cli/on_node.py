"""The command line on a node of a Ray cluster, as long as the process that started it lives."""

from __future__ import annotations

import os
import shutil
import sys
import threading
from pathlib import Path


def end_with_parent(folder: Path) -> None:
    """When stdin ends, the worker was killed: take the folder away and end, whatever the other threads do."""
    while os.read(0, 1024):
        pass
    shutil.rmtree(folder, ignore_errors=True)
    os._exit(1)


def main() -> None:
    """``python -m b2bench.cli.on_node FOLDER run ...``: the command line, as long as its parent lives."""
    threading.Thread(target=end_with_parent, args=(Path(sys.argv[1]),), daemon=True).start()
    from b2bench.cli import main as cli

    sys.argv = ["b2bench", *sys.argv[2:]]
    cli.main()


if __name__ == "__main__":
    main()
