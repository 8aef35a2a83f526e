"""One network on several threads: the shards of a batch side by side, each operation on one thread.

Threads that wait for each other at the end of every operation stand still much of the time: on two cores, not
idle, two of them inside the operations were 0.9 to 1.3 times as fast as one at pocket's forward and backward, two
shards side by side 1.5 to 1.8 times (benchmarks/threads.py). How a batch is cut depends on its size alone, so results
do not depend on the number of threads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

T = TypeVar("T")
S = TypeVar("S")

SHARD_ROWS = 96  # larger shards are no faster a row; of half the size they are 3 to 5% slower
SMALLEST_SHARD = 16  # below it, the convolutions of two shards round differently from those of one batch


def shard_count(rows: int) -> int:
    """Into how many shards a batch is cut: an even number, for even numbers of threads."""
    return 1 if rows < 2 * SMALLEST_SHARD else 2 * -(-rows // (2 * SHARD_ROWS))


class Threads:
    """A fixed number of worker threads; with one, everything runs where it is called."""

    def __init__(self, count: int = 1) -> None:
        self.count = count
        self._pool = ThreadPoolExecutor(count, "b2bench") if count > 1 else None

    @classmethod
    def of_device(cls, device: torch.device) -> Threads:
        """On a CPU as many threads as torch would use in an operation, which from now on keeps to one; else one."""
        if device.type != "cpu":
            return cls(1)
        count = torch.get_num_threads()
        torch.set_num_threads(1)
        return cls(count)

    def map(self, function: Callable[[T], S], items: Iterable[T]) -> list[S]:
        """``[function(item) for item in items]``. Grad mode is a thread's own: ``function`` must set it."""
        if self._pool is None:
            return [function(item) for item in items]
        return list(self._pool.map(function, items))


class _Start(torch.autograd.Function):
    """A scalar whose gradient in ``output`` is ``of_output``: torch imports sympy to compare the shapes of the two."""

    @staticmethod
    def forward(ctx: Any, output: Tensor, of_output: Tensor) -> Tensor:
        ctx.of_output = of_output
        return output.new_zeros(())

    @staticmethod
    def backward(ctx: Any, _: Tensor) -> Any:
        return ctx.of_output, None


class _Shards(torch.autograd.Function):
    """The network on shards; its backward differentiates each shard's own graph on a thread, and adds in order."""

    @staticmethod
    def forward(
        ctx: Any, network: Callable[..., Any], threads: Threads, shards: list[Any], *parameters: Tensor
    ) -> Tensor:
        def run(shard: Any) -> Tensor:
            with torch.enable_grad():
                return network(*shard).sample

        ctx.threads, ctx.parameters = threads, parameters
        ctx.outputs = threads.map(run, shards)
        return torch.cat([output.detach() for output in ctx.outputs])

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Any:
        def run(shard: tuple[Tensor, Tensor]) -> tuple[Tensor | None, ...]:
            with torch.enable_grad():
                start = _Start.apply(*shard)
            return torch.autograd.grad(start, ctx.parameters, allow_unused=True)

        parts = gradient.split([len(output) for output in ctx.outputs])
        found = ctx.threads.map(run, list(zip(ctx.outputs, parts, strict=True)))
        del ctx.outputs
        return None, None, None, *(_add(of_shards) for of_shards in zip(*found, strict=True))


def _add(gradients: Iterable[Tensor | None]) -> Tensor | None:
    total: Tensor | None = None
    for gradient in gradients:
        if gradient is not None:
            total = gradient if total is None else total + gradient
    return total


def predict(network: Callable[..., Any], threads: Threads, parameters: list[nn.Parameter], *inputs: Tensor) -> Tensor:
    """``network(*inputs).sample`` [B, ...], shard by shard; gradients reach ``parameters`` and no input."""
    count = shard_count(len(inputs[0]))
    shards = list(zip(*(value.tensor_split(count) for value in inputs), strict=True))
    if torch.is_grad_enabled() and any(parameter.requires_grad for parameter in parameters):
        return _Shards.apply(network, threads, shards, *parameters)

    def run(shard: Any) -> Tensor:
        with torch.no_grad():
            return network(*shard).sample

    return torch.cat(threads.map(run, shards))
