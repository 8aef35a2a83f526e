"""What an algorithm must do: a loss with a gradient, on any batch, that learns the toy task."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from b2bench.advantage import PromptAdvantage
from b2bench.errors import UserError
from b2bench.guard import guarded
from b2bench.hyperparameters import declared, searched_settings
from b2bench.metrics import OF_LOG_RATIO
from b2bench.plugins.contract import (
    Checker,
    Failed,
    changes,
    check_hyperparameters,
    check_process,
    check_refusal,
    check_searches,
    copy_of,
    expect,
    global_seed,
)
from b2bench.plugins.counting import counted_cost
from b2bench.plugins.toy import PROMPTS, SAMPLES, ToyPolicy, toy_batch, toy_noise, toy_reward, toy_rollout
from b2bench.protocols import Batch
from b2bench.registry import Registry
from b2bench.rollout import round_noise, sample
from b2bench.seeding import generator
from b2bench.types import FinalPair, Pair
from b2bench.update import update
from b2bench.wrappers import Vanilla

# The toy task. The built-in ones on transitions, and examples/awr.py, gain 0.5 to 2 standard deviations, seeds 0 to 9
# (dpok with kl_weight 1 still 0.2); losses that ignore the reward gain at most 0.1 on average of three seeds.
ROUNDS, DRAWS, OPTIMIZER_STEPS, LR = 20, 8, 2, 1e-2
# On final latents the noise that they are noised with is most of a gradient, and what weighs images by their reward
# (rwr, raft) learns slowly: with these they gain 0.2 and 0.3 in the mean of three seeds, the others 0.6 to 2.9, and
# the denoising error alone, whatever the reward, 0.03.
FINALS_DRAWS, FINALS_STEPS = 64, 8
EVALUATION_IMAGES = 128
SEEDS = (0, 1, 2)
MARGIN = 0.1  # standard deviations of the reward before training


def _with_advantage(batch: Batch, change: Callable[[Tensor], Tensor]) -> Batch:
    if isinstance(batch, Pair | FinalPair):
        sides = (replace(side, advantage=change(side.advantage)) for side in (batch.winner, batch.loser))
        return type(batch)(*sides)  # type: ignore[arg-type]
    return replace(batch, advantage=change(batch.advantage))


class _Subject:
    """An algorithm with its defaults, set up on a fresh toy policy."""

    def __init__(self, cls: type, seed: int = 0) -> None:
        self.policy = ToyPolicy(seed)
        self.algorithm = cls()
        if hasattr(self.algorithm, "setup"):
            self.algorithm.setup(self.policy, generator(seed, "algorithm"))
        self.networks = list(self.algorithm.networks()) if hasattr(self.algorithm, "networks") else []

    def loss(self, batch: Batch) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Loss and metrics of a copy of ``batch``.

        Raises:
            Failed: it returned something else.
        """
        answer = self.algorithm.loss(self.policy, copy_of(batch))
        if not (isinstance(answer, tuple) and len(answer) == 2):
            raise Failed(f"loss returned {type(answer).__name__}; return (loss, metrics)")
        loss, metrics = answer
        expect(isinstance(loss, Tensor), f"the loss is a {type(loss).__name__}; return a torch tensor")
        shape = tuple(loss.shape)
        expect(shape == (), f"the loss has shape {shape}; return a scalar, the mean over the rows of the batch")
        expect(isinstance(metrics, Mapping), f"metrics are a {type(metrics).__name__}; return a dict, empty if none")
        return loss, metrics

    def gradients(self, batch: Batch) -> tuple[float, list[Tensor]]:
        """Return the loss, and its gradient by the adapter and by the algorithm's own networks."""
        parameters = [*self.policy.parameters()]
        parameters += [weight for network, _ in self.networks for weight in network.parameters()]
        for parameter in parameters:
            parameter.grad = None
        loss, _ = self.loss(batch)
        loss.backward()
        return loss.item(), [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in parameters]


