"""Trackers hear what a run does; one that fails, or hangs, costs a warning."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from b2bench.errors import UserError
from b2bench.training import track
from b2bench.training.track import Tracking, check_tracker, settings_of

REPORT: Any = SimpleNamespace(
    metrics={"ratio_mean": 1.0, "reward": 0.5}, kept=torch.tensor([True, False]), loss=float("nan"), grad_norm=0.1
)
EVALUATION: Any = SimpleNamespace(metrics=[SimpleNamespace(split="test", name="clipscore", value=0.7)])

PACKAGE = """
import json, pathlib

def note(*call):
    print("the package prints")
    with open({file!r}, "a") as file:
        file.write(json.dumps(call) + "\\n")

def init(**options): note("init", options)
def log(values, step): note(step, values)
def finish(): note("finish")
def Image(file): return "image " + pathlib.Path(file).name
"""


@pytest.fixture
def trackio(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Callable[[], list[Any]]]:
    """A package of wandb's shape, with a last line of its own; it returns what tells what it was told."""
    (tmp_path / "lib").mkdir()
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "lib"))
    monkeypatch.syspath_prepend(str(tmp_path / "lib"))
    file = tmp_path / "calls"

    def make(more: str) -> Callable[[], list[Any]]:
        (tmp_path / "lib" / "trackio.py").write_text(PACKAGE.format(file=str(file)) + more)
        return lambda: [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []

    return make


def warned(name: str, folder: Path) -> list[str]:
    """The warnings of a run of one round and two evaluations."""
    warnings: list[str] = []
    with Tracking(name, {"settings.lr": 1e-3}, folder, warnings.append) as tracking:
        tracking.begins("r1")
        tracking.evaluated(0, EVALUATION)
        tracking.round_done(1, 1, 10, 0.6, REPORT)
        tracking.evaluated(10, EVALUATION)
    assert tracking.process.poll() is not None  # nothing of it is left
    return warnings


def test_a_package_of_wandbs_shape_hears_rounds_evaluations_and_samples(tmp_path: Path, trackio: Any) -> None:
    calls = trackio("")
    (tmp_path / "r1" / "samples").mkdir(parents=True)
    for name in ("0-0.png", "0-10.png", "0-2.png", "10-0.png"):
        (tmp_path / "r1" / "samples" / name).touch()
    assert warned("trackio", tmp_path) == []
    options = {"project": "b2bench", "name": "r1", "config": {"settings.lr": 1e-3}, "resume": "allow"}
    round = {"round": 1.0, "training/reward": 0.6, "training/kept": 0.5, "training/grad_norm": 0.1}
    assert calls() == [
        ["init", options],
        [0, {"test/clipscore": 0.7}],
        [0, {"samples/0": "image 0-0.png", "samples/1": "image 0-2.png", "samples/2": "image 0-10.png"}],
        [10, round | {"training/ratio_mean": 1.0, "loss/reward": 0.5}],  # no loss: it was not finite
        [10, {"test/clipscore": 0.7}],
        [10, {"samples/0": "image 10-0.png"}],
        ["finish"],
    ]
    assert "the package prints" in (tmp_path / "r1" / "trackio.log").read_text()


DOWN = (
    "def init(**options): import urllib.request; urllib.request.urlopen('http://127.0.0.1:9')"  # nobody listens there
)


@pytest.mark.parametrize(
    ("last", "said", "calls"),
    [
        ("def log(values, step): raise SystemExit('no\\n disk')", "stopped: SystemExit: no disk. The run", ["init"]),
        (DOWN, "refused", []),
        ("def log(values, step): import os; os._exit(3)", "its process ended", ["init"]),
        ("1 / 0", "ZeroDivisionError", []),
    ],
    ids=["raises", "server is down", "dies", "does not import"],
)
def test_one_that_fails_is_a_warning(last: str, said: str, calls: list[str], tmp_path: Path, trackio: Any) -> None:
    told = trackio(last)
    (warning,) = warned("trackio", tmp_path)
    assert said in warning
    assert "the store has everything" in warning
    assert [call[0] for call in told()] == calls


def test_one_that_hangs_is_not_waited_for(tmp_path: Path, trackio: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    trackio("import atexit, time\natexit.register(time.sleep, 100)\ndef log(values, step): time.sleep(100)")
    monkeypatch.setattr(track, "PATIENCE", 1.0)
    started = time.monotonic()
    assert "did not end within 1 s" in warned("trackio", tmp_path)[0]
    assert time.monotonic() - started < 20


@pytest.mark.slow  # it imports torch once more
def test_tensorboard_has_the_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tensorboard")
    from PIL import Image
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    monkeypatch.setattr(track, "PATIENCE", 120.0)
    (tmp_path / "r1" / "samples").mkdir(parents=True)
    Image.new("RGB", (4, 4)).save(tmp_path / "r1" / "samples" / "10-0.png")
    assert warned("tensorboard", tmp_path) == []
    events = EventAccumulator(str(tmp_path / "r1" / "tensorboard"))
    events.Reload()
    assert [(one.step, round(one.value, 3)) for one in events.Scalars("test/clipscore")] == [(0, 0.7), (10, 0.7)]
    assert events.Tags()["images"] == ["samples/0"]


def test_a_tracker_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"no such tracker\. Did you mean wandb"):
        check_tracker("wandbb")
    monkeypatch.setattr(track.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"uv pip install -e '.*\[wandb\]'"):
        check_tracker("wandb")


def test_settings_are_flat() -> None:
    config = {"seed": 1, "settings": {"lr": 0.1}, "prompts": {"train": ["a"], "name": "x"}}
    assert settings_of(config) == {"seed": 1, "settings.lr": 0.1, "prompts.name": "x"}
