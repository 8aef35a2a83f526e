"""What other installed packages offer: their entry points, read from the disk once."""

from __future__ import annotations

import functools
import os
import sys
from importlib import metadata
from importlib.metadata import EntryPoint


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
