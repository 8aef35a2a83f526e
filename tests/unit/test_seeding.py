"""Noise: row i depends on nothing but the seed, the stream's name and its own indices."""

from __future__ import annotations

import pytest
import torch

from b2bench.seeding import derive, generator, normal


@pytest.mark.parametrize("shape", [(), (3,), (1, 2, 2), (4, 16, 16), (4, 3, 7)])
def test_a_row_is_what_a_generator_of_its_own_draws(shape: tuple[int, ...]) -> None:
    rows = [(0, 3), (0, 4), (7, 1), (0, 3)]
    found = normal(shape, 5, "noise", rows)
    assert (found.dtype, found.shape) == (torch.float32, (4, *shape))
    for row, noise in zip(rows, found, strict=True):
        assert torch.equal(noise, torch.randn(shape, generator=generator(5, "noise", *row)))
    assert torch.equal(normal(shape, 5, "noise", rows[2:3])[0], found[2])
    assert not torch.equal(found[0], found[1])
    assert normal(shape, 5, "noise", []).shape == (0, *shape)


def test_seeds_are_those_of_earlier_results() -> None:
    """Whoever changes one changes every published number, and raises the benchmark version."""
    assert derive(0, "noise", 0, 1, 2) == 3850396126879462700
    assert derive(3, "minibatches") == 2382495716211867480
