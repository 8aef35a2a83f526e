"""Micro-batches that fit into a memory, and what else a run keeps: on the host and on the disk."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

from b2bench.backbones.stable_diffusion import DECODED_AT_ONCE
from b2bench.config.run import RunConfig
from b2bench.errors import UserError
from b2bench.estimate.calls import follows_reward, kept_rows, loss_cost, network_parameters, round_steps, row_steps
from b2bench.estimate.footprint import GIB, WIDTH, Footprint, Line, judges, measure
from b2bench.evaluation import samples
from b2bench.training.checkpoint import KEPT
from b2bench.training.pace import pace_of
from b2bench.types import Interval

MARGIN = 0.15
"""Share of a GPU's memory that is left free: its context, kernels' workspaces, the allocator's waste. Assumed."""
ENOUGH_ROWS = 8
"""Training rows that are worth doing without checkpointing; below, kernels round differently from larger batches"""
QUERY_BYTES, IMAGE_BYTES, EMPTY_STORE_BYTES = 154, 33, 798_720
"""Of a row of table ``queries``, of table ``images``, and of a store without rows: measured with duckdb 2.0 by a run of
25,600 queries and 8,000 images"""


@dataclass(frozen=True)
class MicroBatches:
    """Rows (images, or transitions; pairs for an algorithm on pairs) of a forward pass of each kind."""

    sampling: int
    training: int
    decoding: int
    checkpointing: bool


def resident_bytes(config: RunConfig, footprint: Footprint, precision: str) -> int:
    """Return what stays on the device all the time: weights, adapter with its optimizer, networks of
    the loss, and judges, if they are not on another device.
    """
    trained = footprint.adapter_bytes() + 4 * 4 * network_parameters(config, footprint)
    judged = sum(judge.bytes or 0 for judge in judges(config)[0]) if judged_here(config) else 0
    return footprint.weights(precision) + trained + judged


def judged_here(config: RunConfig) -> bool:
    """Tell whether the reward and the judges share the device of training, the first GPU (``reward_device``)."""
    return config.settings.reward_device in ("auto", "cuda", "cuda:0")


def training_line(config: RunConfig, footprint: Footprint, checkpointing: bool) -> Line:
    """Return the bytes of training rows: of their graphs, and where the reward's gradient is followed the decoder's."""
    line, graphs = footprint.checkpointed if checkpointing else footprint.training, loss_cost(config.algorithm)
    kept = footprint.decoding_kept if follows_reward(config) else Line(0, 0)
    return Line(line.fixed + kept.fixed, graphs.with_gradient * line.each + kept.each)


def smallest_training(config: RunConfig) -> int:
    """Return the fewest rows of a training call: an algorithm on whole groups takes all samples of one."""
    return config.settings.samples if getattr(config.algorithm, "whole_groups", False) else 1


def phase_bytes(config: RunConfig, footprint: Footprint, batches: MicroBatches, precision: str) -> dict[str, float]:
    """Return bytes of each phase at its micro-batch, beyond :func:`resident_bytes`. Phases do not overlap."""
    narrow, line = WIDTH[precision] / 4, training_line(config, footprint, batches.checkpointing)
    return {
        "sampling": narrow * footprint.sampling.at(batches.sampling),
        "training": narrow * line.at(max(batches.training, smallest_training(config))),
        "decoding": narrow * footprint.decoding.at(batches.decoding),
    }


def most_images(config: RunConfig) -> int:
    """Return images that are decoded in one go at most: those of a round, or of an evaluation."""
    return max(config.draws(0) * config.settings.samples, *config.images_at(0).splits.values())


def fitting(
    vram_bytes: float,
    config: RunConfig,
    footprint: Footprint,
    *,
    precision: str | None = None,
    checkpointing: bool | None = None,
    margin: float = MARGIN,
) -> MicroBatches:
    """Return the largest micro-batches that leave ``margin`` of ``vram_bytes`` free, and no larger than a round can
    use.

    ``precision`` None takes the run's. ``checkpointing`` None takes it only where without it fewer than
    ``ENOUGH_ROWS`` training rows fit: it costs another forward pass.

    Raises:
        UserError: not even one row of some phase fits; with how much is missing, and what would help.
    """
    precision = precision or config.settings.precision
    resident = resident_bytes(config, footprint, precision)
    space = vram_bytes * (1 - margin) - resident
    narrow, useful, group = WIDTH[precision] / 4, useful_micro_batches(config), smallest_training(config)

    def most(line: Line, useful: int) -> int:
        return min(useful, line.largest(space / narrow))

    def trained(checkpointing: bool) -> int:
        return most(training_line(config, footprint, checkpointing), useful.training) // group * group

    if checkpointing is None:
        checkpointing = trained(False) < min(ENOUGH_ROWS, useful.training)
    found = MicroBatches(
        sampling=most(footprint.sampling, useful.sampling),
        training=trained(checkpointing),
        decoding=most(footprint.decoding, useful.decoding),
        checkpointing=checkpointing,
    )
    short = [name for name in ("sampling", "training", "decoding") if getattr(found, name) < 1]
    if short:
        one = MicroBatches(1, group, 1, checkpointing)
        phases = phase_bytes(config, footprint, one, precision)
        needed = (resident + max(phases[name] for name in short)) / (1 - margin)
        raise UserError(
            f"{vram_bytes / GIB:g} GiB are too little for {config.backbone.name} in {precision}: {' and '.join(short)} "
            f"of one row needs {needed / GIB:.1f} GiB with a margin of {margin:.0%}. Try a larger GPU, another "
            "precision, or a reward with smaller models" + ("" if checkpointing else ", or gradient checkpointing")
        )
    return found


