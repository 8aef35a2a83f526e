"""The true shapes of Stable Diffusion v1, and the counting of live memory."""

import pytest
import torch
from peft import LoraConfig

from b2bench.backbones.architectures import LORA_TARGETS
from b2bench.estimate.memory import Shapes, cost

MIB = 2**20


def test_live_memory_is_counted_by_hand() -> None:
    def chain() -> None:
        x = torch.empty(MIB, device="meta")  # 4 MiB
        for _ in range(5):
            x = x + 1  # the old one lives until the new one is there

    assert cost(chain).bytes == 8 * MIB

    def held() -> list[torch.Tensor]:
        return [torch.empty(MIB, device="meta").view(-1, 2) for _ in range(3)]

    assert cost(held).bytes == 12 * MIB


def test_what_autograd_saves_is_alive() -> None:
    weight = torch.empty(MIB, device="meta", requires_grad=True)

    def graph() -> None:
        x = torch.empty(MIB, device="meta")
        for _ in range(4):
            x = (x * weight).exp()  # a product keeps its factor, exp its result
        x.sum().backward()

    assert cost(graph).bytes >= 5 * 4 * MIB


def test_a_view_holds_what_it_is_of() -> None:
    def kept() -> tuple[torch.Tensor, torch.Tensor]:
        part = torch.empty(MIB, device="meta").view(-1, 2)[:1]
        return part, torch.empty(MIB, device="meta")

    assert cost(kept).bytes == 8 * MIB


def test_parameters_are_not_counted_whichever_way_they_are_turned() -> None:
    layer = torch.nn.Linear(1024, 1024, device="meta").requires_grad_(False)

    def train() -> None:
        layer(torch.empty(1, 1024, device="meta", requires_grad=True)).sum().backward()

    assert cost(train).bytes < MIB


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
    assert shapes.decoding(2).bytes == pytest.approx(2 * shapes.decoding(1).bytes, rel=0.01)


@pytest.mark.slow
def test_rows_of_stable_diffusion_take_memory_in_proportion() -> None:
    """So ``b2bench estimate`` may count one row of training, and one and two of sampling."""
    unet = Shapes.stable_diffusion().unet
    unet.requires_grad_(False)
    unet.add_adapter(LoraConfig(r=4, lora_alpha=4, target_modules=list(LORA_TARGETS)))
    unet.train()

    def predict(rows: int) -> torch.Tensor:
        latents = torch.empty(rows, 4, 64, 64, device="meta")
        found: torch.Tensor = unet(latents, torch.zeros(rows, device="meta"), torch.empty(rows, 77, 768, device="meta"))
        return found.sample  # type: ignore[attr-defined, no-any-return]

    def sampling(rows: int) -> int:
        with torch.no_grad():
            return cost(lambda: predict(rows)).bytes

    def training(rows: int) -> int:
        return cost(lambda: predict(rows).sum().backward()).bytes

    assert sampling(2) == pytest.approx(2 * sampling(1), rel=0.01)
    plain = training(1)
    assert training(2) == pytest.approx(2 * plain, rel=1e-3)
    unet.enable_gradient_checkpointing()
    checkpointed = training(1)
    assert sampling(1) < checkpointed < plain / 3
    assert training(2) == pytest.approx(2 * checkpointed, rel=1e-3)
