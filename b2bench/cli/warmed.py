"""A process that has imported what a run uses, and forks for each run of a sweep: the imports are paid once.

It reads a request a line from stdin and answers each with a line on stdout, both JSON, and ends when stdin does. A run
that it has started lives on then, in a session of its own, as any run does whose sweep was killed.
"""

from __future__ import annotations

import importlib
import json
import os
import runpy
import sys

from b2bench.cli.garbage import unsearched
from b2bench.deferred import defer
from b2bench.installed import read_distributions_late

MODULES = (
    "b2bench.cli.main",
    "b2bench.terminal.progress",
    "b2bench.training.request",
    "b2bench.training.runs",
    "b2bench.training.summary",
    "b2bench.training.track",
    "open_clip",
)
"""What a run on pocket imports, and what they import"""


def warm() -> None:
    """Import what a run uses, and fix what it will say of its code: that is what is in memory, whatever is edited."""
    defer()
    read_distributions_late()
    with unsearched():
        for name in MODULES:
            importlib.import_module(name)
        from b2bench.training.provenance import commit, versions

        versions()
        commit()


def forked(log: str) -> bool:
    """Fork; True in the child, which is a session of its own, reads nothing and writes to the end of ``log``."""
    if (child := os.fork()) != 0:
        _answer({"pid": child})
        return False
    os.setsid()
    for target, path, flags in ((0, os.devnull, os.O_RDONLY), (1, log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)):
        found = os.open(path, flags, 0o666)
        os.dup2(found, target)
        os.close(found)
    os.dup2(1, 2)
    return True


def serve() -> list[str] | None:
    """Answer requests: ``run`` starts a command, ``code`` tells how a child ended, that has.

    Returns:
        In a child the arguments of its command; in this process None, once stdin has ended.
    """
    for line in iter(sys.stdin.readline, ""):
        request = json.loads(line)
        if "code" in request:
            _, status = os.waitpid(request["code"], 0)
            _answer({"code": os.waitstatus_to_exitcode(status)})
        elif forked(request["log"]):
            return list(request["run"])
    return None


def _answer(answer: dict[str, int]) -> None:
    os.write(1, f"{json.dumps(answer)}\n".encode())


def main() -> None:
    """``python -m b2bench.cli.warmed``: see above; ``b2bench/sweep/warm.py`` is its other side."""
    warm()
    _answer({"pid": os.getpid()})
    arguments = serve()
    if arguments is not None:
        sys.argv = ["b2bench", *arguments]
        runpy.run_module("b2bench", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
