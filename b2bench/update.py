"""From selected rollouts to optimizer steps: minibatches of (trajectory, step), accumulated exactly."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
import torch
from torch import Tensor

from b2bench.advantage import best_and_worst
from b2bench.engine import Engine
from b2bench.errors import RunFailed
from b2bench.guard import guarded
from b2bench.metrics import OF_LOG_RATIO
from b2bench.minibatches import minibatch_count, trained_steps
from b2bench.protocols import Algorithm, Batch, Policy, Wrapper
from b2bench.types import (
    FinalPair,
    Finals,
    Interval,
    Judge,
    LastSteps,
    Pair,
    Trajectories,
    Transitions,
    micro_batches,
)


def transitions(trajectories: Trajectories, rows: Tensor, offsets: Tensor, device: torch.device) -> Transitions:
    """Return the transitions (rows[i], interval.start + offsets[i]) on ``device``; both [B], rows held here."""
    assert trajectories.reward is not None
    assert trajectories.advantage is not None
    held = rows - trajectories.first
    return Transitions(
        cond=trajectories.cond[held.to(trajectories.cond.index.device)],
        latents=trajectories.latents[held, offsets].to(device),
        next_latents=trajectories.latents[held, offsets + 1].to(device),
        step=(trajectories.interval.start + offsets).to(device),
        log_prob=trajectories.log_prob[held, offsets].to(device),
        advantage=trajectories.advantage[rows].to(device),
        reward=trajectories.reward[rows].to(device),
        group=trajectories.group[rows].to(device),
    )


Drawn = Callable[[Sequence[tuple[int, int]]], Tensor]
"""Noise of finals: (comparison group, step) of B rows -> [B, C, H, W]."""


def finals(trajectories: Trajectories, rows: Tensor, offsets: Tensor, noise: Drawn, device: torch.device) -> Finals:
    """Return the final latents of ``rows`` [B], to be noised to step interval.start + offsets[i], on ``device``."""
    assert trajectories.reward is not None
    assert trajectories.advantage is not None
    assert trajectories.final is not None
    held = rows - trajectories.first
    step, group = trajectories.interval.start + offsets, trajectories.group[rows]
    return Finals(
        cond=trajectories.cond[held.to(trajectories.cond.index.device)],
        latents=trajectories.final[held].to(device),
        noise=noise(list(zip(group.tolist(), step.tolist(), strict=True))).to(device),
        step=step.to(device),
        group=group.to(device),
        advantage=trajectories.advantage[rows].to(device),
        reward=trajectories.reward[rows].to(device),
    )


def step_weights(wrapper: Wrapper, policy: Policy, interval: Interval) -> Tensor | None:
    """Return the weight of each step's advantage, [T], 1 in the mean of ``interval``; None: all alike."""
    weigh = getattr(wrapper, "step_weights", None)
    if weigh is None:
        return None
    nothing = torch.zeros(policy.num_steps, *policy.latent_shape)
    weights: Tensor = weigh(policy.denoise(nothing, nothing, torch.arange(policy.num_steps)).std.cpu())
    return weights / weights[interval.start : interval.stop].mean()


def edge_advantages(trajectories: Trajectories) -> Tensor:
    """Return the mean advantage of the rollouts that share a step, for each rollout and trained step: [N, S]."""
    assert trajectories.edge is not None
    assert trajectories.advantage is not None
    advantage = trajectories.advantage.unsqueeze(1).expand(trajectories.edge.shape)
    total = torch.zeros_like(advantage).scatter_add(0, trajectories.edge, advantage)
    count = torch.zeros_like(advantage).scatter_add(0, trajectories.edge, torch.ones_like(advantage))
    return (total / count.clamp(min=1)).gather(0, trajectories.edge)


