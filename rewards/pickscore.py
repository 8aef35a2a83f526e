"""PickScore: which image people would pick for a prompt, by a CLIP-H fitted to choices of users."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Annotated, Any, ClassVar

import torch
from annotated_types import Ge
from torch import Tensor

from b2bench.evaluation.scorers import PAPER_MODEL, Batched, clip_pixels
from b2bench.evaluation.weights import PUBLISHED, counted, network_from_hub, ready
from b2bench.protocols import ModelSize
from b2bench.quiet import quiet_libraries
from b2bench.registry import reward

REPOSITORY, SIZE = "yuvalkirstain/PickScore_v1", "3.9 GB"


@reward
class PickScore(Batched):
    """exp(logit_scale) cos(e_image, e_text), the logit of PickScore v1, a CLIP ViT-H-14; about 15 to 25.

    exp(logit_scale) is about 100. Of two images of one prompt, the sigmoid of the difference of their scores is the
    probability that people pick the first. Source: Kirstain et al. 2023 (https://arxiv.org/abs/2305.01569), and the
    model card of ``yuvalkirstain/PickScore_v1``.
    """

    properties: ClassVar[Mapping[str, str]] = {
        "range": "about [15, 25]",
        "pocket": "no meaning",
        "source": "Kirstain et al. 2023",
    }

    checkpoint: str = PUBLISHED
    """published (yuvalkirstain/PickScore_v1, 3.9 GB), or a folder of a CLIPModel of transformers"""
    batch: Annotated[int, Ge(1)] = 32
    """Images scored at a time"""

    def models(self) -> list[ModelSize]:
        """Return the model, as it is published."""
        return [_published_size()]

    def prepare(self, device: torch.device) -> None:
        """Load the model before the first query."""
        import open_clip
        from transformers import CLIPModel

        quiet_libraries()
        if self.checkpoint == PUBLISHED:
            clip: Any = network_from_hub(CLIPModel, "pickscore", REPOSITORY, SIZE)
        else:
            clip = network_from_hub(CLIPModel, "pickscore", str(Path(self.checkpoint).expanduser()), "")
        size = clip.config.vision_config.image_size
        self.clip, self.size, self.device = ready(clip, device), (size, size), device
        # CLIP's own, which lies in the package; every CLIP has the same words.
        self.tokenizer = open_clip.get_tokenizer(PAPER_MODEL)

    def _scores(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        pixels = clip_pixels(images.to(self.device).float(), self.size)
        distinct = list(dict.fromkeys(prompts))
        found = self.clip(input_ids=self.tokenizer(distinct).to(self.device), pixel_values=pixels)
        texts = found.text_embeds[[distinct.index(prompt) for prompt in prompts]]
        scores: Tensor = self.clip.logit_scale.exp() * (found.image_embeds * texts).sum(-1)
        return scores


@cache
def _published_size() -> ModelSize:
    from transformers import CLIPConfig, CLIPModel

    layers = {"hidden_act": "gelu", "num_attention_heads": 16}
    vision = {"hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32, "patch_size": 14}
    text = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24}
    config = CLIPConfig(text_config=text | layers, vision_config=vision | layers, projection_dim=1024)
    return counted("PickScore v1", lambda: CLIPModel(config))
