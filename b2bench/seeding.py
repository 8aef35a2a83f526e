"""Random draws that nothing else can shift.

Every draw takes a generator derived from (seed, stream name, indices). A micro-batch, a second
process or a new draw elsewhere therefore changes none of them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor


def derive(seed: int, stream: str, *indices: int) -> int:
    """Derive a 63-bit seed from a run seed, a stream name and indices (round, trajectory, step, ...)."""
    text = ":".join([str(seed), stream, *map(str, indices)])
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def generator(seed: int, stream: str, *indices: int) -> torch.Generator:
    """Make a CPU generator for one purpose; it is the same on every device, so GPU runs draw the same noise."""
    return torch.Generator().manual_seed(derive(seed, stream, *indices))


def normal(shape: tuple[int, ...], seed: int, stream: str, rows: Sequence[tuple[int, ...]]) -> Tensor:
    """Draw standard normal noise [len(rows), *shape], float32, CPU; row i depends only on (seed, stream, rows[i])."""
    drawn = torch.empty((len(rows), *shape), dtype=torch.float32)
    one = torch.Generator()  # making one takes longer than seeding it
    for row, noise in zip(rows, drawn.unbind(), strict=True):
        noise.normal_(generator=one.manual_seed(derive(seed, stream, *row)))
    return drawn
