"""What other packages offer: their entry points, read from the disk once, and their modules, read when asked for."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Iterator, Mapping
from importlib import metadata
from importlib.metadata import EntryPoint, packages_distributions


def entry_points(group: str) -> tuple[EntryPoint, ...]:
    """Return the entry points of ``group``, as :func:`importlib.metadata.entry_points` does.

    That reads the metadata of every installed package at each call: 20 ms of 150 packages, and a command asks for five
    groups. Here it does so again only after a folder of ``sys.path`` has changed, as when a package is installed.
    """
    return tuple(entry for entry in _all(_state()) if entry.group == group)


def _state() -> tuple[tuple[str, int], ...]:
    """Return the folders in which packages are looked for, each with the time of its last change (ns), 0 if none."""
    state = []
    for place in sys.path:
        try:
            state.append((place, os.stat(place or os.curdir).st_mtime_ns))
        except OSError:
            state.append((place, 0))
    return tuple(state)


@functools.lru_cache(maxsize=1)
def _all(_: tuple[tuple[str, int], ...]) -> tuple[EntryPoint, ...]:
    found = metadata.entry_points()
    ours = sorted(group for group in found.groups if group.startswith("b2bench."))
    return tuple(entry for group in ours for entry in found.select(group=group))


class _Distributions(Mapping[str, list[str]]):
    """What :func:`importlib.metadata.packages_distributions` returns, asked when something is looked up in it."""

    @functools.cached_property
    def _found(self) -> Mapping[str, list[str]]:
        return packages_distributions()

    def __getitem__(self, module: str) -> list[str]:
        return self._found[module]

    def __iter__(self) -> Iterator[str]:
        return iter(self._found)

    def __len__(self) -> int:
        return len(self._found)


def read_distributions_late() -> None:
    """Let :func:`importlib.metadata.packages_distributions` read nothing until somebody looks something up in it.

    It lists every file of every installed package, 55,000 names of 190 packages. diffusers calls it when it is
    imported, in case that it will be asked for a package whose distribution has another name.
    """
    metadata.packages_distributions = _Distributions
