"""A run that is asked for again: what may differ from how it was started, and what may not."""

from pathlib import Path

import pytest
from store_rows import run_row

from b2bench.config.choices import Choices, resolved
from b2bench.config.run import RunConfig
from b2bench.errors import UserError
from b2bench.estimate.fit import within
from b2bench.store.store import Store
from b2bench.training.request import to_resume


def asked(seed: int = 0, **values: object) -> RunConfig:
    return resolved(Choices(algo="ddpo", seed=seed, values=values))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store, config = Store(tmp_path / "b.duckdb"), asked(micro_batch=96)
    store.start_run(run_row("a1", seed=0, config_hash=config.cell_hash(), config=config.as_dict(), budget=2400))
    return store


def test_a_run_goes_on_with_less_memory_by_its_whole_command(store: Store) -> None:
    request = to_resume("a1", store, asked(micro_batch=16))
    assert request.config is not None
    assert (request.run_id, request.config.settings.micro_batch) == ("a1", 16)
    assert to_resume("a1", store).config is None  # as it was started


@pytest.mark.parametrize(
    ("config", "reason"), [(asked(lr=0.5), "has other settings"), (asked(seed=1), "has another seed")]
)
def test_another_run_is_not_taken_for_it(store: Store, config: RunConfig, reason: str) -> None:
    with pytest.raises(UserError, match=reason):
        to_resume("a1", store, config)


@pytest.mark.parametrize("vram", [float("nan"), float("inf"), 0.0, -1.0])
def test_a_gpu_of_no_size_is_refused(vram: float) -> None:
    with pytest.raises(UserError, match="is not a number of GiB above 0"):
        within(asked(), vram)
