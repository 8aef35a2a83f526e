"""Attention with the LoRA in its weights is the attention that diffusers and peft compute, gradients included."""

from typing import Any

import pytest
import torch
from diffusers.models.attention_processor import Attention, AttnProcessor2_0
from peft import LoraConfig
from torch import nn

from b2bench.backbones import attention as module
from b2bench.backbones.attention import MergedAttention, _Projection, merge_attention

ROWS = 16


def processors(unet: nn.Module) -> set[type]:
    return {type(part.processor) for part in unet.modules() if isinstance(part, Attention)}


def outputs_and_gradients(policy: Any) -> tuple[torch.Tensor, list[torch.Tensor]]:
    cond = policy.encode(["a cat riding a bike", "a dog playing chess"] * (ROWS // 2))
    latents = torch.randn(ROWS, *policy.latent_shape, generator=torch.Generator().manual_seed(0))
    noise = policy.noise(cond, latents, torch.arange(ROWS) % policy.num_steps)
    weights = torch.randn(noise.shape, generator=torch.Generator().manual_seed(1))
    return noise.detach(), list(torch.autograd.grad((noise * weights).sum(), policy.parameters()))


@pytest.mark.parametrize("full_gradient", [0, 256], ids=["thin factors", "whole weight"])
@pytest.mark.parametrize("count", [1, 3])
def test_gradients_of_a_projection(monkeypatch: pytest.MonkeyPatch, full_gradient: int, count: int) -> None:
    """In double precision, against finite differences; both ways to the gradient of A and B."""
    monkeypatch.setattr(module, "FULL_GRADIENT", full_gradient)
    generator = torch.Generator().manual_seed(0)

    def drawn(*shape: int, trained: bool = True) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64).requires_grad_(trained)

    x, bias, scales = drawn(2, 5, 6), drawn(4 * count, trained=False), [0.5, 1.0, 2.0][:count]
    factors = [part for _ in scales for part in (drawn(4, 6, trained=False), drawn(2, 6), drawn(4, 2))]

    def project(x: torch.Tensor, *factors: torch.Tensor) -> torch.Tensor:
        return _Projection.apply(x, bias, scales, *factors)

    expected = [
        x @ weight.t() + scale * ((x @ down.t()) @ up.t())
        for weight, down, up, scale in zip(factors[::3], factors[1::3], factors[2::3], scales, strict=True)
    ]
    torch.testing.assert_close(project(x, *factors), torch.cat(expected, -1) + bias)
    assert torch.autograd.gradcheck(project, (x, *factors))


def test_it_computes_what_peft_computes(make_policy: Any) -> None:
    policy = make_policy()
    assert processors(policy.unet) == {MergedAttention}
    found, gradients = outputs_and_gradients(policy)
    policy.unet.set_attn_processor(AttnProcessor2_0())
    expected, theirs = outputs_and_gradients(policy)
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-5)
    ours, reference = (torch.cat([part.flatten() for part in parts]) for parts in (gradients, theirs))
    assert (ours - reference).norm() < 1e-4 * reference.norm()
    assert len(gradients) == len(policy.parameters()) > 50
    assert all(part.any() for part in gradients)


def test_the_pretrained_model_has_no_lora_in_its_weights(make_policy: Any) -> None:
    policy, plain = make_policy(), make_policy(moved=0.0)
    cond = policy.encode(["a cat riding a bike"] * ROWS)
    latents, step = torch.randn(ROWS, *policy.latent_shape), torch.arange(ROWS) % policy.num_steps
    with policy.reference():
        found = policy.noise(cond, latents, step)
    with torch.no_grad():
        assert not torch.allclose(policy.noise(cond, latents, step), found, atol=1e-3)
        torch.testing.assert_close(found, plain.noise(cond, latents, step), atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize(
    "config",
    [
        LoraConfig(r=2, target_modules=["to_q"]),
        LoraConfig(r=2, target_modules=["to_q", "to_k", "to_v", "to_out.0"], lora_dropout=0.5),
        LoraConfig(r=2, target_modules=["to_q", "to_k", "to_v", "to_out.0"], use_dora=True),
        LoraConfig(r=2, target_modules=["to_q", "to_k", "to_v", "to_out.0"], lora_bias=True),
    ],
    ids=["on q alone", "dropout", "dora", "bias"],
)
def test_other_adapters_are_left_to_peft(make_policy: Any, config: LoraConfig) -> None:
    unet = make_policy().unet
    unet.delete_adapters("default")
    unet.add_adapter(config, "other")
    assert not merge_attention(unet)
    assert processors(unet) == {AttnProcessor2_0}
