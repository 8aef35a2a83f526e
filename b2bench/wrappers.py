"""BPT and BS as two independent switches: the four wrappers are their 2x2 factorial, and controls stand beside it.

| wrapper | trained steps | leaves of a branch | reaches the loss |
| vanilla | all | 1 | all |
| bpt | backward-progressive | 1 | all |
| bs | all | K | extremes of a branch |
| b2 | backward-progressive | K | extremes of a branch |
| spread (control) | all | 1 | extremes of a prompt draw |
| random2 (control) | backward-progressive | K | as many as b2's rule keeps, at random |
| forward (control) | forward-progressive, bpt's mirror image | 1 | all |
| window (control) | as many as bpt's, at a random place | 1 | all |
| noise_weighted (control) | all, each weighted by its noise | 1 | all |
| tree (control) | all, each edge of a tree once | K, by several splits | all |

A control takes the place of one part of a wrapper, so that what the part does can be told from what comes with it:
selection from keeping less, and from branching; a schedule from training on less, and from which steps it begins with.
Reports set controls apart (docs/wrappers.md).

Source: B2-DiffuRL (arXiv 2503.11240), sections 3.2 (BPT) and 3.3 (BS), and its public code.
"""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import torch
from annotated_types import Ge, Gt, Le
from torch import Tensor

from b2bench.guard import guarded
from b2bench.protocols import Wrapper
from b2bench.registry import wrapper
from b2bench.seeding import generator as stream
from b2bench.types import Interval, Trajectories


@dataclass(kw_only=True)
class FullInterval:
    """Train all T denoising steps in every round."""

    def interval(self, round: int, rounds: int, num_steps: int) -> Interval:
        """Return ``[0, T)``."""
        return Interval(0, num_steps)


@dataclass(kw_only=True)
class BackwardProgressive:
    """Train the last tau of T steps, and let tau grow to T with training.

    tau = tau_start T + floor(rises i / rounds) (1 - tau_start) T / (rises - 1), in round i: the published
    code's 14 + floor(7 i / 100) of T = 20, written as a fraction of training. It reaches T in the last
    of the ``rises`` equal parts, if they are two or more. With ``schedule_rounds`` it is the schedule of a run of so
    many rounds, of which this run does the first: the public code's is 100 rounds long.
    """

    tau_start: Annotated[float, Gt(0), Le(1)] = 0.7
    """Share of the T steps that is trained in the first round (0 < tau_start <= 1)"""
    rises: Annotated[int, Ge(1)] = 7
    """Number of equal parts of training; the trained share grows from one to the next (1: it stays as it starts)"""
    schedule_rounds: Annotated[int | None, Ge(1)] = None
    """Rounds that the whole schedule takes, of which a shorter run does the first; none: the rounds of the run"""

    def interval(self, round: int, rounds: int, num_steps: int) -> Interval:
        """Return ``[T - tau, T)``."""
        part = self.rises * round // (self.schedule_rounds or rounds)
        share = part / (self.rises - 1) if self.rises > 1 else 0.0
        tau = self.tau_start + (1 - self.tau_start) * min(share, 1.0)
        return Interval(num_steps - max(1, int(tau * num_steps + 1e-9)), num_steps)

    def notice(self, rounds: int, num_steps: int) -> str | None:
        """Say that a run of so many rounds ends before tau reaches T, unless a longer schedule was asked for."""
        trained = len(self.interval(rounds - 1, rounds, num_steps))
        if trained == num_steps or self.rises == 1 or self.schedule_rounds is not None:
            return None
        return (
            f"tau never reaches T: the last of {rounds} rounds trains {trained} of {num_steps} steps; "
            f"try at least {self.rises} rounds, by more --queries or fewer draws"
        )


@dataclass(kw_only=True)
class Independent:
    """Every rollout starts from its own noise, and every rollout is trained on."""

    def leaves(self, samples: int) -> int:
        """Return 1: no branching."""
        return 1

    def select(self, trajectories: Trajectories) -> Tensor:
        """Select all: bool [N]."""
        return torch.ones(len(trajectories), dtype=torch.bool)


