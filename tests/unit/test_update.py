"""From rollouts to optimizer steps: what is dealt into minibatches, and that splitting them changes nothing."""

import math
from collections import Counter
from collections.abc import Mapping
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from b2bench.config.settings import Settings
from b2bench.errors import RunFailed
from b2bench.minibatches import minibatch_count
from b2bench.types import micro_batches
from b2bench.update import UpdateReport, _health, merged, minibatches, transitions, update


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def dealt(rows: int, steps: int, count: int, seed: int = 0) -> list[list[tuple[int, int]]]:
    return [list(zip(r.tolist(), k.tolist(), strict=True)) for r, k in minibatches(rows, steps, count, seeded(seed))]


@pytest.mark.parametrize(("rows", "steps", "count"), [(7, 5, 4), (240, 20, 24), (1, 14, 3), (3, 1, 3), (5, 4, 1)])
def test_minibatches_deal_every_item_once_and_evenly(rows: int, steps: int, count: int) -> None:
    parts = dealt(rows, steps, count)
    assert len(parts) == count
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
    items = [item for part in parts for item in part]
    assert len(items) == rows * steps
    assert set(items) == {(r, k) for r in range(rows) for k in range(steps)}


def test_minibatches_are_shuffled_by_their_generator() -> None:
    assert dealt(20, 5, 4) == dealt(20, 5, 4)
    assert dealt(20, 5, 4) != dealt(20, 5, 4, seed=1)
    first = dealt(20, 5, 4)[0]
    assert first != sorted(first)
    assert len({k for _, k in first}) > 1
    assert len({r for r, _ in first}) > 10


@pytest.mark.parametrize(("rows", "steps", "count"), [(1, 2, 5), (2, 3, 24), (1, 1, 4)])
def test_fewer_items_than_minibatches_are_as_many_minibatches(rows: int, steps: int, count: int) -> None:
    parts = dealt(rows, steps, count)
    assert [len(part) for part in parts] == [1] * (rows * steps)
    assert len({item for part in parts for item in part}) == rows * steps


@pytest.mark.parametrize(
    ("items", "width", "count"),
    [(4800, 1, 48), (3360, 1, 34), (960, 2, 19), (50, 1, 1), (149, 1, 1), (150, 1, 2), (1, 1, 1), (0, 1, 0), (0, 2, 0)],
)
def test_steps_follow_from_the_transitions(items: int, width: int, count: int) -> None:
    assert minibatch_count(items, width, transitions_per_step=100) == count


@pytest.mark.parametrize(("items", "count"), [(4800, 48), (30, 30), (0, 0)])
def test_steps_may_be_given_instead(items: int, count: int) -> None:
    assert minibatch_count(items, 1, transitions_per_step=100, optimizer_steps=48) == count


def test_a_default_round_of_ddpo_under_vanilla_is_dealt_as_before_transitions_were_equal() -> None:
    """One permutation of 240 rollouts x 20 steps, in 48 parts: what benchmark version 2 dealt."""
    settings = Settings()
    items = settings.draws * settings.samples * settings.steps
    count = minibatch_count(items, 1, transitions_per_step=settings.transitions_per_step)
    expected = torch.randperm(4800, generator=seeded()).tensor_split(48)
    found = [rows * 20 + offsets for rows, offsets in minibatches(240, 20, count, seeded())]
    assert len(found) == len(expected)
    assert all(map(torch.equal, found, expected))


@pytest.mark.parametrize(("fraction", "each"), [(0.3, 6), (0.31, 7), (0.35, 7), (0.01, 1), (1.0, 20)])
def test_a_fraction_of_the_steps_is_drawn_for_each_row(fraction: float, each: int) -> None:
    parts = list(minibatches(200, 20, 8, seeded(), fraction))
    assert sum(len(rows) for rows, _ in parts) == 200 * each
    items = [item for rows, offsets in parts for item in zip(rows.tolist(), offsets.tolist(), strict=True)]
    assert len(set(items)) == len(items)  # without replacement
    assert set(Counter(row for row, _ in items).values()) == {each}
    times = Counter(offset for _, offset in items)  # every step as often as any other
    expected = 200 * each / 20
    assert all(abs(times[k] - expected) < 5 * max(expected, 1) ** 0.5 for k in range(20))
    assert len(set(parts[0][0].tolist())) > 10


def test_no_item_no_minibatch() -> None:
    assert dealt(0, 5, 4) == []


@pytest.mark.parametrize(("rows", "size"), [(1, 1), (7, 3), (200, 48), (48, 48), (49, 48), (5, 100)])
def test_micro_batches_cover_all_rows_evenly(rows: int, size: int) -> None:
    parts = micro_batches(rows, size)
    assert [i for part in parts for i in range(rows)[part]] == list(range(rows))
    sizes = [part.stop - part.start for part in parts]
    assert max(sizes) <= size
    assert max(sizes) - min(sizes) <= 1
    assert len(parts) == math.ceil(rows / size)


