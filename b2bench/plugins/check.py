"""A plugin against the contract, in seconds and without a backbone: ``b2bench check FILE.py``.

Algorithms meet a toy policy, a network of some thousand weights with a real DDIM transition and an
adapter; wrappers meet made-up rollouts; rewards meet random images. Every check says what it found.
"""

from __future__ import annotations

import contextlib
import inspect
import random
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from b2bench.advantage import PromptAdvantage
from b2bench.errors import UserError
from b2bench.hyperparameters import build, hyperparameters, parse_value
from b2bench.plugins.toy import PROMPTS, ToyPolicy, toy_batch, toy_reward, toy_rollout
from b2bench.protocols import Batch
from b2bench.registry import import_plugin, key_of, kind_of, load_registries
from b2bench.rollout import round_noise, sample
from b2bench.seeding import generator
from b2bench.text import described, suggestion
from b2bench.types import Conditioning, Interval, Pair, Trajectories
from b2bench.update import update
from b2bench.wrappers import Vanilla

# The toy task. The built-in algorithms and rwr gain 0.5 to 2 standard deviations with each of the seeds 0 to 9
# (dpok with kl_weight 1 still 0.2); losses that ignore the reward gain at most 0.1 on average of three seeds.
ROUNDS, DRAWS, OPTIMIZER_STEPS, LR = 20, 8, 2, 1e-2
EVALUATION_IMAGES = 128
SEEDS = (0, 1, 2)
MARGIN = 0.1  # standard deviations of the reward before training


@dataclass(frozen=True)
class CheckResult:
    """One check of one plugin; ``reason`` says what was found where it failed."""

    plugin: str
    name: str
    passed: bool
    reason: str = ""


def check_file(file: Path) -> list[CheckResult]:
    """Every check of every plugin of a file, or of the registered plugin of that name.

    A check without which the later ones mean nothing ends the list where it fails; the toy task is tried
    only by an algorithm that passes all else.

    Raises:
        UserError: there is neither such a file nor such a name, or the file does not import.
    """
    classes = import_plugin(file) if file.is_file() else _registered(file)
    checks = {"algorithm": _check_algorithm, "wrapper": _check_wrapper, "reward": _check_reward}
    results = []
    for cls in classes:
        checker = _Checker(cls)
        with contextlib.suppress(_Stop):
            checks[kind_of(cls)](cls, checker)
        results += checker.results
    return results


def _registered(file: Path) -> list[type]:
    registries = load_registries().values()
    name = str(file)
    found = [registry.get(name) for registry in registries if name in registry.origins]
    if found:
        return found
    if file.suffix == ".py" or len(file.parts) > 1:
        return import_plugin(file)  # which says that there is no such file
    known = [known for registry in registries for known in registry.names()]
    raise UserError(
        f"{name} is neither a file nor a plugin's name.{suggestion(name, known)} "
        f"Known: {', '.join(known)}; or pass the path of a .py file (b2bench new makes one)"
    )


class _Failed(Exception):
    """A check failed, for the reason given."""


class _Stop(Exception):
    """The remaining checks of this plugin would mean nothing."""


class _Checker:
    """Runs checks of one plugin and turns whatever happens into results."""

    def __init__(self, cls: type) -> None:
        self.plugin = key_of(cls)
        self.source = inspect.getfile(cls)
        self.results: list[CheckResult] = []

    def run(self, name: str, test: Callable[[], None], needed: bool = False) -> bool:
        """Run ``test``; it raises _Failed, or anything else that the plugin raises, or passes."""
        reason = ""
        try:
            test()
        except _Failed as failure:
            reason = str(failure)
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            reason = f"{' '.join(described(error).split())}{self._line(error)}"
        if reason and needed:
            reason += ". The checks after this one were left out."
        self.results.append(CheckResult(self.plugin, name, not reason, reason))
        if reason and needed:
            raise _Stop
        return not reason

    def _line(self, error: BaseException) -> str:
        lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == self.source]
        return f" ({Path(self.source).name}, line {lines[-1]})" if lines else ""


def _expect(condition: bool, reason: str) -> None:
    if not condition:
        raise _Failed(reason)


@contextlib.contextmanager
def _global_seed(seed: int) -> Iterator[None]:
    """Torch's, NumPy's and Python's global generators in another state, and back afterwards."""
    states = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        np.random.seed(seed)
        random.seed(seed)
        try:
            yield
        finally:
            random.setstate(states[0])
            np.random.set_state(states[1])


