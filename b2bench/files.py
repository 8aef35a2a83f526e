"""Files that are there whole or not at all, and values for JSON, which has no NaN."""

from __future__ import annotations

import errno
import json
import math
import os
import struct
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any


@contextmanager
def replaced(path: Path, temporary: Path | None = None, *, durable: bool = False) -> Iterator[Path]:
    """Give a file to write, which takes the place of ``path`` in one step when the block ends.

    If the block raises, ``path`` stays as it was and half a file is gone: it would take room that others may need.
    ``temporary``: another name for the file to write, which only one process may use. ``durable``: the content is on
    the disk before the name is.
    """
    if temporary is None:
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        if durable:
            with temporary.open("r+b") as file:  # Windows syncs nothing that is open for reading alone
                os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_whole(path: Path, content: bytes, ready: Callable[[], None] = lambda: None) -> None:
    """Replace ``path`` by ``content`` in one step; a link stays one, and into a pipe or a device it is written.

    ``ready`` is called when nothing but the last step is left, and may still prevent it by raising something.

    Raises:
        OSError: the folder does not exist, or cannot be written.
    """
    path = Path(os.path.realpath(path))  # resolve() raises no OSError for a link to itself
    if path.is_symlink():
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))
    if path.exists() and not path.is_file():
        ready()
        path.write_bytes(content)
        return
    with replaced(path) as temporary:
        temporary.write_bytes(content)
        ready()


def finite(value: Any, other: Callable[[Any], Any] = lambda value: value) -> Any:
    """Make of ``value`` what JSON can hold: NaN and infinity become null, dataclasses and arrays dicts and lists.

    ``other`` is asked for what neither holds other values nor is a float.
    """
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): finite(item, other) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item, other) for item in value]
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: finite(getattr(value, field.name), other) for field in fields(value)}
    if hasattr(value, "tolist"):  # a numpy scalar or an array
        return finite(value.tolist(), other)
    return other(value)


def stored_parameters(file: Path) -> int:
    """Count the numbers in a safetensors file, by its head alone."""
    with file.open("rb") as stream:
        (size,) = struct.unpack("<Q", stream.read(8))
        head = json.loads(stream.read(size))
    return sum(math.prod(entry["shape"]) for name, entry in head.items() if name != "__metadata__")
