"""The true shapes of Stable Diffusion v1, and the counting of live memory."""

import pytest
import torch

from b2bench.estimate.memory import Shapes, bytes_of, cost, peak_bytes, with_lora

MIB = 2**20


def test_live_memory_is_counted_by_hand() -> None:
    def chain() -> None:
        x = torch.empty(MIB, device="meta")  # 4 MiB
        for _ in range(5):
            x = x + 1  # the old one lives until the new one is there

    assert peak_bytes(chain) == 8 * MIB

    def held() -> list[torch.Tensor]:
        return [torch.empty(MIB, device="meta").view(-1, 2) for _ in range(3)]

    assert peak_bytes(held) == 12 * MIB


def test_what_autograd_saves_is_alive() -> None:
    weight = torch.empty(MIB, device="meta", requires_grad=True)

    def graph() -> None:
        x = torch.empty(MIB, device="meta")
        for _ in range(4):
            x = (x * weight).exp()  # a product keeps its factor, exp its result
        x.sum().backward()

    assert peak_bytes(graph) >= 5 * 4 * MIB


def test_a_view_holds_what_it_is_of() -> None:
    def kept() -> tuple[torch.Tensor, torch.Tensor]:
        part = torch.empty(MIB, device="meta").view(-1, 2)[:1]
        return part, torch.empty(MIB, device="meta")

    assert peak_bytes(kept) == 8 * MIB


def test_parameters_are_not_counted_whichever_way_they_are_turned() -> None:
    layer = torch.nn.Linear(1024, 1024, device="meta").requires_grad_(False)

    def train() -> None:
        layer(torch.empty(1, 1024, device="meta", requires_grad=True)).sum().backward()

    assert peak_bytes(train) < MIB


def test_operations_are_counted_by_hand() -> None:
    weight = torch.empty(30, 20, device="meta", requires_grad=True)

    def product() -> None:
        (torch.empty(10, 30, device="meta") @ weight).sum().backward()

    assert cost(product).flops == 2 * (2 * 10 * 30 * 20)

    def attend() -> None:
        one = torch.empty(1, 2, 5, 7, device="meta")
        torch.nn.functional.scaled_dot_product_attention(one, one, one)

    assert cost(attend).flops == 2 * (2 * 2 * 5 * 5 * 7)


@pytest.mark.slow
def test_stable_diffusion_v1_has_the_published_sizes() -> None:
    shapes = Shapes.stable_diffusion()
    assert sum(p.numel() for p in shapes.unet.parameters()) == 859_520_964
    assert sum(p.numel() for p in shapes.autoencoder.parameters()) == 83_653_863
    assert sum(p.numel() for p in shapes.text_encoder.parameters()) == 123_060_480
    assert bytes_of(shapes.unet, torch.bfloat16) == 2 * 859_520_964
    one, two = shapes.sampling_bytes(1), shapes.sampling_bytes(2)
    assert two == pytest.approx(2 * one, rel=0.01)
    assert with_lora(shapes.unet, 4) == 797_184
    plain, checkpointed = shapes.training_bytes(1), shapes.training_bytes(1, checkpointing=True)
    assert one < checkpointed < plain / 3
    assert shapes.training_bytes(2) == pytest.approx(2 * plain, rel=1e-3)  # b2bench estimate counts one row
    assert shapes.training_bytes(2, checkpointing=True) == pytest.approx(2 * checkpointed, rel=1e-3)
    assert shapes.decoding_bytes(2) == pytest.approx(2 * shapes.decoding_bytes(1), rel=0.01)
