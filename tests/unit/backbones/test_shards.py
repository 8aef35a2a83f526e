"""Shards on threads: the numbers of the whole batch, whatever the number of threads."""

from typing import Any

import pytest
import torch
from torch import nn

from b2bench.backbones.shards import SMALLEST_SHARD, Threads, predict, shard_count


def gradients(policy: Any, threads: Threads, rows: int, seed: int = 0) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """The guided noise prediction of a batch, and the adapter's gradients of a loss on it."""
    policy.threads = threads
    draws = torch.Generator().manual_seed(seed)
    latents = torch.randn(rows, *policy.latent_shape, generator=draws)
    step = torch.randint(policy.num_steps, (rows,), generator=draws)
    cond = policy.encode(["a cat riding a bike", "a dog playing chess"] * (rows // 2))
    for parameter in policy.parameters():
        parameter.grad = None
    noise = policy.noise(cond, latents, step)
    (noise * torch.randn(noise.shape, generator=draws)).mean().backward()
    return noise.detach(), [parameter.grad.clone() for parameter in policy.parameters()]


@pytest.mark.parametrize("rows", [1, 7, 2 * SMALLEST_SHARD, 47, 96, 97, 200, 1000])
def test_shards_are_even_in_number_and_never_too_small(rows: int) -> None:
    count = shard_count(rows)
    assert count == 1 or (count % 2 == 0 and rows // count >= SMALLEST_SHARD)
    assert count > 1 or rows < 2 * SMALLEST_SHARD


@pytest.mark.slow
@pytest.mark.parametrize("threads", [2, 3])
def test_the_number_of_threads_changes_no_bit(make_policy: Any, threads: int) -> None:
    policy = make_policy()
    alone, alone_gradients = gradients(policy, Threads(1), 24)
    found, found_gradients = gradients(policy, Threads(threads), 24)
    assert torch.equal(found, alone)
    assert all(torch.equal(a, b) for a, b in zip(found_gradients, alone_gradients, strict=True))
    assert any(gradient.any() for gradient in alone_gradients)


@pytest.mark.slow
def test_shards_predict_and_differentiate_as_the_network_does(make_policy: Any) -> None:
    policy = make_policy()
    sharded, sharded_gradients = gradients(policy, Threads(2), 24)
    policy._predict = lambda *inputs: policy.network(*inputs).sample  # the whole batch at once, torch's own backward
    whole, whole_gradients = gradients(policy, Threads(1), 24)
    assert torch.equal(sharded, whole)
    for found, expected in zip(sharded_gradients, whole_gradients, strict=True):
        assert torch.allclose(found, expected, rtol=1e-4, atol=1e-6 * float(expected.abs().max()))


class Network(nn.Module):
    """Takes one weight of two, so that the other has no gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.used, self.unused = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(3))

    def forward(self, x: torch.Tensor) -> Any:
        if x.isnan().any():
            raise ValueError("a shard fails")
        return type("Output", (), {"sample": x * self.used})


def test_a_parameter_without_gradient_stays_without() -> None:
    network = Network()
    predict(network, Threads(2), list(network.parameters()), torch.ones(64, 3)).sum().backward()
    assert torch.equal(network.used.grad, torch.full((3,), 64.0))
    assert network.unused.grad is None


def test_without_gradient_nothing_is_kept() -> None:
    network = Network()
    with torch.no_grad():
        assert not predict(network, Threads(2), list(network.parameters()), torch.ones(64, 3)).requires_grad
    network.requires_grad_(False)
    assert not predict(network, Threads(2), list(network.parameters()), torch.ones(64, 3)).requires_grad


def test_an_error_in_a_thread_is_an_error() -> None:
    network = Network()
    inputs = torch.ones(64, 3)
    inputs[50] = torch.nan
    with pytest.raises(ValueError, match="a shard fails"):
        predict(network, Threads(2), list(network.parameters()), inputs)


def test_threads_of_a_cpu_are_those_that_torch_would_use() -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        assert Threads.of_device(torch.device("cpu")).count == 2
        assert torch.get_num_threads() == 1
        torch.set_num_threads(2)
        assert Threads.of_device(torch.device("cuda")).count == 1
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
