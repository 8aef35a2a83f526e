"""Every algorithm under every wrapper, controls included, on the toy policy: a new plugin is tested with no new line.

The rollouts, selection and update are those of a run; tests/contract/test_cells.py runs some of the cells on pocket.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch

from b2bench.advantage import advantage_rule
from b2bench.config.resolve import resolve
from b2bench.config.run import RunConfig
from b2bench.errors import Refused
from b2bench.plugins.check_algorithm import LR, MARGIN
from b2bench.plugins.toy import PROMPTS, ToyPolicy, toy_noise, toy_reward
from b2bench.registry import Registry
from b2bench.rollout import rollout, round_noise, sample_with_kl
from b2bench.seeding import generator
from b2bench.update import UpdateReport, step_weights, update
from b2bench.wrappers import edges_of, selected

CELLS = [(a, w) for a in Registry("algorithm").names() for w in Registry("wrapper").names()]
ROUNDS, SAMPLES = 3, 5


def choose(algorithm: str, wrapper: str, **values: Any) -> RunConfig:
    return resolve(
        algorithm=algorithm, wrapper=wrapper, reward="clipscore", backbone="pocket", queries=60, seed=0,
        values={"draws": 4, "steps": ToyPolicy.num_steps, **values},
    )  # fmt: skip


def trained(
    config: RunConfig, micro_batch: int = 64, rounds: int = ROUNDS, lr: float | None = None
) -> tuple[ToyPolicy, list[UpdateReport]]:
    """The policy after some rounds of a cell; with ``lr`` it begins as the pretrained model and learns by AdamW."""
    policy, reward, reports = ToyPolicy(0), toy_reward(0), []
    if lr is None:
        policy.move(0.05, "start")
    if hasattr(config.algorithm, "setup"):
        config.algorithm.setup(policy, generator(0, "algorithm"))
    if lr is None:
        optimizer: torch.optim.Optimizer = torch.optim.SGD(policy.parameters(), lr=1e-3)
    else:
        optimizer = torch.optim.AdamW(policy.parameters(), lr=lr)
    rule = advantage_rule(config.settings.advantage, history=8, clip=5.0, draws=4)
    for round in range(rounds):
        interval = config.wrapper.interval(round, rounds, policy.num_steps)
        policy.remember()
        found = rollout(
            policy, PROMPTS, samples=SAMPLES, leaves=config.wrapper.leaves(SAMPLES), interval=interval,
            noise=round_noise(policy, 0, round), edges=edges_of(config.wrapper, SAMPLES, interval),
        )  # fmt: skip
        found.reward = reward(found.images, found.prompts)
        found.advantage = rule(found.reward, found.prompts, found.group)
        kept = selected(config.wrapper, found, generator(0, "selection", round))
        report = update(
            policy, config.algorithm, optimizer, found, kept,
            transitions_per_step=20, micro_batch=micro_batch, max_grad_norm=1.0,
            generator=generator(0, "minibatches", round), noise=toy_noise(policy, round),
            weights=step_weights(config.wrapper, policy, interval), judge=reward,
        )  # fmt: skip
        reports.append(report)
    return policy, reports


def weights(policy: ToyPolicy) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in policy.parameters()])


def refusal(algorithm: str, wrapper: str) -> str | None:
    """Why one of the two does not go with the other, in its own words."""
    parts = Registry("algorithm").get(algorithm)(), Registry("wrapper").get(wrapper)()
    said = (getattr(part, "refuses", lambda _: None)(other) for part, other in (parts, parts[::-1]))
    return next(filter(None, said), None)


@pytest.mark.parametrize(("algorithm", "wrapper"), CELLS)
def test_a_cell_trains_or_says_why_not(algorithm: str, wrapper: str) -> None:
    if reason := refusal(algorithm, wrapper):
        with pytest.raises(Refused, match=reason):
            choose(algorithm, wrapper)
        return
    config = choose(algorithm, wrapper)
    policy, reports = trained(config)
    assert all(report.kept.any() == (report.optimizer_steps > 0) for report in reports)
    assert any(report.kept.any() for report in reports)
    assert bool(torch.isfinite(weights(policy)).all())
    fresh = ToyPolicy(0)
    fresh.move(0.05, "start")
    assert not torch.equal(weights(policy), weights(fresh))
    cut, _ = trained(choose(algorithm, wrapper), micro_batch=3)  # changes rounding only
    torch.testing.assert_close(weights(cut), weights(policy), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("rule", ["group", "loo"])
@pytest.mark.parametrize("wrapper", Registry("wrapper").names())
def test_every_wrapper_takes_every_advantage(wrapper: str, rule: str) -> None:
    policy, reports = trained(choose("ddpo", wrapper, advantage=rule))
    assert any(report.kept.any() for report in reports)
    assert bool(torch.isfinite(weights(policy)).all())


@pytest.mark.parametrize("wrapper", Registry("wrapper").names())
def test_every_wrapper_takes_a_kl(wrapper: str) -> None:
    policy, reports = trained(choose("ddpo", wrapper, kl_weight=0.1))
    assert max(report.metrics.get("kl_nats", 0.0) for report in reports) > 0
    assert bool(torch.isfinite(weights(policy)).all())


def test_a_weight_of_a_step_multiplies_its_advantage() -> None:
    config = choose("ddpo", "noise_weighted")
    policy = ToyPolicy(0)
    interval = config.wrapper.interval(0, ROUNDS, policy.num_steps)
    found = step_weights(config.wrapper, policy, interval)
    assert found is not None
    torch.testing.assert_close(found, policy.ddim.sigma / policy.ddim.sigma.mean())
    assert float(found.mean()) == pytest.approx(1)
    assert step_weights(choose("ddpo", "vanilla").wrapper, policy, interval) is None


def gain_and_kl(wrapper: str, **values: Any) -> tuple[float, float]:
    """What ddpo gains on the toy task, in standard deviations of the reward, and its KL from the pretrained model in
    nats a path; exact, on fixed noise.
    """
    images, reward = list(PROMPTS) * 32, toy_reward(0)
    found = []
    for rounds in (0, 20):
        policy, _ = trained(choose("ddpo", wrapper, **values), rounds=rounds, lr=LR)
        pictures, kl = sample_with_kl(policy, images, round_noise(policy, 0, -1))
        found.append((reward(pictures, images), float(kl.mean())))
    (before, nothing), (after, nats) = found
    assert nothing == 0
    return float((after - before).mean() / before.std()), nats


@pytest.mark.slow
@pytest.mark.parametrize("wrapper", ["vanilla", "tree"])
def test_ddpo_learns_the_toy_task_under_a_tree_and_with_its_kl_switched_on(wrapper: str) -> None:
    plain, penalised, held = (gain_and_kl(wrapper, kl_weight=weight) for weight in (0.0, 0.3, 30.0))
    assert plain[0] > MARGIN
    assert penalised[0] > MARGIN
    assert held[1] < penalised[1] < plain[1]  # the KL that the loss has a price for is the one that falls
    assert held[0] < plain[0]
