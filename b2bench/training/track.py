"""Send what a run does to an experiment tracker: wandb, trackio or TensorBoard.

The store stays the truth, and a tracker only hears of it. Its package runs in a process of its own
(:mod:`b2bench.training.track_process`), so that whatever it raises, prints, seeds or waits for ends the
tracking and not the run: a server that is down costs a warning, and a run waits for it at its end for ``PATIENCE``
seconds at most.
"""

from __future__ import annotations

import importlib.util
import json
import math
import os
import queue
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from b2bench.environment import python
from b2bench.errors import UserError
from b2bench.evaluation.evaluate import Evaluation
from b2bench.layout import install_extra
from b2bench.metrics import OWN_COLUMNS
from b2bench.text import suggestion
from b2bench.training.listener import Silent
from b2bench.update import UpdateReport

PATIENCE = 10.0
"""Seconds that a run waits at its end for what a tracker has not sent yet"""
INSTALLED_BY = {
    "wandb": install_extra("wandb"),
    "trackio": "pip install trackio",
    "tensorboard": install_extra("tensorboard"),
}
"""Tracker, which is the name of its package, too -> the command that installs it"""


def check_tracker(name: str) -> None:
    """Refuse a tracker that cannot be told anything.

    Raises:
        UserError: there is none of this name, or its package is not installed.
    """
    if name not in INSTALLED_BY:
        close = suggestion(name, INSTALLED_BY)
        raise UserError(f"--track {name}: no such tracker.{close} There are: {', '.join(INSTALLED_BY)}")
    try:
        found = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        found = None
    if found is None:
        raise UserError(
            f"--track {name} needs the package {name}, which is not installed; try {INSTALLED_BY[name]}, "
            "or without --track"
        )


class Tracking(Silent):
    """A listener that tells a tracker.

    ``config`` are the settings to show, ``out`` is the folder of the run folders. ``warn`` is told once, in words, if
    the tracker fails. What its package prints is in ``NAME.log`` of the run's folder.

    Raises:
        UserError: there is no such tracker, or its package is not installed.
    """

    def __init__(
        self, name: str, config: Mapping[str, Any], out: Path, warn: Callable[[str], None], project: str = "b2bench"
    ) -> None:
        check_tracker(name)
        self.name, self.config, self.out, self.warn = name, config, out, warn
        self.folder = out
        self.broken: str | None = None
        self.told = self.ended = False
        command = [*python("b2bench.training.track_process"), name, project]
        # a session of its own: Ctrl-C reaches the run alone
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True
        )
        self.waiting: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self.threads = [threading.Thread(target=each, daemon=True) for each in (self._write, self._read)]
        for thread in self.threads:
            thread.start()

    def _write(self) -> None:
        """Hand on what is waiting: a pipe that nobody reads is full after a while, and would hold the run up."""
        stream = self.process.stdin
        assert stream is not None
        with suppress(OSError):
            while (call := self.waiting.get()) is not None:
                stream.write(json.dumps(call, default=str).encode() + b"\n")
                stream.flush()
            stream.close()

    def _read(self) -> None:
        """Hear how it ended."""
        assert self.process.stdout is not None
        answer = self.process.stdout.readline()
        if answer and not json.loads(answer):
            self.ended = True
        elif self.broken is None:
            self.broken = json.loads(answer) if answer else "its process ended"

    def _say(self) -> None:
        """Warn in the run's own thread, because the terminal is its."""
        if self.broken is not None and not self.told:
            self.told = True
            self.warn(f"--track {self.name} stopped: {self.broken}. The run goes on, and the store has everything")

    def _tell(self, call: str, **values: Any) -> None:
        self._say()
        if self.broken is None:
            self.waiting.put({"call": call, **values})

    def begins(self, run_id: str) -> None:
        """Start the tracker."""
        self.folder = self.out / run_id
        folder = str(self.folder.absolute())
        self._tell("start", name=self.name, run_id=run_id, config=dict(self.config), folder=folder)

    def round_done(self, round: int, rounds: int, queries: int, reward: float, report: UpdateReport) -> None:
        """Send the numbers of a round."""
        values = {
            "round": float(round),
            "training/reward": reward,
            "training/kept": float(report.kept.float().mean()),
            "training/loss": report.loss,
            "training/grad_norm": report.grad_norm,
            # what a loss reports by its own names is apart: one of them may be "reward"
            **{
                f"{'training' if name in OWN_COLUMNS else 'loss'}/{name}": value
                for name, value in report.metrics.items()
            },
        }
        self._log(values, queries)

    def evaluated(self, queries: int, evaluation: Evaluation) -> None:
        """Send every metric of an evaluation, and its sample images."""
        self._log({f"{metric.split}/{metric.name}": metric.value for metric in evaluation.metrics}, queries)
        files = sorted((self.folder / "samples").glob(f"{queries}-*.png"), key=lambda file: (len(file.name), file.name))
        if files:
            self._tell("images", files=[str(file.absolute()) for file in files], step=queries)

    def _log(self, values: Mapping[str, float], queries: int) -> None:
        finite = {name: value for name, value in values.items() if math.isfinite(value)}
        self._tell("log", values=finite, step=queries)

    def __enter__(self) -> Tracking:
        return self

    def __exit__(self, *_: object) -> None:
        """Wait for the tracker, but not forever, and end its process."""
        until = time.monotonic() + PATIENCE
        self.waiting.put({"call": "finish"})
        self.waiting.put(None)
        with suppress(KeyboardInterrupt):  # somebody has waited enough
            for thread in self.threads:
                thread.join(max(0.0, until - time.monotonic()))
        if self.broken is None and not self.ended:
            self.broken = f"it did not end within {PATIENCE:g} s"
        try:
            self.process.wait(max(1.0, until - time.monotonic()) if self.ended else 0)
        except subprocess.TimeoutExpired:  # packages wait for their servers when a process ends, too
            self._kill()
        self._say()

    def _kill(self) -> None:
        """End its process, and those that a package has started, which are in its session."""
        with suppress(ProcessLookupError):
            if hasattr(os, "killpg"):
                os.killpg(self.process.pid, signal.SIGKILL)
            else:  # Windows
                self.process.kill()
        self.process.wait()


def settings_of(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten a run's configuration to dotted names and plain values, as trackers show it."""
    found: dict[str, Any] = {}
    for name, value in config.items():
        if isinstance(value, Mapping):
            found |= settings_of(value, f"{prefix}{name}.")
        elif not isinstance(value, list | tuple):
            found[f"{prefix}{name}"] = value
    return found
