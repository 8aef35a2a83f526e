"""HPSv2.1, the human preference score: a CLIP ViT-H-14 fitted to which image people prefer for a prompt."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar

import torch
import torch.nn.functional as F
from annotated_types import Ge
from torch import Tensor

from b2bench.errors import UserError
from b2bench.evaluation.scorers import PAPER_MODEL, Batched, clip_pixels, scorer_size
from b2bench.evaluation.weights import PUBLISHED, fill, folder_file, hub_file, read_tensors, ready
from b2bench.protocols import ModelSize
from b2bench.quiet import quiet_root
from b2bench.registry import reward

REPOSITORY, FILE, SIZE = "xswu/HPSv2", "HPS_v2.1_compressed.pt", "2 GB"


@reward
class HPSv2(Batched):
    """cos(e_image, e_text) by HPSv2.1, an open_clip ViT-H-14; about 0.2 to 0.35, without the temperature.

    Differs from the published code: float32 instead of mixed precision, and images that are not square are resized
    instead of padded. Source: Wu et al. 2023 (https://arxiv.org/abs/2306.09341), github.com/tgxs002/HPSv2.
    """

    properties: ClassVar[Mapping[str, str]] = {
        "range": "[-1, 1]",
        "pocket": "no meaning",
        "source": "Wu et al. 2023",
    }

    checkpoint: str = PUBLISHED
    """published (HPS_v2.1_compressed.pt of xswu/HPSv2, 2 GB), or a folder with that file"""
    batch: Annotated[int, Ge(1)] = 32
    """Images scored at a time"""

    def models(self) -> list[ModelSize]:
        """Return the model, as it is published."""
        size = scorer_size("paper")  # the same network
        return [ModelSize("HPSv2.1", size.parameters, size.bytes)]

    def prepare(self, device: torch.device) -> None:
        """Load the model before the first query."""
        import open_clip

        folder = Path(self.checkpoint).expanduser()
        if self.checkpoint == PUBLISHED:
            file, config = hub_file("hpsv2", REPOSITORY, FILE, SIZE), folder
        else:
            file, config = folder_file("hpsv2", folder, [FILE]), folder / "open_clip_config.json"
        with quiet_root():
            clip: Any = open_clip.CLIP(**_architecture(config))
        fill(clip, read_tensors(file, "hpsv2 checkpoint"), f"hpsv2 checkpoint {file}")
        size = clip.visual.image_size
        self.size = (size, size) if isinstance(size, int) else tuple(size)
        self.clip, self.device = ready(clip, device), device
        self.tokenizer = open_clip.get_tokenizer(PAPER_MODEL)

    def _scores(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        pixels = clip_pixels(images.to(self.device).float(), self.size)
        seen = F.normalize(self.clip.encode_image(pixels), dim=-1)
        distinct = list(dict.fromkeys(prompts))
        read = F.normalize(self.clip.encode_text(self.tokenizer(distinct).to(self.device)), dim=-1)
        scores: Tensor = (seen * read[[distinct.index(prompt) for prompt in prompts]]).sum(-1)
        return scores


def _architecture(file: Path) -> dict[str, Any]:
    """Return the network's: ViT-H-14, or what an open_clip_config.json beside the weights says."""
    import open_clip

    if not file.is_file():
        published: dict[str, Any] = open_clip.get_model_config(PAPER_MODEL)
        return published
    try:
        found = json.loads(file.read_text(encoding="utf-8"))["model_cfg"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"hpsv2 checkpoint: {file} is not a configuration of open_clip: {error}") from None
    return dict(found)
