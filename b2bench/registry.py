"""Finding algorithms, wrappers and rewards by name.

A plugin is a class marked by one of the decorators below, in a file of its own. Its key is the class
name in lower case: ``algorithms/dpok.py`` holds ``DPOK`` under ``dpok``. Found in this order: the
built-in folders, entry points (groups ``b2bench.algorithms``, ``b2bench.wrappers`` and
``b2bench.rewards``), ``--plugin FILE.py``. Names are listed without importing anything.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import re
import sys
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from importlib.metadata import EntryPoint
from pathlib import Path
from types import ModuleType
from typing import Literal, TypeVar, dataclass_transform

from b2bench.deferred import load_if_waiting
from b2bench.errors import UserError
from b2bench.guard import guarded
from b2bench.installed import entry_points
from b2bench.metrics import is_taken
from b2bench.plugin_files import importable
from b2bench.text import described, shortened, suggestion

T = TypeVar("T")
Kind = Literal["algorithm", "wrapper", "reward"]
KINDS: tuple[Kind, ...] = ("algorithm", "wrapper", "reward")
_MARK = "__b2bench_kind__"
_PLUGIN = "b2bench_plugin_"  # begins the module name of a --plugin file
# The four wrappers are one module: they are a 2x2 factorial, not four ideas. Controls are made of the same parts.
_WRAPPERS = ("vanilla", "bpt", "bs", "b2", "spread", "random2", "forward", "window", "noise_weighted", "tree")

LONGEST_KEY = 64
"""Characters of a plugin's name: two of them, a seed and a time are the name of a run's folder, of at most 255 bytes"""

NO_ALGORITHMS = ("external", "baseline")
"""Taken: rows of table ``runs`` that no training made go by these."""


def _mark(cls: type[T], kind: Kind) -> type[T]:
    made = dataclass(kw_only=True)(cls)
    setattr(made, _MARK, kind)
    return made


@dataclass_transform(kw_only_default=True)
def algorithm(cls: type[T]) -> type[T]:
    """Mark a class as an algorithm; it becomes a keyword-only dataclass, its fields the hyperparameters."""
    return _mark(cls, "algorithm")


@dataclass_transform(kw_only_default=True)
def wrapper(cls: type[T]) -> type[T]:
    """Mark a class as a wrapper; it becomes a keyword-only dataclass, its fields the hyperparameters."""
    return _mark(cls, "wrapper")


@dataclass_transform(kw_only_default=True)
def reward(cls: type[T]) -> type[T]:
    """Mark a class as a reward; it becomes a keyword-only dataclass, its fields the settings."""
    return _mark(cls, "reward")


@dataclass(frozen=True)
class Origin:
    """Where a plugin comes from. ``load`` imports it; nothing before does."""

    name: str
    where: str
    load: Callable[[], type]


def _marked(module: ModuleType, kind: Kind | None = None) -> list[type]:
    return [
        item
        for item in vars(module).values()
        if inspect.isclass(item)
        and item.__module__ == module.__name__
        and _MARK in vars(item)
        and kind in (None, getattr(item, _MARK))
    ]


def place_in_plugin(error: BaseException) -> str:
    """Return ``file, line n`` of the deepest plugin call that ``error`` went through; "" if there was none."""
    found = ""
    for frame, line in traceback.walk_tb(error.__traceback__):
        if str(frame.f_globals.get("__name__")).startswith(_PLUGIN):
            found = f"{frame.f_code.co_filename}, line {line}"
    return found


def key_of(cls: type) -> str:
    """Return the name that a plugin goes by: its class attribute ``key``, or its class's name in small letters."""
    return str(cls.__dict__.get("key") or cls.__name__.lower())


NEEDED: dict[Kind, tuple[str, ...]] = {
    "algorithm": ("loss",),
    "wrapper": ("interval", "leaves", "select"),
    "reward": ("__call__",),
}
"""Methods without which a plugin of a kind is none; :mod:`b2bench.plugins.check` tests what they do."""


def check_methods(cls: type) -> None:
    """Refuse a class that lacks a method of its kind, or an algorithm without ``pairs``.

    Raises:
        UserError: which.
    """
    kind = kind_of(cls)
    # not hasattr: every class can be called itself
    missing = [name for name in NEEDED[kind] if not any(name in vars(base) for base in cls.__mro__)]
    if missing:
        raise UserError(f"{kind} {key_of(cls)} has no method {', '.join(missing)}; try b2bench check")
    if kind == "algorithm" and not hasattr(cls, "pairs"):
        raise UserError(
            f"algorithm {key_of(cls)} does not say what it learns from; try pairs: ClassVar[bool] = False in its class "
            "(or True), and b2bench check"
        )


def check_name(kind: Kind, name: str) -> None:
    """Refuse a name that no folder, list or command line takes as one, or that means something else in the store.

    Raises:
        UserError: why.
    """
    if not re.fullmatch(r"\w[\w.+-]*", name) or len(name) > LONGEST_KEY:
        what = "an algorithm" if kind == "algorithm" else f"a {kind}"
        raise UserError(
            f"{shortened(repr(name), 80)} cannot be the name of {what}, which is in names of folders and in lists; try "
            f"letters, digits, '_', '-', '+' and '.', at most {LONGEST_KEY}"
        )
    if kind == "algorithm" and name in NO_ALGORITHMS:
        raise UserError(
            f"{name} is a name that b2bench keeps for rows without training; try another name for your algorithm"
        )
    if kind == "reward" and is_taken(name):
        raise UserError(
            f"{name} is the name of a metric of every evaluation, or of a column beside it; try another name for your "
            "reward"
        )