@dataclass(kw_only=True)
class Extremes:
    """Train on the extremes of each group, which is a prompt draw, or a branch where there are any.

    The best rollout is kept if its advantage is at least ``best``, the worst if it is below ``worst``,
    independently: a group gives 0, 1 or 2 rollouts. Differs from the paper: its equation 5 has the
    threshold 0, its public code +-0.5; the code's is the default here.
    A threshold says little where a round is the first to draw a prompt, and draws it once (on pocket a third of the
    first round's draws): there an advantage rests on the K rewards of one group, and of five the best is above +0.5
    and the worst below -0.5, so both are kept; unless four are equal, as with one success in five: then the other
    side is at 0.5 up to rounding, which decides. Further draws of the prompt in the round bring five rewards each.
    The public code has some 28 rewards of a prompt there (1,280 images of 45 prompts).
    """

    best: float = 0.5
    """The best leaf of a branch is trained on if its advantage is at least this"""
    worst: float = -0.5
    """The worst leaf of a branch is trained on if its advantage is below this"""
    keep: Literal["extremes", "all"] = "extremes"
    """Which leaves may reach the loss: the extremes of a branch by the thresholds, or all of them"""

    def select(self, trajectories: Trajectories) -> Tensor:
        """Select the extremes of each group: bool [N]."""
        if self.keep == "all":
            return torch.ones(len(trajectories), dtype=torch.bool)
        reward, advantage = trajectories.reward, trajectories.advantage
        assert reward is not None
        assert advantage is not None
        kept = torch.zeros(len(trajectories), dtype=torch.bool)
        for group in trajectories.group.unique():
            rows = (trajectories.group == group).nonzero().squeeze(1)
            best, worst = rows[reward[rows].argmax()], rows[reward[rows].argmin()]
            kept[best] |= bool(advantage[best] >= self.best)
            kept[worst] |= bool(advantage[worst] < self.worst)
        return kept


@dataclass(kw_only=True)
class Branching(Extremes):
    """Copy each trajectory into K leaves at the start of the trained interval; train on a branch's extremes."""

    def leaves(self, samples: int) -> int:
        """Return K: all rollouts of a prompt draw are leaves of one branch."""
        return samples


def selected(wrapper: Wrapper, trajectories: Trajectories, generator: torch.Generator) -> Tensor:
    """Return what a wrapper selects: bool [N]. A ``select`` that takes a ``generator`` is given this one.

    It is the generator of (seed, "selection", round), so that what is drawn from it depends on these alone; where a
    round has several updates, as with ``pg``, of the update's place in it, too.
    """
    with guarded():
        if "generator" in inspect.signature(wrapper.select).parameters:
            return wrapper.select(trajectories, generator=generator)  # type: ignore[call-arg]
        return wrapper.select(trajectories)


def edges_of(wrapper: Wrapper, samples: int, interval: Interval) -> Tensor | None:
    """Return which rollouts of a prompt draw share which trained steps, as a wrapper's ``edges`` says; None: none do.

    [samples, S], whole numbers: for each rollout and step the first rollout that shares the step with it.
    """
    edges = getattr(wrapper, "edges", None)
    if edges is None:
        return None
    with guarded():
        found: Tensor = edges(samples, interval)
    return found


def shared_steps(edges: Tensor | None) -> int:
    """Return how many of the (rollout, step) of a prompt draw are sampled by another rollout: [samples, S] edges."""
    return 0 if edges is None else int((edges != torch.arange(len(edges)).unsqueeze(1)).sum())


@wrapper
class Vanilla(FullInterval, Independent):
    """No wrapper: independent rollouts, all steps, all rollouts."""

    properties: ClassVar[Mapping[str, str]] = {"steps": "all T", "leaves": "1", "trained on": "all rollouts"}


