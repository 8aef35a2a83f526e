"""The true shapes of Stable Diffusion v1, and the counting of live memory."""

import pytest
import torch

from b2bench.shapes import Shapes, bytes_of, peak_bytes, with_lora

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
    assert shapes.decoding_bytes(2) == pytest.approx(2 * shapes.decoding_bytes(1), rel=0.01)
