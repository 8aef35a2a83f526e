"""What to fetch of a checkpoint's repository on the hub: most hold the same weights several times over."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

_TEXTS = ("*.json", "*.txt")
NEEDED: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        # beside these: two .ckpt files, a safety checker, and each network again as a pickle, in fp16 and for JAX
        "CompVis/stable-diffusion-v1-4": (
            *_TEXTS,
            "text_encoder/model.safetensors",
            "*/diffusion_pytorch_model.safetensors",
        ),
        "laion/CLIP-ViT-H-14-laion2B-s32B-b79K": (*_TEXTS, "open_clip_model.safetensors"),
        "microsoft/deberta-xlarge-mnli": (*_TEXTS, "pytorch_model.bin"),
        "openai/clip-vit-large-patch14": (*_TEXTS, "model.safetensors"),
        "yuvalkirstain/PickScore_v1": (*_TEXTS, "model.safetensors"),
        "xswu/HPSv2": ("HPS_v2.1_compressed.pt",),
        "THUDM/ImageReward": ("ImageReward.pt",),
        "google-bert/bert-base-uncased": ("vocab.txt",),
    }
)
"""Repository -> its files that are read here, as patterns of fnmatch, whose * crosses folders. Another: all of it"""


def download_command(repository: str, *files: str) -> str:
    """Return the line for a shell that fetches ``files`` of a repository, or what is read of it here.

    Several names are patterns to the hub's command, as its ``--include`` is, and one name is a file's.
    """
    names = files or NEEDED.get(repository, ())
    return " ".join(["hf download", repository, *(f"'{name}'" if "*" in name else name for name in names)])
