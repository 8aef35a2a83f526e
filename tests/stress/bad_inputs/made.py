"""What a maker of bad inputs gives, and damage that several of them do."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Input:
    """A command whose input is bad.

    ``culprits``: the message must hold one of these texts. ``loads``: it is let go on to load weights, and to run.
    ``unreadable``: files of mode 0 bind it, though its user be root. ``environment``: variables that are set for it.
    """

    command: list[str]
    culprits: Sequence[str]
    what: str
    loads: bool = False
    unreadable: bool = False
    environment: dict[str, str] = field(default_factory=dict)
    kind: str = field(default="", kw_only=True)


TINY = (
    "draws=1", "samples=1", "steps=1", "transitions_per_step=1000", "eval_points=2", "eval_images=1",
    "eval_train_images=0", "kl_images=0", "sample_images=0",
)  # fmt: skip
"""Settings of the shortest run that there is."""


def tiny() -> list[str]:
    return [part for setting in TINY for part in ("--set", setting)]


def cut(drawn: random.Random, content: bytes) -> bytes:
    return content[: drawn.randrange(len(content))]


def flipped(drawn: random.Random, content: bytes, bits: int = 1) -> bytes:
    changed = bytearray(content)
    for _ in range(bits):
        changed[drawn.randrange(len(changed))] ^= 1 << drawn.randrange(8)
    return bytes(changed)


def overwritten(drawn: random.Random, content: bytes) -> bytes:
    """A stretch of it replaced by random bytes."""
    length = drawn.choice((16, 512, 4096, 65536))
    start = drawn.randrange(max(1, len(content) - length))
    stretch = drawn.randbytes(min(length, len(content) - start))
    return content[:start] + stretch + content[start + len(stretch) :]


def noise(drawn: random.Random, content: bytes) -> bytes:
    return drawn.randbytes(drawn.choice((0, 1, 8, 12, 100, 5000)))


def damage_bytes(drawn: random.Random, file: Path) -> str:
    """Damage a file in one of the ways above; which."""
    how = drawn.choice((cut, flipped, overwritten, noise))
    content = how(drawn, file.read_bytes())
    file.unlink()  # it may be a link to one that is shared
    file.write_bytes(content)
    return f"{file.name} {how.__name__}"


def misplace(drawn: random.Random, file: Path) -> tuple[str, bool]:
    """Put no readable file where ``file`` is; what there is, and whether its mode matters."""
    how = drawn.choice(("folder", "loop", "dangling link", "unreadable", "gone", "folder that is unreadable"))
    if file.exists():
        if how == "unreadable":
            file.chmod(0)
            return f"{file.name} unreadable", True
        file.unlink()
    if how == "unreadable":
        file.write_bytes(b"x")
        file.chmod(0)
        return f"{file.name} unreadable", True
    if how.startswith("folder"):
        file.mkdir(mode=0o700 if how == "folder" else 0)
    elif how == "loop":
        file.symlink_to(file.name)
    elif how == "dangling link":
        file.symlink_to("nowhere")
    return f"{file.name} {how}", how == "folder that is unreadable"
