"""Headroom: what is to be had without training, and alignment on the scale that it sets.

Its rows are the baselines of the store: the pretrained model at several guidance scales, best-of-N sampling,
and the oracle, scenes that show what the prompt says. They stand beside the cells and are none: no cell is
compared with them, and they count in no effect and no verdict.
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from b2bench.leaderboard.cells import Cell
from b2bench.leaderboard.rows import Context, HeadroomRow
from b2bench.leaderboard.stats import Estimate, estimate, paired

from b2bench.eval_images import automatic_images
from b2bench.metrics import HELDOUT, SUCCESS

BASELINE = "baseline"
"""What table ``runs`` calls the algorithm of a row that no training made."""
KINDS = ("guidance", "best-of", "oracle")
EVALUATED = ("settings.eval_images", "settings.inception", "settings.inception_splits")
"""What an oracle's numbers depend on beside the noise and the reward"""
OWN = ("reward.name", "reward.code")
"""What a command says of a reward in other words"""
USUAL = {
    "settings.inception": "auto",
    "settings.inception_splits": "1",
    "reward.checkpoint": "pocket",
    "reward.batch": "64",
}
"""Values that a command on pocket has without being told, of ``clipscore`` at least; to tell them changes nothing"""


def is_baseline(row: Mapping[str, Any]) -> bool:
    """Whether a row of table ``runs`` was not trained."""
    return bool(row["algorithm"] == BASELINE)


def headroom(values: Sequence[float], pretrained: Sequence[float], oracle: float | None) -> Estimate | None:
    """(x - pretrained) / (oracle - pretrained) per seed [R]: 0 is the pretrained model, 1 what the oracle scores.

    None without an oracle. If the pretrained model is unknown, or not below the oracle, the number does not exist,
    and then neither does a mean.
    """
    if oracle is None:
        return None
    pairs = zip(values, pretrained, strict=True)
    return estimate([(x - start) / (oracle - start) if oracle > start else math.nan for x, start in pairs])


def fits(one: Mapping[str, str], other: Mapping[str, str]) -> bool:
    """Whether the test numbers of two flat configurations of one context may stand side by side, one a baseline.

    Whatever both depend on must be equal: the reward's settings, and those of sampling and evaluation. A baseline
    names no setting that it does not depend on; and images of training prompts are in no table.
    """
    one, other = _sized(one), _sized(other)
    shared = [key for key in one.keys() & other.keys() if key.startswith(("reward.", "settings."))]
    return all(one[key] == other[key] for key in shared if key != "settings.eval_train_images")


def _sized(config: Mapping[str, str]) -> Mapping[str, str]:
    """Return a flat configuration with the number of its last evaluation's images where that follows
    from the budget.
    """
    queries = config.get("queries", "")
    if config.get("settings.eval_images") != "null" or not (queries.isdecimal() and len(queries) < 12):
        return config
    return {**config, "settings.eval_images": str(automatic_images(int(queries)).test)}


def oracle_of(config: Mapping[str, str], baselines: Iterable[Cell], metric: str) -> float | None:
    """Return the oracle's ``metric`` for a flat configuration, as a mean over its seeds.

    None where it was not measured.
    """
    values = {}
    for cell in baselines:
        if cell.config.get("baseline.kind") == "oracle" and fits(cell.config, config):
            values.update({seed: run.final(metric) for seed, run in cell.runs.items()})
    return estimate(list(values.values())).mean


