"""An experiment tracker in a process of its own: ``python -m b2bench.training.track_process NAME PROJECT``.

It reads a call as JSON from each line of stdin, and ends with its first error, which it prints as JSON. A package that
hangs, or that waits for its server when a process ends, then holds nothing up but this process.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from b2bench.text import described

ALONE = 60.0
"""Seconds after which the process ends whatever it waits for, once nobody talks to it any more"""


class Tracker(Protocol):
    """What is asked of a tracker. Any call may raise, or take long."""

    def start(self, run_id: str, config: Mapping[str, Any], folder: Path) -> None:
        """Begin the run, or go on with it if the tracker knows it."""

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Take numbers at ``step`` reward queries."""

    def images(self, files: Sequence[Path], step: int) -> None:
        """Take sample images."""

    def finish(self) -> None:
        """Send what is left."""


class WandbLike:
    """A package with wandb's functions ``init``, ``log`` and ``finish``: wandb itself, and trackio."""

    def __init__(self, name: str, project: str) -> None:
        self.name, self.project = name, project
        self.module: Any = None

    def start(self, run_id: str, config: Mapping[str, Any], folder: Path) -> None:
        """Call ``init``."""
        self.module = importlib.import_module(self.name)
        own: dict[str, Any] = {}
        if self.name == "wandb":
            own = {"id": run_id, "dir": str(folder), "settings": self.module.Settings(console="off", silent=True)}
        self.module.init(project=self.project, name=run_id, config=dict(config), resume="allow", **own)

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Call ``log``."""
        self.module.log(dict(values), step=step)

    def images(self, files: Sequence[Path], step: int) -> None:
        """Call ``log`` with the package's ``Image`` of each file."""
        self.module.log(
            {f"samples/{place}": self.module.Image(str(file)) for place, file in enumerate(files)}, step=step
        )

    def finish(self) -> None:
        """Call ``finish``."""
        self.module.finish()


class TensorBoard:
    """Event files in ``tensorboard`` of the run's folder, for ``tensorboard --logdir runs``."""

    def start(self, run_id: str, config: Mapping[str, Any], folder: Path) -> None:
        """Open a new event file; a run that goes on has one for each of its processes."""
        from torch.utils.tensorboard import SummaryWriter

        self.writer: Any = SummaryWriter(str(folder / "tensorboard"))  # type: ignore[no-untyped-call]
        lines = "\n".join(f"    {name}: {value}" for name, value in config.items())
        self.writer.add_text("settings", lines, 0)

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Add a scalar for each number."""
        for name, value in values.items():
            self.writer.add_scalar(name, value, step)

    def images(self, files: Sequence[Path], step: int) -> None:
        """Add each image."""
        import numpy as np
        from PIL import Image

        for place, file in enumerate(files):
            with Image.open(file) as picture:
                self.writer.add_image(f"samples/{place}", np.asarray(picture.convert("RGB")), step, dataformats="HWC")

    def finish(self) -> None:
        """Close the file."""
        self.writer.close()


def answered(tracker: Tracker, call: Mapping[str, Any]) -> None:
    """Make the call that a line asked for."""
    what = call["call"]
    if what == "start":
        folder = Path(call["folder"])
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / f"{call['name']}.log").open("a", encoding="utf-8") as log:  # what the package prints
            os.dup2(log.fileno(), 2)
        tracker.start(call["run_id"], call["config"], folder)
    elif what == "log":
        tracker.log(call["values"], call["step"])
    elif what == "images":
        tracker.images([Path(file) for file in call["files"]], call["step"])
    else:
        tracker.finish()


def main() -> None:
    """Answer until stdin ends."""
    name, project = sys.argv[1:]
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    tracker: Tracker = TensorBoard() if name == "tensorboard" else WandbLike(name, project)
    try:
        for line in sys.stdin:
            os.dup2(2, 1)
            answered(tracker, json.loads(line))
    except BaseException as error:  # somebody else's code may raise anything, SystemExit too
        print(json.dumps(" ".join(described(error).split())[:200]), file=answers, flush=True)
        os._exit(1)
    last = threading.Timer(ALONE, os._exit, [1])
    last.daemon = True
    last.start()
    print(json.dumps(""), file=answers, flush=True)


if __name__ == "__main__":
    main()