class _LossChecks:
    """The checks of a loss, each on fresh subjects and the same toy batch; one that fails raises."""

    def __init__(self, cls: type) -> None:
        self.cls = cls
        self.batch = toy_batch(self.behaving().policy, self.behaving().algorithm)

    def behaving(self) -> _Subject:
        """Return a fresh one at the behaviour policy, which is not the pretrained one: a ratio to the
        wrong one shows.
        """
        subject = _Subject(self.cls)
        subject.policy.move(0.05, "behaviour")
        subject.policy.remember()
        return subject

    def moved(self) -> _Subject:
        """Return a fresh one after a small update, where the ratio is not 1."""
        subject = self.behaving()
        subject.policy.move(0.01, "update")
        return subject

    def finite(self) -> None:
        """A scalar that is finite on every kind of batch that a round can bring."""
        batch = self.batch
        inputs = {
            "a round's first batch (ratio 1)": (self.behaving, batch),
            "the same batch after a small update of the policy": (self.moved, batch),
            "a batch of one row": (self.behaving, batch[:1]),
            "a batch whose advantages are all 0": (self.behaving, _with_advantage(batch, torch.zeros_like)),
            "a batch whose advantages are all -5": (
                self.behaving,
                _with_advantage(batch, lambda a: torch.full_like(a, -5.0)),
            ),
            "a batch whose advantages are all 5": (
                self.behaving,
                _with_advantage(batch, lambda a: torch.full_like(a, 5.0)),
            ),
        }
        for name, (subject, given) in inputs.items():
            loss, _ = subject().loss(given)
            expect(bool(torch.isfinite(loss)), f"the loss is {loss.item()} on {name}")

    def requires_grad(self) -> None:
        """It depends on the adapter."""
        batch = self.batch
        loss, _ = self.behaving().loss(batch)
        expect(
            loss.requires_grad,
            "the loss has no gradient: it does not depend on the adapter. Take log-probabilities from "
            "policy.transition(...), outside policy.reference() and torch.no_grad()",
        )

    def reaches(self) -> None:
        """Its gradient is finite and reaches the adapter."""
        batch = self.batch
        here = self.behaving()
        _, found = here.gradients(batch)
        adapter = found[: len(here.policy.parameters())]
        expect(all(bool(torch.isfinite(grad).all()) for grad in found), "the gradient of the loss is not finite")
        expect(
            any(bool(grad.any()) for grad in adapter),
            "the gradient by every weight of the adapter is zero: the loss ignores the adapter. Take "
            "log-probabilities from policy.transition(...) and do not detach them",
        )

    def only(self) -> None:
        """It changes and trains nothing but the adapter, and leaves it on."""
        batch = self.batch
        here = self.behaving()
        weights = {**here.policy.frozen, "adapter A": here.policy.down, "adapter B": here.policy.up}
        before = {name: weight.detach().clone() for name, weight in weights.items()}
        here.gradients(batch)
        for name, weight in here.policy.frozen.items():
            expect(not weight.requires_grad, f"the loss switched on the gradient of the frozen weight {name}")
            expect(weight.grad is None, f"the frozen weight {name} received a gradient")
        for name, weight in weights.items():
            expect(torch.equal(weight, before[name]), f"the loss changed the weight {name}; only the optimizer may")
        expect(here.policy.enabled, "the adapter is off after the loss; use `with policy.reference():`")

    def ratio(self) -> None:
        """Where it names its log-ratio, that is 0 on a round's first batch."""
        batch = self.batch
        _, metrics = self.behaving().loss(batch)
        if "log_ratio" in metrics:
            largest = float(metrics["log_ratio"].abs().max())
            expect(
                largest < 1e-5,
                f"log_ratio is up to {largest:.3g} on a round's first batch, expected 0: it is the log-probability "
                "now minus batch.log_prob, of the same transition",
            )

    def mutation(self) -> None:
        """It changes nothing in the batch."""
        batch = self.batch
        here, given = self.behaving(), copy_of(batch)
        here.algorithm.loss(here.policy, given)
        changed = changes(batch, given)
        expect(not changed, f"the loss changed batch.{', batch.'.join(changed)} in place; work on a copy")

    def deterministic(self) -> None:
        """The same batch gives the same loss and gradient, whatever the seed."""
        batch = self.batch
        here = self.behaving()
        with global_seed(1):
            first, first_gradients = here.gradients(batch)
        with global_seed(2):
            second, second_gradients = here.gradients(batch)
        advice = "a loss draws no random numbers and keeps no state between calls"
        expect(first == second, f"the same batch gave the loss {first:.9g}, then {second:.9g}: {advice}")
        same = all(map(torch.equal, first_gradients, second_gradients))
        expect(same, f"the same batch gave two different gradients: {advice}")

    def process(self) -> None:
        """It changes nothing of the whole process; what ``setup`` draws first weights with is its own affair."""
        subject = self.behaving()
        check_process(lambda: subject.loss(self.batch))

    def cost(self) -> None:
        """What it declares of its denoiser calls is what it makes, with its defaults: estimates are made of it."""
        told, counted = self.cls().row_calls, counted_cost(self.cls())
        expect(
            isinstance(told, tuple) and all(isinstance(calls, int) for calls in told) and told == counted,
            f"row_calls is {told!r}, but the loss makes {counted[0]} denoiser calls for a row with a gradient and "
            f"{counted[1]} without: make it {counted}, or leave it out, and they are counted",
        )

    def metrics_finite(self) -> None:
        """Metrics are finite tensors: a scalar, or one value a row."""
        batch, rows = self.batch, len(self.batch)
        # Metrics of pairs may hold the winners' rows and then the losers'.
        shapes = {(), (rows,), (2 * rows,)} if isinstance(batch, Pair | FinalPair) else {(), (rows,)}
        for subject in (self.behaving, self.moved):
            for name, value in subject().loss(batch)[1].items():
                expect(isinstance(value, Tensor), f"metric {name} is a {type(value).__name__}; make it a tensor")
                expect(name not in OF_LOG_RATIO, f"metric {name}: b2bench computes it of log_ratio; rename it")
                shape = tuple(value.shape)
                expect(shape in shapes, f"metric {name} has shape {shape}; a scalar or ({rows},), one per row")
                expect(bool(torch.isfinite(value.float()).all()), f"metric {name} is not finite")

    def mean_over_rows(self) -> None:
        """Micro-batches do not change it."""
        batch, rows = self.batch, len(self.batch)
        subject, cut = self.moved(), rows // 3
        if getattr(self.cls, "whole_groups", False):
            cut -= cut % SAMPLES
        whole, *parts = [subject.loss(part)[0].item() for part in (batch, batch[:cut], batch[cut:])]
        expected = (cut * parts[0] + (rows - cut) * parts[1]) / rows
        expect(
            abs(whole - expected) <= 1e-5 * max(1.0, abs(whole)),
            f"the loss of {rows} rows is {whole:.6g}, but its parts average to {expected:.6g}: micro-batches would "
            "change the result. Take the mean over rows, of terms that each depend on their own row alone",
        )

    def on_pairs(self) -> None:
        """It tells winner from loser."""
        batch = self.batch
        assert isinstance(batch, Pair | FinalPair)
        _, straight = self.behaving().gradients(batch)
        _, swapped = self.behaving().gradients(type(batch)(batch.loser, batch.winner))  # type: ignore[arg-type]
        same = all(map(torch.equal, straight, swapped))
        expect(not same, "swapping winner and loser changes no gradient: the loss does not tell them apart")


