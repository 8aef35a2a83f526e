"""How a run gets its folder and its row."""

import errno
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from store_rows import run_row

from b2bench.config.resolve import resolve
from b2bench.config.run import RunConfig
from b2bench.errors import UserError
from b2bench.store.store import Store
from b2bench.training import runs
from b2bench.training.provenance import run_row as own_row
from b2bench.training.runs import _entered, _found_in_store, _refuse_changed


@pytest.fixture
def config() -> RunConfig:
    return resolve(
        algorithm="ddpo", wrapper="b2", reward="clipscore", backbone="pocket", queries=2400, seed=0, values={}
    )


def test_two_runs_share_no_folder(config: RunConfig, tmp_path: Path) -> None:
    """Two that start in the same second may have the same id; the second must not clear the first one's folder away."""
    store, row, folder = Store(tmp_path / "runs.duckdb"), run_row("r1"), tmp_path / "runs" / "r1"
    (folder / "tensorboard").mkdir(parents=True)  # a tracker may be first
    with _entered(config, store, tmp_path / "runs", row):
        (folder / "checkpoint").touch()
        with pytest.raises(UserError, match="running in another process"):
            _entered(config, store, tmp_path / "runs", row).__enter__()
    with pytest.raises(UserError, match="another run's"):
        _entered(config, store, tmp_path / "runs", row).__enter__()
    assert (folder / "checkpoint").exists()
    assert len(store.runs()) == 1


def test_a_run_that_is_refused_leaves_no_folder(config: RunConfig, tmp_path: Path) -> None:
    store = Store(tmp_path / "runs.duckdb")
    store.start_run(run_row("r1", name="first"))
    with pytest.raises(UserError, match="a run named 'first' was started meanwhile"):
        _entered(config, store, tmp_path / "runs", run_row("r2", name="first")).__enter__()
    assert not (tmp_path / "runs" / "r2").exists()


def test_a_full_disk_leaves_no_folder(config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(runs, "write_config", fail)
    with pytest.raises(OSError, match="No space"):
        _entered(config, Store(tmp_path / "runs.duckdb"), tmp_path / "runs", run_row("r1")).__enter__()
    assert not (tmp_path / "runs" / "r1").exists()


@pytest.mark.parametrize("new", [True, False])
@pytest.mark.parametrize("there", [True, False])
def test_an_interrupt_clears_away_what_began_now_and_no_checkpoint(new: bool, there: bool, tmp_path: Path) -> None:
    """``there``: the store is, but it has not the run; else it was moved."""
    folder, store = tmp_path / "runs" / "r1", Store(tmp_path / "runs.duckdb")
    folder.mkdir(parents=True)
    (folder / "checkpoint-00007.pt").touch()
    if there:
        store.start_run(run_row("r2"))
    trainer: Any = SimpleNamespace(store=store, run_id="r1", folder=folder, engine=SimpleNamespace(first=True))
    with pytest.raises(KeyboardInterrupt), _found_in_store(trainer, new):
        raise KeyboardInterrupt
    assert folder.exists() != new


def test_weights_that_were_replaced_are_refused_on_resume(tmp_path: Path) -> None:
    weights = tmp_path / "clip"
    weights.mkdir()
    (weights / "model.safetensors").write_bytes(b"one")
    policy: Any = SimpleNamespace(device="cpu", threads=SimpleNamespace(count=1))

    def chosen() -> RunConfig:
        return resolve(
            algorithm="ddpo", wrapper="b2", reward="clipscore", backbone="pocket", queries=2400, seed=0,
            values={"checkpoint": str(weights)},
        )  # fmt: skip

    config = chosen()
    row = own_row(config, "r1", None, policy)["config"]
    assert list(row["found"]["weights"]) == [str(weights)]
    _refuse_changed(row, config)
    (weights / "model.safetensors").write_bytes(b"other")
    with pytest.raises(UserError, match=r"clip: the weights have changed since the run started"):
        _refuse_changed(row, chosen())
    (weights / "model.safetensors").unlink()
    _refuse_changed(row, chosen())  # what is missing is said by what looks for it


def test_a_file_is_named_by_its_absolute_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "clip").mkdir()
    (tmp_path / "pocket").mkdir()
    (tmp_path / "inception.pth").touch()
    monkeypatch.chdir(tmp_path)

    def chosen(**values: Any) -> RunConfig:
        return resolve(
            algorithm="ddpo", wrapper="b2", reward="clipscore", backbone="pocket", queries=2400, seed=0, values=values
        )

    near = chosen(checkpoint="clip", inception_weights="inception.pth")
    assert near.reward.checkpoint == str(tmp_path / "clip")  # type: ignore[attr-defined]
    assert near.settings.inception_weights == str(tmp_path / "inception.pth")
    assert near.cell_hash() == chosen(checkpoint=str(tmp_path / "clip")).cell_hash()
    assert chosen(checkpoint="pocket").reward.checkpoint == "pocket"  # type: ignore[attr-defined]
    assert chosen(checkpoint="laion/CLIP").reward.checkpoint == "laion/CLIP"  # type: ignore[attr-defined]
