"""Checkpoints that are there whole or not at all."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import torch

KEPT = 2


def save_checkpoint(folder: Path, round: int, state: dict[str, Any]) -> Path:
    """Write ``checkpoint-RRRRR.pt`` (RRRRR rounds are done) so that a kill at any instant leaves the last whole.

    The newest two are kept. Tensors and plain values only: it is read with ``weights_only``.
    """
    path = folder / f"checkpoint-{round:05d}.pt"
    temporary = path.with_suffix(".tmp")
    with temporary.open("wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
    for old in sorted(folder.glob("checkpoint-*.pt"))[:-KEPT]:
        old.unlink(missing_ok=True)
    return path


def load_checkpoint(folder: Path) -> dict[str, Any] | None:
    """The newest readable checkpoint of a run folder, or None."""
    for path in sorted(folder.glob("checkpoint-*.pt"), reverse=True):
        try:
            state: dict[str, Any] = torch.load(path, weights_only=True, map_location="cpu")
        except (OSError, RuntimeError, EOFError, ValueError, pickle.UnpicklingError):
            continue  # damaged: the one before it is still there
        return state
    return None
