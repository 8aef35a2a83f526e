"""Networks of published judges that no library has. Rewards import them when they load: listing needs no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn


class Head(nn.Module):
    """The published head: five linear layers, with nothing between them but dropout, which is off here."""

    def __init__(self, width: int = 768) -> None:
        super().__init__()
        dropout = nn.Dropout  # without weights; here for the layers' numbers in the published file
        self.layers = nn.Sequential(
            nn.Linear(width, 1024), dropout(), nn.Linear(1024, 128), dropout(), nn.Linear(128, 64), dropout(),
            nn.Linear(64, 16), nn.Linear(16, 1),
        )  # fmt: skip

    def forward(self, features: Tensor) -> Tensor:
        """``features`` [N, E] -> scores [N]."""
        scores: Tensor = self.layers(features).squeeze(-1)
        return scores


class BLIPWithHead(nn.Module):
    """BLIP's image tower, its text tower, which attends to the image, and a head on the text's first token.

    ``vision`` and ``text`` are the configurations of transformers.
    """

    def __init__(self, vision: Any, text: Any) -> None:
        from transformers.models.blip.modeling_blip import BlipVisionModel
        from transformers.models.blip.modeling_blip_text import BlipTextModel

        super().__init__()
        self.vision = BlipVisionModel(vision)
        self.text = BlipTextModel(text, add_pooling_layer=False)
        self.mlp = Head(text.hidden_size)

    def forward(self, pixels: Tensor, words: Mapping[str, Tensor]) -> Tensor:
        """``pixels`` [N, 3, s, s] and the tokens of N prompts -> answers [N] of the head."""
        seen = self.vision(pixel_values=pixels).last_hidden_state
        read = self.text(**words, encoder_hidden_states=seen).last_hidden_state
        answers: Tensor = self.mlp(read[:, 0])
        return answers
