"""What is computed of images that were drawn: inception scores, distances, entropies."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor


def inception_score(probabilities: Tensor, splits: int = 1) -> float:
    """exp(mean KL(p(y|x) || p(y))) of class probabilities [N, classes], averaged over ``splits``.

    Depends on N and ``splits`` more than on the model: both belong beside the number.

    Raises:
        ValueError: fewer images than splits.
    """
    if len(probabilities) < splits:
        raise ValueError(f"{len(probabilities)} images do not fill {splits} splits")
    scores = []
    bounds = [len(probabilities) * i // splits for i in range(splits + 1)]
    for start, stop in itertools.pairwise(bounds):
        part = probabilities[start:stop].double()
        marginal = part.mean(0, keepdim=True)
        divergence = torch.special.xlogy(part, part) - torch.special.xlogy(part, marginal)
        scores.append(divergence.sum(1).mean().exp())
    return float(torch.stack(scores).mean())


def pairwise_distance(features: Tensor, groups: Sequence[int]) -> float:
    """Mean cosine distance between the images of a prompt, then the mean over prompts; unit features [N, E].

    nan where no prompt has two images.
    """
    distances = []
    index = torch.tensor(groups)
    for group in sorted(set(groups)):
        part = features[index == group]
        if len(part) > 1:
            upper = torch.triu_indices(len(part), len(part), 1)
            distances.append((1 - part @ part.T)[upper[0], upper[1]].mean())
    return float(torch.stack(distances).mean()) if distances else float("nan")


def entropy(shares: Tensor) -> float:
    """Shannon entropy in nats."""
    return float(-torch.special.xlogy(shares, shares).sum())
