"""How a run gets its folder and its row."""

from pathlib import Path

import pytest
from store_rows import run_row

from b2bench.config.resolve import resolve
from b2bench.config.run import RunConfig
from b2bench.errors import UserError
from b2bench.store.store import Store
from b2bench.training.runs import _entered


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
