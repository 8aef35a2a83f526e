"""Run folders of an interrupted run whose checkpoints, or whose row, are not what the run wrote."""

from __future__ import annotations

import hashlib
import io
import pickle
import random
import shutil
from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch

from bad_inputs.made import Input, damage_bytes, misplace


class Bomb:
    """What a pickle would make of it shows in the folder."""

    def __reduce__(self) -> Any:
        return Path.touch, (Path("exploded"),)


def checkpoints(drawn: random.Random, folder: Path) -> Input:
    run = folder / "runs" / "half"
    command = ["run", "--resume", drawn.choice(("half", "hal")), "--out", "runs"]
    files = sorted(run.glob("checkpoint-*.pt"))
    way = drawn.choice(
        ("bytes", "all bytes", "state", "state", "state", "state", "pickle", "gone", "out", "swapped", "misplaced")
    )
    if way in ("bytes", "all bytes"):
        chosen = files if way == "all bytes" else [drawn.choice(files)]
        what = "; ".join(damage_bytes(drawn, file) for file in chosen)
    elif way == "swapped":
        names = [files[0].name, files[1].name]
        files[0].rename(run / "x")
        files[1].rename(run / names[0])
        (run / "x").rename(run / names[1])
        what = "two checkpoints swapped"
    elif way == "misplaced":
        what, mode = misplace(drawn, drawn.choice((files[-1], run / "lock", run / "config.json")))
        return Input(command, ["half", *(file.name for file in files)], what, loads=True, unreadable=mode)
    elif way == "gone":
        shutil.rmtree(run)
        if drawn.random() < 0.5:
            run.write_text("a file", encoding="utf-8")
        what = "no run folder"
    elif way == "out":
        command[-1] = drawn.choice(("folder", "notes.txt", "loop", "gone", "dangling", "sealed"))
        what = f"--out {command[-1]}"
    elif way == "pickle":
        _put(run, files, pickle.dumps({"round": Bomb()}))
        what = "a pickle as checkpoint, with the hash that belongs to it"
    else:
        state, what = _changed(drawn, torch.load(files[-1], weights_only=True))
        buffer = io.BytesIO()
        torch.save(state, buffer)
        _put(run, files, buffer.getvalue())
    return Input(command, ["half", "checkpoint", command[-1]], what, loads=True, unreadable=True)


def _put(run: Path, files: list[Path], content: bytes) -> None:
    """``content`` as the newest checkpoint, named after its hash, as forgery would."""
    files[-1].unlink()
    (run / f"checkpoint-00002-{hashlib.sha256(content).hexdigest()[:16]}.pt").write_bytes(content)


def _changed(drawn: random.Random, state: dict[str, Any]) -> tuple[Any, str]:
    junk = drawn.choice(
        (None, 3, -1, "text", [], {}, [1], {"a": 1}, torch.zeros(3), OrderedDict(a=torch.ones(1)), 10**9, 1.5)
    )
    way = drawn.choice(("whole", "part", "part", "part", "lack", "adapter"))
    if way == "whole":
        return junk, f"checkpoint is {junk!r}"
    key = drawn.choice([*state])
    if way == "lack":
        del state[key]
        return state, f"checkpoint without {key}"
    if way == "part":
        state[key] = junk
        return state, f"checkpoint with {key} = {junk!r}"
    name = drawn.choice([*state["adapter"]])
    old = state["adapter"][name]
    state["adapter"][name] = drawn.choice(
        (old[:, :0], old.T, old * float("nan"), old.to(torch.int8), old[0], old.repeat(2, 2))
    )
    return state, f"adapter's {name} of shape {tuple(state['adapter'][name].shape)}"