def check_algorithm(cls: type, checker: Checker) -> None:
    checker.run("hyperparameters have defaults and docs", lambda: check_hyperparameters(cls), needed=True)
    pairs = getattr(cls, "pairs", None)

    def shape() -> None:
        expect(isinstance(pairs, bool), "it does not say what it learns from: pairs: ClassVar[bool] = False (or True)")
        expect(callable(getattr(cls, "loss", None)), "it has no method loss(self, policy, batch)")
        _Subject(cls)

    def own_settings() -> None:
        try:
            own = declared(cls)
        except UserError as error:
            raise Failed(str(error)) from None
        for name, value in own.items():
            whole = name == "updates_per_round"  # None is its default: all steps of a round on the same rollouts
            fits = isinstance(value, int if whole else int | float) and not isinstance(value, bool) and value > 0
            what = "a whole number above 0, or None" if whole else "a number above 0"
            expect(fits or (whole and value is None), f"defaults has {name} = {value!r}; it must be {what}")
        if getattr(cls, "reward_gradient", False):
            expect(
                own.get("updates_per_round") == 1,
                "it follows the reward's gradient, which allows one optimizer step on a sample (the reward of the "
                "image after it would be another query): defaults = {'updates_per_round': 1}",
            )

    def searches() -> None:
        try:
            settings = searched_settings(cls, LR)
        except UserError as error:
            raise Failed(str(error)) from None
        check_searches(cls, settings)

    def refusals() -> None:
        known = Registry("wrapper")
        check_refusal(cls(), {name: known.get(name)() for name in known.names()})

    checker.run("has pairs and loss, and can be set up", shape, needed=True)
    checker.run("declares defaults of settings that are its to declare", own_settings)
    checker.run("what it has searched can be", searches)
    if hasattr(cls, "refuses"):
        checker.run("refuses with a reason, or not at all", refusals)

    with guarded():
        loss = _LossChecks(cls)
    checker.run("loss is a finite scalar", loss.finite, needed=True)
    checker.run("loss requires grad", loss.requires_grad, needed=True)
    checker.run("gradient reaches the adapter", loss.reaches)
    checker.run("gradient reaches nothing but the adapter", loss.only)
    checker.run("ratio is 1 at the behaviour policy", loss.ratio)
    checker.run("batch is not mutated", loss.mutation)
    if checker.run("loss is deterministic", loss.deterministic):  # what draws changes a seed, too
        checker.run("the process stays as it is", loss.process)
    checker.run("metrics are finite", loss.metrics_finite)
    checker.run("loss is a mean over rows", loss.mean_over_rows)
    if pairs:
        checker.run("works on pairs", loss.on_pairs)
    if "row_calls" in vars(cls):
        checker.run("row_calls are those of the loss", loss.cost)
    if all(result.passed for result in checker.results):  # what a faulty loss learns means nothing
        checker.run("improves a toy task", lambda: _check_toy_task(cls))


