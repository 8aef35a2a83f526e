"""LAION's aesthetic predictor, version 2: how much people like to look at an image, from 1 to 10."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Annotated, Any, ClassVar

import torch
import torch.nn.functional as F
from annotated_types import Ge
from torch import Tensor

from b2bench.evaluation.scorers import Batched, clip_pixels
from b2bench.evaluation.weights import (
    PUBLISHED,
    counted,
    fill,
    folder_file,
    hub_file,
    network_from_hub,
    read_tensors,
    ready,
)
from b2bench.protocols import ModelSize
from b2bench.quiet import quiet_libraries
from b2bench.registry import reward

CLIP, CLIP_SIZE = "openai/clip-vit-large-patch14", "1.7 GB"
HEAD_REPOSITORY, HEAD_SIZE = "trl-lib/ddpo-aesthetic-predictor", "4 MB"
# The same weights: as trl has them on the hub, and as their authors do in their repository.
HEADS = ("aesthetic-model.pth", "sac+logos+ava1-l14-linearMSE.pth")


@reward
class Aesthetic(Batched):
    """head(e / |e|), e the image embedding of CLIP ViT-L/14; a rating of 1 to 10, blind to the prompt.

    The head was fitted to ratings of images (SAC, LAION-Logos, AVA). Differs from DDPO's code: images are not rounded
    to 8 bits, so that there is a gradient. Source: Schuhmann et al. 2022 (https://arxiv.org/abs/2210.08402),
    github.com/christophschuhmann/improved-aesthetic-predictor; as a reward, Black et al. 2023.
    """

    properties: ClassVar[Mapping[str, str]] = {
        "range": "about [1, 10]",
        "pocket": "no meaning",
        "source": "Schuhmann et al. 2022",
    }

    checkpoint: str = PUBLISHED
    """published (CLIP ViT-L/14, 1.7 GB, and its head), or a folder with both (docs/rewards.md)"""
    batch: Annotated[int, Ge(1)] = 32
    """Images scored at a time"""

    def models(self) -> list[ModelSize]:
        """Return CLIP's image tower and the head, as they are published."""
        from b2bench.evaluation.judge_networks import Head

        return [_published_size(), counted("aesthetic head", Head)]

    def prepare(self, device: torch.device) -> None:
        """Load CLIP's image tower and the head before the first query."""
        from transformers import CLIPVisionModelWithProjection

        from b2bench.evaluation.judge_networks import Head

        quiet_libraries()
        published = self.checkpoint == PUBLISHED
        folder = Path(self.checkpoint).expanduser()
        if published:
            file = hub_file("aesthetic", HEAD_REPOSITORY, HEADS[0], HEAD_SIZE)
        else:
            file = folder_file("aesthetic", folder, HEADS)
        source = CLIP if published else str(folder)
        clip: Any = network_from_hub(CLIPVisionModelWithProjection, "aesthetic", source, CLIP_SIZE)
        head = Head(clip.config.projection_dim)
        fill(head, read_tensors(file, "aesthetic head"), f"aesthetic head {file}")
        self.clip, self.head, self.device = ready(clip, device), ready(head, device), device
        self.size = (clip.config.image_size, clip.config.image_size)

    def _scores(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        pixels = clip_pixels(images.to(self.device).float(), self.size)
        scores: Tensor = self.head(F.normalize(self.clip(pixel_values=pixels).image_embeds, dim=-1))
        return scores


@cache
def _published_size() -> ModelSize:
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    config = CLIPVisionConfig(
        hidden_size=1024,
        intermediate_size=4096,
        num_hidden_layers=24,
        num_attention_heads=16,
        patch_size=14,
        projection_dim=768,
    )
    return counted("aesthetic's CLIP ViT-L/14, image tower", lambda: CLIPVisionModelWithProjection(config))
