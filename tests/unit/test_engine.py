"""What an engine does on one process; tests/cli/test_processes.py has two."""

import math
import re
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from store_rows import run_row
from torch import nn

from b2bench.config.settings import Settings
from b2bench.engine import SKIPS, Engine
from b2bench.errors import RunFailed, UserError
from b2bench.store.store import Store
from b2bench.training.listener import Silent


@pytest.fixture
def engine() -> Engine:
    return Engine()


@pytest.mark.parametrize("world", [1, 2, 3, 8])
def test_shares_are_all_items_in_order_and_even(world: int, engine: Engine) -> None:
    engine.world = world
    for n in (0, 1, 7, 48):
        shares = engine.shares(n)
        assert [i for share in shares for i in share] == list(range(n))
        assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_alone_and_agreed_pass_values_and_errors(engine: Engine) -> None:
    assert engine.first
    assert engine.on_main_process(lambda: 3) == 3
    with pytest.raises(ZeroDivisionError):
        engine.on_main_process(lambda: 1 / 0)
    engine.raise_together(None)
    assert engine.all_gather_object("x") == ["x"]


def test_what_one_process_meets_is_raised_on_all(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on rank 0 of 2, beside what the other tells."""
    engine.world, told = 2, []

    def gathered(other: object) -> None:
        monkeypatch.setattr(engine, "all_gather_object", lambda mine: [told.append(mine) or mine, other])

    gathered(None)
    with engine.together():
        pass
    assert told == [None]
    with pytest.raises(SystemExit), engine.together():
        sys.exit(3)
    with pytest.raises(UserError, match=r"^try another$"), engine.together():
        raise UserError("try another")
    assert told[1][0] is False
    assert re.fullmatch(r"SystemExit: 3 \(.*test_engine\.py, line \d+\)", told[1][1])
    assert told[2] == (True, "try another")
    with pytest.raises(KeyboardInterrupt), engine.together():
        raise KeyboardInterrupt
    assert len(told) == 3  # each process is interrupted by itself
    for users, kind in ((False, RunFailed), (True, UserError)):
        gathered((users, "no memory"))
        with pytest.raises(kind, match=r"^process 1 of 2: no memory$"), engine.together():
            pass


def test_a_process_without_a_row_of_its_first_minibatch_has_a_scale_in_fp16() -> None:
    weights = nn.Parameter(torch.ones(1))
    weights.grad = torch.zeros(1)
    assert Engine(scaled=True).step(torch.optim.SGD([weights], lr=1.0), [weights], 1.0) == 0


def test_a_step_clips_the_adapter_only_and_gives_the_norm_before(engine: Engine) -> None:
    clipped, other = (nn.Parameter(torch.zeros(2)) for _ in range(2))
    optimizer = torch.optim.SGD([{"params": [clipped]}, {"params": [other]}], lr=1.0)
    engine.backward((clipped * torch.tensor([3.0, 4.0])).sum() + (other * 10).sum())
    assert engine.step(optimizer, [clipped], max_norm=1.0) == pytest.approx(5)
    assert torch.allclose(clipped.detach(), torch.tensor([-0.6, -0.8]), atol=1e-5)
    assert torch.allclose(other.detach(), torch.tensor([-10.0, -10.0]))


def test_fp16_skips_what_overflows_and_gives_up_in_the_end(engine: Engine) -> None:
    """As on a GPU: the scale is halved after each overflow, and a step that overflowed is none."""
    engine.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**8)
    weights = nn.Parameter(torch.ones(1))
    optimizer = torch.optim.SGD([weights], lr=0.5)
    engine.backward(weights.sum())
    assert engine.step(optimizer, [weights], 10.0) == pytest.approx(1)
    assert float(weights.detach()) == pytest.approx(0.5)
    weights.grad = torch.tensor([math.inf])
    assert engine.step(optimizer, [weights], 10.0) is None
    assert float(weights.detach()) == pytest.approx(0.5)
    assert engine.scaler.get_scale() == 2.0**7
    for _ in range(SKIPS - 1):
        weights.grad = torch.tensor([math.inf])
        assert engine.step(optimizer, [weights], 10.0) is None
    weights.grad = torch.tensor([math.inf])
    with pytest.raises(RunFailed, match="not finite"):
        engine.step(optimizer, [weights], 10.0)


def test_a_gradient_that_is_not_finite_ends_a_run_in_fp32(engine: Engine) -> None:
    weights = nn.Parameter(torch.ones(1))
    weights.grad = torch.tensor([math.nan])
    with pytest.raises(RunFailed, match="not finite"):
        engine.step(torch.optim.SGD([weights], lr=1.0), [weights], 1.0)


def test_the_scale_of_fp16_goes_round(engine: Engine) -> None:
    engine.scaler = torch.amp.GradScaler("cpu", init_scale=64.0)
    engine.scaler._lazy_init_scale_growth_tracker(torch.device("cpu"))
    other = Engine()
    other.scaler = torch.amp.GradScaler("cpu", init_scale=2.0)
    other.load_state(engine.state())
    assert other.scaler.get_scale() == 64


def test_a_resumed_run_in_half_precision_scales_its_losses_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from b2bench.training import runs

    found: list[Engine] = []

    def trainer(*arguments: Any) -> None:
        found.append(arguments[-1])
        raise KeyboardInterrupt

    store = Store(tmp_path / "x.duckdb")
    monkeypatch.setattr(runs, "Trainer", trainer)
    for precision in ("fp16", "fp32"):
        config = SimpleNamespace(settings=Settings(precision=precision))
        monkeypatch.setattr(runs, "from_dict", lambda _, config=config: config)
        store.start_run(run_row(precision))
        (tmp_path / precision).mkdir()
        with pytest.raises(KeyboardInterrupt):
            runs.resume(precision, store, tmp_path, Silent())
    assert [engine.scaler.is_enabled() for engine in found] == [True, False]