def minibatches(
    rows: int, steps: int, count: int, generator: torch.Generator, fraction: float = 1.0, own: Tensor | None = None
) -> Iterator[tuple[Tensor, Tensor]]:
    """Shuffle the rows*steps items and deal them into ``count`` minibatches of (row, offset).

    With a ``fraction`` below 1 each row brings only that share of its steps, drawn without replacement
    (timestep_fraction of ddpo-pytorch). Each item is dealt once, and sizes differ by at most one: fewer items than
    ``count`` are as many minibatches of one. ``own`` [rows, steps] is false for items that are left out.
    """
    taken = trained_steps(steps, fraction)
    if taken < steps:
        offsets = torch.rand(rows, steps, generator=generator).argsort(1)[:, :taken]
        items = (torch.arange(rows).unsqueeze(1) * steps + offsets).flatten()
        order = items[torch.randperm(len(items), generator=generator)]
    else:
        order = torch.randperm(rows * steps, generator=generator)
    if own is not None:
        order = order[own.flatten()[order]]
    for part in order.tensor_split(max(1, count)):
        if len(part):
            yield part // steps, part % steps


@dataclass(frozen=True)
class UpdateReport:
    """Means over a round's minibatches, weighted by rows; nan if an algorithm does not give them."""

    kept: Tensor  # bool [N], which rollouts reached the loss
    optimizer_steps: int
    loss: float
    metrics: Mapping[str, float]
    grad_norm: float
    off_policy: float
    """Nats: the largest change of a transition's log-prob before the first optimizer step"""


def merged(reports: Sequence[UpdateReport]) -> UpdateReport:
    """Return the report of several updates of a round, of the rollouts of one after those of the other."""
    if len(reports) == 1:
        return reports[0]
    rows = [int(report.kept.sum()) for report in reports]  # each brings as many transitions
    names = {name for report in reports for name in report.metrics}
    offs = [report.off_policy for report in reports if not math.isnan(report.off_policy)]

    def mean(values: Sequence[float], weights: Sequence[int]) -> float:
        counted = [(value, weight) for value, weight in zip(values, weights, strict=True) if weight]
        total = sum(weight for _, weight in counted)
        return sum(value * weight for value, weight in counted) / total if total else math.nan

    return UpdateReport(
        kept=torch.cat([report.kept for report in reports]),
        optimizer_steps=sum(report.optimizer_steps for report in reports),
        loss=mean([report.loss for report in reports], rows),
        metrics={name: mean([report.metrics.get(name, 0.0) for report in reports], rows) for name in sorted(names)},
        grad_norm=mean([report.grad_norm for report in reports], [report.optimizer_steps for report in reports]),
        off_policy=max(offs, default=math.nan),
    )


class Units:
    """What is dealt into minibatches, each with a step: rollouts, pairs of them, or whole comparison groups.

    ``members`` [n, k] are the rows of n units; a group of which less than k rows are kept is filled up with -1.
    ``steps`` is how many steps of the interval each brings: all, or the last alone, where the reward's gradient is
    followed by ``judge``.
    """

    def __init__(
        self,
        algorithm: Algorithm,
        trajectories: Trajectories,
        selected: Tensor,
        noise: Drawn | None,
        weights: Tensor | None = None,
        judge: Judge | None = None,
    ) -> None:
        self.trajectories, self.noise, self.weights, self.judge = trajectories, noise, weights, judge
        self.pairs, self.finals = algorithm.pairs, bool(getattr(algorithm, "finals", False))
        self.last = bool(getattr(algorithm, "reward_gradient", False))
        self.steps = 1 if self.last else len(trajectories.interval)
        if self.pairs:
            self.members = torch.stack(best_and_worst(trajectories), 1)
        elif getattr(algorithm, "whole_groups", False):
            kept = [(selected & (trajectories.group == group)).nonzero().squeeze(1) for group in _groups(trajectories)]
            kept = [rows for rows in kept if len(rows)]
            width = max(map(len, kept), default=1)
            self.members = torch.full((len(kept), width), -1)
            for rows, place in zip(kept, self.members, strict=True):
                place[: len(rows)] = rows
        else:
            self.members = selected.nonzero()
        self.first = self.members[:, 0]
        self.own: Tensor | None = None  # bool [n, steps]: where several units share a step, the first has it
        self.edge_advantage = None if trajectories.edge is None else edge_advantages(trajectories)
        if trajectories.edge is not None:
            if self.pairs or self.last:
                raise ValueError("pairs, and last steps, are not taken from a tree; let the wrapper refuse them")
            if not self.finals:
                edge = trajectories.edge[self.first]
                self.own = torch.zeros(edge.shape, dtype=torch.bool)
                for step, shared in enumerate(edge.unbind(1)):
                    self.own[np.unique(shared.numpy(), return_index=True)[1], step] = True

    def __len__(self) -> int:
        return len(self.members)

    @property
    def width(self) -> float:
        """How many transitions a unit is, in the mean."""
        there = int((self.members >= 0).sum())
        return there / len(self) if len(self) else float(self.members.shape[1])

    def rows(self, units: Tensor) -> int:
        """Return over how many rows of a batch the loss of ``units`` is a mean: a pair is one."""
        return len(units) if self.pairs else int((self.members[units] >= 0).sum())

    def batch(self, units: Tensor, offsets: Tensor, device: torch.device) -> Batch:
        """Return what a loss sees of ``units`` [B], each at its step."""
        members = self.members[units]
        if self.pairs:
            winner, loser = (self._of(side, offsets, device) for side in members.unbind(1))
            return FinalPair(winner, loser) if self.finals else Pair(winner, loser)  # type: ignore[arg-type]
        there = members >= 0
        found: Batch = self._of(members[there], offsets.unsqueeze(1).expand_as(members)[there], device)
        return found

    def _of(self, rows: Tensor, offsets: Tensor, device: torch.device) -> Transitions | Finals:
        found: Transitions | Finals
        if self.last:
            if self.judge is None:
                raise ValueError("an algorithm that follows the reward's gradient needs the reward")
            taken = transitions(self.trajectories, rows, offsets + len(self.trajectories.interval) - 1, device)
            prompts = tuple(self.trajectories.prompts[row] for row in rows.tolist())
            found = LastSteps(**vars(taken), prompts=prompts, judge=self.judge)
        elif not self.finals:
            found = transitions(self.trajectories, rows, offsets, device)
        elif self.noise is None:
            raise ValueError("an algorithm on finals needs the noise that they are noised with")
        else:
            found = finals(self.trajectories, rows, offsets, self.noise, device)
        if self.edge_advantage is not None:
            found = replace(found, advantage=self.edge_advantage[rows, offsets].to(device))
        if self.weights is None:
            return found
        return replace(found, advantage=found.advantage * self.weights[found.step.cpu()].to(device))


