"""Reading and writing the hyperparameters of a plugin, or the settings of a run: the fields of a dataclass."""

from __future__ import annotations

import ast
import functools
import inspect
import itertools
import math
import operator
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import MISSING, dataclass, fields
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from annotated_types import Ge, GroupedMetadata, Gt, Le, Lt

from b2bench.errors import UserError
from b2bench.guard import guarded
from b2bench.registry import Registry, key_of
from b2bench.search import Search
from b2bench.text import described, suggestion

PLAIN = (bool, int, float, str)
"""Types that the command line can give and JSON can hold."""

Bound = Gt | Ge | Lt | Le
"""What limits a number: ``lr: Annotated[float, Gt(0)] = 1e-3``"""

DECLARABLE = ("lr", "updates_per_round")
"""Settings that an algorithm may have defaults of its own for, in a class attribute ``defaults``. All others are equal
in every cell unless somebody asks for another value."""


def declared(cls: type) -> dict[str, Any]:
    """Return the defaults of settings that an algorithm declares for itself.

    Raises:
        UserError: it declares one that is not its to declare.
    """
    found = getattr(cls, "defaults", {})
    if not isinstance(found, Mapping):
        raise UserError(f"{cls.__name__}.defaults is a {type(found).__name__}; try a dict, as {{'lr': 1e-3}}")
    for name in found:
        if name not in DECLARABLE:
            raise UserError(
                f"{cls.__name__}.defaults has {name!r}, which is equal in every cell; an algorithm may declare "
                f"{' and '.join(DECLARABLE)}"
            )
    return dict(found)


SEARCHABLE = ("lr", "transitions_per_step")
"""Settings that an algorithm may have searched, in a class attribute ``search``. The learning rate always is."""


def searched_settings(cls: type, lr: float) -> dict[str, Search]:
    """Return where the settings of an algorithm are searched; ``lr`` is its default learning rate.

    An algorithm that says nothing of ``lr`` has it searched from a tenth of the default to ten times of it.

    Raises:
        UserError: it has a setting searched that is not its to choose, or not by a :class:`Search`.
    """
    found = getattr(cls, "search", {})
    if not isinstance(found, Mapping):
        raise UserError(
            f"{cls.__name__}.search is a {type(found).__name__}; try a dict, as {{'lr': Search(1e-4, 1e-2)}}"
        )
    for name, search in found.items():
        if name not in SEARCHABLE:
            raise UserError(
                f"{cls.__name__}.search has {name!r}; an algorithm may have {' and '.join(SEARCHABLE)} searched. "
                "A field of its own has its Search beside its type"
            )
        if not isinstance(search, Search):
            raise UserError(f"{cls.__name__}.search[{name!r}] is a {type(search).__name__}; try Search(low, high)")
    return {"lr": Search(lr / 10, lr * 10), **found}


def check_search(name: str, parameter: Hyperparameter, search: Search) -> None:
    """Refuse a search of what is no number, or that leaves the values that there are; ``name`` is for the message.

    Raises:
        UserError: why.
    """
    if not {int, float} & set(parameter.types):
        raise UserError(f"{name} is of type {parameter.type_name}, and a Search is of numbers; try leaving it out")
    for value in (search.low, search.high, search.published):
        if value is not None and (problem := parameter.out_of_range(value)):
            raise UserError(f"the Search of {name} leaves its range: {problem}; try another Search")


