"""What half precision computes by other means on a CPU is what torch, diffusers and peft compute."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from diffusers.models.attention_processor import AttnProcessor2_0
from peft import LoraConfig
from torch import nn

from b2bench.backbones.half import ChannelsFirstNorm, HalfAttention, _Adapted, ease_half
from b2bench.backbones.stable_diffusion import StableDiffusion

ROWS = 8


def drawn(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


@pytest.fixture
def low(pocket_pipeline: Any, make_policy: Callable[..., StableDiffusion]) -> StableDiffusion:
    """Pocket in bf16, with the adapter that ``make_policy()`` has in fp32."""
    policy = StableDiffusion(
        copy.deepcopy(pocket_pipeline).to(torch.bfloat16), num_steps=20, eta=1.0, guidance=make_policy().guidance
    )
    policy.add_lora(8, 0)
    policy.set_adapter_state(make_policy().adapter_state())
    return policy


def noise(policy: StableDiffusion) -> torch.Tensor:
    cond = policy.encode(["a cat riding a bike", "a dog playing chess"] * (ROWS // 2))
    latents = torch.randn(ROWS, *policy.latent_shape, generator=torch.Generator().manual_seed(0))
    return policy.noise(cond, latents, torch.arange(ROWS) % policy.num_steps)


def test_gradients_of_a_projection() -> None:
    """In double precision, against finite differences."""
    x, down, up = (drawn(*s, seed=i).requires_grad_() for i, s in enumerate([(2, 5, 6), (3, 6), (4, 3)]))
    weight, bias = drawn(4, 6, seed=3), drawn(4, seed=4)
    found = _Adapted.apply(x, weight, bias, down, up)
    torch.testing.assert_close(found, x @ weight.t() + bias + (x @ down.t()) @ up.t())
    assert torch.autograd.gradcheck(lambda x, d, u: _Adapted.apply(x, weight, bias, d, u), (x, down, up))


@pytest.mark.parametrize("shape", [(3, 8, 4, 4), (3, 8, 5)], ids=["images", "sequences"])
def test_the_norm_is_torchs(shape: tuple[int, ...]) -> None:
    plain, eased = nn.GroupNorm(4, 8), ChannelsFirstNorm(4, 8)
    with torch.no_grad():
        plain.weight.copy_(drawn(8))
        plain.bias.copy_(drawn(8, seed=1))
    eased.load_state_dict(plain.state_dict())
    x = drawn(*shape, seed=2, dtype=torch.float32)
    torch.testing.assert_close(eased(x), plain(x))
    if x.ndim == 4:
        x = x.contiguous(memory_format=torch.channels_last)
        torch.testing.assert_close(eased(x), plain(x))
        assert eased(x).is_contiguous(memory_format=torch.channels_last)


@pytest.mark.slow
def test_pocket_in_bf16_is_eased_and_keeps_its_weights_names(low: StableDiffusion, pocket_pipeline: Any) -> None:
    assert {type(part) for part in low.unet.attn_processors.values()} == {HalfAttention}
    norms = [part for part in low.unet.modules() if isinstance(part, nn.GroupNorm)]
    assert {type(part) for part in norms} == {ChannelsFirstNorm}
    names = {name.replace(".base_layer", "") for name in low.unet.state_dict() if "lora_" not in name}
    assert names == set(pocket_pipeline.unet.state_dict())


@pytest.mark.slow
def test_it_is_as_near_to_fp32_as_peft_under_autocast(
    low: StableDiffusion, make_policy: Callable[..., StableDiffusion]
) -> None:
    with torch.no_grad():
        exact, eased = noise(make_policy()), noise(low)
        low.unet.set_attn_processor(AttnProcessor2_0())
        low._autocast = True
        theirs = noise(low)
    error = (eased - exact).norm() / exact.norm()
    assert 0 < error < 1.1 * (theirs - exact).norm() / exact.norm()


def test_without_its_adapter_it_is_the_pretrained_model(low: StableDiffusion, pocket_pipeline: Any) -> None:
    bare = StableDiffusion(
        copy.deepcopy(pocket_pipeline).to(torch.bfloat16), num_steps=20, eta=1.0, guidance=low.guidance
    )
    with low.reference():
        found = noise(low)
    with torch.no_grad():
        assert torch.equal(found, noise(bare))
        assert not torch.equal(found, noise(low))


def test_other_adapters_are_left_to_peft(low: StableDiffusion) -> None:
    low.unet.delete_adapters("default")
    low.unet.add_adapter(LoraConfig(r=2, target_modules=["to_q"]), "other")
    assert not ease_half(low.unet)
    assert {type(part) for part in low.unet.attn_processors.values()} == {AttnProcessor2_0}


def test_sliced_attention_computes_under_autocast(low: StableDiffusion) -> None:
    with torch.no_grad():
        expected = noise(low)
        low.save_memory(sliced=True)
        found = noise(low)
    assert 0 < (found - expected).norm() < 0.05 * expected.norm()  # each is off by 1 to 2% from fp32
