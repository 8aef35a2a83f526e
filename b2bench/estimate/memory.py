"""The true shapes of Stable Diffusion v1, without its weights, and what memory they take, measured by running them.

Nothing is computed and nothing allocated: the modules live on torch's meta device, where every operation knows the
shape of its result and no more. So what a micro-batch takes is counted, operation by operation, on any laptop.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry, sdpa_backward_flop_count, sdpa_flop_count
from transformers import CLIPTextConfig, CLIPTextModel

from b2bench.backbones.architectures import (
    stable_diffusion_autoencoder,
    stable_diffusion_text_encoder,
    stable_diffusion_unet,
)


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of tensors that operations made and that are still alive, their peak, and operations.

    Views and in-place operations make none, of parameters neither. What autograd saves is alive as long as its graph
    is. ``flops`` are the floating-point operations of matrix products and convolutions.
    """

    def __init__(self) -> None:
        super().__init__()
        self.live, self.peak, self.flops = 0, 0, 0
        self._holders: dict[int, int] = {}  # storage -> tensors that are alive and share it

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if (flops := flop_registry.get(func.overloadpacket)) is not None:
            self.flops += flops(*args, **(kwargs or {}), out_val=result)
        tensors = [item for item in tree_leaves((args, kwargs)) if isinstance(item, Tensor)]
        given = {tensor.untyped_storage()._cdata for tensor in tensors}
        for tensor in result if isinstance(result, tuple | list) else (result,):
            if isinstance(tensor, Tensor):
                self._count(tensor, given)
        return result

    def _count(self, tensor: Tensor, given: set[int]) -> None:
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key not in self._holders:
            # A transposed weight has the weight's storage, and autograd keeps one of every linear layer: not new.
            if key in given:
                return
            self._holders[key] = 0
            self.live += size
            self.peak = max(self.peak, self.live)
        self._holders[key] += 1
        weakref.finalize(tensor, self._let_go, key, size)

    def _let_go(self, key: int, size: int) -> None:
        self._holders[key] -= 1
        if not self._holders[key]:
            del self._holders[key]
            self.live -= size


class _FusedAttention(torch.autograd.Function):
    """What a fused kernel of attention keeps: queries, keys, values and the result, and never their products."""

    @staticmethod
    def forward(ctx: Any, counter: LiveBytes, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        result = torch.empty(*query.shape[:-1], value.shape[-1], device=query.device, dtype=query.dtype)
        ctx.save_for_backward(query, key, value, result)
        ctx.counter = counter
        counter.flops += sdpa_flop_count(query.shape, key.shape, value.shape)
        return result

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        query, key, value, _ = ctx.saved_tensors
        ctx.counter.flops += sdpa_backward_flop_count(gradient.shape, query.shape, key.shape, value.shape)
        return None, torch.empty_like(query), torch.empty_like(key), torch.empty_like(value)


@dataclass(frozen=True)
class Cost:
    """Of running something: the largest sum of live tensors, parameters not counted, and floating-point operations."""

    bytes: int
    flops: int


def cost(run: Callable[[], Any]) -> Cost:
    """Return what ``run`` takes on the meta device.

    Attention counts as a fused kernel, as GPUs have it: on the meta device torch would write out its products.
    """
    usual = F.scaled_dot_product_attention
    counter = LiveBytes()

    def attention(query: Tensor, key: Tensor, value: Tensor, *args: Any, **options: Any) -> Tensor:
        found: Tensor = _FusedAttention.apply(counter, query, key, value)
        return found

    F.scaled_dot_product_attention = attention
    try:
        with counter:
            run()
    finally:
        F.scaled_dot_product_attention = usual
    return Cost(counter.peak, counter.flops)


@dataclass(frozen=True)
class Shapes:
    """The three networks of a pipeline, on the meta device. Memory is in bytes, in fp32, parameters not counted."""

    unet: UNet2DConditionModel
    autoencoder: AutoencoderKL
    text_encoder: CLIPTextModel

    @classmethod
    def stable_diffusion(cls) -> Shapes:
        with torch.device("meta"):
            return cls(stable_diffusion_unet(), stable_diffusion_autoencoder(), stable_diffusion_text_encoder())

    @classmethod
    def of_folder(cls, folder: Path) -> Shapes:
        """Return those of a ``StableDiffusionPipeline`` folder, by its configurations; its weights are not read.

        Raises:
            OSError, ValueError: one of the configurations is missing or cannot be read.
        """
        unet = UNet2DConditionModel.load_config(folder / "unet")
        autoencoder = AutoencoderKL.load_config(folder / "vae")
        text = CLIPTextConfig.from_pretrained(folder / "text_encoder")
        with torch.device("meta"):
            return cls(
                UNet2DConditionModel.from_config(unet), AutoencoderKL.from_config(autoencoder), CLIPTextModel(text)
            )

    def decoding(self, images: int, *, gradient: bool = False) -> Cost:
        """Return bytes and operations of decoding ``images`` latents; ``gradient``: with the backward pass to them."""
        config = self.autoencoder.config
        size = config.sample_size // 2 ** (len(config.block_out_channels) - 1)
        latents = torch.empty(images, config.latent_channels, size, size, device="meta", requires_grad=gradient)
        if gradient:
            return cost(lambda: self.autoencoder.decode(latents).sample.sum().backward())
        with torch.no_grad():
            return cost(lambda: self.autoencoder.decode(latents))
