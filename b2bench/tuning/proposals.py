"""Points that a sampler of Optuna proposes from the scores of a cell. Everything that imports Optuna is here; extra
``optuna``.

Nothing of Optuna's is kept. Its study is made anew for every generation, from what has ended and with the generation's
own seed, so the points depend on the scores alone: not on the number of processes, nor on what was interrupted.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence
from importlib import metadata
from types import ModuleType
from typing import Any

from b2bench.errors import UserError
from b2bench.layout import install_extra
from b2bench.search import GENERATION, Sampler
from b2bench.tuning.space import POINTS_SEED, Configuration, Dimension, configurations

ASKED = 8
"""How often a sampler is asked for one new configuration: of whole numbers it may name known ones again."""
DIGITS = 12
"""Decimals of a score that a sampler sees: sums of rewards may differ in their last bits."""


def optuna_for(sampler: Sampler) -> ModuleType:
    """Return Optuna.

    Raises:
        UserError: it is not installed.
    """
    try:
        import optuna
    except ImportError:
        raise UserError(
            f"--sampler {sampler} needs the package optuna; try {install_extra('optuna')}, "
            "or --sampler sobol, which needs nothing"
        ) from None
    return optuna


def optuna_version() -> str:
    """Return the version of Optuna that is installed."""
    return metadata.version("optuna")


def proposed(
    space: Sequence[Dimension], tried: Sequence[tuple[Mapping[str, Any], float]], sampler: Sampler, count: int
) -> list[Configuration]:
    """Return the next generation of a search of ``count`` configurations, at most :data:`GENERATION` of them.

    ``tried`` are the values of all configurations before it, with their scores; minus infinity, of a run without one,
    counts as the lowest score of the others. What lies outside of the space (published settings may) tells a sampler
    nothing. Each configuration is new. Where the sampler names known ones again and again, Sobol points take their
    place.

    Raises:
        UserError: Optuna is not installed.
    """
    optuna = optuna_for(sampler)
    wanted = min(GENERATION, count - len(tried))
    seen = {tuple(values.values()) for values, _ in tried}
    found: list[Configuration] = []
    with _quiet(optuna):
        study, axes = _study(optuna, space, tried, sampler)
        for _ in range(ASKED * wanted):  # it knows of what it proposed before
            params = study.ask(axes).params
            point = tuple(params[one.name] for one in space)
            values = {one.name: one.at(share) for one, share in zip(space, point, strict=True)}
            if (key := tuple(values.values())) not in seen:
                seen.add(key)
                found.append(Configuration(sampler, values, point))
            if len(found) == wanted:
                return found
    rest = [one for one in configurations(space, count) if tuple(one.values.values()) not in seen]
    return [*found, *rest[: wanted - len(found)]]


def _study(
    optuna: ModuleType,
    space: Sequence[Dimension],
    tried: Sequence[tuple[Mapping[str, Any], float]],
    sampler: Sampler,
) -> tuple[Any, dict[str, Any]]:
    """Return a study that knows what was tried, and its axes: the unit cube, so scales and whole numbers are ours."""
    options: dict[str, Any] = {"seed": POINTS_SEED + len(tried)}
    if sampler is not Sampler.random:
        options["n_startup_trials"] = 2  # the first generation was the start
    axes = {one.name: optuna.distributions.FloatDistribution(0.0, 1.0) for one in space}
    classes = {Sampler.tpe: "TPESampler", Sampler.gp: "GPSampler", Sampler.random: "RandomSampler"}
    study = optuna.create_study(direction="maximize", sampler=getattr(optuna.samplers, classes[sampler])(**options))
    lowest = min((score for _, score in tried if math.isfinite(score)), default=0.0)
    for values, score in tried:
        shares = {one.name: one.search.share(values[one.name]) for one in space}
        if None not in shares.values():
            known = round(score if math.isfinite(score) else lowest, DIGITS)
            study.add_trial(optuna.trial.create_trial(params=shares, distributions=axes, value=known))
    return study, axes


@contextlib.contextmanager
def _quiet(optuna: ModuleType) -> Iterator[None]:
    """Keep Optuna from telling each trial."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(before)