def toy_gain(cls: type, seed: int) -> float:
    """Train the toy policy with an algorithm's defaults under vanilla; the gain over fixed evaluation noise.

    In mean reward, in units of the standard deviation of the reward before training.
    """
    subject, reward = _Subject(cls, seed), toy_reward(seed)
    policy, wrapper, advantage = subject.policy, Vanilla(), PromptAdvantage(8, 5.0)
    images = [PROMPTS[i % len(PROMPTS)] for i in range(EVALUATION_IMAGES)]

    def evaluate() -> Tensor:
        return reward(sample(policy, images, round_noise(policy, seed, -1), EVALUATION_IMAGES), images)

    before = evaluate()
    draws, steps = (FINALS_DRAWS, FINALS_STEPS) if getattr(cls, "finals", False) else (DRAWS, OPTIMIZER_STEPS)
    groups: list[dict[str, Any]] = [{"params": policy.parameters(), "lr": LR}]
    groups += [{"params": list(network.parameters()), "lr": lr} for network, lr in subject.networks]
    optimizer = torch.optim.AdamW(groups)
    for number in range(ROUNDS):
        chosen = [PROMPTS[i % len(PROMPTS)] for i in range(draws)]
        found = toy_rollout(policy, round_noise(policy, seed, number), chosen)
        found.reward = reward(found.images, found.prompts)
        found.advantage = advantage(found.reward, found.prompts)
        update(
            policy,
            subject.algorithm,
            optimizer,
            found,
            wrapper.select(found),
            optimizer_steps=steps,
            micro_batch=64,
            max_grad_norm=1.0,
            generator=generator(seed, "minibatches", number),
            noise=toy_noise(policy, number),
            judge=reward,
        )
    return float((evaluate() - before).mean() / before.std())


def _check_toy_task(cls: type) -> None:
    gains = [toy_gain(cls, seed) for seed in SEEDS]
    gain = sum(gains) / len(gains)
    expect(
        gain > MARGIN,
        f"{ROUNDS} rounds on the toy task changed the mean reward by {gain:+.2f} of its standard deviations; "
        f"expected above {MARGIN:+}. Does the loss fall where a high advantage becomes more likely?",
    )
