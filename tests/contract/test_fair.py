"""What is equal in every cell: the transitions of an optimizer step, whatever a wrapper keeps.

A new plugin is tested with no new line here. The rewards are random and no network is asked, but what is kept,
paired and dealt is decided by the code of a run.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Mapping
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

from b2bench.advantage import PromptAdvantage
from b2bench.config.choices import PAPER
from b2bench.config.resolve import resolve
from b2bench.config.run import RunConfig
from b2bench.errors import Refused
from b2bench.hyperparameters import declared
from b2bench.registry import Registry
from b2bench.seeding import generator
from b2bench.training.pace import pace_of, steps_of
from b2bench.types import Conditioning, Trajectories
from b2bench.update import update
from b2bench.wrappers import edges_of, selected

ALGORITHMS, WRAPPERS = Registry("algorithm").names(), Registry("wrapper").names()


class Policy:
    """One weight, which nothing moves."""

    latent_size = 1

    def __init__(self) -> None:
        self.weight = nn.Parameter(torch.zeros(()))

    def parameters(self) -> list[nn.Parameter]:
        return [self.weight]


class Counting:
    """An algorithm that counts the transitions that it is given."""

    pairs: ClassVar[bool] = False

    def __init__(self, of: Any) -> None:
        self.pairs, self.whole_groups = of.pairs, getattr(of, "whole_groups", False)  # type: ignore[misc]
        self.seen = 0

    def loss(self, policy: Policy, batch: Any) -> tuple[Tensor, Mapping[str, Tensor]]:
        self.seen += len(batch) * (2 if self.pairs else 1)
        return policy.weight * 0.0, {}


def rolled(config: RunConfig, round: int, start: int, draws: int) -> Trajectories:
    """The rollouts of some draws of a round, with rewards that differ between prompts as much as within one."""
    settings, wrapper = config.settings, config.wrapper
    samples, interval = settings.samples, wrapper.interval(round, config.rounds, settings.steps)
    n, leaves = draws * samples, wrapper.leaves(samples)
    edges = edges_of(wrapper, samples, interval)
    if edges is not None:
        edges = (edges + samples * torch.arange(draws).reshape(-1, 1, 1)).flatten(0, 1)
    train, draw = config.prompts.train, generator(0, "fair", round, start)
    chosen = torch.randint(len(train), (draws,), generator=draw).repeat_interleave(samples)
    return Trajectories(
        prompts=[train[i] for i in chosen],
        cond=Conditioning(torch.zeros(1, 1, 1), torch.zeros(1, 1, 1), torch.zeros(n, dtype=torch.long)),
        latents=torch.zeros(n, len(interval) + 1, 1, 1, 1),
        log_prob=torch.zeros(n, len(interval)),
        group=torch.arange(n) // (leaves if leaves > 1 else samples),
        leaf=torch.arange(n) % samples,
        interval=interval,
        images=torch.zeros(n, 3, 1, 1),
        calls=0,
        edge=edges,
        reward=chosen / len(train) + torch.randn(n, generator=draw),
    )


def run(algorithm: str, wrapper: str, **values: Any) -> tuple[float, int]:
    """Transitions per optimizer step of a run, and its optimizer steps."""
    config = resolve(
        algorithm=algorithm, wrapper=wrapper, reward="clipscore", backbone="pocket", queries=2400, seed=0, values=values
    )
    settings, counting, policy = config.settings, Counting(config.algorithm), Policy()
    advantage = PromptAdvantage(settings.advantage_history, settings.advantage_clip)
    pace = pace_of(config)
    steps = queries = 0
    for round in range(config.rounds):
        pace.begin(config.draws(round), steps_of(config, config.wrapper.interval(round, config.rounds, settings.steps)))
        while size := pace.next():
            start = config.draws(round) - pace.left
            found = rolled(config, round, start, size)
            assert found.reward is not None
            found.advantage = advantage(found.reward, found.prompts)
            report = update(
                policy,  # type: ignore[arg-type]
                counting,
                torch.optim.SGD(policy.parameters(), lr=0.0),
                found,
                selected(config.wrapper, found, generator(0, "selection", round, start)),
                transitions_per_step=settings.transitions_per_step,
                epochs=settings.passes,
                optimizer_steps=settings.updates_per_round or settings.fixed_steps,
                micro_batch=10_000,
                max_grad_norm=1.0,
                generator=generator(0, "minibatches", round, start),
            )
            assert config.algorithm_name != "pg" or report.optimizer_steps <= 1  # on-policy
            pace.took(size, int(report.kept.sum()))
            steps, queries = steps + report.optimizer_steps, queries + len(found)
    assert queries == config.queries
    return counting.seen / steps, steps


@pytest.mark.slow
def test_an_optimizer_step_takes_as_many_transitions_in_every_cell() -> None:
    """In the paper's sixteen cells, and of each other kind of algorithm: what one learns from decides what is dealt."""
    sizes = {}
    kinds = {}
    for name in (*PAPER, *ALGORITHMS):
        cls: Any = Registry("algorithm").get(name)
        kinds.setdefault(
            (cls.pairs, getattr(cls, "whole_groups", False), str(declared(cls).get("updates_per_round"))), name
        )
    algorithms = {*PAPER, *kinds.values()}
    for algorithm, wrapper in itertools.product(sorted(algorithms), WRAPPERS):
        with contextlib.suppress(Refused):
            sizes[algorithm, wrapper] = run(algorithm, wrapper)[0]
    assert len(sizes) > len(algorithms) * (len(WRAPPERS) - 1)
    assert sizes["ddpo", "vanilla"] == sizes["pg", "vanilla"] == 100
    assert max(sizes.values()) < 1.1 * min(sizes.values()), sizes


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", ["ddpo", "dpo"])
def test_with_equal_steps_it_is_the_steps_that_are_equal_and_the_transitions_that_are_not(algorithm: str) -> None:
    """All cells had this until benchmark version 2: what the test above would have said of them."""
    found = {wrapper: run(algorithm, wrapper, equal="steps") for wrapper in ("vanilla", "bpt", "bs", "b2")}
    assert {steps for _, steps in found.values()} == {480}
    assert max(size for size, _ in found.values()) > 1.1 * min(size for size, _ in found.values())
