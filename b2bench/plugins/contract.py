"""A check of a plugin: its result, its ends, and what all kinds have to do."""

from __future__ import annotations

import contextlib
import inspect
import os
import random
import tempfile
import traceback
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import numpy as np
import torch
from torch import Tensor

from b2bench.errors import UserError
from b2bench.guard import guarded
from b2bench.hyperparameters import check_names, check_search, hyperparameters, parse_value
from b2bench.registry import key_of
from b2bench.search import DIMENSIONS
from b2bench.text import described
from b2bench.types import Interval


@dataclass(frozen=True)
class CheckResult:
    """One check of one plugin; ``reason`` says what was found where it failed."""

    plugin: str
    name: str
    passed: bool
    reason: str = ""


class Failed(Exception):
    """A check failed, for the reason given."""


class Stop(Exception):
    """The remaining checks of this plugin would mean nothing."""


class Checker:
    """Runs checks of one plugin and turns whatever happens into results."""

    def __init__(self, cls: type) -> None:
        self.plugin = key_of(cls)
        self.source = inspect.getfile(cls)
        self.results: list[CheckResult] = []

    def run(self, name: str, test: Callable[[], None], needed: bool = False) -> bool:
        """Run ``test``; it raises Failed, or anything else that the plugin raises, or passes."""
        reason = ""
        try:
            with guarded():  # or what one check finds would depend on what another did
                test()
        except Failed as failure:
            reason = str(failure)
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            reason = f"{' '.join(described(error).split())}{self._line(error)}"
        if reason and needed:
            reason += ". The checks after this one were left out."
        self.results.append(CheckResult(self.plugin, name, not reason, reason))
        if reason and needed:
            raise Stop
        return not reason

    def _line(self, error: BaseException) -> str:
        lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == self.source]
        return f" ({Path(self.source).name}, line {lines[-1]})" if lines else ""


def expect(condition: bool, reason: str) -> None:
    if not condition:
        raise Failed(reason)


@contextlib.contextmanager
def global_seed(seed: int) -> Iterator[None]:
    """Torch's, NumPy's and Python's global generators in another state, and back afterwards."""
    states = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        np.random.seed(seed)
        random.seed(seed)
        try:
            yield
        finally:
            random.setstate(states[0])
            np.random.set_state(states[1])


def check_process(call: Callable[[], object]) -> None:
    """Fail if a call changes something of the whole process, or prints where the result of a command stands.

    A run puts it back and sends the text elsewhere. Another program that uses the plugin does not.
    """
    with tempfile.TemporaryFile() as file:
        with global_seed(271828), guarded(file.fileno()) as changed:  # which nobody else takes
            call()
        printed = os.fstat(file.fileno()).st_size
    expect(not changed, f"it changed {', '.join(changed)}, of the whole process; put it back, or keep to what is yours")
    expect(not printed, "it printed to stdout, where the result of a command stands; try sys.stderr, or logging")


def check_searches(cls: type, settings: Collection[str] = ("lr",)) -> None:
    """What ``b2bench tune`` refuses; ``settings`` of the run are searched beside fields of the class."""
    own = [parameter for parameter in hyperparameters(cls) if parameter.search is not None]
    for parameter in own:
        assert parameter.search is not None
        try:
            check_search(parameter.name, parameter, parameter.search)
        except UserError as error:
            raise Failed(str(error)) from None
    names = [*settings, *(parameter.name for parameter in own)]
    expect(
        len(names) <= DIMENSIONS,
        f"{', '.join(names)} are searched, and few runs say nothing about more than {DIMENSIONS}; leave out a Search",
    )


def check_refusal(plugin: Any, others: Mapping[str, Any]) -> None:
    """``refuses`` answers with a reason or with None, whatever it is asked about."""
    for name, other in others.items() if hasattr(plugin, "refuses") else ():
        said = plugin.refuses(other)
        expect(said is None or isinstance(said, str), f"refuses({name}) answers {said!r}; return a reason, or None")


def copy_of(value: Any) -> Any:
    """Return a copy of tensors, lists, and dataclasses of them."""
    if isinstance(value, Tensor):
        return value.clone()
    if isinstance(value, list):
        return list(value)
    if is_dataclass(value) and not isinstance(value, type | Interval):
        return replace(value, **{field.name: copy_of(getattr(value, field.name)) for field in fields(value)})
    return value


def changes(before: Any, after: Any, name: str = "") -> list[str]:
    """Dotted names of what differs between two values of the same structure."""
    if isinstance(before, Tensor):
        same = isinstance(after, Tensor) and before.shape == after.shape and torch.equal(before, after)
        return [] if same and before.requires_grad == after.requires_grad else [name]
    if is_dataclass(before) and not isinstance(before, type | Interval):
        return [
            found
            for field in fields(before)
            for found in changes(
                getattr(before, field.name), getattr(after, field.name), f"{name}.{field.name}".strip(".")
            )
        ]
    return [] if before == after else [name]


def check_hyperparameters(cls: type) -> None:
    try:
        check_names(cls)
    except UserError as error:
        raise Failed(str(error)) from None
    for field in (field for field in fields(cls) if field.init):
        expect(field.default_factory is MISSING, f"{field.name} has a default_factory; give it a plain value")
        expect(field.default is not MISSING, f"{field.name} has no default; write {field.name}: TYPE = VALUE")
    for parameter in hyperparameters(cls):
        try:
            parse_value(parameter, parameter.default)
        except (UserError, TypeError):
            raise Failed(
                f"{parameter.name}: {parameter.type_name} = {parameter.default!r} cannot be set from the command "
                "line; a hyperparameter is a bool, int, float, str or Literal (or None), and its default is one"
            ) from None
        whole = isinstance(parameter.default, int) and not isinstance(parameter.default, bool)
        expect(
            not (whole and float in (parameter.type, *get_args(parameter.type))),
            f"{parameter.name}: {parameter.type_name} = {parameter.default!r} is a whole number, and the same value "
            f"given on the command line would be another cell; write {parameter.default!r}.0",
        )
        given = get_args(parameter.type) if get_origin(parameter.type) is Literal else ()
        expect(
            all(isinstance(choice, str) for choice in given),
            f"{parameter.name} is of type {parameter.type_name}; the choices of a Literal are texts",
        )
        problem = parameter.out_of_range(parameter.default)
        expect(problem is None, f"the default is out of range: {problem}")
        expect(bool(parameter.doc), f'{parameter.name} has no doc; put """One line.""" below the field')
