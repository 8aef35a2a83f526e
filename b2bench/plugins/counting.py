"""The denoiser calls of a loss, by running it once on the toy policy."""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from b2bench.errors import UserError
from b2bench.plugins.toy import ToyPolicy, toy_batch
from b2bench.protocols import Algorithm
from b2bench.seeding import generator
from b2bench.types import Conditioning


class _CountingPolicy(ToyPolicy):
    """Counts noise predictions, with and without a gradient."""

    with_gradient = 0
    without = 0

    def noise(self, cond: Conditioning, latents: Tensor, step: Tensor, *, guided: bool = True) -> Tensor:
        if torch.is_grad_enabled():
            self.with_gradient += len(latents)
        else:
            self.without += len(latents)
        return super().noise(cond, latents, step, guided=guided)


def counted_cost(algorithm: Algorithm) -> tuple[int, int]:
    """Count the calls of an algorithm's loss for a row of its batch: with a gradient, and without.

    Raises:
        UserError: the loss does not run; ``b2bench check`` says more.
    """
    policy, algorithm = _CountingPolicy(0), copy.deepcopy(algorithm)
    name = type(algorithm).__name__.lower()
    try:
        if hasattr(algorithm, "setup"):
            algorithm.setup(policy, generator(0, "algorithm"))
        batch = toy_batch(policy, algorithm)
        policy.with_gradient = policy.without = 0  # the batch was sampled by calls too
        algorithm.loss(policy, batch)
    except Exception as error:  # somebody else's code may raise anything
        raise UserError(
            f"the loss of {name} does not run on the toy policy ({type(error).__name__}: {error}); try b2bench check"
        ) from None
    rows = len(batch)
    return -(-policy.with_gradient // rows), -(-policy.without // rows)
