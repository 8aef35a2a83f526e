"""What is searched in a cell, and the configurations that are tried."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from b2bench.config.run import RunConfig
from b2bench.config.settings import Settings
from b2bench.errors import UserError
from b2bench.hyperparameters import Hyperparameter, check_search, declared, hyperparameters, searched_settings
from b2bench.search import DIMENSIONS, Search

POINTS_SEED = 0
"""Seed of the scrambling of the Sobol points, the same for every cell."""


@dataclass(frozen=True)
class Dimension:
    """A hyperparameter that is searched; ``name`` is with its part, as ``run.lr`` or ``algorithm.clip_nats``."""

    name: str
    search: Search
    default: Any
    whole: bool = False

    @property
    def published(self) -> Any:
        """The published value, or the default if none is known."""
        known = self.search.published
        return self.default if known is None else self._typed(known)

    def at(self, share: float) -> float:
        """Return the value at a coordinate of the unit cube."""
        return self._typed(self.search.at(share))

    def _typed(self, value: float) -> float:
        return round(value) if self.whole else float(value)


@dataclass(frozen=True)
class Configuration:
    """Values of all dimensions of a cell, by name. ``kind`` is published, default, or the sampler that named it, and
    ``point`` are the coordinates that it named.
    """

    kind: str
    values: dict[str, Any]
    point: tuple[float, ...] = ()

    @property
    def assignments(self) -> dict[str, Any]:
        """What must be set for it; the defaults are what there is if nothing is set."""
        return {} if self.kind == "default" else self.values


def space_of(config: RunConfig) -> tuple[Dimension, ...]:
    """Return what is searched in the cell of ``config``, whose values are the defaults; the learning rate first.

    Raises:
        UserError: the cell has more than three dimensions, or one that cannot be searched.
    """
    cls = type(config.algorithm)
    harness = {parameter.name: parameter for parameter in hyperparameters(Settings)}
    settings = searched_settings(cls, declared(cls).get("lr", Settings.lr))

    def of_settings(name: str) -> Dimension:
        return _dimension("run", harness[name], settings[name], config.settings)

    found = [of_settings("lr"), *_of_plugin("algorithm", config.algorithm)]
    found += [of_settings(name) for name in settings if name != "lr"]
    found += _of_plugin("wrapper", config.wrapper)
    if len(found) > DIMENSIONS:
        raise UserError(
            f"{config.algorithm_name} {config.wrapper_name} has {len(found)} dimensions to search, "
            f"{', '.join(one.name for one in found)}; so few runs say nothing about more than {DIMENSIONS}. "
            "Try leaving out a Search"
        )
    return tuple(found)


def _of_plugin(part: str, plugin: Any) -> Iterator[Dimension]:
    for parameter in hyperparameters(type(plugin)):
        if parameter.search is not None:
            yield _dimension(part, parameter, parameter.search, plugin)


def _dimension(part: str, parameter: Hyperparameter, search: Search, owner: Any) -> Dimension:
    name = f"{part}.{parameter.name}"
    check_search(name, parameter, search)
    return Dimension(name, search, getattr(owner, parameter.name), whole=float not in parameter.types)


def unit_points(count: int, seed: int = POINTS_SEED) -> list[tuple[float, ...]]:
    """Return the first ``count`` scrambled Sobol points of the unit cube; more points begin with the same ones."""
    import numpy as np
    from scipy.stats import qmc

    sobol = qmc.Sobol(DIMENSIONS, scramble=True, rng=np.random.default_rng(seed))
    points = sobol.random_base2(max(0, count - 1).bit_length())
    return [tuple(map(float, point)) for point in points[:count]]


def configurations(space: Sequence[Dimension], count: int) -> list[Configuration]:
    """Return what is tried: the published settings, the defaults, then Sobol points, each once.

    The points are the same for every cell: one with fewer dimensions takes their first coordinates.

    Raises:
        UserError: ``count`` is too small for a search.
    """
    if count < 2:
        raise UserError(f"--configurations {count} is no search; try at least 2: the defaults and another")
    published = Configuration("published", {one.name: one.published for one in space})
    tried = [published] if any(one.search.published is not None for one in space) else []
    tried.append(Configuration("default", {one.name: one.default for one in space}))
    for point in unit_points(4 * count):
        values = {one.name: one.at(share) for one, share in zip(space, point, strict=False)}
        tried.append(Configuration("sobol", values, point[: len(space)]))
    found: dict[tuple[Any, ...], Configuration] = {}
    for one in tried:
        key = tuple(one.values.values())
        if key not in found or one.kind == "default":  # published settings that are the defaults are the defaults
            found[key] = one
    return list(found.values())[:count]
