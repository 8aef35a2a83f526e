"""How often a run calls the denoiser, and how long that takes."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import torch

from b2bench.config.run import RunConfig
from b2bench.errors import UserError
from b2bench.evaluation.samples import chosen
from b2bench.guard import guarded
from b2bench.metrics import forward_equivalents
from b2bench.minibatches import minibatch_count, trained_steps, tree_share
from b2bench.protocols import Algorithm, Policy
from b2bench.registry import key_of
from b2bench.seeding import generator
from b2bench.text import described
from b2bench.training.pace import Pace, pace_of, steps_of
from b2bench.types import Conditioning, Interval
from b2bench.wrappers import Extremes, Independent, edges_of, shared_steps

if TYPE_CHECKING:  # it imports diffusers, and calls are counted without
    from b2bench.estimate.footprint import Footprint

ASSUMED_FLOPS = {"gpu": 20e12, "cpu": 40e9}
"""Operations a second that hours are estimated by where no throughput is given. Of a GPU assumed, measured on none. Of
a CPU, one core at pocket: 19,200 calls of 0.34 GFLOP in the 2 to 3 minutes that docs/profile.md names."""


@dataclass(frozen=True)
class LossCost:
    """Denoiser calls of a loss for a row of its batch, a transition or a pair: with a gradient, and without."""

    with_gradient: int
    without: int

    @property
    def calls(self) -> int:
        return self.with_gradient + self.without


def loss_cost(algorithm: Algorithm) -> LossCost:
    """Return the calls of an algorithm's loss: those that its class declares, or else by running it once, with torch.

    Raises:
        UserError: the loss does not run, or declares no two whole numbers; ``b2bench check`` says more.
    """
    if "row_calls" in vars(type(algorithm)):  # not inherited: the loss of another class may be another
        told: Any = algorithm.row_calls  # type: ignore[attr-defined]
        if not (isinstance(told, tuple) and len(told) == 2 and all(isinstance(calls, int) for calls in told)):
            raise UserError(
                f"row_calls of {key_of(type(algorithm))} is {told!r}; try two whole numbers, the denoiser calls of a "
                "row with a gradient and without, as (1, 0), or leave it out, and they are counted"
            )
        return LossCost(*told)
    from b2bench.plugins.counting import counted_cost

    return LossCost(*counted_cost(algorithm))


def network_parameters(config: RunConfig, footprint: Footprint) -> int:
    """Return parameters that an algorithm trains beside the adapter, as DPOK's value network does."""
    algorithm = copy.deepcopy(config.algorithm)
    if not (hasattr(algorithm, "setup") and hasattr(algorithm, "networks")):
        return 0
    text = torch.empty(1, *footprint.text_shape)
    policy = SimpleNamespace(
        latent_shape=footprint.latent_shape,
        latent_size=footprint.latent_size,
        num_steps=config.settings.steps,
        encode=lambda prompts: Conditioning(text, text, torch.zeros(len(prompts), dtype=torch.long)),
    )
    try:
        algorithm.setup(cast(Policy, policy), generator(config.seed, "algorithm"))
    except Exception as error:
        raise UserError(
            f"algorithm {config.algorithm_name} cannot be set up ({type(error).__name__}: {error}); try b2bench check"
        ) from None
    return sum(p.numel() for network, _ in algorithm.networks() for p in network.parameters())


@dataclass(frozen=True)
class Calls:
    """Denoiser calls of a run, as table ``rounds`` counts them: network evaluations in images, guidance once.

    ``training`` and ``optimizer_steps`` are the least and the most: what a wrapper keeps of a round depends on the
    rewards, and how many steps are taken on what it keeps. ``gradient`` is the
    share of training calls that has a backward pass; the others are of the reference. ``decoded`` counts images.
    ``saved`` are calls of evaluations, and ``saved_images``, that a run takes over from the store where another has
    measured the pretrained model: all of its first evaluation but the sample images.
    """

    sampling: int
    training: tuple[int, int]
    optimizer_steps: tuple[int, int]
    evaluation: int
    gradient: float
    decoded: int
    saved: int
    saved_images: int

    @property
    def later(self) -> Calls:
        """Those of a run that takes its first evaluation over."""
        return replace(self, evaluation=self.evaluation - self.saved, decoded=self.decoded - self.saved_images)

    @property
    def equivalents(self) -> tuple[int, int]:
        """The least and the most forward-equivalents of sampling and training, without evaluations."""
        gradients = [round(training * self.gradient) for training in self.training]
        least, most = (
            forward_equivalents(self.sampling + training - gradient, gradient)
            for training, gradient in zip(self.training, gradients, strict=True)
        )
        return least, most

    @property
    def exact(self) -> bool:
        return self.training[0] == self.training[1]


def kept_rows(config: RunConfig, round: int) -> tuple[int, int]:
    """Return the fewest and the most rows of a round that a loss may see: rollouts, or pairs of an
    algorithm on pairs.
    """
    settings = config.settings
    n = config.draws(round) * settings.samples
    leaves = config.wrapper.leaves(settings.samples)
    groups = n // (leaves if leaves > 1 else settings.samples)
    if config.algorithm.pairs:  # one of each group, unless all its rewards are equal
        return 0, groups if settings.samples > 1 else 0
    if isinstance(config.wrapper, Extremes) and config.wrapper.keep == "extremes":
        return 0, min(2, settings.samples) * groups
    known = {Independent.select, Extremes.select}  # of one that keeps all; a plugin's own may keep less
    return (n if type(config.wrapper).select in known else 0), n