def _clone(value: Any) -> Any:
    """A copy of tensors, lists, and dataclasses of them."""
    if isinstance(value, Tensor):
        return value.clone()
    if isinstance(value, list):
        return list(value)
    if is_dataclass(value) and not isinstance(value, type | Interval):
        return replace(value, **{field.name: _clone(getattr(value, field.name)) for field in fields(value)})
    return value


def _changed(before: Any, after: Any, name: str = "") -> list[str]:
    """Dotted names of what differs between two values of the same structure."""
    if isinstance(before, Tensor):
        same = isinstance(after, Tensor) and before.shape == after.shape and torch.equal(before, after)
        return [] if same and before.requires_grad == after.requires_grad else [name]
    if is_dataclass(before) and not isinstance(before, type | Interval):
        return [
            found
            for field in fields(before)
            for found in _changed(
                getattr(before, field.name), getattr(after, field.name), f"{name}.{field.name}".strip(".")
            )
        ]
    return [] if before == after else [name]


def _check_hyperparameters(cls: type) -> None:
    for field in (field for field in fields(cls) if field.init):
        _expect(field.default_factory is MISSING, f"{field.name} has a default_factory; give it a plain value")
        _expect(field.default is not MISSING, f"{field.name} has no default; write {field.name}: TYPE = VALUE")
    for parameter in hyperparameters(cls):
        try:
            parse_value(parameter, parameter.default)
        except (UserError, TypeError):
            raise _Failed(
                f"{parameter.name}: {parameter.type_name} = {parameter.default!r} cannot be set from the command "
                "line; a hyperparameter is a bool, int, float, str or Literal (or None), and its default is one"
            ) from None
        _expect(bool(parameter.doc), f'{parameter.name} has no doc; put """One line.""" below the field')


# -- algorithms ------------------------------------------------------------------------------------


def _with_advantage(batch: Batch, change: Callable[[Tensor], Tensor]) -> Batch:
    if isinstance(batch, Pair):
        return Pair(*(replace(side, advantage=change(side.advantage)) for side in (batch.winner, batch.loser)))
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
            _Failed: it returned something else.
        """
        answer = self.algorithm.loss(self.policy, _clone(batch))
        if not (isinstance(answer, tuple) and len(answer) == 2):
            raise _Failed(f"loss returned {type(answer).__name__}; return (loss, metrics)")
        loss, metrics = answer
        _expect(isinstance(loss, Tensor), f"the loss is a {type(loss).__name__}; return a torch tensor")
        shape = tuple(loss.shape)
        _expect(shape == (), f"the loss has shape {shape}; return a scalar, the mean over the rows of the batch")
        _expect(isinstance(metrics, Mapping), f"metrics are a {type(metrics).__name__}; return a dict, empty if none")
        return loss, metrics

    def gradients(self, batch: Batch) -> tuple[float, list[Tensor]]:
        """The loss, and its gradient by the adapter and by the algorithm's own networks."""
        parameters = [*self.policy.parameters()]
        parameters += [weight for network, _ in self.networks for weight in network.parameters()]
        for parameter in parameters:
            parameter.grad = None
        loss, _ = self.loss(batch)
        loss.backward()
        return loss.item(), [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in parameters]


