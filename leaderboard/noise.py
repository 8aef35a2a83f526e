"""How much of the spread over seeds is the evaluation's, and how many images would make it small.

All cells draw the same images (prompt and noise), so a contrast can be taken image by image. Its mean over images is
the contrast of a seed, and its spread over images says how exact that is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from b2bench.leaderboard.stats import MIN_SEEDS
from numpy.typing import ArrayLike

MOST = 0.25
"""The share of the seed variance that the evaluation's variance should not exceed."""


@dataclass(frozen=True)
class Noise:
    """Standard deviations of a contrast of one seed: ``evaluation``, of its images, and ``seed``, of training.

    ``images`` were drawn; ``needed`` would bring the first variance to ``MOST`` of the second. None where the seeds
    spread no more than their images do: then no number can be given. ``prompts`` is the standard error of the contrast
    over test prompts, a mean over seeds: what other prompts would change, of which intervals over seeds know nothing.
    """

    evaluation: float
    seed: float
    images: int
    needed: int | None
    prompts: float | None = None

    @property
    def enough(self) -> bool:
        """Whether the evaluation is exact enough."""
        return self.needed is not None and self.needed <= self.images


def noise(contrast: ArrayLike, shared: bool, prompts: int | None = None) -> Noise | None:
    """Split the variance of a contrast [R, N] of R seeds by N images, image by image; None below three seeds.

    The variance of an image over N is the evaluation's. ``shared``: all seeds have the same images, so what an image
    adds in all of them is common, moves no seed against another, and is taken out first. The variance of the means over
    seeds contains both, so the seed's own is what is left of it, or 0. ``prompts``: the images are of so many, equally
    many of each, one prompt after the other.
    """
    z = np.asarray(contrast, dtype=np.float64)
    if z.ndim != 2 or z.shape[0] < MIN_SEEDS or z.shape[1] < 2 or not np.isfinite(z).all():
        return None
    seeds, images = z.shape
    means = z.mean(1)
    if shared:
        rest = z - means[:, None] - z.mean(0) + z.mean()
        of_image = float((rest**2).sum() / ((seeds - 1) * (images - 1)))
    else:
        of_image = float(z.var(1, ddof=1).mean())
    of_seed = max(0.0, float(means.var(ddof=1)) - of_image / images)
    over_prompts = None
    if prompts is not None and prompts > 1 and images % prompts == 0:
        by_prompt = z.mean(0).reshape(prompts, -1).mean(1)
        over_prompts = float(by_prompt.std(ddof=1)) / math.sqrt(prompts)
    needed = images_needed(of_image, of_seed)
    return Noise(math.sqrt(of_image / images), math.sqrt(of_seed), images, needed, over_prompts)


def images_needed(of_image: float, of_seed: float, most: float = MOST) -> int | None:
    """Return how many images bring the evaluation's variance ``of_image`` / N to ``most`` of the seed variance.

    ``of_image`` is the variance of a contrast over images, ``of_seed`` that of training over seeds, both of one seed.
    None if seeds don't vary.
    """
    return math.ceil(of_image / (most * of_seed)) if of_seed > 0 else None


def stacked(scores: Sequence[Sequence[Sequence[float]]], weights: Sequence[float]) -> np.ndarray:
    """Return the contrast [R, N] of per-image scores of cells [C][R][N] by their weights [C]."""
    return np.einsum("c,crn->rn", np.asarray(weights, dtype=np.float64), np.asarray(scores, dtype=np.float64))