@dataclass(frozen=True)
class Hyperparameter:
    """One field of a plugin or of the run: its default and its one-line docstring, written once."""

    name: str
    type: Any
    default: Any
    doc: str
    bounds: tuple[Bound, ...] = ()
    search: Search | None = None

    @property
    def types(self) -> tuple[Any, ...]:
        """Its types: those of a union one by one."""
        return get_args(self.type) if get_origin(self.type) in (Union, UnionType) else (self.type,)

    @property
    def type_name(self) -> str:
        if get_origin(self.type) is Literal:
            return "|".join(map(str, get_args(self.type)))
        return getattr(self.type, "__name__", str(self.type))

    @property
    def range(self) -> str:
        """The values that it may take, as ``> 0``, ``>= 1`` or ``in (0, 1]``; empty: all of its type."""
        low, high = self._ends()
        if low and high:
            return f"in {self._interval(low, high)}"
        signs = {Gt: ">", Ge: ">=", Lt: "<", Le: "<="}
        return "".join(f"{signs[type(bound)]} {_limit(bound)}" for bound in (low, high) if bound)

    def out_of_range(self, value: Any) -> str | None:
        """Say how ``value`` is out of range, or return None if it is in it, or no number."""
        if isinstance(value, bool) or not isinstance(value, int | float) or all(map(_within(value), self.bounds)):
            return None
        low, high = self._ends()
        if low and high:
            return f"{self.name} = {value} is outside {self._interval(low, high)}"
        words = {Gt: "not above", Ge: "below", Lt: "not below", Le: "above"}
        return f"{self.name} = {value} is {words[type(self.bounds[0])]} {_limit(self.bounds[0])}"

    def _ends(self) -> tuple[Gt | Ge | None, Lt | Le | None]:
        low = next((bound for bound in self.bounds if isinstance(bound, Gt | Ge)), None)
        return low, next((bound for bound in self.bounds if isinstance(bound, Lt | Le)), None)

    @staticmethod
    def _interval(low: Gt | Ge, high: Lt | Le) -> str:
        opened, closed = "[" if isinstance(low, Ge) else "(", "]" if isinstance(high, Le) else ")"
        return f"{opened}{_limit(low)}, {_limit(high)}{closed}"


def _limit(bound: Bound) -> Any:
    match bound:
        case Gt():
            return bound.gt
        case Ge():
            return bound.ge
        case Lt():
            return bound.lt
        case Le():
            return bound.le


def _within(value: float) -> Callable[[Bound], bool]:
    compare = {Gt: operator.gt, Ge: operator.ge, Lt: operator.lt, Le: operator.le}
    return lambda bound: bool(compare[type(bound)](value, _limit(bound)))


def _bounds(metadata: Iterable[Any]) -> Iterator[Bound]:
    """Yield the bounds among what stands beside a type in ``Annotated``; an ``Interval`` holds several."""
    for item in metadata:
        if isinstance(item, Bound):
            yield item
        elif isinstance(item, GroupedMetadata):
            yield from _bounds(item)


@functools.lru_cache(maxsize=256)  # a class is asked for in many places, and reading its source takes 5 ms
def _field_docs(cls: type) -> Mapping[str, str]:
    """Return the string literal after each annotated field, over the class and its bases."""
    docs: dict[str, str] = {}
    for base in reversed(cls.__mro__[:-1]):
        try:
            tree = ast.parse(textwrap.dedent(inspect.getsource(base)))
        except (OSError, TypeError):  # no source, as for classes made in an interactive session
            continue
        body = tree.body[0].body if isinstance(tree.body[0], ast.ClassDef) else []
        for node, after in itertools.pairwise(body):
            if (
                isinstance(node, ast.AnnAssign)
                and isinstance(node.target, ast.Name)
                and isinstance(after, ast.Expr)
                and isinstance(after.value, ast.Constant)
                and isinstance(after.value.value, str)
            ):
                docs[node.target.id] = " ".join(after.value.value.split())
    return docs


def hyperparameters(cls: type) -> list[Hyperparameter]:
    """Return the fields of a dataclass with type, bounds, search, default and docstring, in order."""
    try:
        hints, docs = get_type_hints(cls, include_extras=True), _field_docs(cls)
    except NameError as error:
        raise UserError(f"{key_of(cls)}: the type of a field does not exist: {error}") from None
    except Exception as error:  # the text of an annotation is evaluated
        raise UserError(f"{key_of(cls)}: the type of a field cannot be read: {described(error)}") from None
    found = []
    for field in (field for field in fields(cls) if field.init):
        default = field.default if field.default is not MISSING else None
        wanted: Any = hints[field.name]
        bounds: tuple[Bound, ...] = ()
        search = None
        if get_origin(wanted) is Annotated:
            bounds = tuple(_bounds(wanted.__metadata__))
            search = next((item for item in wanted.__metadata__ if isinstance(item, Search)), None)
            wanted = get_args(wanted)[0]
        found.append(Hyperparameter(field.name, wanted, default, docs.get(field.name, ""), bounds, search))
    return found


RESERVED = ("name", "code")
"""What stands beside a plugin's hyperparameters in the configuration of a run, and can be none of them"""


def check_names(cls: type) -> None:
    """Refuse a hyperparameter that the configuration of a run has no place for.

    Raises:
        UserError: which.
    """
    if taken := [field.name for field in fields(cls) if field.init and field.name in RESERVED]:
        raise UserError(
            f"{key_of(cls)}: {taken[0]} is no name for a hyperparameter, because the configuration of a run has the "
            f"plugin's own {taken[0]} there; try another name for the field"
        )


