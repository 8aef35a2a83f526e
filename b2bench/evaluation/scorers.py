"""CLIP scorers by checkpoint: the embedded ones, the paper's, or any folder that open_clip reads."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from b2bench.errors import UserError
from b2bench.files import stored_parameters
from b2bench.hub import download_command
from b2bench.pocket.paths import POCKET_WEIGHTS
from b2bench.protocols import ModelSize
from b2bench.quiet import quiet_root

PAPER_MODEL, PAPER_WEIGHTS = "ViT-H-14", "laion2b_s32b_b79k"
_PAPER_HELP = (
    f"the paper's CLIP scorer, open_clip {PAPER_MODEL} {PAPER_WEIGHTS} (3.9 GB), is not on this machine and could "
    f"not be fetched. Get it with: {download_command('laion/CLIP-ViT-H-14-laion2B-s32B-b79K')}"
)
# CLIP's own pixel statistics, for folders whose config does not give them.
_MEAN, _STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


class ClipScorer:
    """Cosine similarity of image and prompt, not multiplied by 100 and not clamped, as in the paper's code.

    ``checkpoint``: "pocket" (the training scorer), "pocket-heldout" (never seen by training), "paper"
    (open_clip ViT-H-14 laion2b_s32b_b79k), or a folder that open_clip's ``local-dir:`` reads. ``then``: what to do
    with a download of the paper's.

    Raises:
        UserError: the checkpoint is missing or unreadable; the message says how to get it.
    """

    def __init__(
        self,
        checkpoint: str,
        device: torch.device | str = "cpu",
        micro_batch: int = 64,
        then: str = " --local-dir DIR, then --set checkpoint=DIR",
    ) -> None:
        import open_clip

        self.micro_batch, self.name = micro_batch, checkpoint
        self.device = torch.device(device)
        if checkpoint == "paper":
            self.name = f"{PAPER_MODEL} {PAPER_WEIGHTS}"
            try:
                with quiet_root():
                    self.model = open_clip.create_model(PAPER_MODEL, pretrained=PAPER_WEIGHTS)
                    self.tokenizer = open_clip.get_tokenizer(PAPER_MODEL)
            except Exception as error:  # the hub client raises many kinds
                raise UserError(f"{_PAPER_HELP}{then} ({type(error).__name__})") from None
            preprocess: dict[str, Any] = {}
        else:
            folder = _folder(checkpoint)
            config = folder / "open_clip_config.json"
            if not config.is_file() or not (folder / "open_clip_model.safetensors").is_file():
                raise UserError(
                    f"CLIP scorer {checkpoint!r}: {folder} needs open_clip_config.json and open_clip_model.safetensors"
                )
            try:
                with quiet_root():
                    self.model = open_clip.create_model(f"local-dir:{folder}")
                    self.tokenizer = open_clip.get_tokenizer(f"local-dir:{folder}")
            except Exception as error:
                reason = " ".join(str(error).split())[:200]
                raise UserError(f"CLIP scorer {checkpoint!r} in {folder} cannot be read: {reason}") from None
            preprocess = json.loads(config.read_text(encoding="utf-8")).get("preprocess_cfg", {})
        self.model = self.model.to(self.device).float().eval().requires_grad_(False)
        size = self.model.visual.image_size
        self.size = (size, size) if isinstance(size, int) else tuple(size)
        self.mean = torch.tensor(preprocess.get("mean", _MEAN), device=self.device).reshape(1, 3, 1, 1)
        self.std = torch.tensor(preprocess.get("std", _STD), device=self.device).reshape(1, 3, 1, 1)

    # torch.no_grad() as decorators would import torch with this module, which lists of rewards read, too.
    def image_features(self, images: Tensor) -> Tensor:
        """Unit image embeddings [N, E] of images [N, 3, h, w] in [0, 1]; :meth:`raw_features` normalised."""
        return F.normalize(self.raw_features(images), dim=-1)

    def raw_features(self, images: Tensor) -> Tensor:
        """Image embeddings [N, E] before normalisation."""
        with torch.no_grad():
            return self._embedded(images)

    def _embedded(self, images: Tensor) -> Tensor:
        features = []
        for part in images.split(self.micro_batch):
            pixels = _resized(part.to(self.device).float(), self.size)
            features.append(self.model.encode_image((pixels - self.mean) / self.std).float())
        return torch.cat(features)

    def text_features(self, prompts: Sequence[str]) -> Tensor:
        """Unit text embeddings [N, E]."""
        distinct = list(dict.fromkeys(prompts))
        tokens = self.tokenizer(distinct).to(self.device)
        with torch.no_grad():
            table = F.normalize(self.model.encode_text(tokens).float(), dim=-1)
        place = {prompt: i for i, prompt in enumerate(distinct)}
        return table[[place[prompt] for prompt in prompts]]

    def __call__(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        """Cosine similarities [N], float32, on the CPU."""
        return (self.image_features(images) * self.text_features(prompts)).sum(-1).cpu()

    def with_gradient(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        """Cosine similarities [N] as above, differentiable by the images."""
        return (F.normalize(self._embedded(images), dim=-1) * self.text_features(prompts)).sum(-1).cpu()


def clip_pixels(images: Tensor, size: tuple[int, int]) -> Tensor:
    """Turn images [N, 3, h, w] in [0, 1] into CLIP's inputs [N, 3, *size]: resized, and in CLIP's own statistics."""
    mean, std = (images.new_tensor(values).reshape(1, 3, 1, 1) for values in (_MEAN, _STD))
    return (_resized(images, size) - mean) / std


def _resized(images: Tensor, size: tuple[int, int]) -> Tensor:
    if images.shape[-2:] == size:
        return images
    return F.interpolate(images, size, mode="bicubic", antialias=True).clamp(0, 1)


class Batched(ABC):
    """A judge that scores ``batch`` images at a time by its ``_scores(images, prompts)``, which has a gradient."""

    batch: int

    @abstractmethod
    def _scores(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        """``images`` [n, 3, h, w] in [0, 1] and n prompts, n at most ``batch`` -> scores [n] on the judge's device."""

    def with_gradient(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        """``images`` [N, 3, h, w] in [0, 1] -> scores [N], float32, on the CPU, differentiable by the images."""
        size = self.batch
        parts = [self._scores(part, prompts[i * size : (i + 1) * size]) for i, part in enumerate(images.split(size))]
        return torch.cat(parts).float().cpu()

    def __call__(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        """``images`` [N, 3, h, w] in [0, 1] -> scores [N], float32, on the CPU."""
        with torch.no_grad():
            return self.with_gradient(images, prompts)


def scorer_size(checkpoint: str) -> ModelSize:
    """Return what a :class:`ClipScorer` loads, without loading it; its bytes are None if it is not there."""
    if checkpoint == "paper":
        parameters = _paper_parameters()
        return ModelSize("CLIP ViT-H-14", parameters, 4 * parameters)
    folder = _folder(checkpoint)
    file = folder / "open_clip_model.safetensors"
    if not file.is_file():
        return ModelSize(f"CLIP scorer {checkpoint}, which is not there", 0, None)
    parameters = stored_parameters(file)
    return ModelSize(f"CLIP scorer {folder.name}", parameters, 4 * parameters)


def _folder(checkpoint: str) -> Path:
    names = {"pocket": "scorer-training", "pocket-heldout": "scorer-heldout"}
    return POCKET_WEIGHTS / names[checkpoint] if checkpoint in names else Path(checkpoint).expanduser()


@cache
def _paper_parameters() -> int:
    import open_clip

    with torch.device("meta"):
        model = open_clip.CLIP(**open_clip.get_model_config(PAPER_MODEL))
    return sum(p.numel() for p in model.parameters())


# images [N, 3, h, w] in [0, 1] -> class probabilities [N, classes]
Probabilities = Callable[[Tensor], Tensor]


def clip_probabilities(scorer: ClipScorer) -> Probabilities:
    """Softmax over the raw image embedding [N, E]: E "classes" that nobody named."""
    return lambda images: scorer.raw_features(images).softmax(1).cpu()
