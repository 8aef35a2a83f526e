"""CLIPScore: cosine similarity of image and prompt under a CLIP model (paper, section 4.1)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar

import torch
from annotated_types import Ge
from torch import Tensor

from b2bench.backbones.specs import Backbone
from b2bench.evaluation.scorers import ClipScorer, scorer_size
from b2bench.protocols import ModelSize
from b2bench.registry import reward


@reward
class CLIPScore:
    """Plain cosine similarity, in [-1, 1]; the paper's is open_clip ViT-H-14, laion2b_s32b_b79k."""

    properties: ClassVar[Mapping[str, str]] = {
        "range": "[-1, 1]",
        "pocket": "yes",
        "source": "Hessel et al. 2021",
    }

    checkpoint: str = "auto"
    """pocket, paper (open_clip ViT-H-14, 3.9 GB), or an open_clip folder; auto is the backbone's"""
    batch: Annotated[int, Ge(1)] = 64
    """Images scored at a time"""

    @classmethod
    def own_checkpoint(cls, backbone: Backbone) -> str:
        """Return the training scorer that belongs to the backbone."""
        return backbone.scorer or "paper"

    def models(self) -> list[ModelSize]:
        """Return the CLIP model."""
        return [scorer_size(self.checkpoint)]

    def prepare(self, device: torch.device) -> None:
        """Load the model before the first query, so that a missing one does not stop a run halfway."""
        self.scorer = ClipScorer(self.checkpoint, device, self.batch)

    def __call__(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        """``images`` [N, 3, h, w] in [0, 1] -> cosine similarities [N]."""
        return self.scorer(images, prompts)

    def with_gradient(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        """Score as above, differentiable by the images: [N]."""
        return self.scorer.with_gradient(images, prompts)
