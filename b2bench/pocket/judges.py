"""The pocket classifier: programmatic truth about a scene, independent of both scorers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from b2bench.files import stored_parameters
from b2bench.pocket.paths import POCKET_WEIGHTS
from b2bench.pocket.world import DETAILS, SECONDS, STYLES, SUBJECTS, parse_caption
from b2bench.protocols import ModelSize

FACTS = ("subject", "detail", "second")
HEADS = {"subject": len(SUBJECTS), "detail": len(DETAILS), "second": len(SECONDS), "style": len(STYLES)}


class Classifier(nn.Module):
    """Subject, detail (or none), second object (or none) and style of images ``[n, 3, 64, 64]`` in [0, 1]."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()

        def block(inputs: int, outputs: int, stride: int) -> list[nn.Module]:
            convolution = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
            return [convolution, nn.GroupNorm(8, outputs), nn.SiLU()]

        self.features = nn.Sequential(
            *block(3, width, 2),
            *block(width, 2 * width, 2),
            *block(2 * width, 3 * width, 1),
            *block(3 * width, 4 * width, 2),
            *block(4 * width, 4 * width, 1),
            nn.AdaptiveAvgPool2d(4),
            nn.Flatten(),
            nn.Dropout(0.1),
        )
        self.heads = nn.ModuleDict({name: nn.Linear(64 * width, n) for name, n in HEADS.items()})

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Logits by head: ``{"subject": [n, 95], "detail": [n, 16], "second": [n, 13], "style": [n, 4]}``."""
        features = self.features(images * 2 - 1)
        return {name: head(features) for name, head in self.heads.items()}

    @classmethod
    def load(cls, path: Path, device: torch.device | str = "cpu") -> Classifier:
        """Read the weights from a safetensors file; evaluation mode, float32."""
        model = cls()
        model.load_state_dict({key: value.float() for key, value in load_file(path).items()})
        return model.to(device).eval().requires_grad_(False)

    @torch.no_grad()
    def success(self, images: Tensor, prompts: list[str]) -> Tensor:
        """1.0 where all facts of the prompt are in the picture, else 0.0: float32 ``[n]``.

        Raises:
            ValueError: a prompt is no sentence of the pocket world.
        """
        return agreement(self(images), prompts)


def classifier_size() -> ModelSize:
    """Return what :meth:`Classifier.load` loads, without loading it."""
    parameters = stored_parameters(POCKET_WEIGHTS / "classifier.safetensors")
    return ModelSize("classifier", parameters, 4 * parameters)


def agreement(logits: Mapping[str, Tensor], prompts: Sequence[str]) -> Tensor:
    """1.0 where what a :class:`Classifier` saw is all that the prompt says, else 0.0: float32 ``[n]``.

    ``logits`` are its answer, by head.

    Raises:
        ValueError: a prompt is no sentence of the pocket world.
    """
    found = torch.stack([logits[name].argmax(1) for name in FACTS], dim=1)
    claimed = torch.tensor([parse_caption(prompt).labels for prompt in prompts], device=found.device)
    return (found == claimed).all(dim=1).float()
