"""The networks of Stable Diffusion v1, made by their sizes. They have no weights that mean anything."""

from __future__ import annotations

from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel

# Attention projections, as in the paper's LoRA and in every public code of the family.
LORA_TARGETS = ("to_q", "to_k", "to_v", "to_out.0")


def stable_diffusion_unet() -> UNet2DConditionModel:
    """Return the UNet of Stable Diffusion v1, 860 million parameters, randomly initialised."""
    return UNet2DConditionModel(
        sample_size=64,
        in_channels=4,
        out_channels=4,
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        block_out_channels=(320, 640, 1280, 1280),
        layers_per_block=2,
        cross_attention_dim=768,
        attention_head_dim=8,
        norm_num_groups=32,
    )


def stable_diffusion_autoencoder() -> AutoencoderKL:
    """Return the autoencoder of Stable Diffusion v1: 512x512 pixels to latents 4x64x64."""
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(128, 256, 512, 512),
        layers_per_block=2,
        latent_channels=4,
        sample_size=512,
    )


def stable_diffusion_text_encoder() -> CLIPTextModel:
    """Return the text encoder of Stable Diffusion v1, that of CLIP ViT-L/14."""
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=49408,
            hidden_size=768,
            intermediate_size=3072,
            num_hidden_layers=12,
            num_attention_heads=12,
            max_position_embeddings=77,
            projection_dim=768,
        )
    )
