"""What is searched in a cell, and which configurations are tried."""

from dataclasses import dataclass, replace
from typing import Annotated, Any

import pytest
from annotated_types import Gt

from b2bench.config.choices import Choices, resolved
from b2bench.config.run import RunConfig
from b2bench.errors import UserError
from b2bench.hyperparameters import searched_settings
from b2bench.search import Search
from b2bench.tuning.space import configurations, space_of, unit_points


def cell(algo: str, wrapper: str = "vanilla") -> RunConfig:
    return resolved(Choices(algo=algo, wrapper=wrapper))


def test_a_search_goes_from_its_low_end_to_its_high_one() -> None:
    search = Search(1e-4, 1e-2)
    assert [search.at(share) for share in (0.0, 0.5, 1.0)] == [1e-4, 1e-3, 1e-2]
    assert Search(0, 10, log=False).at(0.25) == 2.5
    assert search.at(0.123456) == float(f"{search.at(0.123456):.4g}")


@pytest.mark.parametrize("wrong", [{"low": 1, "high": 1}, {"low": 0, "high": 1}, {"low": 1, "high": float("inf")}])
def test_a_search_without_a_range_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="try"):
        Search(**wrong)
    with pytest.raises(ValueError, match="has no source"):
        Search(1, 2, published=1)


@pytest.mark.parametrize(
    ("algo", "names"),
    [
        ("pg", ["run.lr"]),
        ("ddpo", ["run.lr", "algorithm.clip_nats"]),
        ("dpok", ["run.lr", "algorithm.kl_weight"]),
        ("dpo", ["run.lr", "algorithm.clip_nats"]),
    ],
)
def test_what_the_built_in_algorithms_have_searched(algo: str, names: list[str]) -> None:
    for wrapper in ("vanilla", "b2", "random2"):
        assert [one.name for one in space_of(cell(algo, wrapper))] == names


@pytest.mark.slow
def test_every_default_lies_within_its_search() -> None:
    for algo in ("pg", "ddpo", "dpok", "dpo"):
        for one in space_of(cell(algo)):
            assert one.default is None or one.search.low <= one.default <= one.search.high


def test_points_are_the_same_for_every_cell_and_more_begin_with_the_same() -> None:
    assert unit_points(8) == unit_points(32)[:8]
    assert len(set(unit_points(32))) == 32
    two, one = configurations(space_of(cell("ddpo")), 8), configurations(space_of(cell("pg")), 8)
    points = unit_points(8)
    for tried, width in ((two, 2), (one, 1)):
        sobol = [each.point for each in tried if each.kind == "sobol"]
        assert sobol == [point[:width] for point in points[: len(sobol)]]
    learning_rates = [[each.values["run.lr"] for each in tried[2:]] for tried in (two, one)]
    assert learning_rates[0] == learning_rates[1]


def test_published_settings_and_defaults_come_first() -> None:
    tried = configurations(space_of(cell("ddpo")), 8)
    assert [one.kind for one in tried] == ["published", "default", *["sobol"] * 6]
    assert tried[0].values == {"run.lr": 3e-4, "algorithm.clip_nats": 1.64}
    assert tried[1].values == {"run.lr": 1e-3, "algorithm.clip_nats": 1.64}
    assert tried[1].assignments == {}
    assert tried[2].assignments == tried[2].values
    with pytest.raises(UserError, match="no search"):
        configurations(space_of(cell("ddpo")), 1)


@dataclass(kw_only=True)
class Unknown:
    """An algorithm of somebody who declares nothing."""

    temperature: float = 1.0


@dataclass(kw_only=True)
class Known(Unknown):
    search = {"lr": Search(1e-3, 1e-2, published=1e-3, source="here")}  # noqa: RUF012


@dataclass(kw_only=True)
class Whole:
    search = {"transitions_per_step": Search(50, 400)}  # noqa: RUF012


@dataclass(kw_only=True)
class Wide(Whole):
    a: Annotated[float, Search(1, 2)] = 1.0
    b: Annotated[float | None, Search(1, 2)] = 1.0


@dataclass(kw_only=True)
class Beyond:
    a: Annotated[float, Gt(1), Search(1, 2)] = 2.0


@dataclass(kw_only=True)
class Word:
    a: Annotated[str, Search(1, 2)] = "x"


def of(algorithm: Any) -> RunConfig:
    return replace(cell("ddpo"), algorithm=algorithm)


def test_the_learning_rate_is_always_searched() -> None:
    [lr] = space_of(of(Unknown()))
    assert (lr.name, lr.search.low, lr.search.high) == ("run.lr", 1e-4, 1e-2)
    tried = configurations([lr], 4)
    assert [one.kind for one in tried] == ["default", "sobol", "sobol", "sobol"]  # nothing is published


def test_published_settings_that_are_the_defaults_are_tried_once() -> None:
    tried = configurations(space_of(of(Known())), 4)
    assert [one.kind for one in tried] == ["default", "sobol", "sobol", "sobol"]


def test_whole_numbers_stay_whole() -> None:
    tried = configurations(space_of(of(Whole())), 8)
    sizes = [one.values["run.transitions_per_step"] for one in tried]
    assert all(isinstance(size, int) and 50 <= size <= 400 for size in sizes)


@pytest.mark.parametrize(
    ("algorithm", "message"),
    [(Wide(), "4 dimensions"), (Beyond(), "leaves its range"), (Word(), "a Search is of numbers")],
)
def test_a_space_that_cannot_be_searched_is_refused(algorithm: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        space_of(of(algorithm))


@pytest.mark.parametrize(
    ("found", "message"),
    [({"draws": Search(1, 2)}, "'draws'"), ({"lr": 3}, "is a int"), ([1], "is a list")],
)
def test_an_algorithm_has_two_settings_searched_and_no_other(found: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        searched_settings(type("Mine", (), {"search": found}), 1e-3)
