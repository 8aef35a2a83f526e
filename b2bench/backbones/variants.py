"""Weights of a pipeline folder under another name than the usual one: ``diffusion_pytorch_model.fp16.safetensors``."""

from __future__ import annotations

import re
from pathlib import Path

PARTS = ("unet", "vae", "text_encoder")
_NAME = re.compile(r"(?:diffusion_pytorch_)?model(?:\.([\w-]+?))?(?:-\d+-of-\d+)?(?:\.(\w+))?\.safetensors")


def _variants(folder: Path) -> dict[str, set[str]]:
    """{part: variants that it is there in}; "" is the usual one."""
    found: dict[str, set[str]] = {}
    for part in PARTS:
        names = (_NAME.fullmatch(file.name) for file in (folder / part).glob("*.safetensors"))
        found[part] = {name[1] or name[2] or "" for name in names if name}
    return found


def variant_of(folder: Path) -> str | None:
    """Return the variant by which every network of a pipeline folder is there, where the usual files are not; None:
    none is.

    A network that lacks it must be there under the usual name, as diffusers does it. Of several fp16 is taken.
    """
    found = _variants(folder)
    if all("" in variants for variants in found.values()):
        return None
    for variant in sorted(set().union(*found.values()) - {""}, key=lambda name: (name != "fp16", name)):
        if all(variants & {variant, ""} for variants in found.values()):
            return variant
    return None


def pickled(folder: Path) -> list[str]:
    """Return the networks of a pipeline folder whose weights are pickles only."""
    return [
        part for part in PARTS if any((folder / part).glob("*.bin")) and not any((folder / part).glob("*.safetensors"))
    ]


def what_is_there(folder: Path) -> str:
    """Say what a folder has in place of weights that can be read, where it has something; else ""."""
    found = _variants(folder)
    if sum(bool(variants) for variants in found.values()) < len(PARTS) or not any(set().union(*found.values())):
        return ""
    parts = ", ".join(f"{part} as {' and '.join(sorted(v or 'usual' for v in found[part]))}" for part in PARTS)
    return f"; no one variant is there of all its networks ({parts})"
