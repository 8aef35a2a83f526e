"""The sweep's side of ``b2bench/cli/warmed.py``: runs that are forks of one process, which has imported everything."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

from b2bench.environment import python

LOST = -int(signal.SIGKILL) if sys.platform != "win32" else 1
"""How a run has ended for us if the process that could tell was killed; the store knows better"""


class Started(Protocol):
    """A process that runs: what the sweep needs of ``subprocess.Popen``."""

    def wait(self) -> int:
        """Wait for its end; the exit code, below 0 the signal that ended it."""

    def send_signal(self, sig: int, /) -> None:
        """Send it a signal, if it has not ended."""


def can_fork() -> bool:
    """Tell whether this system has what forked runs need: forks, and a way to wait for a process of another's."""
    return sys.platform == "linux" and hasattr(os, "pidfd_open")


class Warm:
    """A process that forks. It begins with the first run, and ends with :meth:`close`.

    Args:
        environment: of each run.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = dict(environment)
        self._process: subprocess.Popen[str] | None = None
        self._guard = threading.Lock()
        self._broken = False

    def start(self, arguments: Sequence[str], log: Path) -> Started | None:
        """Start ``b2bench`` with these arguments, which writes to the end of ``log``; None if that cannot be."""
        with self._guard:
            answer = self._asked({"run": list(arguments), "log": str(log.absolute())})
            return None if answer is None else _Fork(answer["pid"], self)

    def code(self, pid: int) -> int:
        """Return how a fork that has ended did."""
        with self._guard:
            answer = self._asked({"code": pid})
        return LOST if answer is None else int(answer["code"])

    def close(self) -> None:
        """End the process; runs that it started go on."""
        with self._guard:
            self._broken = True
            if self._process is not None:
                with suppress(OSError):
                    self._process.stdin.close()  # type: ignore[union-attr]
                self._process.wait()
                self._process.stdout.close()  # type: ignore[union-attr]
                self._process = None

    def _asked(self, request: dict[str, Any]) -> dict[str, int] | None:
        """Ask and read the answer; None, now and ever after, if the process has ended."""
        if self._broken:
            return None
        try:
            if self._process is None:
                self._process = subprocess.Popen(
                    python("b2bench.cli.warmed"),
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,  # whatever stops it stops a run as well, whose log says it
                    env=self._environment,
                    text=True,
                    start_new_session=True,
                )
                self._read()
            self._process.stdin.write(f"{json.dumps(request)}\n")  # type: ignore[union-attr]
            self._process.stdin.flush()  # type: ignore[union-attr]
            return self._read()
        except (OSError, ValueError):
            self._broken = True
            return None

    def _read(self) -> dict[str, int]:
        assert self._process is not None
        assert self._process.stdout is not None
        answer: dict[str, int] = json.loads(self._process.stdout.readline())  # ValueError at its end
        return answer


class _Fork:
    """A run that the warm process started. It is this sweep's to wait for, and that process's to ask how it ended."""

    def __init__(self, pid: int, warm: Warm) -> None:
        self._pid, self._warm = pid, warm
        self._handle = os.pidfd_open(pid)  # its number is not given to another before the warm process is asked

    def wait(self) -> int:
        poll = select.poll()
        poll.register(self._handle, select.POLLIN)
        poll.poll()
        handle, self._handle = self._handle, -1
        os.close(handle)
        return self._warm.code(self._pid)

    def send_signal(self, sig: int, /) -> None:
        with suppress(OSError):  # it has ended
            signal.pidfd_send_signal(self._handle, sig)
