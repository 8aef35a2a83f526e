"""Checkpoints: two are kept, each is checked when it is read, and a damaged one gives way to the one before."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from store_rows import run_row

from b2bench.errors import UserError
from b2bench.store.store import Store
from b2bench.training.checkpoint import load_checkpoint, save_checkpoint
from b2bench.training.trainer import Trainer


def save(folder: Path, round: int) -> Path:
    return save_checkpoint(folder, round, {"round": round, "weights": torch.arange(1000.0) + round})


def files(folder: Path) -> list[int]:
    return sorted(int(path.name.split("-")[1]) for path in folder.iterdir())


def test_the_newest_is_read_and_two_are_kept(tmp_path: Path) -> None:
    assert load_checkpoint(tmp_path) is None
    for round in range(1, 5):
        save(tmp_path, round)
    assert files(tmp_path) == [3, 4]
    state = load_checkpoint(tmp_path)
    assert state is not None
    assert state["round"] == 4
    assert torch.equal(state["weights"], torch.arange(1000.0) + 4)


@pytest.mark.parametrize("damage", ["a flipped bit", "cut short", "empty", "of another file"])
def test_a_damaged_one_gives_way_and_says_so(tmp_path: Path, damage: str) -> None:
    save(tmp_path, 1)
    path = save(tmp_path, 2)
    content = bytearray(path.read_bytes())
    if damage == "a flipped bit":
        content[len(content) // 2] ^= 1
    elif damage == "cut short":
        content = content[:-7]
    elif damage == "empty":
        content = bytearray()
    else:
        content = bytearray(next(tmp_path.glob("checkpoint-00001-*")).read_bytes())
    path.write_bytes(content)
    said: list[str] = []
    state = load_checkpoint(tmp_path, said.append)
    assert state is not None
    assert state["round"] == 1
    assert len(said) == 1
    assert str(path) in said[0]
    assert "damaged" in said[0]
    # the round that is run again replaces what was damaged
    save(tmp_path, 2)
    assert files(tmp_path) == [1, 2]
    state = load_checkpoint(tmp_path, said.append)
    assert state is not None
    assert state["round"] == 2
    assert len(said) == 1


def test_nothing_whole_is_nothing(tmp_path: Path) -> None:
    for round in (1, 2):
        save(tmp_path, round).write_bytes(b"no checkpoint")
    said: list[str] = []
    assert load_checkpoint(tmp_path, said.append) is None
    assert len(said) == 2


def test_what_a_kill_leaves_half_written_is_no_checkpoint(tmp_path: Path) -> None:
    path = save(tmp_path, 1)
    (tmp_path / "checkpoint-00002.tmp").write_bytes(path.read_bytes()[:100])
    state = load_checkpoint(tmp_path)
    assert state is not None
    assert state["round"] == 1
    save(tmp_path, 2)
    assert not (tmp_path / "checkpoint-00002.tmp").exists()


@pytest.mark.parametrize("rounds", [0, 1, 2, 5])
def test_a_run_without_checkpoints_begins_anew_only_where_none_was_written(rounds: int, tmp_path: Path) -> None:
    """A kill before the first one leaves a round at most; more of them had one, which is gone or damaged."""
    store = Store(tmp_path / "b.duckdb")
    store.start_run(run_row("a1"))
    for round in range(rounds):
        store.record_round("a1", {"round": round, "queries": 10 * (round + 1)}, [])
    run: Any = SimpleNamespace(store=store, run_id="a1", folder=tmp_path)
    if rounds > 1:
        with pytest.raises(UserError, match=f"{rounds} rounds in the store and no readable checkpoint"):
            Trainer._nothing_is_lost(run)
    else:
        Trainer._nothing_is_lost(run)
    assert len(store.rounds("a1")) == rounds