def useful_micro_batches(config: RunConfig) -> MicroBatches:
    """Return the largest that a run has rows for: those of a round, of a minibatch, and of an evaluation."""
    rows, every = kept_rows(config, 0)[1], Interval(0, config.settings.steps)
    steps = round_steps(config, pace_of(config), config.draws(0), every, rows) // config.settings.passes
    minibatch = max(1, -(-rows * row_steps(config, every) // max(1, steps)))
    images, group = most_images(config), smallest_training(config)
    return MicroBatches(
        sampling=max(config.draws(0) * config.settings.samples, images),
        training=-(-minibatch // group) * group,
        decoding=images,
        checkpointing=False,
    )


def own_micro_batches(config: RunConfig) -> MicroBatches:
    """Return those of the run as it is configured, as far as it has rows for them."""
    settings, useful = config.settings, useful_micro_batches(config)
    return MicroBatches(
        sampling=min(settings.micro_batch, useful.sampling),
        training=min(settings.train_micro_batch or settings.micro_batch, useful.training),
        decoding=min(settings.decode_micro_batch or min(settings.micro_batch, DECODED_AT_ONCE), useful.decoding),
        checkpointing=settings.gradient_checkpointing,
    )


OF_MEMORY = ("micro_batch", "train_micro_batch", "decode_micro_batch", "gradient_checkpointing")
"""Settings that ``--vram`` chooses"""


def within(config: RunConfig, vram: float, given: Iterable[str] = ()) -> RunConfig:
    """Return the run with the micro-batches, and gradient checkpointing where it must be, that fit into ``vram`` GiB.

    ``given`` are the hyperparameters that somebody set: one of those that are chosen here would be set twice.

    Raises:
        UserError: as :func:`fitting` does.
    """
    if not 0 < vram < math.inf:
        raise UserError(f"--vram {vram:g} is not a number of GiB above 0; try 24")
    if twice := [name for name in OF_MEMORY if name in {full.rpartition(".")[2] for full in given}]:
        raise UserError(
            f"--vram chooses {', '.join(OF_MEMORY)}, and {' and '.join(twice)} is set, too; try one or the other"
        )
    found = fitting(vram * GIB, config, measure(config))
    settings = replace(
        config.settings,
        micro_batch=found.sampling,
        train_micro_batch=found.training,
        decode_micro_batch=found.decoding,
        gradient_checkpointing=found.checkpointing,
    )
    return replace(config, settings=settings)


def host_bytes(config: RunConfig, footprint: Footprint) -> dict[str, int]:
    """Main memory that a round and an evaluation hold, fp32: states of the trained steps, and images.

    While states are put together they are there twice.
    """
    settings, longest = config.settings, 0
    for round in range(config.rounds):
        interval = config.wrapper.interval(round, config.rounds, settings.steps)
        # a rollout records from the branch point to the end, and a state more than steps
        states = config.draws(round) * settings.samples * (settings.steps - interval.start + 1)
        longest = max(longest, states)
    return {
        "trajectories of a round": 4 * footprint.latent_size * longest,
        "images of a round or an evaluation": most_images(config) * footprint.image_bytes,
    }


def disk_bytes(config: RunConfig, footprint: Footprint) -> dict[str, int]:
    """Return what a run leaves: checkpoints (one more while it is written), LoRA weights, rows of the store, sample
    images.
    """
    trained = footprint.adapter + network_parameters(config, footprint)
    tested = [config.images_at(queries).test for queries in config.evaluations()]
    evaluated = sum(tested)
    prompts, wanted = len(config.prompts.test), config.settings.sample_images
    kept = sum(len(samples.chosen(prompts, images, wanted)) for images in tested)
    # in 8 bits and not in fp32; how far PNG compresses it depends on what is drawn
    picture = min(footprint.image_bytes // 4, 3 * samples.LARGEST**2)
    return {
        f"checkpoints ({KEPT} kept, and one that is being written)": (KEPT + 1) * 3 * 4 * trained,
        "LoRA weights": 4 * footprint.adapter,
        f"store: {config.queries:,} rows of queries, {config.rounds:,} of rounds, {evaluated:,} of images": (
            EMPTY_STORE_BYTES + QUERY_BYTES * config.queries + IMAGE_BYTES * evaluated
        ),
        f"image files: {kept:,} sample images, before they are compressed": kept * picture,
    }
