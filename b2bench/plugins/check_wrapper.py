"""What a wrapper must do: intervals, leaves and selections that the rollout can use."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

from b2bench.advantage import PromptAdvantage
from b2bench.guard import guarded
from b2bench.plugins.contract import (
    Checker,
    changes,
    check_hyperparameters,
    check_process,
    check_refusal,
    check_searches,
    copy_of,
    expect,
    global_seed,
)
from b2bench.plugins.toy import PROMPTS
from b2bench.registry import Registry
from b2bench.seeding import generator
from b2bench.types import Conditioning, Interval, Trajectories
from b2bench.wrappers import edges_of, selected

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


def _check_edges(wrapper: Any) -> None:
    for samples in (1, 2, 5, 8):
        for _, steps in LENGTHS:
            interval = wrapper.interval(0, 10, steps)
            found = edges_of(wrapper, samples, interval)
            where = f"edges({samples}, [{interval.start}, {interval.stop}))"
            shape = (samples, len(interval))
            expect(isinstance(found, Tensor) and found.dtype == torch.long, f"{where} is no int64 tensor")
            assert found is not None
            expect(tuple(found.shape) == shape, f"{where} has shape {tuple(found.shape)}; expected {shape}")
            inside = bool(((found >= 0) & (found <= torch.arange(samples).unsqueeze(1))).all())
            first = inside and torch.equal(found.gather(0, found), found)
            expect(first, f"{where} does not name the first rollout that shares a step: it has itself there")
            parted = (found[:, None] != found[None]).float()  # [samples, samples, S]
            expect(bool((parted.diff(dim=2) >= 0).all()), f"{where}: rollouts that had parted share a step again")
            expect(wrapper.leaves(samples) == samples, "a tree has all samples of a draw as leaves; see leaves")


def _check_words(wrapper: Any) -> None:
    known = Registry("algorithm")  # on single transitions, and on pairs
    check_refusal(wrapper, {name: known.get(name)() for name in ("ddpo", "dpo")})
    if hasattr(wrapper, "notice"):
        for rounds, steps in LENGTHS:
            found = wrapper.notice(rounds, steps)
            fits = found is None or isinstance(found, str)
            expect(fits, f"notice({rounds}, {steps}) answers {found!r}; return a text, or None")


def _check_step_weights(wrapper: Any) -> None:
    for steps in (1, 4, 20):
        found = wrapper.step_weights(torch.linspace(1.0, 0.1, steps))
        where = f"step_weights of {steps} steps"
        expect(isinstance(found, Tensor), f"{where} is a {type(found).__name__}; return a tensor")
        expect(tuple(found.shape) == (steps,), f"{where} has shape {tuple(found.shape)}; expected ({steps},)")
        expect(bool(found.isfinite().all()), f"{where} are not finite: {found.tolist()}")


def check_wrapper(cls: type, checker: Checker) -> None:
    checker.run("hyperparameters have defaults and docs", lambda: check_hyperparameters(cls), needed=True)
    checker.run("can be made with its defaults", lambda: cls() and None, needed=True)
    with guarded():
        wrapper: Any = cls()

    def choose(found: Trajectories) -> Any:
        return selected(wrapper, found, generator(0, "selection"))

    def intervals() -> None:
        for rounds, steps in LENGTHS:
            for number in range(rounds):
                found = wrapper.interval(number, rounds, steps)
                where = f"interval({number}, {rounds}, {steps})"
                expect(isinstance(found, Interval), f"{where} is a {type(found).__name__}; return types.Interval")
                ends = (found.start, found.stop)
                whole = all(isinstance(end, int) and not isinstance(end, bool) for end in ends)
                expect(whole, f"{where} is {ends!r}; both ends are whole numbers: try int(...)")
                inside = 0 <= found.start < found.stop <= steps
                expect(inside, f"{where} is [{found.start}, {found.stop}); it must lie within [0, {steps})")

    def leaves() -> None:
        for samples in (1, 2, 4, 5, 6, 8):
            found = wrapper.leaves(samples)
            divides = isinstance(found, int) and found >= 1 and samples % found == 0
            expect(divides, f"leaves({samples}) is {found!r}; it must be a whole number that divides {samples}")

    def cases() -> Iterator[tuple[str, Trajectories]]:
        for groups, samples in ((8, 4), (1, 4), (3, 1)):
            for equal in (False, True):
                rewards = "equal" if equal else "different"
                name = f"{groups} groups of {samples} rollouts with {rewards} rewards"
                yield name, _made_up(groups, samples, wrapper.leaves(samples), equal=equal)

    def select() -> None:
        for name, found in cases():
            kept = choose(found)
            expect(isinstance(kept, Tensor), f"select is a {type(kept).__name__} on {name}; return a bool tensor")
            good = kept.dtype == torch.bool and kept.shape == (len(found),)
            shape = f"{kept.dtype} {tuple(kept.shape)}"
            expect(good, f"select is {shape} on {name}; return torch.bool ({len(found)},)")

    def keeps() -> None:
        name, found = next(cases())
        expect(bool(choose(found).any()), f"select keeps none of {name}: nothing would be trained on")

    def mutation() -> None:
        for name, found in cases():
            given = copy_of(found)
            choose(given)
            changed = changes(found, given)
            expect(not changed, f"select changed trajectories.{', trajectories.'.join(changed)} on {name}")

    def deterministic() -> None:
        def once(seed: int) -> list[Any]:
            with global_seed(seed):
                found = [wrapper.interval(i, rounds, steps) for rounds, steps in LENGTHS for i in range(rounds)]
                return [*found, *(choose(made).tolist() for _, made in cases())]

        expect(
            once(1) == once(2),
            "two calls gave two answers; a wrapper keeps no state, and draws from the generator that its select takes",
        )

    checker.run("what it says is text", lambda: _check_words(wrapper))
    checker.run("what it has searched can be", partial(check_searches, cls))
    sound = checker.run("interval lies within the steps", intervals)
    checker.run("leaves divide the samples", leaves, needed=True)
    if hasattr(cls, "edges"):
        checker.run("edges make a tree", lambda: _check_edges(wrapper), needed=True)
    if hasattr(cls, "step_weights"):
        checker.run("step weights are a number a step", lambda: _check_step_weights(wrapper))
    checker.run("select gives one bool per rollout", select, needed=True)
    checker.run("select keeps rollouts", keeps)
    checker.run("trajectories are not mutated", mutation)
    if sound and checker.run("wrapper is deterministic", deterministic):
        checker.run("the process stays as it is", lambda: check_process(lambda: [choose(made) for _, made in cases()]))