def kind_of(cls: type) -> Kind:
    kind: Kind = getattr(cls, _MARK)
    return kind


def import_plugin(path: Path) -> list[type]:
    """Return every marked class of a Python file, which may import files and packages that lie beside it.

    Raises:
        UserError: no such file, it does not import (with the line), or it marks no class.
    """
    if not path.is_file():
        raise UserError(f"plugin {path} is not a file; try the path of a .py file (b2bench new makes one)")
    name = f"{_PLUGIN}{path.stem.replace('.', '_')}_{abs(hash(str(path.resolve()))):x}"
    # as a package whose parts lie beside it, so that it may import them relative to itself
    spec = importlib.util.spec_from_file_location(name, path, submodule_search_locations=[str(path.parent.resolve())])
    if spec is None or spec.loader is None:
        raise UserError(f"plugin {path} is not a Python file; try a name that ends in .py")
    module = importlib.util.module_from_spec(spec)
    for part in [part for part in sys.modules if part.startswith(f"{name}.")]:
        del sys.modules[part]  # what it imported relative to itself, which may have changed since
    sys.modules[name] = module  # dataclasses and get_type_hints look the module up there
    load_if_waiting("torch")  # somebody's code gets the real one
    try:
        with guarded(), importable(path):
            spec.loader.exec_module(module)
    except SyntaxError as error:
        raise UserError(
            f"plugin {path}, line {error.lineno or '?'}: {error.msg}. Try correcting it, and run again."
        ) from None
    except (UserError, KeyboardInterrupt):
        raise
    except BaseException as error:
        raise UserError(f"plugin {path} does not import: {described(error)}") from None
    found = _marked(module)
    if not found:
        raise UserError(
            f"plugin {path} defines no algorithm, wrapper or reward; try marking a class with "
            "@algorithm, @wrapper or @reward from b2bench (examples/awr.py is one)"
        )
    return found


def _load_entry_point(entry: EntryPoint, kind: Kind) -> type:
    """Return the class of another package.

    Raises:
        UserError: it does not import, or is none of this kind.
    """
    load_if_waiting("torch")
    try:
        with guarded():
            cls = entry.load()
    except (Exception, SystemExit) as error:
        reason = f"does not import: {type(error).__name__}: {error}"
    else:
        if inspect.isclass(cls) and vars(cls).get(_MARK) == kind:
            return cls
        reason = f"is not a class marked with @{kind}"
    package = f" {entry.dist.name}" if entry.dist else ""
    raise UserError(
        f"entry point {entry.name} = {entry.value} of group {entry.group} {reason}. "
        f"Try correcting or uninstalling the package{package} that brings it."
    )


class Registry:
    """Names of one kind and where they come from."""

    def __init__(self, kind: Kind) -> None:
        self.kind: Kind = kind
        self.origins: dict[str, Origin] = {}
        if kind == "wrapper":
            for name in _WRAPPERS:
                self._add_module(name, "b2bench.wrappers", "built in")
        else:
            package = importlib.import_module(f"b2bench.{kind}s")
            for folder in package.__path__:
                for file in sorted(Path(folder).glob("[a-z]*.py")):
                    self._add_module(file.stem, f"b2bench.{kind}s.{file.stem}", "built in")
        for entry in entry_points(group=f"b2bench.{kind}s"):
            self._add(Origin(entry.name, f"entry point {entry.value}", partial(_load_entry_point, entry, kind)))

    def _add_module(self, name: str, module: str, where: str) -> None:
        def load() -> type:
            found = {key_of(cls): cls for cls in _marked(importlib.import_module(module), self.kind)}
            return found[name]

        self._add(Origin(name, where, load))

    def _add(self, origin: Origin) -> None:
        if origin.name in self.origins:
            raise UserError(
                f"two {self.kind}s are named {origin.name!r}: {self.origins[origin.name].where} and "
                f"{origin.where}. Try renaming the class of the one that is yours."
            )
        self.origins[origin.name] = origin

    def add(self, cls: type, where: str) -> None:
        """Register a marked class under its key.

        Raises:
            UserError: the name is taken; both origins are named.
        """
        self._add(Origin(key_of(cls), where, lambda: cls))

    def names(self) -> list[str]:
        return list(self.origins)

    def get(self, name: str) -> type:
        """Return the class registered under ``name``.

        Raises:
            UserError: there is none; with the closest name.
        """
        if name not in self.origins:
            raise UserError(
                f"unknown {self.kind} {name!r}.{suggestion(name, self.origins)} "
                f"Known: {', '.join(self.origins)}. For your own, try --plugin FILE.py"
            )
        return self.origins[name].load()


def load_registries(plugins: Iterable[Path] = ()) -> dict[Kind, Registry]:
    """Make a registry of each kind, with the marked classes of the plugin files added; each file is run once.

    Raises:
        UserError: a file does not import or marks no class, or two plugins share a name.
    """
    registries = {kind: Registry(kind) for kind in KINDS}
    for path in plugins:
        for cls in import_plugin(path):
            registries[kind_of(cls)].add(cls, str(path))
    return registries
