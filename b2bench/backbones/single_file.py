"""A checkpoint of Stable Diffusion v1 in one file, as its authors and many fine-tunes publish it."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import StableDiffusionPipeline
from safetensors import SafetensorError, safe_open
from transformers import CLIPTokenizer

from b2bench.backbones.architectures import (
    stable_diffusion_autoencoder,
    stable_diffusion_text_encoder,
    stable_diffusion_unet,
)
from b2bench.ddim import stable_diffusion_schedule
from b2bench.errors import UserError

# A key of every Stable Diffusion; its second dimension, the text encoder's width, tells v1 from v2 and XL.
_TELLING = "model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight"

NETWORKS: dict[str, Callable[[], Any]] = {
    "unet": stable_diffusion_unet,
    "vae": stable_diffusion_autoencoder,
    "text_encoder": stable_diffusion_text_encoder,
}


def clip_tokenizer() -> CLIPTokenizer:
    """CLIP's tokenizer, which is also Stable Diffusion v1's: open_clip carries its merges, so nothing is fetched."""
    from open_clip.tokenizer import SimpleTokenizer

    table = SimpleTokenizer()
    named = {"<start_of_text>": "<|startoftext|>", "<end_of_text>": "<|endoftext|>"}
    vocab = {named.get(token, token): i for token, i in table.encoder.items()}
    return CLIPTokenizer(vocab=vocab, merges=list(table.bpe_ranks), model_max_length=77)


def load_single_file(
    path: Path, dtype: torch.dtype = torch.float32, networks: Mapping[str, Callable[[], Any]] | None = None
) -> StableDiffusionPipeline:
    """Read a Stable Diffusion v1 checkpoint from one .safetensors file. Nothing is fetched: its shapes are known.

    ``networks`` make the networks whose shapes are meant, if not Stable Diffusion v1's; their weights are not used.

    Raises:
        UserError: the file is not such a checkpoint; the message says what it seems to be.
    """
    with torch.device("meta"):
        plain = {name: make() for name, make in (networks or NETWORKS).items()}
    _check_width(path, int(plain["unet"].config.cross_attention_dim))
    parts = {
        "tokenizer": clip_tokenizer(),
        "scheduler": stable_diffusion_schedule(*_trained_for(path)),
        "safety_checker": None,
        "feature_extractor": None,
        "requires_safety_checker": False,
    }
    with tempfile.TemporaryDirectory() as folder:
        StableDiffusionPipeline(**plain, **parts).save_config(folder)
        plain["unet"].save_config(Path(folder) / "unet")
        plain["vae"].save_config(Path(folder) / "vae")
        plain["text_encoder"].config.save_pretrained(Path(folder) / "text_encoder")
        try:
            return StableDiffusionPipeline.from_single_file(
                str(path), config=folder, local_files_only=True, torch_dtype=dtype, **parts
            )
        except Exception as error:  # diffusers raises many kinds for keys and shapes that do not fit
            reason = " ".join(str(error).split())[:200]
            raise UserError(f"backbone file {path} is not a whole Stable Diffusion v1 checkpoint: {reason}") from None


def _trained_for(path: Path) -> tuple[str, bool]:
    """Return what the network predicts, and whether to zero terminal SNR, as far as the file says.

    Weights do not show it, and read as the other they draw noise. Trainers put empty tensors ``v_pred`` and ``ztsnr``
    beside the weights (NoobAI-XL, and the programs that draw with it), or a line into the header
    (modelspec.prediction_type of Stability AI's Model Metadata Standard, which kohya's sd-scripts write).
    """
    with safe_open(path, "pt") as file:
        names, header = set(file.keys()), file.metadata() or {}
    velocity = "v_pred" in names or header.get("modelspec.prediction_type") in ("v", "v_prediction")
    return ("v_prediction" if velocity else "epsilon"), "ztsnr" in names


def _check_width(path: Path, expected: int) -> None:
    try:
        with safe_open(path, "pt") as file:
            found = file.get_slice(_TELLING).get_shape()[1] if _TELLING in set(file.keys()) else None
    except (OSError, SafetensorError) as error:
        raise UserError(f"backbone file {path} cannot be read: {' '.join(str(error).split())[:160]}") from None
    if found is None:
        raise UserError(
            f"backbone file {path} is not a Stable Diffusion checkpoint ({_TELLING} is missing). For a LoRA file try "
            "b2bench evaluate; for a folder saved by diffusers, try --backbone with the folder itself"
        )
    if found != expected:
        raise UserError(
            f"backbone file {path} reads text {found} wide, Stable Diffusion v1 {expected}: it seems to be v2 or XL. "
            "Try converting it to a folder with diffusers' save_pretrained, then --backbone FOLDER (v1 and v2 only)."
        )