def _groups(trajectories: Trajectories) -> list[int]:
    found: list[int] = trajectories.group.unique().tolist()
    return found


def update(
    policy: Policy,
    algorithm: Algorithm,
    optimizer: torch.optim.Optimizer,
    trajectories: Trajectories,
    selected: Tensor,
    *,
    transitions_per_step: int = 100,
    epochs: int = 1,
    optimizer_steps: int | None = None,
    micro_batch: int,
    max_grad_norm: float,
    generator: torch.Generator,
    timestep_fraction: float = 1.0,
    noise: Drawn | None = None,
    weights: Tensor | None = None,
    judge: Judge | None = None,
    engine: Engine | None = None,
    progress: Callable[[int, int], None] = lambda done, steps: None,
) -> UpdateReport:
    """Take a round's optimizer steps on the ``selected`` rollouts (bool [N]), or on the pairs of the round.

    ``noise`` is that of algorithms on final latents, which each epoch noises in the same way. ``weights`` [T] multiply
    the advantages of each step (:func:`step_weights`). ``judge`` is the reward, for an algorithm that follows its
    gradient. ``progress`` is told of each step, and how many there are.

    The transitions that they bring are dealt anew in each of ``epochs``, into minibatches of about
    ``transitions_per_step`` (a pair is two), or into ``optimizer_steps`` of them where that is given
    (:func:`minibatch_count`).

    A minibatch is split into micro-batches whose gradients are summed with weights rows / minibatch, so
    that the split changes the result by rounding only, and so does the split over the processes of ``engine``: each
    takes the rows that it holds of the minibatch that all of them dealt. The gradient norm is clipped over the
    adapter's parameters. No rollout selected: no step is taken. ``optimizer_steps`` of the report counts those that
    were taken, without those that fp16 skipped.

    Raises:
        RunFailed: a loss or a gradient is not finite.
    """
    units = Units(algorithm, trajectories, selected, noise, weights, judge)
    kept = torch.zeros(len(trajectories), dtype=torch.bool)
    kept[units.members[units.members >= 0]] = True
    engine = engine or Engine()
    name, parameters = type(algorithm).__name__, list(policy.parameters())
    sums, taken, norm_sum = _Sums(), 0, 0.0
    items = len(units) * trained_steps(units.steps, timestep_fraction)
    count = minibatch_count(
        items if units.own is None or not items else round(items * float(units.own.float().mean())),
        units.width,
        transitions_per_step=transitions_per_step,
        optimizer_steps=optimizer_steps,
    )
    deal = partial(minibatches, len(units), units.steps, count, generator, timestep_fraction, units.own)
    dealt = itertools.chain.from_iterable(deal() for _ in range(epochs))
    for number, (rows, offsets) in enumerate(dealt):
        optimizer.zero_grad(set_to_none=True)
        here = trajectories.holds(units.first[rows])
        mine, where = rows[here], offsets[here]
        at_once = max(1, int(micro_batch / (1 if units.pairs else units.members.shape[1])))
        with engine.together():
            for part in micro_batches(len(mine), at_once):
                batch = units.batch(mine[part], where[part], parameters[0].device)
                with guarded():
                    loss, metrics = algorithm.loss(policy, batch)
                value = float(loss.detach())
                if not math.isfinite(value):
                    raise RunFailed(f"the loss of {name} is {value} at optimizer step {number}")
                engine.backward(loss * (len(batch) / units.rows(rows)))
                sums.add(len(batch), value, metrics, policy.latent_size if number == 0 else None)
        try:
            norm = engine.step(optimizer, parameters, max_grad_norm)
        except RunFailed:
            raise RunFailed(f"the gradient of {name} is not finite at optimizer step {number}") from None
        if norm is not None:
            norm_sum, taken = norm_sum + norm, taken + 1
        progress(number + 1, count * epochs)
    optimizer.zero_grad(set_to_none=True)
    return sums.report(engine, kept, taken, norm_sum)


