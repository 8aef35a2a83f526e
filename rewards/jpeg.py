"""Size of an image as a JPEG file (DDPO's compressibility and incompressibility)."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal

import torch
from PIL import Image
from torch import Tensor

from b2bench.protocols import ModelSize
from b2bench.registry import reward

QUALITY = 95
"""Of Pillow's encoder, as published"""


@reward
class JPEG:
    """-(bytes of the image as a JPEG of quality 95) / 1000, or without the minus; the prompt plays no part.

    The size is in kB (1000 bytes), of pixels rounded to 8 bits. It grows with the size of the images, and depends by
    some bytes on Pillow's JPEG library: compare runs of one backbone. It has no gradient. Source: Black et al. 2023
    (https://arxiv.org/abs/2305.13301), and ``rewards.py`` of github.com/kvablack/ddpo-pytorch.
    """

    properties: ClassVar[Mapping[str, str]] = {"range": "kB, below 0", "pocket": "yes", "source": "Black et al. 2023"}

    goal: Literal["compressibility", "incompressibility"] = "compressibility"
    """compressibility: smaller files score higher; incompressibility: larger files do"""

    def models(self) -> list[ModelSize]:
        """Return nothing: there is no network."""
        return []

    def __call__(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        """``images`` [N, 3, h, w] in [0, 1] -> scores [N], in kB."""
        pixels = (images * 255).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
        sizes = torch.tensor([_bytes(Image.fromarray(image)) for image in pixels]) / 1000
        return sizes if self.goal == "incompressibility" else -sizes


def _bytes(image: Image.Image) -> int:
    file = io.BytesIO()
    image.save(file, format="JPEG", quality=QUALITY)
    return file.tell()
