"""Attention whose projections take the LoRA into their weights: x (W + s B A)^T instead of x W^T + s (x A^T) B^T.

The two are equal to rounding. peft's form costs four more passes over the activations of each projection, which on
narrow networks is more than the projection itself; here q, k and v of one input are one matrix product. In half
precision W + s B A would round a young adapter away (docs/precision.md); there ``backbones/half.py`` adds the factors.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import Attention, AttnProcessor2_0
from peft.tuners.lora import Linear as LoraLinear
from torch import Tensor, nn
from torch.nn import functional as F

FULL_GRADIENT = 256  # features: up to here the gradient of a whole weight is cheaper than that of thin factors


class _Projection(torch.autograd.Function):
    """``x (W + s B A)^T + b`` for several projections of one input, side by side; gradients reach x, A and B.

    The merged weight is not kept for the backward pass but made again: over all attentions of Stable Diffusion it
    would be some hundred megabytes.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, bias: Tensor | None, scales: Sequence[float], *factors: Tensor) -> Tensor:
        ctx.save_for_backward(x, *factors)
        ctx.scales = scales
        return F.linear(x, _merged(factors, scales), bias)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Any:
        x, *factors = ctx.saved_tensors
        of_x = gradient @ _merged(factors, ctx.scales) if ctx.needs_input_grad[0] else None
        rows, of_rows = x.flatten(0, -2), gradient.flatten(0, -2)
        found: list[Tensor | None] = []
        parts = of_rows.split([len(weight) for weight in factors[::3]], 1)
        for part, down, up, scale in zip(parts, factors[1::3], factors[2::3], ctx.scales, strict=True):
            if max(part.shape[1], rows.shape[1]) <= FULL_GRADIENT:
                whole = part.t() @ rows
                found += [None, scale * (up.t() @ whole), scale * (whole @ down.t())]
            else:
                found += [None, scale * ((part @ up).t() @ rows), scale * (part.t() @ (rows @ down.t()))]
        return of_x, None, None, *found


def _merged(factors: Sequence[Tensor], scales: Sequence[float]) -> Tensor:
    """W + s B A of each projection, one below the other."""
    weights = [
        torch.addmm(weight, up, down, alpha=scale)
        for weight, down, up, scale in zip(factors[::3], factors[1::3], factors[2::3], scales, strict=True)
    ]
    return weights[0] if len(weights) == 1 else torch.cat(weights)


Adapter = tuple[Tensor, Tensor, float]
"""A [r, E], B [O, r] and the scale of a LoRA"""


def split_layers(layers: Sequence[nn.Module]) -> tuple[list[Any], list[Adapter]]:
    """Return the linear layers proper, and their adapters that are switched on."""
    adapters = []
    for layer in layers:
        if isinstance(layer, LoraLinear) and not layer.disable_adapters:
            (name,) = layer.active_adapters
            adapters.append((layer.lora_A[name].weight, layer.lora_B[name].weight, float(layer.scaling[name])))
    return [layer.base_layer if isinstance(layer, LoraLinear) else layer for layer in layers], adapters


def joined(parts: Sequence[Any]) -> Any:
    """Weights or biases of several layers, one below the other; None where there are none."""
    return parts[0] if len(parts) == 1 or parts[0] is None else torch.cat(list(parts))


class MergedAttention:
    """diffusers' ``AttnProcessor2_0`` for the transformers of Stable Diffusion's UNet, merged as above."""

    @staticmethod
    def project(layers: Sequence[nn.Module], x: Tensor) -> Tensor:
        """Return the outputs of linear ``layers`` on x, side by side in the last dimension; all with a
        LoRA, or none.
        """
        bases, adapters = split_layers(layers)
        bias = joined([base.bias for base in bases])
        if not adapters:
            return F.linear(x, joined([base.weight for base in bases]), bias)
        factors = [part for base, of in zip(bases, adapters, strict=True) for part in (base.weight, *of[:2])]
        return _Projection.apply(x, bias, [scale for _, _, scale in adapters], *factors)

    @staticmethod
    def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Softmax attention, [B, heads, N, E / heads]."""
        return F.scaled_dot_product_attention(query, key, value)

    def __call__(
        self,
        attn: Attention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
    ) -> Tensor:
        """``hidden_states`` [B, N, E] attends to itself or to ``encoder_hidden_states`` [B, L, C]: [B, N, E]."""
        assert attention_mask is None  # Stable Diffusion attends to all of the padded prompt
        if encoder_hidden_states is None:
            query, key, value = self.project([attn.to_q, attn.to_k, attn.to_v], hidden_states).chunk(3, -1)
        else:
            query = self.project([attn.to_q], hidden_states)
            key, value = self.project([attn.to_k, attn.to_v], encoder_hidden_states).chunk(2, -1)
        query, key, value = (part.unflatten(-1, (attn.heads, -1)).transpose(1, 2) for part in (query, key, value))
        found = self.attend(query, key, value).transpose(1, 2).flatten(2)
        return attn.to_out[1](self.project([attn.to_out[0]], found))


def merge_attention(unet: UNet2DConditionModel, merged: type[MergedAttention] = MergedAttention) -> bool:
    """Let ``unet`` compute its attentions merged, if that is what they compute; call it after its adapters changed."""
    fits = all(_fits(module) for module in unet.modules() if isinstance(module, Attention))
    if fits:
        unet.set_attn_processor(merged())
    elif any(isinstance(processor, MergedAttention) for processor in unet.attn_processors.values()):
        unet.set_attn_processor(AttnProcessor2_0())
    return fits


def _fits(attention: Attention) -> bool:
    """Tell whether this is the attention that :class:`MergedAttention` computes, with a plain LoRA or none."""
    layers = [attention.to_q, attention.to_k, attention.to_v, attention.to_out[0]]
    return (
        isinstance(attention.processor, AttnProcessor2_0 | MergedAttention)
        and all(part is None for part in (attention.spatial_norm, attention.group_norm))
        and all(part is None for part in (attention.norm_q, attention.norm_k, attention.norm_cross))
        and not attention.residual_connection
        and attention.rescale_output_factor == 1
        and (all(type(layer) is nn.Linear for layer in layers) or all(_plain_lora(layer) for layer in layers))
    )


def _plain_lora(layer: nn.Module) -> bool:
    if not isinstance(layer, LoraLinear) or [*layer.lora_A] != layer.active_adapters or len(layer.lora_A) != 1:
        return False
    name = layer.active_adapters[0]
    return (
        type(layer.base_layer) is nn.Linear
        and not layer.use_dora.get(name, False)
        and not layer.lora_bias.get(name, False)
        and isinstance(layer.lora_dropout[name], nn.Identity)
    )
