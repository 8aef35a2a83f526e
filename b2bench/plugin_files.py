"""The files of a plugin: the one that is named, and those beside it that it imports, and that these import."""

from __future__ import annotations

import ast
import hashlib
import importlib
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.machinery import PathFinder
from pathlib import Path


def beside(path: Path) -> dict[str, Path]:
    """Return the modules that a plugin imports from its own folder: name -> file, or folder of a package.

    A module of this name that Python has itself, or that is installed, comes first, as it would in a script.
    """
    found: dict[str, Path] = {}
    waiting = [path]
    while waiting:
        for name, relative in _imported(waiting.pop()):
            near = _near(path, name)
            is_new = name not in found and near.exists() and near.resolve() != path.resolve()
            if is_new and (relative or _only_here(name, near)):
                found[name] = near
                waiting += _sources(near)
    return found


def _imported(file: Path) -> Iterator[tuple[str, bool]]:
    """Yield the first parts of the names that a file imports, and whether relative to itself; none if it cannot be
    read.
    """
    with suppress(OSError, SyntaxError, ValueError, RecursionError):
        for node in ast.walk(ast.parse(file.read_bytes())):
            if isinstance(node, ast.Import):
                yield from ((item.name.partition(".")[0], False) for item in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module:
                yield node.module.partition(".")[0], node.level > 0
            elif isinstance(node, ast.ImportFrom):
                yield from ((item.name, True) for item in node.names)


def _near(path: Path, name: str) -> Path:
    """Return where a module of this name would lie: a file or folder beside a plugin, or the package it is a part of.

    A folder without ``__init__.py`` is a package, too, if no file of that name comes before it.
    """
    folder, file = path.parent / name, path.parent / f"{name}.py"
    if name == path.parent.name and _is_package(path.parent):
        return path.parent
    if _is_package(folder) or (not file.exists() and folder.is_dir() and any(folder.rglob("*.py"))):
        return folder
    return file


def _is_package(folder: Path) -> bool:
    return (folder / "__init__.py").is_file()


def _sources(near: Path) -> list[Path]:
    return sorted(near.rglob("*.py")) if near.is_dir() else [near]


def _only_here(name: str, near: Path) -> bool:
    if name in sys.stdlib_module_names or name == "b2bench":
        return False
    spec = PathFinder.find_spec(name, sys.path)  # which does not look at what is imported already
    origins = [source.resolve() for source in _sources(near)]
    return spec is None or spec.origin is None or Path(spec.origin).resolve() in origins


@contextmanager
def importable(path: Path) -> Iterator[None]:
    """Let a plugin import what lies beside it while it is run; what it imports later in a function is imported, too.

    Raises:
        ImportError: another plugin has imported another file of the same name.
    """
    near = beside(path)
    for name, file in near.items():
        known = getattr(sys.modules.get(name), "__file__", None)
        if known and Path(known).resolve() not in [source.resolve() for source in _sources(file)]:
            raise ImportError(
                f"{name} lies beside it, and another plugin has imported {known}; try another name for one of the two"
            )
    _forget_changed(near)
    before = list(sys.path)
    sys.path.append(str(path.parent.resolve()))
    try:
        yield
        for name in {name for name, relative in _imported(path) if name in near and not relative}:
            importlib.import_module(name)
    finally:
        sys.path[:] = before


_STARTED = time.time()
_imported_as: dict[Path, bytes] = {}
"""The content that each file beside a plugin had when a plugin last imported it"""


def _forget_changed(near: dict[str, Path]) -> None:
    """Let the parts of a plugin be imported anew if one has changed: a notebook's process outlives many edits.

    All of them, because one part may hold what it imported from another. Of parts that somebody else has imported
    before, their time must do.
    """
    content = {file.resolve(): file.read_bytes() for part in near.values() for file in _sources(part)}
    changed = any(
        _imported_as[file] != found if file in _imported_as else file.stat().st_mtime > _STARTED
        for file, found in content.items()
    )
    _imported_as.update(content)
    if changed:
        for module in [module for module in sys.modules if module.partition(".")[0] in near]:
            del sys.modules[module]
        importlib.invalidate_caches()


def sources(path: Path) -> list[Path]:
    """Return every file of a plugin, itself first."""
    found = [source for _, near in sorted(beside(path).items()) for source in _sources(near)]
    return [path, *(source for source in dict.fromkeys(found) if source.resolve() != path.resolve())]


def content_hash(path: Path) -> str:
    """Return 16 hexadecimal digits of the content of a plugin's files; of a single one, of it alone."""
    digest = hashlib.sha256(path.read_bytes())
    for source in sources(path)[1:]:
        digest.update(f"\0{source.relative_to(path.parent).as_posix()}\0".encode() + source.read_bytes())
    return digest.hexdigest()[:16]
