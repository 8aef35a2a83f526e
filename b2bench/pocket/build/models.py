"""Architectures of the pocket models: ordinary classes of diffusers, transformers and open_clip, small."""

from __future__ import annotations

from typing import Any

from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from transformers import (
    BertConfig,
    BertForMaskedLM,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTokenizer,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    PreTrainedTokenizerFast,
)

from b2bench.ddim import stable_diffusion_schedule

LATENT_CHANNELS = 16
# Share of noise in the variance of a finished latent: the first beta. Stable Diffusion's is 0.00085, and then the last
# but one of 20 steps takes the noise from 0.049 to 0.0017 with a deviation so small that a change of the noise that the
# network predicts moves its mean 5.4 deviations (5.3 where it predicts the velocity): in a policy gradient that step
# drowns the others (docs/pocket.md). With 0.02 it moves 1.6 (1.5).
FINAL_NOISE = 0.02
MAX_TOKENS = 16

# Asked of LLaVA by DDPO's public code; the pocket captioner is asked the same.
QUESTION = "USER: <image>\nAnswer concisely: what is going on in this image? ASSISTANT:"


def schedule(prediction_type: str = "epsilon") -> DDIMScheduler:
    """Stable Diffusion v1's noise schedule with a first beta of ``FINAL_NOISE``."""
    usual = stable_diffusion_schedule(prediction_type)
    betas = [FINAL_NOISE, *usual.betas[1:].tolist()]
    return DDIMScheduler.from_config(usual.config, trained_betas=betas)


def autoencoder(latent_std: float = 1.0) -> AutoencoderKL:
    """64x64 pixels to 8x8 latents of 16 channels, which the denoiser sees divided by ``latent_std``."""
    channels = (16, 32, 64, 96)
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=channels,
        layers_per_block=1,
        latent_channels=LATENT_CHANNELS,
        norm_num_groups=8,
        sample_size=64,
        mid_block_add_attention=False,
        scaling_factor=1 / latent_std,
    )


def unet() -> UNet2DConditionModel:
    """Return two resolutions: cross-attention at 8x8 and in the middle block, plain ResNet blocks at 4x4.

    The time step scales and shifts every ResNet block instead of being added (docs/pocket.md). 64 channels, because a
    network that predicts the noise must let all 16 channels of x_t through: silu(z) - silu(-z) = z takes 32.
    """
    return UNet2DConditionModel(
        sample_size=8,
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        block_out_channels=(64, 64),
        layers_per_block=1,
        cross_attention_dim=96,
        attention_head_dim=4,  # by the name's history: the number of heads
        norm_num_groups=16,
        resnet_time_scale_shift="scale_shift",
    )


def text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=96,
        intermediate_size=192,
        num_hidden_layers=2,
        num_attention_heads=3,
        max_position_embeddings=MAX_TOKENS,
        projection_dim=96,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return CLIPTextModel(config)


def scorer_config(kind: str, tokenizer_folder: str, vocabulary: int) -> dict[str, Any]:
    """Return an open_clip model config. ``training``: a small ViT. ``heldout``: a ResNet, another architecture."""
    vision: dict[str, Any]
    text: dict[str, Any]
    if kind == "training":
        vision = {"image_size": 64, "patch_size": 8, "width": 96, "layers": 3, "head_width": 32}
        text = {"width": 96, "heads": 3, "layers": 2}
    else:
        vision = {"image_size": 64, "layers": [1, 1, 1, 1], "width": 16, "patch_size": None}
        text = {"width": 96, "heads": 3, "layers": 2}
    text |= {
        "context_length": MAX_TOKENS,
        "vocab_size": vocabulary,
        "hf_tokenizer_name": tokenizer_folder,
        "tokenizer_kwargs": {"clean": "whitespace"},
    }
    return {"embed_dim": 64, "vision_cfg": vision, "text_cfg": text}


def captioner(tokenizer: PreTrainedTokenizerFast) -> LlavaForConditionalGeneration:
    """LLaVA's classes: a CLIP vision tower of 8x8 patches, a two-layer projector, a Llama decoder."""
    vision = CLIPVisionConfig(
        hidden_size=96,
        intermediate_size=192,
        num_hidden_layers=3,
        num_attention_heads=3,
        image_size=64,
        patch_size=8,
        projection_dim=96,
    )
    text = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=96,
        intermediate_size=192,
        num_hidden_layers=2,
        num_attention_heads=3,
        num_key_value_heads=3,
        max_position_embeddings=128,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        tie_word_embeddings=True,
    )
    config = LlavaConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        vision_feature_layer=-1,
        image_seq_length=64,
    )
    return LlavaForConditionalGeneration(config)


def bert(tokenizer: PreTrainedTokenizerFast) -> BertForMaskedLM:
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=128,
        num_hidden_layers=4,
        num_attention_heads=4,
        intermediate_size=256,
        max_position_embeddings=32,
        pad_token_id=tokenizer.pad_token_id,
    )
    return BertForMaskedLM(config)