def test_transitions_are_the_steps_of_the_interval(make_policy: Any, roll: Any) -> None:
    policy = make_policy(num_steps=4)
    trajectories = roll(policy, draws=3, samples=2, start=1)
    rows, offsets = torch.tensor([5, 0, 2]), torch.tensor([0, 2, 1])
    found = transitions(trajectories, rows, offsets, policy.device)
    assert found.step.tolist() == [1, 3, 2]
    assert torch.equal(found.latents[1], trajectories.latents[0, 2])
    assert torch.equal(found.next_latents[1], trajectories.latents[0, 3])
    assert torch.equal(found.next_latents[0], trajectories.latents[5, 1])
    assert found.log_prob.tolist() == [trajectories.log_prob[r, k].item() for r, k in ((5, 0), (0, 2), (2, 1))]
    assert torch.equal(found.advantage, trajectories.advantage[rows])
    assert torch.equal(found.reward, trajectories.reward[rows])
    assert torch.equal(found.cond.embeddings(), trajectories.cond.embeddings()[rows])


def learn(policy: Any, algorithm: Any, trajectories: Any, **options: Any) -> UpdateReport:
    optimizer = options.pop("optimizer", None) or torch.optim.SGD(policy.parameters(), lr=1.0)
    given: dict[str, Any] = {
        "selected": torch.ones(len(trajectories), dtype=torch.bool),
        "optimizer_steps": 2,
        "micro_batch": 48,
        "max_grad_norm": 1e9,
        "generator": seeded(),
        **options,
    }
    return update(policy, algorithm, optimizer, trajectories, given.pop("selected"), **given)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "sizes"), [("pg", (5, 1)), ("dpo", (5,))])
def test_the_micro_batch_changes_a_round_by_rounding_only(
    name: str, sizes: tuple[int, ...], make_policy: Any, roll: Any, algorithm: Any, adapter_vector: Any
) -> None:
    """Two optimizer steps of 9 items, as 4 and 5 where 5 is the most: micro-batches are not to weigh the same.

    If they did, a step would be off by a tenth. Rounding makes 1.3e-4 of DPO's, whose gradient is a small difference.
    The last 3 of 20 steps: in 3 steps alone the network meets latents unlike any it has learned, at one of which its
    gradient is 50 times that at the others and moves by 2% with the rounding of a batch's size.
    """
    start = make_policy()
    rounds = {"pg": {"draws": 3, "samples": 2}, "dpo": {"draws": 6, "samples": 2, "leaves": 2}}
    own = {"pg": {}, "dpo": {"clip_nats": None}}  # a clamp in nats would let few of so few pairs through
    trajectories = roll(start, **rounds[name], start=start.num_steps - 3)
    moves, reports = [], []
    for size in (64, *sizes):
        policy = make_policy()
        before = adapter_vector(policy)
        reports.append(learn(policy, algorithm(name, **own[name]), trajectories, micro_batch=size, max_grad_norm=0.05))
        moves.append(adapter_vector(policy) - before)
    assert moves[0].norm() > 1e-3
    for move, report in zip(moves[1:], reports[1:], strict=True):
        assert (move - moves[0]).norm() / moves[0].norm() < 5e-4
        assert report.loss == pytest.approx(reports[0].loss, rel=1e-4, abs=1e-6)
        assert report.grad_norm == pytest.approx(reports[0].grad_norm, rel=1e-3)
        assert report.metrics == pytest.approx(reports[0].metrics, rel=1e-3, abs=1e-6)


@pytest.mark.slow
def test_only_selected_rollouts_reach_the_loss(
    make_policy: Any, roll: Any, algorithm: Any, adapter_vector: Any
) -> None:
    policy, other = make_policy(num_steps=2), make_policy(num_steps=2)
    trajectories = roll(policy, draws=4, samples=2)
    selected = torch.tensor([True, False] * 4)
    report = learn(policy, algorithm("pg"), trajectories, selected=selected)
    assert torch.equal(report.kept, selected)
    trajectories.advantage[~selected] = 1e6
    trajectories.latents[~selected] = math.nan
    learn(other, algorithm("pg"), trajectories, selected=selected)
    assert torch.equal(adapter_vector(policy), adapter_vector(other))


