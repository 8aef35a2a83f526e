"""Half precision on a CPU: what torch is slow at there, by other means.

On a CPU with bf16 arithmetic a bf16 convolution takes a third of an fp32 one, and yet a backward pass of the UNet in
bf16 took longer than one in fp32. Two kernels were why (docs/speed.md): the backward pass of fused attention, eight
times that of fp32, and group normalisation of channels-last images, five times. And autocast casts each of peft's LoRA
factors anew, for nine matrix products where three do.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn
from torch.nn import functional as F

from b2bench.backbones.attention import MergedAttention, joined, merge_attention, split_layers


class _Adapted(torch.autograd.Function):
    """``x W^T + b + (x D^T) U^T`` for a thin D [R, E] and U [O, R]; gradients reach x, D and U."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, down: Tensor, up: Tensor) -> Tensor:
        rows = x.flatten(0, -2)
        thin = rows @ down.t()
        ctx.save_for_backward(rows, thin, weight, down, up)
        return F.linear(rows, weight, bias).addmm_(thin, up.t()).view(*x.shape[:-1], -1)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Any:
        rows, thin, weight, down, up = ctx.saved_tensors
        of_rows = gradient.flatten(0, -2)
        of_thin = of_rows @ up
        of_x = None
        if ctx.needs_input_grad[0]:  # not of the text, nor before the first adapter
            of_x = (of_rows @ weight).addmm_(of_thin, down).view(*gradient.shape[:-1], -1)
        return of_x, None, None, of_thin.t() @ rows, (thin.t() @ of_rows).t()


class HalfAttention(MergedAttention):
    """The same attention in half precision: factors rounded where they are used, the attention itself in float32."""

    @staticmethod
    def project(layers: Sequence[nn.Module], x: Tensor) -> Tensor:
        """See :meth:`MergedAttention.project`; A and B are float32, x and the result are not."""
        bases, adapters = split_layers(layers)
        weight, bias = joined([base.weight for base in bases]), joined([base.bias for base in bases])
        if not adapters:
            return F.linear(x, weight, bias)
        down = joined([down for down, _, _ in adapters]).to(x.dtype)
        up = torch.block_diag(*[scale * up for _, up, scale in adapters]).to(x.dtype)
        return _Adapted.apply(x, weight, bias, down, up)

    @staticmethod
    def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Softmax attention, [B, heads, N, E / heads], in float32."""
        return F.scaled_dot_product_attention(query.float(), key.float(), value.float()).to(query.dtype)


class ChannelsFirstNorm(nn.GroupNorm):
    """Group normalisation that reorders channels-last images for itself and back."""

    def forward(self, input: Tensor) -> Tensor:
        """[B, C, H, W], of any layout; the result is channels-last."""
        found = F.group_norm(input.contiguous(), self.num_groups, self.weight, self.bias, self.eps)
        return found.contiguous(memory_format=torch.channels_last) if input.ndim == 4 else found


def ease_half(unet: UNet2DConditionModel) -> bool:
    """Let ``unet`` normalise channel first and, where it fits, compute its attentions by :class:`HalfAttention`.

    Returns whether it did the latter. Only then are float32 adapters cast where they are used; else autocast must.
    """
    for name, module in list(unet.named_modules()):
        if type(module) is nn.GroupNorm:
            eased = ChannelsFirstNorm(module.num_groups, module.num_channels, module.eps, module.affine)
            eased.weight, eased.bias = module.weight, module.bias
            unet.set_submodule(name, eased)
    return merge_attention(unet, HalfAttention)