@wrapper
class BPT(BackwardProgressive, Independent):
    """Backward progressive training alone."""

    properties: ClassVar[Mapping[str, str]] = {
        "steps": "last tau, growing to T",
        "leaves": "1",
        "trained on": "all rollouts",
    }


@wrapper
class BS(FullInterval, Branching):
    """Branch-based sampling alone: the leaves share only x_T (the paper gives no such cell; ours is open)."""

    properties: ClassVar[Mapping[str, str]] = {
        "steps": "all T",
        "leaves": "K",
        "trained on": "best and worst leaf of a branch",
    }


@wrapper
class B2(BackwardProgressive, Branching):
    """BPT + BS: the paper's B2-DiffuRL.

    Where the first round that draws a prompt draws it once, the extremes of five leaves of unequal rewards are kept
    whatever the thresholds (see :class:`Extremes`). From the second such round on, earlier ones count.
    """

    properties: ClassVar[Mapping[str, str]] = {
        "steps": "last tau, growing to T",
        "leaves": "K",
        "trained on": "best and worst leaf of a branch",
    }


@wrapper
class Spread(FullInterval, Extremes, Independent):
    """Control: best and worst of K rollouts that share nothing but their prompt.

    Against bs it shows what branching does, against vanilla what selection does.
    """

    control: ClassVar[str] = "selection without branching"
    properties: ClassVar[Mapping[str, str]] = {
        "steps": "all T",
        "leaves": "1",
        "trained on": "best and worst of a prompt draw",
    }


@wrapper
class Random2(BackwardProgressive, Branching):
    """Control: b2 with its choice taken away. As many rollouts of a round as b2's rule would keep, chosen at random.

    They are the first of a permutation of all of the round's rollouts. The permutation depends on (seed, round) alone,
    and how many are taken on the rewards, as in b2. Against b2 it shows what selection does beyond keeping less.
    """

    control: ClassVar[str] = "keeping less without selection"
    properties: ClassVar[Mapping[str, str]] = {
        "steps": "last tau, growing to T",
        "leaves": "K",
        "trained on": "as many as b2 keeps, at random",
    }

    def select(self, trajectories: Trajectories, generator: torch.Generator | None = None) -> Tensor:
        """Select at random as many rollouts as b2 would: bool [N].

        Raises:
            ValueError: there is no generator to draw from.
        """
        if generator is None:
            raise ValueError("random2 draws what it keeps and needs a generator; try b2bench.wrappers.selected")
        count = int(super().select(trajectories).sum())
        kept = torch.zeros(len(trajectories), dtype=torch.bool)
        kept[torch.randperm(len(trajectories), generator=generator)[:count]] = True
        return kept


@wrapper
class Forward(BackwardProgressive, Independent):
    """Control: bpt's mirror image. The first tau steps are trained, the noisiest; tau grows as in bpt.

    B2 trains late steps first, most of the field early ones (MixGRPO, arXiv 2507.21802; TempFlow-GRPO, arXiv
    2508.04324). Against bpt it shows which end of the trajectory is worth beginning with, at equal steps and queries.
    """

    control: ClassVar[str] = "late steps first"
    properties: ClassVar[Mapping[str, str]] = {
        "steps": "first tau, growing to T",
        "leaves": "1",
        "trained on": "all rollouts",
    }

    def interval(self, round: int, rounds: int, num_steps: int) -> Interval:
        """Return ``[0, tau)``."""
        return Interval(0, len(super().interval(round, rounds, num_steps)))


@wrapper
class Window(BackwardProgressive, Independent):
    """Control: as many steps as bpt trains in a round, at a random place.

    The place depends on the round alone, so that it is the same in every cell and seed. Against bpt it shows whether
    the schedule matters, or only that less is trained.
    """

    control: ClassVar[str] = "a schedule of any kind"
    properties: ClassVar[Mapping[str, str]] = {
        "steps": "tau in a row, anywhere",
        "leaves": "1",
        "trained on": "all rollouts",
    }

    def interval(self, round: int, rounds: int, num_steps: int) -> Interval:
        """Return ``[k, k + tau)``, k drawn for the round."""
        tau = len(super().interval(round, rounds, num_steps))
        start = int(torch.randint(num_steps - tau + 1, (), generator=stream(0, "window", round)))
        return Interval(start, start + tau)