def _check_algorithm(cls: type, checker: _Checker) -> None:
    checker.run("hyperparameters have defaults and docs", lambda: _check_hyperparameters(cls), needed=True)
    pairs = getattr(cls, "pairs", None)

    def shape() -> None:
        _expect(isinstance(pairs, bool), "it does not say what it learns from: pairs: ClassVar[bool] = False (or True)")
        _expect(callable(getattr(cls, "loss", None)), "it has no method loss(self, policy, batch)")
        _Subject(cls)

    checker.run("has pairs and loss, and can be set up", shape, needed=True)

    def behaving() -> _Subject:
        """A fresh one at the behaviour policy, which is not the pretrained one: a ratio to the wrong one shows."""
        subject = _Subject(cls)
        subject.policy.move(0.05, "behaviour")
        return subject

    def moved() -> _Subject:
        """A fresh one after a small update, where the ratio is not 1."""
        subject = behaving()
        subject.policy.move(0.01, "update")
        return subject

    batch = toy_batch(behaving().policy, bool(pairs))
    rows = len(batch)

    def finite() -> None:
        inputs = {
            "a round's first batch (ratio 1)": (behaving, batch),
            "the same batch after a small update of the policy": (moved, batch),
            "a batch of one row": (behaving, batch[:1]),
            "a batch whose advantages are all 0": (behaving, _with_advantage(batch, torch.zeros_like)),
            "a batch whose advantages are all -5": (
                behaving,
                _with_advantage(batch, lambda a: torch.full_like(a, -5.0)),
            ),
            "a batch whose advantages are all 5": (behaving, _with_advantage(batch, lambda a: torch.full_like(a, 5.0))),
        }
        for name, (subject, given) in inputs.items():
            loss, _ = subject().loss(given)
            _expect(bool(torch.isfinite(loss)), f"the loss is {loss.item()} on {name}")

    def requires_grad() -> None:
        loss, _ = behaving().loss(batch)
        _expect(
            loss.requires_grad,
            "the loss has no gradient: it does not depend on the adapter. Take log-probabilities from "
            "policy.transition(...), outside policy.reference() and torch.no_grad()",
        )

    def reaches() -> None:
        here = behaving()
        _, found = here.gradients(batch)
        adapter = found[: len(here.policy.parameters())]
        _expect(all(bool(torch.isfinite(grad).all()) for grad in found), "the gradient of the loss is not finite")
        _expect(
            any(bool(grad.any()) for grad in adapter),
            "the gradient by every weight of the adapter is zero: the loss ignores the adapter. Take "
            "log-probabilities from policy.transition(...) and do not detach them",
        )

    def only() -> None:
        here = behaving()
        weights = {**here.policy.frozen, "adapter A": here.policy.down, "adapter B": here.policy.up}
        before = {name: weight.detach().clone() for name, weight in weights.items()}
        here.gradients(batch)
        for name, weight in here.policy.frozen.items():
            _expect(not weight.requires_grad, f"the loss switched on the gradient of the frozen weight {name}")
            _expect(weight.grad is None, f"the frozen weight {name} received a gradient")
        for name, weight in weights.items():
            _expect(torch.equal(weight, before[name]), f"the loss changed the weight {name}; only the optimizer may")
        _expect(here.policy.enabled, "the adapter is off after the loss; use `with policy.reference():`")

    def ratio() -> None:
        _, metrics = behaving().loss(batch)
        if "log_ratio" in metrics:
            largest = float(metrics["log_ratio"].abs().max())
            _expect(
                largest < 1e-5,
                f"log_ratio is up to {largest:.3g} on a round's first batch, expected 0: it is the log-probability "
                "now minus batch.log_prob, of the same transition",
            )

    def mutation() -> None:
        here, given = behaving(), _clone(batch)
        here.algorithm.loss(here.policy, given)
        changed = _changed(batch, given)
        _expect(not changed, f"the loss changed batch.{', batch.'.join(changed)} in place; work on a copy")

    def deterministic() -> None:
        here = behaving()
        with _global_seed(1):
            first, first_gradients = here.gradients(batch)
        with _global_seed(2):
            second, second_gradients = here.gradients(batch)
        advice = "a loss draws no random numbers and keeps no state between calls"
        _expect(first == second, f"the same batch gave the loss {first:.9g}, then {second:.9g}: {advice}")
        same = all(map(torch.equal, first_gradients, second_gradients))
        _expect(same, f"the same batch gave two different gradients: {advice}")

    def metrics_finite() -> None:
        # Metrics of pairs may hold the winners' rows and then the losers'.
        shapes = {(), (rows,), (2 * rows,)} if pairs else {(), (rows,)}
        for subject in (behaving, moved):
            for name, value in subject().loss(batch)[1].items():
                _expect(isinstance(value, Tensor), f"metric {name} is a {type(value).__name__}; make it a tensor")
                shape = tuple(value.shape)
                _expect(shape in shapes, f"metric {name} has shape {shape}; a scalar or ({rows},), one per row")
                _expect(bool(torch.isfinite(value.float()).all()), f"metric {name} is not finite")

    def mean_over_rows() -> None:
        subject, cut = moved(), rows // 3
        whole, *parts = [subject.loss(part)[0].item() for part in (batch, batch[:cut], batch[cut:])]
        expected = (cut * parts[0] + (rows - cut) * parts[1]) / rows
        _expect(
            abs(whole - expected) <= 1e-5 * max(1.0, abs(whole)),
            f"the loss of {rows} rows is {whole:.6g}, but its parts average to {expected:.6g}: micro-batches would "
            "change the result. Take the mean over rows, of terms that each depend on their own row alone",
        )

    def on_pairs() -> None:
        assert isinstance(batch, Pair)
        _, straight = behaving().gradients(batch)
        _, swapped = behaving().gradients(Pair(batch.loser, batch.winner))
        same = all(map(torch.equal, straight, swapped))
        _expect(not same, "swapping winner and loser changes no gradient: the loss does not tell them apart")

    checker.run("loss is a finite scalar", finite, needed=True)
    checker.run("loss requires grad", requires_grad, needed=True)
    checker.run("gradient reaches the adapter", reaches)
    checker.run("gradient reaches nothing but the adapter", only)
    checker.run("ratio is 1 at the behaviour policy", ratio)
    checker.run("batch is not mutated", mutation)
    checker.run("loss is deterministic", deterministic)
    checker.run("metrics are finite", metrics_finite)
    checker.run("loss is a mean over rows", mean_over_rows)
    if pairs:
        checker.run("works on pairs", on_pairs)
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
    groups: list[dict[str, Any]] = [{"params": policy.parameters(), "lr": LR}]
    groups += [{"params": list(network.parameters()), "lr": lr} for network, lr in subject.networks]
    optimizer = torch.optim.AdamW(groups)
    for number in range(ROUNDS):
        chosen = [PROMPTS[i % len(PROMPTS)] for i in range(DRAWS)]
        found = toy_rollout(policy, round_noise(policy, seed, number), chosen)
        found.reward = reward(found.images, found.prompts)
        found.advantage = advantage(found.reward, found.prompts)
        update(
            policy,
            subject.algorithm,
            optimizer,
            found,
            wrapper.select(found),
            optimizer_steps=OPTIMIZER_STEPS,
            micro_batch=64,
            max_grad_norm=1.0,
            generator=generator(seed, "minibatches", number),
        )
    return float((evaluate() - before).mean() / before.std())


