"""Evaluation: fixed prompts, fixed noise, metrics that training never optimises beside the one it does."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from b2bench.engine import Engine
from b2bench.evaluation.judges import Judges
from b2bench.metrics import KL
from b2bench.protocols import Policy
from b2bench.rollout import Noise, sample, sample_with_kl
from b2bench.seeding import normal


@dataclass(frozen=True)
class Metric:
    """One number of an evaluation: a mean over ``n`` images (or a statistic of them), with its settings."""

    split: str
    name: str
    value: float
    n: int
    settings: Mapping[str, Any]


def eval_prompts(prompts: Sequence[str], images: int) -> list[tuple[int, int]]:
    """Spread ``images`` images evenly as (prompt index, noise index): every prompt once, then again."""
    return [(i % len(prompts), i // len(prompts)) for i in range(images)]


def eval_noise(policy: Policy, seed: int, split: str, pairs: Sequence[tuple[int, int]]) -> Noise:
    """Make noise indexed by ``eval_seed``, split, prompt and noise index: the same in every run."""

    def draw(rows: Sequence[int], step: int) -> Tensor:
        return normal(policy.latent_shape, seed, f"eval-{split}", [(*pairs[row], step) for row in rows])

    return draw


@dataclass(frozen=True)
class Evaluation:
    """Metrics of both splits; what was drawn for each, {split: [(prompt, noise index)]}; and its scores.

    ``scores`` is {split: {metric: Tensor [N]}}, ``images`` {split: Tensor [N, 3, h, w] in [0, 1]}: of several
    processes each holds its own share of the images.
    """

    metrics: list[Metric]
    drawn: dict[str, list[tuple[str, int]]]
    scores: dict[str, dict[str, Tensor]]
    images: dict[str, Tensor]

    def value(self, split: str, name: str) -> float:
        return next(m.value for m in self.metrics if (m.split, m.name) == (split, name))

    def metric_rows(self, queries: int) -> list[dict[str, Any]]:
        """Return rows of table ``evals``, at ``queries`` reward queries."""
        return [
            {
                "queries": queries,
                "split": metric.split,
                "metric": metric.name,
                "value": metric.value,
                "n": metric.n,
                "settings": dict(metric.settings),
            }
            for metric in self.metrics
        ]

    def image_rows(self, queries: int, reward: str, files: Mapping[int, str] | None = None) -> list[dict[str, Any]]:
        """Return rows of table ``images``: the score of every test image, so that runs can be paired by image.

        ``files``: where those that are kept are, by their place.
        """
        scores, paths = self.scores["test"][reward].tolist(), files or {}
        return [
            {"queries": queries, "prompt": prompt, "noise_index": noise, "score": score, "path": paths.get(place)}
            for place, ((prompt, noise), score) in enumerate(zip(self.drawn["test"], scores, strict=True))
        ]


def evaluate(
    policy: Policy,
    judges: Judges,
    prompts: Mapping[str, Sequence[str]],
    images: Mapping[str, int],
    seed: int,
    micro_batch: int,
    progress: Callable[[str], None] = lambda split: None,
    engine: Engine | None = None,
    kl_images: int = 0,
    first: Mapping[str, int] | None = None,
    pretrained: bool = False,
) -> Evaluation:
    """Sample ``images[split]`` images of ``prompts[split]`` and measure them, and on the first of test the KL.

    ``seed`` is ``eval_seed``, not a training seed: the prompts and the noise are the same in every run and at
    every milestone, so that differences can be paired by image. The KL is that of the first ``kl_images`` test images;
    ``pretrained`` says that the policy is the pretrained model still, whose KL is 0 and not measured. ``first`` is
    that of :func:`measure`.
    """
    engine = engine or Engine()
    measured = min(kl_images, images.get("test", 0))
    paths: list[Tensor] = []

    def draw(split: str, names: Sequence[str], pairs: Sequence[tuple[int, int]]) -> Tensor:
        start = engine.share(images[split]).start
        n = 0 if pretrained or split != "test" else min(len(pairs), max(0, measured - start))
        parts = []
        if n:
            pictures, kl = sample_with_kl(policy, names[:n], eval_noise(policy, seed, split, pairs[:n]), micro_batch)
            parts.append(pictures)
            paths.append(kl)
        if n < len(pairs):
            parts.append(sample(policy, names[n:], eval_noise(policy, seed, split, pairs[n:]), micro_batch))
        return torch.cat(parts)

    found = measure(judges, prompts, images, draw, progress, engine, first)
    if measured:
        values = torch.zeros(measured) if pretrained else engine.all_gather_rows(torch.cat([torch.zeros(0), *paths]))
        error = float(values.double().std() / measured**0.5) if measured > 1 else None
        settings = {"images": measured, "standard_error": error, "unit": "nats a path"}
        found.metrics.append(Metric("test", KL, float(values.double().mean()), measured, settings))
    return found


# draw(split, prompts [N], (prompt index, noise index) [N]) -> images [N, 3, h, w] in [0, 1]
Draw = Callable[[str, Sequence[str], Sequence[tuple[int, int]]], Tensor]


def measure(
    judges: Judges,
    prompts: Mapping[str, Sequence[str]],
    images: Mapping[str, int],
    draw: Draw,
    progress: Callable[[str], None] = lambda split: None,
    engine: Engine | None = None,
    first: Mapping[str, int] | None = None,
) -> Evaluation:
    """Measure what ``draw`` gives for ``images[split]`` places of ``prompts[split]``.

    Of several processes each draws and scores its share; the numbers are those of all images, on all of them.
    ``first[split]`` says on how many images later evaluations will be made. What a metric is on these alone, the first
    of all, goes into its settings, where there are more: the change to a later evaluation is of the same images then.
    """
    engine = engine or Engine()
    metrics: list[Metric] = []
    drawn: dict[str, list[tuple[str, int]]] = {}
    all_scores: dict[str, dict[str, Tensor]] = {}
    all_images: dict[str, Tensor] = {}
    for split, texts in prompts.items():
        pairs = eval_prompts(texts, images[split])
        if not pairs:
            continue
        progress(split)
        names = [texts[prompt] for prompt, _ in pairs]
        mine, n = engine.share(len(pairs)), len(pairs)
        here = slice(mine.start, mine.stop)
        with engine.together():
            pictures = draw(split, names[here], pairs[here])
            found, seen = judges.look(pictures, names[here])
        scores = {name: engine.all_gather_rows(values) for name, values in found.items()}
        features = {name: engine.all_gather_rows(rows) for name, rows in seen.items()}
        groups, few = [prompt for prompt, _ in pairs], (first or {}).get(split, n)
        among = _numbers(judges, scores, features, groups, few) if few < n else {}
        for name, (value, settings) in _numbers(judges, scores, features, groups, n).items():
            also = {"first": {"images": few, "value": among[name][0]}} if name in among else {}
            metrics.append(Metric(split, name, value, n, settings | also))
        drawn[split] = [(texts[prompt], noise) for prompt, noise in pairs]
        all_scores[split], all_images[split] = scores, pictures
    return Evaluation(metrics, drawn, all_scores, all_images)


def _numbers(
    judges: Judges, scores: Mapping[str, Tensor], features: Mapping[str, Tensor], groups: Sequence[int], n: int
) -> dict[str, tuple[float, dict[str, Any]]]:
    """Return every metric of the first ``n`` images, with its settings."""
    found: dict[str, tuple[float, dict[str, Any]]] = {}
    for name, values in scores.items():
        error = float(values[:n].std() / n**0.5) if n > 1 else None
        found[name] = float(values[:n].double().mean()), {"images": n, "standard_error": error}
    statistics = judges.statistics({name: rows[:n] for name, rows in features.items()}, groups[:n])
    return found | {name: (value, {"images": n, **settings}) for name, (value, settings) in statistics.items()}
