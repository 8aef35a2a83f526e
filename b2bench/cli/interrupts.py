"""Ctrl-C, SIGTERM, SIGHUP and what schedulers announce a job's end with: one line and exit code 1, whenever they come.

Until there is something to finish, the process ends at once. A KeyboardInterrupt would show Python's traceback before
:func:`b2bench.cli.main.main` is there to catch it, and may get lost: libraries that are being imported catch
everything, and so do finalizers and callbacks from C. Later it is raised, and raised again by :meth:`Interrupts.check`
if it got lost. Nothing is imported here that takes time.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from types import FrameType

SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
ANNOUNCED = [getattr(signal, name) for name in ("SIGUSR1", "SIGUSR2", "SIGXCPU") if hasattr(signal, name)]
"""By which schedulers say that a job's time is over, before they kill it: Slurm's --signal, SGE's -notify, a CPU limit.
A library may have one of them for something else."""
TWICE = 2.0
"""Seconds in which a second signal is the same: a terminal tells every process, and who started one passes it on"""


class Interrupts:
    """How this process takes a signal that asks it to stop."""

    def __init__(self) -> None:
        self._words = "interrupted"
        self._asked = 0.0

    def end_at_once(self, words: str = "interrupted") -> None:
        """From now on a signal ends the process, which says ``words``."""
        self._words = words
        self._take(self._end)

    def raise_them(self) -> None:
        """From now on a signal raises KeyboardInterrupt."""
        self._take(self._raise)

    def ignore(self) -> None:
        """From now on signals are ignored: what is left to do takes a moment and must not be cut off."""
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        for number in ANNOUNCED:
            if self._is_free(number):
                signal.signal(number, signal.SIG_IGN)

    def check(self) -> None:
        """Raise the KeyboardInterrupt of a signal that got lost on its way.

        Raises:
            KeyboardInterrupt: there was one.
        """
        if self._asked:
            raise KeyboardInterrupt

    def _take(self, handler: Callable[[int, FrameType | None], None]) -> None:
        for number in SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:  # nohup, or a script's background
                signal.signal(number, handler)
        for number in ANNOUNCED:
            if self._is_free(number):
                signal.signal(number, handler)

    def _is_free(self, number: int) -> bool:
        return signal.getsignal(number) in (signal.SIG_DFL, self._end, self._raise)

    def _end(self, number: int, frame: FrameType | None) -> None:
        if os.environ.get("RANK", "0") == "0":  # of several processes one speaks
            cursor = "\x1b[?25h\n" if sys.stderr.isatty() else ""  # a live display hides it
            os.write(2, f"{cursor}{self._words}\n".encode(errors="replace"))
        os._exit(1)

    def _raise(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if now > self._asked + TWICE or not self._asked:
            self._asked = now
            raise KeyboardInterrupt


INTERRUPTS = Interrupts()
"""Of this process: signals are its own, whoever asks."""