def _check_toy_task(cls: type) -> None:
    gains = [toy_gain(cls, seed) for seed in SEEDS]
    gain = sum(gains) / len(gains)
    _expect(
        gain > MARGIN,
        f"{ROUNDS} rounds on the toy task changed the mean reward by {gain:+.2f} of its standard deviations; "
        f"expected above {MARGIN:+}. Does the loss fall where a high advantage becomes more likely?",
    )


# -- wrappers --------------------------------------------------------------------------------------

LENGTHS = ((1, 1), (1, 4), (3, 2), (10, 20), (100, 20), (7, 50))  # rounds, T


def _made_up(groups: int, samples: int, leaves: int, *, equal: bool = False) -> Trajectories:
    """Rollouts with random, or with equal, rewards; no network made them."""
    n = groups * samples
    interval = Interval(0, 2)
    reward = torch.zeros(n) if equal else torch.randn(n, generator=generator(0, "made up", n))
    prompts = [PROMPTS[i // samples % len(PROMPTS)] for i in range(n)]
    return Trajectories(
        prompts=prompts,
        cond=Conditioning(torch.zeros(len(PROMPTS), 1, 1), torch.zeros(1, 1, 1), torch.zeros(n, dtype=torch.long)),
        latents=torch.zeros(n, 3, 1, 1, 1),
        log_prob=torch.zeros(n, 2),
        group=torch.arange(n) // (leaves if leaves > 1 else samples),
        leaf=torch.arange(n) % samples,
        interval=interval,
        images=torch.zeros(n, 3, 1, 1),
        calls=2 * n,
        reward=reward,
        advantage=PromptAdvantage(0, 5.0)(reward, prompts),
    )


def _check_wrapper(cls: type, checker: _Checker) -> None:
    checker.run("hyperparameters have defaults and docs", lambda: _check_hyperparameters(cls), needed=True)
    checker.run("can be made with its defaults", lambda: cls() and None, needed=True)
    wrapper: Any = cls()

    def intervals() -> None:
        for rounds, steps in LENGTHS:
            for number in range(rounds):
                found = wrapper.interval(number, rounds, steps)
                where = f"interval({number}, {rounds}, {steps})"
                _expect(isinstance(found, Interval), f"{where} is a {type(found).__name__}; return types.Interval")
                inside = 0 <= found.start < found.stop <= steps
                _expect(inside, f"{where} is [{found.start}, {found.stop}); it must lie within [0, {steps})")

    def leaves() -> None:
        for samples in (1, 2, 4, 5, 6, 8):
            found = wrapper.leaves(samples)
            divides = isinstance(found, int) and found >= 1 and samples % found == 0
            _expect(divides, f"leaves({samples}) is {found!r}; it must be a whole number that divides {samples}")

    def cases() -> Iterator[tuple[str, Trajectories]]:
        for groups, samples in ((8, 4), (1, 4), (3, 1)):
            for equal in (False, True):
                rewards = "equal" if equal else "different"
                name = f"{groups} groups of {samples} rollouts with {rewards} rewards"
                yield name, _made_up(groups, samples, wrapper.leaves(samples), equal=equal)

    def select() -> None:
        for name, found in cases():
            kept = wrapper.select(found)
            _expect(isinstance(kept, Tensor), f"select is a {type(kept).__name__} on {name}; return a bool tensor")
            good = kept.dtype == torch.bool and kept.shape == (len(found),)
            shape = f"{kept.dtype} {tuple(kept.shape)}"
            _expect(good, f"select is {shape} on {name}; return torch.bool ({len(found)},)")

    def keeps() -> None:
        name, found = next(cases())
        _expect(bool(wrapper.select(found).any()), f"select keeps none of {name}: nothing would be trained on")

    def mutation() -> None:
        for name, found in cases():
            given = _clone(found)
            wrapper.select(given)
            changed = _changed(found, given)
            _expect(not changed, f"select changed trajectories.{', trajectories.'.join(changed)} on {name}")

    def deterministic() -> None:
        def once(seed: int) -> list[Any]:
            with _global_seed(seed):
                found = [wrapper.interval(i, rounds, steps) for rounds, steps in LENGTHS for i in range(rounds)]
                return [*found, *(wrapper.select(made).tolist() for _, made in cases())]

        _expect(once(1) == once(2), "two calls gave two answers; a wrapper draws no random numbers and keeps no state")

    sound = checker.run("interval lies within the steps", intervals)
    checker.run("leaves divide the samples", leaves, needed=True)
    checker.run("select gives one bool per rollout", select, needed=True)
    checker.run("select keeps rollouts", keeps)
    checker.run("trajectories are not mutated", mutation)
    if sound:
        checker.run("wrapper is deterministic", deterministic)


# -- rewards ---------------------------------------------------------------------------------------


def _check_reward(cls: type, checker: _Checker) -> None:
    checker.run("hyperparameters have defaults and docs", lambda: _check_hyperparameters(cls), needed=True)
    automatic = any(p.name == "checkpoint" and p.default == "auto" for p in hyperparameters(cls))
    made: list[Any] = []

    def prepare() -> None:
        reward = build(cls, {"checkpoint": "pocket"} if automatic else {})
        _expect(callable(reward), "it has no method __call__(self, images, prompts)")
        if hasattr(reward, "prepare"):
            reward.prepare(torch.device("cpu"))
        made.append(reward)

    checker.run("prepares on the CPU", prepare, needed=True)
    prompts = [*PROMPTS, PROMPTS[0], "a bird playing chess"]
    n = len(prompts)
    coarse = torch.rand(n, 3, 4, 4, generator=generator(0, "check images"))
    images = nn.functional.interpolate(coarse, size=(64, 64), mode="bilinear").clamp(0, 1)

    def score(images: Tensor, prompts: Sequence[str]) -> Tensor:
        return torch.as_tensor(made[0](images.clone(), list(prompts))).detach().float().cpu()

    def shape() -> None:
        scores = score(images, prompts)
        _expect(scores.shape == (n,), f"it gave shape {tuple(scores.shape)} for {n} images; expected ({n},)")
        bad = int((~torch.isfinite(scores)).sum())
        _expect(not bad, f"{bad} of {n} scores are not finite")

    def deterministic() -> None:
        with _global_seed(1):
            first = score(images, prompts)
        with _global_seed(2):
            second = score(images, prompts)
        _expect(
            torch.equal(first, second), "the same images gave two different scores; a reward draws no random numbers"
        )

    def mutation() -> None:
        given, texts = images.clone(), list(prompts)
        made[0](given, texts)
        _expect(torch.equal(given, images), "it changed the images in place; work on a copy")
        _expect(texts == prompts, "it changed the list of prompts in place; work on a copy")

    def order() -> None:
        turned = torch.arange(n).roll(2)
        gap = float((score(images[turned], [prompts[i] for i in turned]) - score(images, prompts)[turned]).abs().max())
        _expect(gap <= 1e-4, f"another order of the images changed a score by {gap:.3g}; each must stand for itself")

    def batches() -> None:
        single = torch.cat([score(images[i : i + 1], prompts[i : i + 1]) for i in range(n)])
        gap = float((single - score(images, prompts)).abs().max())
        _expect(gap <= 1e-4, f"images scored one by one differ by {gap:.3g} from the same in one batch")

    checker.run("scores are finite, one per image", shape, needed=True)
    checker.run("scores are deterministic", deterministic)
    checker.run("images are not mutated", mutation)
    checker.run("order of the images does not matter", order)
    checker.run("batch size does not matter", batches)
