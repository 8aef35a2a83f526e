"""Micro-batches that fit into a memory, and what else a run keeps: on the host and on the disk."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from b2bench.backbones.stable_diffusion import DECODED_AT_ONCE
from b2bench.config.run import RunConfig
from b2bench.errors import UserError
from b2bench.estimate.calls import kept_rows, loss_cost, network_parameters, round_steps, row_steps
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
    the loss, judges.
    """
    trained = footprint.adapter_bytes() + 4 * 4 * network_parameters(config, footprint)
    return footprint.weights(precision) + trained + sum(judge.bytes or 0 for judge in judges(config)[0])


def phase_bytes(config: RunConfig, footprint: Footprint, batches: MicroBatches, precision: str) -> dict[str, float]:
    """Return bytes of each phase at its micro-batch, beyond :func:`resident_bytes`. Phases do not overlap."""
    narrow = WIDTH[precision] / 4
    line = footprint.checkpointed if batches.checkpointing else footprint.training
    return {
        "sampling": narrow * footprint.sampling.at(batches.sampling),
        "training": narrow * line.at(loss_cost(config.algorithm).with_gradient * batches.training),
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
    narrow, graphs = WIDTH[precision] / 4, loss_cost(config.algorithm).with_gradient
    rollouts = config.draws(0) * config.settings.samples
    rows, every = kept_rows(config, 0)[1], Interval(0, config.settings.steps)
    items = rows * row_steps(config, every)

    def most(line: Line, left: float, useful: int, graphs: int = 1) -> int:
        return min(useful, line.largest(left / narrow) // graphs)

    steps = round_steps(config, pace_of(config), config.draws(0), every, rows) // config.settings.passes
    minibatch = max(1, -(-items // max(1, steps)))
    if checkpointing is None:
        plain = most(footprint.training, space, minibatch, graphs)
        checkpointing = plain < min(ENOUGH_ROWS, minibatch)
    images = most_images(config)
    found = MicroBatches(
        sampling=most(footprint.sampling, space, max(rollouts, images)),
        training=most(footprint.checkpointed if checkpointing else footprint.training, space, minibatch, graphs),
        decoding=most(footprint.decoding, space, images),
        checkpointing=checkpointing,
    )
    short = [name for name in ("sampling", "training", "decoding") if getattr(found, name) < 1]
    if short:
        one = MicroBatches(1, 1, 1, checkpointing)
        phases = phase_bytes(config, footprint, one, precision)
        needed = (resident + max(phases[name] for name in short)) / (1 - margin)
        raise UserError(
            f"{vram_bytes / GIB:g} GiB are too little for {config.backbone.name} in {precision}: {' and '.join(short)} "
            f"of one row needs {needed / GIB:.1f} GiB with a margin of {margin:.0%}. Try a larger GPU, another "
            "precision, or a reward with smaller models" + ("" if checkpointing else ", or gradient checkpointing")
        )
    return found


def own_micro_batches(config: RunConfig) -> MicroBatches:
    """Return those of the run as it is configured."""
    settings = config.settings
    return MicroBatches(
        sampling=settings.micro_batch,
        training=settings.train_micro_batch or settings.micro_batch,
        decoding=settings.decode_micro_batch or min(settings.micro_batch, DECODED_AT_ONCE),
        checkpointing=settings.gradient_checkpointing,
    )


def within(config: RunConfig, vram: float) -> RunConfig:
    """Return the run with the micro-batches, and gradient checkpointing where it must be, that fit into ``vram`` GiB.

    Raises:
        UserError: as :func:`fitting` does.
    """
    if not 0 < vram < math.inf:
        raise UserError(f"--vram {vram:g} is not a number of GiB above 0; try 24")
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
