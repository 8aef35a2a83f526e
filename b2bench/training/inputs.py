"""The files that a configuration names: weights of the backbone, of the reward and of the other judges."""

from __future__ import annotations

import hashlib
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

from b2bench.config.paths import NO_FILES
from b2bench.config.run import RunConfig
from b2bench.hyperparameters import hyperparameters
from b2bench.pocket.paths import POCKET_WEIGHTS

MOST_FILES = 10_000
"""Of a folder that a setting names: a reward may be told any"""
UNREADABLE = (OSError, RuntimeError, ValueError)
"""What a text raises that is no path: too long, ``~`` of a user that does not exist, with a null character"""


def named(config: RunConfig) -> list[str]:
    """Return the texts of a configuration that may name files or repositories, b2bench's own weights first."""
    rewards = (config.reward, *getattr(config.reward, "parts", ()))
    values = [getattr(reward, p.name) for reward in rewards for p in hyperparameters(type(reward))]
    texts = [value for value in values if isinstance(value, str)]
    backbone = config.backbone
    found = (str(POCKET_WEIGHTS), backbone.source, backbone.scorer, config.settings.inception_weights, *texts)
    return [name for name in found if name and name not in NO_FILES]


def stamps(name: str) -> list[Any]:
    """Return what lies under a path: names, sizes and times; of a repository of the hub, the revision that is here."""
    try:
        path = Path(name).expanduser()
        if not path.exists():
            return _revision(name)
        return [[shown, file.stat().st_size, file.stat().st_mtime_ns] for shown, file in _files(path)]
    except UNREADABLE:
        return []


def digests(config: RunConfig) -> dict[str, str]:
    """Return {name: hash} of the files that are not b2bench's own, by their content: the same on every machine.

    A hub repository is hashed by the revision that is here. What names nothing is left out.
    """
    found = {}
    for name in named(config):
        try:
            path = Path(name).expanduser()
            if path.resolve().is_relative_to(POCKET_WEIGHTS.resolve()):  # of which the benchmark version tells
                continue
            content = [[shown, _digest(file, *_state(file))] for shown, file in _files(path)] or _revision(name)
        except UNREADABLE:
            continue
        if content:
            found[name] = hashlib.sha256(repr(content).encode()).hexdigest()[:16]
    return found


def _files(path: Path) -> list[tuple[str, Path]]:
    """[(name in the folder, file)] of a folder; of a file, itself; none if nothing is there."""
    if path.is_dir():
        files = sorted(file for file in islice(path.rglob("*"), MOST_FILES) if file.is_file())
    else:
        files = [path] if path.is_file() else []
    return [(file.relative_to(path).as_posix(), file) for file in files]


def _state(file: Path) -> tuple[int, int]:
    found = file.stat()
    return found.st_size, found.st_mtime_ns


@cache
def _digest(file: Path, size: int, time: int) -> str:
    """Hash a file; it is read once while its size and time stay: weights are gigabytes."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _revision(name: str) -> list[str]:
    from huggingface_hub import try_to_load_from_cache

    if name.count("/") != 1:
        return []
    try:
        found = try_to_load_from_cache(name, "model_index.json")
    except ValueError:  # no name that a repository could have
        return []
    return [Path(found).parent.name] if isinstance(found, str) else []
