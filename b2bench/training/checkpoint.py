"""Checkpoints that are there whole or not at all, and are checked when they are read."""

from __future__ import annotations

import hashlib
import io
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from b2bench.files import replaced

KEPT = 2


def save_checkpoint(folder: Path, round: int, state: dict[str, Any]) -> Path:
    """Write ``checkpoint-RRRRR-HASH.pt`` (RRRRR rounds are done) so that a kill at any instant leaves the last whole.

    HASH are 16 hexadecimal digits of the content's SHA-256: a file that does not hash to its name is damaged. The
    newest two rounds are kept. Tensors and plain values only: it is read with ``weights_only``.
    """
    buffer = io.BytesIO()
    torch.save(state, buffer)
    content = buffer.getvalue()
    path = folder / f"checkpoint-{round:05d}-{_hash(content)}.pt"
    # one name, for what a killed process left is written over by the next
    with replaced(path, folder / f"checkpoint-{round:05d}.tmp", durable=True) as temporary:
        temporary.write_bytes(content)
    # those of later rounds are of a past that a resumed run has left, or damaged
    old = [other for other in _newest_first(folder) if other != path]
    earlier = [other for other in old if _round(other) < round]
    for other in [*(other for other in old if other not in earlier), *earlier[KEPT - 1 :]]:
        other.unlink(missing_ok=True)
    return path


def load_checkpoint(folder: Path, warn: Callable[[str], None] = lambda text: None) -> dict[str, Any] | None:
    """Load the newest whole checkpoint of a run folder, or None; ``warn`` is told of each damaged one."""
    for path in _newest_first(folder):
        try:
            content = path.read_bytes()
            if _hash(content) != path.stem.rpartition("-")[2]:
                raise ValueError("its content is not what its name says")
            state: dict[str, Any] = torch.load(io.BytesIO(content), weights_only=True, map_location="cpu")
        except (OSError, RuntimeError, EOFError, ValueError, pickle.UnpicklingError) as error:
            reason = " ".join(str(error).split())[:120]
            warn(f"checkpoint {path} is damaged ({reason}), and left out")
            continue
        return state
    return None


def _newest_first(folder: Path) -> list[Path]:
    return sorted(folder.glob("checkpoint-*-*.pt"), key=lambda path: (_round(path), path.stat().st_mtime), reverse=True)


def _round(path: Path) -> int:
    digits = path.stem.split("-")[1]
    return int(digits) if digits.isdecimal() else -1


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]