def _settable(wanted: Any) -> bool:
    """Whether :func:`parse_value` makes a plain value of this type from text: one of PLAIN or a Literal, or None."""
    if get_origin(wanted) in (Union, UnionType):
        parts = [part for part in get_args(wanted) if part is not type(None)]
        return len(parts) == 1 and _settable(parts[0])
    if get_origin(wanted) is Literal:
        return all(isinstance(choice, str) for choice in get_args(wanted))
    return inspect.isclass(wanted) and issubclass(wanted, PLAIN)


def parse_value(parameter: Hyperparameter, value: Any) -> Any:
    """Convert ``value`` (text from the command line, or a TOML value) to the parameter's type.

    Raises:
        UserError: it does not fit; the message names the parameter, its type and the value.
    """
    wanted = parameter.type
    optional = type(None) in get_args(wanted)
    if optional:
        if value is None or (isinstance(value, str) and value.lower() in ("none", "")):
            return None
        wanted = next(part for part in get_args(wanted) if part is not type(None))
    kind = "one of" if get_origin(wanted) is Literal else "of type"
    wrong = UserError(
        f"{parameter.name} = {value!r} is not {kind} {parameter.type_name}; try its default, {parameter.default!r}. "
        f"{parameter.doc}"
    )
    if get_origin(wanted) is Literal:
        if value not in get_args(wanted):
            raise wrong
        return value
    if wanted is bool:
        words = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
        if isinstance(value, bool):
            return value
        if isinstance(value, str) and value.lower() in words:
            return words[value.lower()]
        raise wrong
    if isinstance(value, bool) or not isinstance(value, str if wanted is str else (int, float, str)):
        raise wrong
    try:
        if wanted is int and isinstance(value, float):
            raise ValueError
        parsed = wanted(value)
    except (ValueError, OverflowError):
        raise wrong from None
    if isinstance(parsed, float) and not math.isfinite(parsed):
        raise wrong
    return parsed


def assemble(reward: Any, rewards: Registry, backbone: Any) -> None:
    """Let a reward that is made of others build them by their names; nothing is done with one that is not.

    ``backbone`` None: the settings say already what depends on the backbone.

    Raises:
        UserError: one of them is unknown or refuses its settings, or ``assemble`` of the reward raised something.
    """
    if not hasattr(reward, "assemble"):
        return
    try:
        with guarded():
            reward.assemble(rewards, backbone)
    except UserError:
        raise
    except Exception as error:  # a plugin may raise anything
        raise UserError(f"{key_of(type(reward))}.assemble raised {described(error)}") from None


def _is_text(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def build(cls: type, values: Mapping[str, Any]) -> Any:
    """Build an instance with the given hyperparameters, each checked against its type and its bounds.

    Raises:
        UserError: an unknown name, a value of the wrong type or out of range, or one that the class itself refuses;
            or a hyperparameter that no command line can give or that no store can hold.
    """
    key = key_of(cls)
    check_names(cls)
    known = {parameter.name: parameter for parameter in hyperparameters(cls)}
    rule = "a hyperparameter is a bool, int, float, str or Literal of str, or one of them | None"
    for name, parameter in known.items():
        if not _settable(parameter.type):
            raise UserError(f"{key}: {name} is of type {parameter.type_name}; {rule}")
    for name in values:
        if name not in known:
            raise UserError(f"{key} has no hyperparameter {name!r}.{suggestion(name, known)}")
    parsed = {name: parse_value(known[name], value) for name, value in values.items()}
    try:
        with guarded():
            made = cls(**parsed)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # TypeError: a plugin's field without default; others: its __post_init__
        plain = isinstance(error, TypeError | ValueError | UserError) and str(error)
        reason = str(error) if plain else described(error)
        raise UserError(f"{key}: {reason}. Try b2bench show {key}, which explains the settings.") from None
    for name, parameter in known.items():
        value = getattr(made, name)
        if not isinstance(value, (*PLAIN, type(None))):  # its default, or what __post_init__ made of it
            raise UserError(f"{key}: {name} = {value!r} is of type {type(value).__name__}; {rule}")
        if isinstance(value, str) and not _is_text(value):
            raise UserError(f"{key}: {name} = {value!r} is not UTF-8 text, which a store cannot hold")
        if problem := parameter.out_of_range(value):
            raise UserError(f"{key}: {problem}. Try b2bench show {key}, which explains the settings.")
    return made
