"""What a run takes before it is started: memory, disk, denoiser calls, hours. ``b2bench estimate``.

Nothing is trained. Memory is counted on torch's meta device (:mod:`b2bench.estimate.memory`) with the policy that runs,
:class:`~b2bench.backbones.stable_diffusion.StableDiffusion`, at one image and at two (training, which is slow to count,
at one), and taken to be affine in them. Calls follow from the configuration by the wrapper's own interval and leaves
and the harness's own rounds and minibatches. Hours are an estimate: calls, weighted by their floating-point operations,
over a throughput.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from b2bench.config.run import RunConfig
from b2bench.errors import UserError
from b2bench.estimate.calls import (
    Calls,
    assumed_throughput,
    check_throughput,
    count_calls,
    follows_reward,
    hours,
    loss_cost,
    network_parameters,
)
from b2bench.estimate.fit import (
    MARGIN,
    MicroBatches,
    disk_bytes,
    fitting,
    host_bytes,
    own_micro_batches,
    phase_bytes,
    resident_bytes,
    smallest_training,
)
from b2bench.estimate.footprint import GIB, WIDTH, Footprint, judges, measure
from b2bench.guard import guarded
from b2bench.protocols import ModelSize


@dataclass(frozen=True)
class Fit:
    """Micro-batches for algorithms that need alike, in one precision; ``refused`` says why there are none."""

    precision: str
    algorithms: tuple[str, ...]
    batches: MicroBatches | None
    refused: str = ""


@dataclass(frozen=True)
class Cell:
    """An algorithm under a wrapper; ``later`` are hours where the first evaluation is taken over."""

    algorithm: str
    wrapper: str
    calls: Calls
    hours: tuple[float, float]
    later: tuple[float, float]


@dataclass(frozen=True)
class Estimate:
    """All that ``b2bench estimate`` prints. ``warnings`` name what will not run as it is configured."""

    config: RunConfig
    footprint: Footprint
    judges: list[ModelSize]
    fits: list[Fit]
    host: dict[str, int]
    disk: dict[str, int]
    cells: list[Cell]
    seeds: int
    vram: float | None
    margin: float
    throughput: float
    assumed: bool
    checkpointing: bool
    warnings: list[str]
    uncounted: list[str]

    @property
    def grid_hours(self) -> tuple[float, float]:
        """Of all cells and seeds, one after the other: the first run measures the pretrained model for all."""

        def total(i: int) -> float:
            first = self.cells[0]
            return self.seeds * sum(cell.later[i] for cell in self.cells) + first.hours[i] - first.later[i]

        return total(0), total(1)

    def as_dict(self) -> dict[str, Any]:
        """Plain values; bytes in bytes, activations in fp32."""
        footprint = self.footprint
        lines = ("sampling", "training", "checkpointed", "decoding")
        cells = [
            {
                "algorithm": cell.algorithm,
                "wrapper": cell.wrapper,
                "denoiser_calls_sampling": cell.calls.sampling,
                "denoiser_calls_training": list(cell.calls.training),
                "forward_equivalents": list(cell.calls.equivalents),
                "optimizer_steps": list(cell.calls.optimizer_steps),
                "denoiser_calls_evaluation": cell.calls.evaluation,
                "denoiser_calls_evaluation_later": cell.calls.later.evaluation,
                "hours": list(cell.hours),
                "hours_later": list(cell.later),
            }
            for cell in self.cells
        ]
        return {
            "backbone": self.config.backbone.name,
            "measured_on": footprint.source,
            "queries": self.config.queries,
            "rounds": self.config.rounds,
            "seeds": self.seeds,
            "parameters": {**footprint.parameters, "adapter": footprint.adapter},
            "weight_bytes": {name: footprint.weights(name) for name in WIDTH},
            "adapter_and_optimizer_bytes": footprint.adapter_bytes(),
            "judges": [vars(judge) for judge in self.judges],
            "activation_bytes": {name: vars(getattr(footprint, name)) for name in lines},
            "vram_bytes": self.vram,
            "margin": self.margin,
            "micro_batches": [
                {
                    "precision": fit.precision,
                    "algorithms": list(fit.algorithms),
                    "refused": fit.refused,
                    **(vars(fit.batches) if fit.batches else {}),
                }
                for fit in self.fits
            ],
            "host_bytes": self.host,
            "disk_bytes": self.disk,
            "cells": cells,
            "throughput": self.throughput,
            "throughput_is_assumed": self.assumed,
            "checkpointing": self.checkpointing,
            "grid_hours": list(self.grid_hours),
            "warnings": self.warnings,
            "uncounted": self.uncounted,
        }


def _fit(members: Sequence[RunConfig], footprint: Footprint, vram: float, precision: str, margin: float) -> Fit:
    names = tuple(member.algorithm_name for member in members)
    try:
        return Fit(precision, names, fitting(vram, members[0], footprint, precision=precision, margin=margin))
    except UserError as error:
        return Fit(precision, names, None, str(error))


def _warnings(configs: Sequence[RunConfig], footprint: Footprint, space: float) -> list[str]:
    """Return what the runs would need beyond ``space`` bytes, as they are configured."""
    found = []
    for config in configs:
        precision, own = config.settings.precision, own_micro_batches(config)
        resident = resident_bytes(config, footprint, precision)
        phases = phase_bytes(config, footprint, own, precision)
        short = [
            f"{name} of {getattr(own, name)} rows {(resident + taken) / GIB:.1f} GiB"
            for name, taken in phases.items()
            if resident + taken > space
        ]
        if short:
            found.append(
                f"{config.algorithm_name} as it is configured, in {precision}, needs more than the "
                f"{space / GIB:.1f} GiB that the margin leaves: {', '.join(short)}"
            )
    return found


@guarded()
def estimate(
    configs: Sequence[RunConfig],
    *,
    vram: float | None = None,
    throughput: float | None = None,
    margin: float = MARGIN,
    seeds: int = 1,
) -> Estimate:
    """Return what ``configs`` take, which differ in algorithm and wrapper alone. ``vram`` in bytes.

    Raises:
        UserError: the backbone's configurations cannot be read, or an argument is out of its range.
    """
    if vram is not None and not 0 < vram < math.inf:
        raise UserError(f"--vram {vram / GIB:g} is not a number of GiB above 0; try 24")
    check_throughput(throughput)
    if not 0 <= margin < 1:
        raise UserError(f"--margin {margin:g} is not a share from 0 to below 1; try 0.15")
    config = configs[0]
    footprint = measure(config)
    own = own_micro_batches(config)
    found, uncounted = judges(config)
    uncounted += [
        f"{one.algorithm_name}'s backward pass through {one.reward_name}" for one in configs if follows_reward(one)
    ]
    alike: dict[tuple[int, int, int, bool], list[RunConfig]] = {}
    for one in {config.algorithm_name: config for config in configs}.values():
        key = (
            loss_cost(one.algorithm).with_gradient,
            network_parameters(one, footprint),
            smallest_training(one),
            follows_reward(one),
        )
        alike.setdefault(key, []).append(one)
    fits: list[Fit] = []
    warnings: list[str] = []
    if vram is not None:
        for precision in ("fp32", "bf16"):
            fits += [_fit(members, footprint, vram, precision, margin) for members in alike.values()]
        warnings = _warnings([members[0] for members in alike.values()], footprint, vram * (1 - margin))
    warnings += dict.fromkeys(text for one in configs for text in one.notices)
    precision = config.settings.precision
    # what does not even fit with checkpointing takes no less than with it, on the GPU that it fits
    needed = [fit.batches is None or fit.batches.checkpointing for fit in fits if fit.precision == precision]
    checkpointing = any(needed) or own.checkpointing
    spared = {  # an algorithm that fits without it pays nothing for one that does not
        name
        for fit in fits
        if fit.precision == precision and not own.checkpointing and fit.batches and not fit.batches.checkpointing
        for name in fit.algorithms
    }
    speed = assumed_throughput(config, footprint) if throughput is None else throughput
    cells = []
    for one in configs:
        calls = count_calls(one)
        recomputed = checkpointing and one.algorithm_name not in spared
        how = {"checkpointing": recomputed, "reward_gradient": follows_reward(one)}
        taken, later = (hours(each, footprint, speed, **how) for each in (calls, calls.later))
        cells.append(Cell(one.algorithm_name, one.wrapper_name, calls, taken, later))
    largest = max(configs, key=lambda one: sum(host_bytes(one, footprint).values()))
    return Estimate(
        config=config,
        footprint=footprint,
        judges=found,
        fits=fits,
        host=host_bytes(largest, footprint),
        disk=disk_bytes(max(configs, key=lambda one: sum(disk_bytes(one, footprint).values())), footprint),
        cells=cells,
        seeds=seeds,
        vram=vram,
        margin=margin,
        throughput=speed,
        assumed=throughput is None,
        checkpointing=checkpointing,
        warnings=warnings,
        uncounted=uncounted,
    )
