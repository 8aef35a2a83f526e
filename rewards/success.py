"""success: pocket's programmatic truth, the sparsest reward there is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor

from b2bench.backbones.specs import Backbone
from b2bench.protocols import ModelSize
from b2bench.registry import reward


@reward
class Success:
    """1 where the classifier finds every fact of the prompt in the picture, else 0. Pocket only."""

    properties: ClassVar[Mapping[str, str]] = {"range": "0 or 1", "pocket": "only", "source": "b2bench"}

    def refuses(self, backbone: Backbone) -> str | None:
        """Say that only pocket draws what the classifier knows."""
        return None if backbone.is_pocket else f"it reads pocket scenes only; try clipscore with {backbone.name}"

    def models(self) -> list[ModelSize]:
        """Return the classifier."""
        from b2bench.pocket.judges import classifier_size

        return [classifier_size()]

    def prepare(self, device: torch.device) -> None:
        """Load the pocket classifier."""
        from b2bench.pocket.judges import Classifier
        from b2bench.pocket.paths import POCKET_WEIGHTS

        self.classifier = Classifier.load(POCKET_WEIGHTS / "classifier.safetensors", device)
        self.device = device

    def __call__(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        """``images`` [N, 3, 64, 64] in [0, 1] -> 0.0 or 1.0, [N]."""
        return self.classifier.success(images.to(self.device), list(prompts)).cpu()
