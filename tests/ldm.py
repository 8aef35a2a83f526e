"""Names of Stable Diffusion v1's weights in the one-file layout of its authors, from diffusers' names."""

from __future__ import annotations

import re
from typing import Any

from torch import Tensor

RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "time_emb_proj": "emb_layers.1",
    "conv_shortcut": "skip_connection",
}


def unet_name(name: str) -> str:
    for ours, theirs in (
        ("time_embedding.linear_1", "time_embed.0"),
        ("time_embedding.linear_2", "time_embed.2"),
        ("conv_in", "input_blocks.0.0"),
        ("conv_norm_out", "out.0"),
        ("conv_out", "out.2"),
    ):
        if name.startswith(f"{ours}."):
            return name.replace(ours, theirs, 1)
    side, rest = name.split(".", 1)
    if side == "mid_block":
        kind, index, inner = rest.split(".", 2)
        where = "middle_block.1" if kind == "attentions" else f"middle_block.{2 * int(index)}"
    else:
        block, kind, index, inner = rest.split(".", 3)
        i, j = int(block), int(index)
        if kind == "downsamplers":
            where, inner = f"input_blocks.{3 * (i + 1)}.0", inner.replace("conv", "op")
        elif kind == "upsamplers":  # after the resnet, and the attention that the first of them lacks
            where = f"output_blocks.{3 * i + 2}.{1 if i == 0 else 2}"
        else:
            at = f"input_blocks.{3 * i + j + 1}" if side == "down_blocks" else f"output_blocks.{3 * i + j}"
            where = f"{at}.{1 if kind == 'attentions' else 0}"
    if kind == "resnets":
        layer, end = inner.rsplit(".", 1)
        inner = f"{RESNET[layer]}.{end}"
    return f"{where}.{inner}"


def vae_name(name: str, blocks: int) -> str:
    name = name.replace("conv_norm_out", "norm_out").replace("conv_shortcut", "nin_shortcut")
    name = re.sub(r"mid_block\.resnets\.(\d)", lambda m: f"mid.block_{int(m[1]) + 1}", name)
    name = name.replace("mid_block.attentions.0", "mid.attn_1")
    name = re.sub(r"down_blocks\.(\d)\.resnets", r"down.\1.block", name)
    name = re.sub(r"down_blocks\.(\d)\.downsamplers\.0", r"down.\1.downsample", name)
    name = re.sub(r"up_blocks\.(\d)\.resnets", lambda m: f"up.{blocks - 1 - int(m[1])}.block", name)
    name = re.sub(r"up_blocks\.(\d)\.upsamplers\.0", lambda m: f"up.{blocks - 1 - int(m[1])}.upsample", name)
    for ours, theirs in (("group_norm", "norm"), ("to_q", "q"), ("to_k", "k"), ("to_v", "v"), ("to_out.0", "proj_out")):
        name = name.replace(f"attn_1.{ours}.", f"attn_1.{theirs}.")
    return name


def ldm_state(pipeline: Any) -> dict[str, Tensor]:
    """The weights of a pipeline under the names, and in the shapes, of a one-file checkpoint."""
    state = {f"model.diffusion_model.{unet_name(n)}": w for n, w in pipeline.unet.state_dict().items()}
    blocks = len(pipeline.vae.config.block_out_channels)
    for name, weight in pipeline.vae.state_dict().items():
        linear = ".attentions." in name and "group_norm" not in name and name.endswith("weight")
        state[f"first_stage_model.{vae_name(name, blocks)}"] = weight[:, :, None, None] if linear else weight
    for name, weight in pipeline.text_encoder.state_dict().items():
        state[f"cond_stage_model.transformer.text_model.{name.removeprefix('text_model.')}"] = weight
    return {name: weight.contiguous().clone() for name, weight in state.items()}
