"""The bounds of hyperparameters: declared beside the type, checked when a plugin is built, and shown."""

from dataclasses import dataclass
from typing import Annotated, Any

import pytest
from annotated_types import Ge, Gt, Interval, Le, Len, Lt

from b2bench.config.settings import Settings
from b2bench.errors import UserError
from b2bench.hyperparameters import build, hyperparameters


@dataclass(kw_only=True)
class Bounded:
    """A class with a field of each kind of bound."""

    above: Annotated[float, Gt(0)] = 1.0
    least: Annotated[int, Ge(1)] = 1
    below: Annotated[float, Lt(5)] = 1.0
    most: Annotated[int, Le(5)] = 1
    share: Annotated[float, Gt(0), Le(1)] = 1.0
    pair: Annotated[float, Interval(ge=2, lt=3)] = 2.0
    maybe: Annotated[float | None, Gt(0)] = None
    word: Annotated[str, Len(1, 9)] = "a"  # nothing that is known here
    free: float = 0.0


FOUND = {parameter.name: parameter for parameter in hyperparameters(Bounded)}


@pytest.mark.parametrize(
    ("name", "range", "inside", "outside", "text"),
    [
        ("above", "> 0", [1e-9, 7], [0, -1], "is not above 0"),
        ("least", ">= 1", [1, 9], [0], "is below 1"),
        ("below", "< 5", [4.9, -9], [5, 6], "is not below 5"),
        ("most", "<= 5", [5], [6], "is above 5"),
        ("share", "in (0, 1]", [0.1, 1], [0, 1.1], "is outside (0, 1]"),
        ("pair", "in [2, 3)", [2, 2.9], [1.9, 3], "is outside [2, 3)"),
        ("maybe", "> 0", [None, 1], [0], "is not above 0"),
    ],
)
def test_a_bound_is_shown_and_checked(name: str, range: str, inside: Any, outside: Any, text: str) -> None:
    assert FOUND[name].range == range
    for value in inside:
        assert getattr(build(Bounded, {name: value}), name) == value
    for value in outside:
        with pytest.raises(UserError) as met:
            build(Bounded, {name: str(value)})  # as the command line gives it
        assert f"{name} = " in str(met.value)
        assert text in str(met.value)


def test_without_a_bound_nothing_is_refused() -> None:
    assert FOUND["free"].range == FOUND["word"].range == ""
    assert build(Bounded, {"free": -1e300, "word": ""}).word == ""
    assert FOUND["above"].type is float
    assert FOUND["maybe"].type_name == "float | None"


def test_every_number_of_a_run_says_its_range() -> None:
    for parameter in hyperparameters(Settings):
        if parameter.type in (int, float, int | None, float | None):
            assert parameter.bounds, parameter.name
        assert parameter.out_of_range(parameter.default) is None