@dataclass
class _Sums:
    """What the micro-batches of a round come to on this process: sums over rows."""

    rows: int = 0
    loss: float = 0.0
    metrics: dict[str, float] = field(default_factory=dict)
    off_policy: float = math.nan

    def add(self, rows: int, loss: float, metrics: Mapping[str, Tensor], latent_size: int | None) -> None:
        """Add a micro-batch. ``latent_size`` is given at the first optimizer step alone, where log-ratios are 0."""
        self.rows += rows
        self.loss += loss * rows
        if latent_size is not None and "log_ratio" in metrics:
            change = float(metrics["log_ratio"].detach().abs().max()) * latent_size
            self.off_policy = max(change, self.off_policy)  # in this order: of nan and a number, the number
        for name, mean in _health(metrics).items():
            self.metrics[name] = self.metrics.get(name, 0.0) + mean * rows

    def report(self, engine: Engine, kept: Tensor, taken: int, norm_sum: float) -> UpdateReport:
        """Return the report of a round whose optimizer steps are taken, over the processes of ``engine``."""
        shares = engine.all_gather_object((self.rows, self.loss, self.metrics, self.off_policy))
        total, loss = sum(share[0] for share in shares), sum(share[1] for share in shares)
        names = {name for share in shares for name in share[2]}
        means = {name: sum(share[2].get(name, 0.0) for share in shares) / total for name in sorted(names)}
        return UpdateReport(
            kept=kept,
            optimizer_steps=taken,
            loss=loss / total if total else math.nan,
            metrics=means,
            grad_norm=norm_sum / taken if taken else math.nan,
            off_policy=max((share[3] for share in shares if not math.isnan(share[3])), default=math.nan),
        )


def _health(metrics: Mapping[str, Tensor]) -> dict[str, float]:
    """Average a loss's metrics; ``log_ratio`` gives ratio_mean and approx_kl = 0.5 mean(dlogp^2).

    Raises:
        RunFailed: a metric has the name of one of these two.
    """
    if taken := [name for name in OF_LOG_RATIO if name in metrics]:
        raise RunFailed(
            f"the loss reports a metric {taken[0]}, which b2bench computes of its metric log_ratio; try another name"
        )
    found = {name: float(value.detach().float().mean()) for name, value in metrics.items() if name != "log_ratio"}
    if "log_ratio" in metrics:
        log_ratio = metrics["log_ratio"].float()
        found["ratio_mean"] = float(log_ratio.exp().mean())
        found["approx_kl"] = float(0.5 * log_ratio.square().mean())
    return found
