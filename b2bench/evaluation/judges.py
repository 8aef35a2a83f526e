"""The judges of an evaluation: they score images with what training does not see."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from b2bench.backbones.specs import Backbone
from b2bench.errors import RunFailed
from b2bench.evaluation.inception import Extractor
from b2bench.evaluation.scorers import ClipScorer
from b2bench.evaluation.statistics import entropy, inception_score, pairwise_distance
from b2bench.guard import guarded
from b2bench.metrics import (
    CLIPSCORE,
    DISTANCE,
    HELDOUT,
    IS_STYLE,
    IS_SUBJECT,
    METRICS,
    STYLE_ENTROPY,
    SUCCESS,
    style_share,
)
from b2bench.pocket.paths import POCKET_WEIGHTS
from b2bench.protocols import Reward


def checked_scores(scores: Any, n: int, reward: str) -> Tensor:
    """Return a reward's answer as float32 [n] on the CPU, after checking it.

    Raises:
        RunFailed: it is not a tensor of n finite numbers.
    """
    try:
        scores = torch.as_tensor(scores).detach().float().cpu()
    except (TypeError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:160]
        raise RunFailed(f"reward {reward} returned a {type(scores).__name__}, not {n} numbers: {reason}") from None
    if scores.shape != (n,):
        raise RunFailed(f"reward {reward} returned shape {tuple(scores.shape)} for {n} images; expected ({n},)")
    bad = int((~torch.isfinite(scores)).sum())
    if bad:
        raise RunFailed(f"reward {reward} returned {bad} scores that are not finite, of {n}")
    return scores


def followed(reward: Any, images: Tensor, prompts: Sequence[str], name: str) -> Tensor:
    """Ask a reward for scores with a gradient by the images: float32 [N] on the CPU.

    Raises:
        RunFailed: they are not N finite numbers, or have no gradient.
    """
    with guarded():
        scores = reward.with_gradient(images, list(prompts))
    checked_scores(scores, len(images), name)
    if not scores.requires_grad and images.requires_grad and torch.is_grad_enabled():
        raise RunFailed(f"reward {name}: what with_gradient returned has no gradient; is there a no_grad() in it?")
    followed: Tensor = scores.float().cpu()
    return followed


def scored(reward: Reward, images: Tensor, prompts: Sequence[str], name: str) -> Tensor:
    """Ask a reward, guarded: float32 [N] on the CPU. It gets copies, because others look at the images, too.

    Raises:
        RunFailed: an image is not finite, which is no fault of the reward, or it answers with something else than N
            finite numbers.
    """
    bad = sum(not bool(image.isfinite().all()) for image in images)
    if bad:
        raise RunFailed(
            f"{bad} of {len(images)} images that the backbone drew are not finite, so reward {name} was not asked; "
            "try a smaller lr, precision=fp32, or another checkpoint"
        )
    with guarded():
        found = reward(images.clone(), list(prompts))
    return checked_scores(found, len(images), name)


class Judges:
    """The metrics of one backbone. ``reward`` is the trained score; the others never reach the loss.

    ``inception`` says which extractors, and over how many ``splits``, give inception scores beside pocket's own.
    """

    def __init__(
        self,
        reward: Reward,
        reward_name: str,
        backbone: Backbone,
        device: torch.device,
        inception: Sequence[Extractor] = (),
        splits: int = 1,
    ) -> None:
        self.inception, self.splits = inception, splits
        self.reward = reward
        self.reward_name = reward_name
        self.pocket = backbone.is_pocket
        self.device = device
        if self.pocket:
            from b2bench.pocket.judges import Classifier

            self.training = ClipScorer(backbone.scorer, device)
            self.heldout = ClipScorer("pocket-heldout", device)
            self.classifier = Classifier.load(POCKET_WEIGHTS / "classifier.safetensors", device)

    def scores(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        """Ask the reward alone: float32 [N], on the CPU.

        Raises:
            RunFailed: the reward answers with something else than N finite numbers.
        """
        return scored(self.reward, images, prompts, self.reward_name)

    def followed(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        """Ask the reward for scores with a gradient, for a loss that follows it: float32 [N], on the CPU.

        Raises:
            RunFailed: see :func:`followed`.
        """
        return followed(self.reward, images, prompts, self.reward_name)

    def look(self, images: Tensor, prompts: Sequence[str]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Judge every image once: its scores by metric, each float32 [N], and what :meth:`statistics` needs of it.

        The second is by name, each [N, ...]. Both are on the CPU.

        Raises:
            RunFailed: an image is not finite, or the reward answers with something else than N finite numbers.
        """
        scores = {self.reward_name: self.scores(images, prompts)}
        with torch.no_grad():
            features = {extractor.metric: extractor.probabilities(images).cpu() for extractor in self.inception}
            if self.pocket:
                self._look_as_pocket(images, prompts, scores, features)
        return scores, features

    def _look_as_pocket(
        self, images: Tensor, prompts: Sequence[str], scores: dict[str, Tensor], features: dict[str, Tensor]
    ) -> None:
        """Add what the embedded world's judges see, in one pass each."""
        from b2bench.pocket.judges import agreement

        if CLIPSCORE not in scores:
            scores[CLIPSCORE] = self.training(images, prompts)
        embedded = self.heldout.image_features(images)
        scores[HELDOUT] = (embedded * self.heldout.text_features(prompts)).sum(-1).cpu()
        parts = [self.classifier(part.to(self.device)) for part in images.split(128)]
        logits = {head: torch.cat([part[head] for part in parts]) for head in parts[0]}
        scores.setdefault(SUCCESS, agreement(logits, prompts).cpu())
        features |= {head: logits[head].softmax(1).cpu() for head in ("style", "subject")}
        features["heldout"] = embedded.cpu()

    def statistics(
        self, features: Mapping[str, Tensor], groups: Sequence[int]
    ) -> dict[str, tuple[float, dict[str, Any]]]:
        """Return statistics of a whole set of images: {metric: (value, settings)}. Diversity lives here.

        An inception score needs an image for each of its splits: of fewer there is none.
        """
        found: dict[str, tuple[float, dict[str, Any]]] = {
            extractor.metric: (
                inception_score(features[extractor.metric], self.splits),
                {"splits": self.splits, "extractor": extractor.name},
            )
            for extractor in self.inception
            if len(features[extractor.metric]) >= self.splits
        }
        if not self.pocket:
            return found
        style, subject = features["style"], features["subject"]
        shares = torch.bincount(style.argmax(1), minlength=style.shape[1]) / len(style)
        from b2bench.pocket.world import STYLES

        found |= {
            IS_STYLE: (inception_score(style), {"splits": 1, "extractor": "pocket classifier, style"}),
            IS_SUBJECT: (inception_score(subject), {"splits": 1, "extractor": "pocket classifier, subject"}),
            STYLE_ENTROPY: (entropy(shares), {"unit": METRICS[STYLE_ENTROPY].unit}),
            DISTANCE: (pairwise_distance(features["heldout"], groups), {"extractor": "held-out scorer"}),
        }
        for name, share in zip(STYLES, shares.tolist(), strict=True):
            found[style_share(name)] = (share, {})
        return found