@wrapper
class NoiseWeighted(FullInterval, Independent):
    """Control: vanilla, each step's advantage weighted by the step's noise.

    The weight of step k is sigma_k, the standard deviation of its transition, over the mean of the trained steps: so
    early steps count more, and the mean weight is 1 (TempFlow-GRPO, arXiv 2508.04324, which weighs a flow's steps by
    their noise). An algorithm on pairs has no advantage to weigh and is refused.
    """

    key: ClassVar[str] = "noise_weighted"
    control: ClassVar[str] = "equal weights of all steps"
    properties: ClassVar[Mapping[str, str]] = {
        "steps": "all T, by their noise",
        "leaves": "1",
        "trained on": "all rollouts",
    }

    def step_weights(self, std: Tensor) -> Tensor:
        """Return the weight of each step, [T], for transitions of these standard deviations [T]."""
        return std

    def refuses(self, algorithm: Any) -> str | None:
        """Say that pairs have no advantage."""
        return "it weighs advantages, and an algorithm on pairs has none" if algorithm.pairs else None


@wrapper
class Tree(FullInterval, Independent):
    """Control: the K rollouts of a prompt draw are leaves of one tree, which splits several times.

    A draw begins as one trajectory, at x_T. There, and again after every ``spacing`` T steps, each edge splits into
    ``ways`` as even as can be, until every rollout has an edge of its own; what is left to split, splits at the last
    step. A step of an edge is sampled once and trained on once, with the mean advantage of the edge's leaves: early
    choices are judged by all that came of them. Against bs it shows what later splits and the judgement of each
    choice do, with all leaves trained on: ``--set bs.keep=all``. An algorithm on pairs is refused.

    The idea is that of BranchGRPO (arXiv 2509.06040) and TreeGRPO (arXiv 2512.08153). Differs from the first, which
    normalises advantages at each depth and prunes the tree: here an edge's advantage is the plain mean of the harness's
    advantages, in the unit of every other cell. Known from their abstracts; neither code was compared.
    """

    control: ClassVar[str] = "one split, and one advantage for all steps"
    properties: ClassVar[Mapping[str, str]] = {
        "steps": "all T, each edge once",
        "leaves": "K, by several splits",
        "trained on": "all edges of a tree",
    }

    ways: Annotated[int, Ge(2)] = 2
    """Into how many an edge splits"""
    spacing: Annotated[float, Gt(0), Le(1)] = 0.15
    """Share of the T steps between one split and the next: 0.15 of 20 is three"""

    def leaves(self, samples: int) -> int:
        """Return K: all rollouts of a prompt draw are leaves of one tree."""
        return samples

    def edges(self, samples: int, interval: Interval) -> Tensor:
        """Return for each rollout and trained step the first rollout that shares the step: [samples, S]."""
        steps = len(interval)
        gap = max(1, int(self.spacing * steps + 1e-9))
        found = torch.zeros(samples, steps, dtype=torch.long)
        starts = [0, samples]
        for step in range(steps):
            if step == steps - 1:
                starts = list(range(samples + 1))
            elif step % gap == 0:
                starts = [
                    start + (stop - start) * way // self.ways
                    for start, stop in itertools.pairwise(starts)
                    for way in range(self.ways)
                ]
                starts = sorted({*starts, samples})
            sizes = torch.tensor(starts).diff()
            found[:, step] = torch.tensor(starts[:-1]).repeat_interleave(sizes)
        return found

    def refuses(self, algorithm: Any) -> str | None:
        """Say that pairs have no advantage."""
        return "its advantages are of edges, and an algorithm on pairs has none" if algorithm.pairs else None
