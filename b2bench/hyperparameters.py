"""Reading and writing the hyperparameters of a plugin, or the settings of a run: the fields of a dataclass."""

from __future__ import annotations

import ast
import inspect
import itertools
import math
import textwrap
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from b2bench.errors import UserError
from b2bench.guard import guarded
from b2bench.registry import key_of
from b2bench.text import described, suggestion

PLAIN = (bool, int, float, str)
"""Types that the command line can give and JSON can hold."""


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


@dataclass(frozen=True)
class Hyperparameter:
    """One field of a plugin or of the run: its default and its one-line docstring, written once."""

    name: str
    type: Any
    default: Any
    doc: str

    @property
    def type_name(self) -> str:
        if get_origin(self.type) is Literal:
            return "|".join(map(str, get_args(self.type)))
        return getattr(self.type, "__name__", str(self.type))


def _field_docs(cls: type) -> dict[str, str]:
    """The string literal after each annotated field, over the class and its bases."""
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
    """Return the fields of a dataclass with type, default and docstring, in order."""
    try:
        hints, docs = get_type_hints(cls), _field_docs(cls)
    except NameError as error:
        raise UserError(f"{key_of(cls)}: the type of a field does not exist: {error}") from None
    except Exception as error:  # the text of an annotation is evaluated
        raise UserError(f"{key_of(cls)}: the type of a field cannot be read: {described(error)}") from None
    found = []
    for field in (field for field in fields(cls) if field.init):
        default = field.default if field.default is not MISSING else None
        found.append(Hyperparameter(field.name, hints[field.name], default, docs.get(field.name, "")))
    return found


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
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
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


def _is_text(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def build(cls: type, values: Mapping[str, Any]) -> Any:
    """Build an instance with the given hyperparameters, each checked against its type.

    Raises:
        UserError: an unknown name, a value of the wrong type, or one that the class itself refuses; or a
            hyperparameter that no command line can give or that no store can hold.
    """
    key = key_of(cls)
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
    for name in known:
        value = getattr(made, name)
        if not isinstance(value, (*PLAIN, type(None))):  # its default, or what __post_init__ made of it
            raise UserError(f"{key}: {name} = {value!r} is of type {type(value).__name__}; {rule}")
        if isinstance(value, str) and not _is_text(value):
            raise UserError(f"{key}: {name} = {value!r} is not UTF-8 text, which a store cannot hold")
    return made
