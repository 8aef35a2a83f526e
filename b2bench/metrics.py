"""The one list of what an evaluation measures: names, labels, units. It needs no torch: reports ask, too."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

FORWARD_AND_BACKWARD = 3
"""As how many calls of sampling one with a backward pass counts: forward, and back through activations for two more"""


def forward_equivalents(without: int, with_gradient: int) -> int:
    """Return the cost of denoiser calls as one number of calls of sampling, those without a backward pass."""
    return without + FORWARD_AND_BACKWARD * with_gradient


def equivalents_of(round: Mapping[str, int | None]) -> int | None:
    """Return the forward-equivalents of a row of table ``rounds``; None of one that does not say them."""
    names = ("denoiser_calls_sampling", "denoiser_calls_training", "denoiser_calls_gradient")
    sampling, training, gradient = (round.get(name) for name in names)
    if sampling is None or training is None or gradient is None:
        return None
    return forward_equivalents(sampling + training - gradient, gradient)


Kind = Literal["score", "inception", "diversity", "divergence"]
"""Of each image; of a set of images, by a classifier; of their spread; of the policy from the pretrained model."""


@dataclass(frozen=True)
class Metric:
    """A metric of table ``evals``. ``label`` names it in full, ``short`` heads a narrow column.

    ``reward``: it is also a reward that is built in, which may be trained on under this name.
    """

    name: str
    kind: Kind
    label: str
    short: str = ""
    unit: str = ""
    reward: bool = False

    @property
    def described(self) -> str:
        """The label with the unit, if there is one."""
        return f"{self.label} ({self.unit})" if self.unit else self.label


CLIPSCORE, HELDOUT, BERTSCORE, SUCCESS = "clipscore", "clipscore_heldout", "bertscore", "success"
IS_STYLE, IS_SUBJECT, IS_CLIP, IS_INCEPTION = "is_style", "is_subject", "is_clip", "is_inception"
STYLE_ENTROPY, DISTANCE, KL = "style_entropy", "pairwise_distance", "kl_pretrained"

METRICS = {
    metric.name: metric
    for metric in (
        Metric(CLIPSCORE, "score", "CLIPScore", "clipscore", reward=True),
        Metric(HELDOUT, "score", "CLIPScore, held-out scorer", "held-out"),
        Metric(BERTSCORE, "score", "BERTScore", "bertscore", reward=True),
        Metric(SUCCESS, "score", "success (every fact of the prompt in the image)", "success", reward=True),
        Metric("aesthetic", "score", "LAION aesthetic score", "aesthetic", reward=True),
        Metric("hpsv2", "score", "HPSv2.1", "hpsv2", reward=True),
        Metric("imagereward", "score", "ImageReward", "imagereward", reward=True),
        Metric("jpeg", "score", "JPEG size, with the sign of its goal", "jpeg", "kB", reward=True),
        Metric("mix", "score", "weighted sum of rewards", "mix", reward=True),
        Metric("pickscore", "score", "PickScore", "pickscore", reward=True),
        Metric(IS_STYLE, "inception", "inception score, style head"),
        Metric(IS_SUBJECT, "inception", "inception score, subject head"),
        Metric(IS_CLIP, "inception", "inception score, CLIP embedding"),
        Metric(IS_INCEPTION, "inception", "inception score, Inception v3"),
        Metric("inception_score", "inception", "inception score"),  # of stores that others fill
        Metric(STYLE_ENTROPY, "diversity", "style entropy", "style H", "nats"),
        Metric(DISTANCE, "diversity", "distance within a prompt", "distance"),
        Metric(KL, "divergence", "KL from the pretrained model", "", "nats a path"),
    )
}

BESIDE_REWARD = (
    "cell",
    "rank",
    "area of gain",
    "against pretrained",
    "headroom",
    "held-out gain",
    "queries to target",
    "seeds",
    "queries",
    "denoiser calls",
    "forward-equivalents",
    "warning",
)
"""Columns of the report's leaderboard, one of which has the name of the trained reward"""

OF_LOG_RATIO = ("ratio_mean", "approx_kl")
"""What b2bench computes of a loss's metric ``log_ratio``, under these names"""
OWN_COLUMNS = (*OF_LOG_RATIO, "clipped")
"""Metrics of a loss that table ``rounds`` has columns for; all others are in its column ``metrics``"""

STYLE_SHARE = "style_"
"""Begins the names of the shares of styles in the images: ``style_plain``, ..."""


def of_kind(kind: Kind) -> tuple[str, ...]:
    """Return the names of the metrics of a kind, in the order in which tables have them."""
    return tuple(name for name, metric in METRICS.items() if metric.kind == kind)


def label(name: str) -> str:
    """Return how a table calls a metric; a plugin's reward keeps its own name."""
    return METRICS[name].described if name in METRICS else name


def style_share(name: str) -> str:
    """Return the metric that holds the share of a style."""
    return f"{STYLE_SHARE}{name}"


def is_style_share(name: str) -> bool:
    """Tell whether a metric is the share of a style."""
    return name.startswith(STYLE_SHARE) and name not in METRICS


def is_taken(reward: str) -> bool:
    """Tell whether a reward of this name would be stored under the name of something else that is measured.

    Or stand in tables under the heading of something else: an entry point may have capitals in its name, and
    ``CLIPScore`` would head a column just as the metric's label does.
    """
    name = reward.lower()
    if name in METRICS:
        return name != reward or not METRICS[name].reward
    headings = {text for metric in METRICS.values() for text in (metric.label, metric.described, metric.short)}
    return is_style_share(name) or name in BESIDE_REWARD or name in {heading.lower() for heading in headings}