def test_an_epoch_deals_every_item_once_more_and_otherwise(make_policy: Any, roll: Any) -> None:
    trajectories, seen = roll(make_policy(num_steps=2), draws=4, samples=2), []

    class Watching:
        pairs: ClassVar[bool] = False

        def loss(self, policy: Any, batch: Any) -> tuple[Tensor, Mapping[str, Tensor]]:
            seen.append(batch.log_prob.tolist())
            return next(iter(policy.parameters())).sum() * 0.0, {}

    report = learn(
        make_policy(num_steps=2), Watching(), trajectories, optimizer_steps=None, transitions_per_step=4, epochs=3
    )
    assert report.optimizer_steps == len(seen) == 4 * 3
    epochs = [[item for part in seen[i : i + 4] for item in part] for i in (0, 4, 8)]
    assert all(sorted(epoch) == sorted(trajectories.log_prob.flatten().tolist()) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 3


@pytest.mark.parametrize("kept", [3, 4, 8])
def test_steps_that_are_given_do_not_depend_on_what_is_kept(
    kept: int, make_policy: Any, roll: Any, algorithm: Any
) -> None:
    policy = make_policy(num_steps=2)
    trajectories, told = roll(policy, draws=4, samples=2), []
    report = learn(
        policy,
        algorithm("ddpo"),
        trajectories,
        selected=torch.arange(8) < kept,
        optimizer_steps=5,
        progress=lambda done, steps: told.append((done, steps)),
    )
    assert told == [(done, 5) for done in range(1, 6)]
    assert report.optimizer_steps == 5
    assert int(report.kept.sum()) == kept


@pytest.mark.slow
def test_the_ratio_is_one_in_the_first_step_and_not_in_the_second(make_policy: Any, roll: Any, algorithm: Any) -> None:
    policy = make_policy(num_steps=4)
    trajectories = roll(policy, draws=4, samples=2)
    first = learn(policy, algorithm("ddpo"), trajectories, optimizer_steps=1, max_grad_norm=0.05)
    assert (first.metrics["ratio_mean"], first.metrics["approx_kl"], first.metrics["clipped"]) == (1.0, 0.0, 0.0)
    second = learn(policy, algorithm("ddpo"), trajectories, optimizer_steps=1)
    assert second.metrics["approx_kl"] > 0


@pytest.mark.parametrize("name", ["ratio_mean", "approx_kl"])
def test_a_metric_that_b2bench_computes_has_its_name_alone(name: str) -> None:
    with pytest.raises(RunFailed, match=f"the loss reports a metric {name}"):
        _health({"log_ratio": torch.zeros(2), name: torch.ones(2)})


def test_gradients_are_clipped_to_their_norm(make_policy: Any, roll: Any, algorithm: Any, adapter_vector: Any) -> None:
    policy = make_policy(num_steps=2)
    trajectories, before = roll(policy), adapter_vector(policy)
    report = learn(policy, algorithm("pg"), trajectories, optimizer_steps=1, max_grad_norm=1e-3)
    assert report.grad_norm > 1e-2  # as it was before clipping
    assert (adapter_vector(policy) - before).norm() == pytest.approx(1e-3, rel=1e-3)


class Broken:
    """An algorithm whose loss, or whose gradient alone, is not finite."""

    pairs: ClassVar[bool] = False

    def __init__(self, loss: float, factor: float) -> None:
        self.value, self.factor = loss, factor

    def loss(self, policy: Any, batch: Any) -> tuple[Tensor, Mapping[str, Tensor]]:
        weight = next(iter(policy.parameters())).flatten()[0]
        return (weight - weight.detach()) * self.factor + self.value, {}


@pytest.mark.parametrize(
    ("loss", "factor", "reason"),
    [
        (math.nan, 1.0, "loss of Broken is nan"),
        (math.inf, 1.0, "loss of Broken is inf"),
        (0.0, 3e38, "gradient of Broken is not finite"),
    ],
)
def test_a_loss_or_gradient_that_is_not_finite_ends_the_run(
    loss: float, factor: float, reason: str, make_policy: Any, roll: Any, adapter_vector: Any
) -> None:
    policy = make_policy(num_steps=2)
    trajectories, before = roll(policy), adapter_vector(policy)
    with pytest.raises(RunFailed, match=reason):
        learn(policy, Broken(loss, factor), trajectories)
    assert torch.equal(adapter_vector(policy), before)


# -- several updates of a round ----------------------------------------------------------------------------


def report(kept: list[bool], steps: int, **values: Any) -> UpdateReport:
    given = {"loss": math.nan, "metrics": {}, "grad_norm": math.nan, "off_policy": math.nan} | values
    return UpdateReport(kept=torch.tensor(kept), optimizer_steps=steps, **given)


def test_updates_of_a_round_are_reported_as_one() -> None:
    first = report([True, True, True], 1, loss=1.0, metrics={"ratio_mean": 1.0}, grad_norm=2.0, off_policy=0.1)
    none = report([False, False], 0)
    last = report([True, False], 2, loss=3.0, metrics={"ratio_mean": 1.4}, grad_norm=5.0, off_policy=0.3)
    assert merged([first]) is first
    found = merged([first, none, last])
    assert found.kept.tolist() == [True] * 3 + [False] * 2 + [True, False]
    assert (found.optimizer_steps, found.off_policy) == (3, 0.3)
    assert found.loss == pytest.approx((3 * 1.0 + 1 * 3.0) / 4)  # by the rollouts that were kept
    assert found.metrics == {"ratio_mean": pytest.approx((3 * 1.0 + 1.4) / 4)}
    assert found.grad_norm == pytest.approx((1 * 2.0 + 2 * 5.0) / 3)  # by optimizer steps
    assert math.isnan(merged([none, none]).loss)