def part_of(items: int, share: float) -> int:
    """Return a share of so many items, as a whole number."""
    return round(items * share)


def follows_reward(config: RunConfig) -> bool:
    """Tell whether the algorithm follows the reward's gradient, through the decoder."""
    return bool(getattr(config.algorithm, "reward_gradient", False))


def row_steps(config: RunConfig, interval: Interval) -> int:
    """Return how many steps a row is trained on; one that is followed by the reward's gradient, the last alone."""
    seen = 1 if follows_reward(config) else len(interval)
    return trained_steps(seen, config.settings.timestep_fraction)


def round_steps(config: RunConfig, pace: Pace, draws: int, interval: Interval, rows: int, share: float = 1.0) -> int:
    """Optimizer steps of a round of so many prompt ``draws``, whose updates come at ``pace``.

    ``rows`` rollouts or pairs of it are kept, of each draw as many. They are trained on a ``share`` of their steps.
    """
    settings, taken = config.settings, 0
    pace.begin(draws, steps_of(config, interval))
    while rows and (size := pace.next()):
        kept = part_of(rows, size / draws)
        steps = settings.passes * minibatch_count(
            part_of(kept * row_steps(config, interval), share),
            2 if config.algorithm.pairs else 1,
            transitions_per_step=settings.transitions_per_step,
            optimizer_steps=settings.updates_per_round or settings.fixed_steps,
        )
        pace.took(size, kept * (2 if config.algorithm.pairs else 1))
        taken += steps
    return taken


def count_calls(config: RunConfig) -> Calls:
    """Return every denoiser call of a run, from its configuration alone.

    Raises:
        UserError: a plugin's wrapper answers with what no run could use.
    """
    try:
        with guarded():
            return _counted(config)
    except UserError:
        raise
    except Exception as error:
        if not config.code:
            raise
        raise UserError(
            f"calls of algorithm {config.algorithm_name} under wrapper {config.wrapper_name} cannot be counted: "
            f"{described(error)}; try b2bench check"
        ) from error


def _counted(config: RunConfig) -> Calls:
    settings, cost = config.settings, loss_cost(config.algorithm)
    sampling, least, most, fewest, largest = 0, 0, 0, 0, 0
    paces = pace_of(config), pace_of(config)
    for round in range(config.rounds):
        interval = config.wrapper.interval(round, config.rounds, settings.steps)
        n = config.draws(round) * settings.samples
        # the steps before the trained ones are sampled once per branch
        roots = n // config.wrapper.leaves(settings.samples)
        edges = edges_of(config.wrapper, settings.samples, interval)
        sampling += roots * interval.start + n * (settings.steps - interval.start)
        sampling -= config.draws(round) * shared_steps(edges)
        low, high = kept_rows(config, round)
        each = cost.calls * row_steps(config, interval) * settings.passes
        share = 1.0 if edges is None else tree_share(config.algorithm, edges)
        least, most = least + part_of(each * low, share), most + part_of(each * high, share)
        draws = config.draws(round)
        fewest += round_steps(config, paces[0], draws, interval, low, share)
        largest += round_steps(config, paces[1], draws, interval, high, share)
    images = [config.images_at(queries) for queries in config.evaluations()]
    start = images[0]
    samples = len(chosen(len(config.prompts.test), start.test, settings.sample_images))
    return Calls(
        sampling=sampling,
        training=(least, most),
        optimizer_steps=(fewest, largest),
        evaluation=(start.pretrained_samplings + sum(each.samplings for each in images[1:])) * settings.steps,
        gradient=cost.with_gradient / cost.calls if cost.calls else 0.0,
        decoded=config.queries + sum(each.test + each.train for each in images),
        saved=(start.pretrained_samplings - samples) * settings.steps,
        saved_images=start.test + start.train - samples,
    )


def check_throughput(throughput: float | None) -> None:
    """Refuse what cannot be denoiser calls a second.

    Raises:
        UserError: it is given, and is not a number above 0.
    """
    if throughput is not None and not 0 < throughput < math.inf:
        raise UserError(f"--throughput {throughput:g} is not a number of denoiser calls a second above 0; try 40")


def assumed_throughput(config: RunConfig, footprint: Footprint) -> float:
    """Denoiser calls a second that are assumed where none is given: :data:`ASSUMED_FLOPS` over those of a call."""
    return ASSUMED_FLOPS["cpu" if config.backbone.is_pocket else "gpu"] / footprint.call_flops


def hours(
    calls: Calls, footprint: Footprint, throughput: float, *, checkpointing: bool = False, reward_gradient: bool = False
) -> tuple[float, float]:
    """Return the least and the most hours of a run at ``throughput`` denoiser calls a second, in sampling.

    A call with a backward pass, and an image that is decoded, count as many calls as their floating-point operations
    are; ``reward_gradient``: each trained row is decoded, with its backward pass. The reward, the optimizer and the
    store are left out.
    """
    backward = footprint.backward_calls(checkpointing)
    backward += footprint.decoding_kept_flops / footprint.call_flops if reward_gradient else 0
    decoding = calls.decoded * footprint.decoding_flops / footprint.call_flops

    def total(training: int) -> float:
        weighed = training * (calls.gradient * backward + 1 - calls.gradient)
        return (calls.sampling + calls.evaluation + weighed + decoding) / throughput / 3600

    least, most = calls.training
    return total(least), total(most)