def rows(
    context: Context,
    baselines: Sequence[Cell],
    cells: Sequence[Cell],
    usual: Sequence[Cell],
    measures: tuple[Sequence[str], Sequence[str]],
) -> tuple[HeadroomRow, ...]:
    """Return the rows of a context: the pretrained model, then guidance, best-of and oracle.

    The pretrained model is the baseline at the guidance of runs, or else a cell's evaluation at 0 queries. ``usual``
    are the cells that were evaluated as most were.
    """
    references = [cell for cell in baselines if _is_reference(cell.config)]
    found = []
    for cell in baselines:
        values = {metric: cell.final(metric, cell.seeds) for metric in (context.reward, HELDOUT, SUCCESS)}
        values |= {metric: cell.final(metric, cell.seeds) for part in measures for metric in part}
        starts = {
            metric: [_start(cell, seed, [*references, *cells], metric) for seed in cell.seeds]
            for metric in (context.reward, HELDOUT)
        }
        oracle = oracle_of(cell.config, baselines, context.reward)
        found.append(
            HeadroomRow(
                name=cell.wrapper,
                kind=cell.config.get("baseline.kind", ""),
                label=cell.label,
                config_hash=cell.config_hash,
                alignment=estimate(values[context.reward]),
                gain=paired(values[context.reward], starts[context.reward]),
                headroom=headroom(values[context.reward], starts[context.reward], oracle),
                heldout=estimate(values[HELDOUT]),
                heldout_gain=paired(values[HELDOUT], starts[HELDOUT]),
                success=estimate(values[SUCCESS]),
                inception={metric: estimate(values[metric]) for metric in measures[0]},
                diversity={metric: estimate(values[metric]) for metric in measures[1]},
                seeds=cell.seeds,
                queries_per_image=int(cell.config.get("baseline.queries_per_image", 0)),
                reference=cell in references,
                usual=not usual or any(fits(cell.config, other.config) for other in usual),
            )
        )
    order = {cell.config_hash: _order(cell.config) for cell in baselines}
    return tuple(sorted(found, key=lambda row: (not row.reference, order[row.config_hash])))


def _is_reference(config: Mapping[str, str]) -> bool:
    own = config.get("baseline.guidance")
    return own is not None and own == config.get("settings.guidance")


def _order(config: Mapping[str, str]) -> tuple[int, float]:
    kind = config.get("baseline.kind", "")
    given = (config.get(f"baseline.{name}", "null") for name in ("guidance", "candidates"))
    value = next((value for value in given if value != "null"), "0")
    return (KINDS.index(kind) if kind in KINDS else len(KINDS), float(value))


def _start(baseline: Cell, seed: int, starts: Iterable[Cell], metric: str) -> float:
    """Return the pretrained model's value on the noise of a baseline's ``seed``."""
    noise = baseline.runs[seed].noise
    for cell in starts:
        if fits(baseline.config, cell.config):
            for run in cell.runs.values():
                if run.noise == noise and math.isfinite(value := run.start(metric)):
                    return value
    return math.nan


def missing_oracle(context: Context, cells: Iterable[Cell], baselines: Sequence[Cell]) -> str:
    """Which command gives the oracle that cells or baselines lack; "" where none lacks it, or there is none to have."""
    if context.backbone != "pocket":
        return ""
    lacking = [cell.config for cell in cells if oracle_of(cell.config, baselines, context.reward) is None]
    if not lacking:
        return ""
    command = ["b2bench", "baseline", "--kind", "oracle", "--reward", context.reward, "--prompts", context.prompts]
    plugin = ["--plugin", "FILE"] if any("reward.code" in config for config in lacking) else []
    commands = sorted({shlex.join([*command, *plugin, *_assignments(config)]) for config in lacking})
    return f"no headroom without an oracle: {', and '.join(commands)}"


def _assignments(config: Mapping[str, str]) -> list[str]:
    """Return what a baseline must be told to have the test set and the judges of a flat configuration."""
    config = _sized(config)
    found = [] if config.get("settings.eval_seed", "0") == "0" else ["--seed", config["settings.eval_seed"]]
    told = {name: config[name] for name in EVALUATED if name in config}
    told |= {name: value for name, value in config.items() if name.startswith("reward.") and name not in OWN}
    for name, value in told.items():
        if USUAL.get(name) != value and value != "null":
            found += ["--set", f"{name.partition('.')[2]}={value}"]
    return found
