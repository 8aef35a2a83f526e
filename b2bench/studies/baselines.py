"""Headroom: what can be had without training, measured by the evaluation of runs, into the same store.

- ``guidance``: the pretrained model at other guidance scales. At the guidance of runs it is their evaluation at
  0 queries, image by image.
- ``best-of``: N images of each place of the evaluation, the one with the highest trained reward is kept. The first
  is the one that a run has there.
- ``oracle``: scenes that show exactly what the prompt says, in all styles alike; drawn, not sampled; pocket only.

A baseline is a row of table ``runs`` of algorithm ``baseline``. Its ``config`` holds what its numbers depend on
and nothing else, its ``run_id`` a hash of that: what the store has is not measured again. There is no training and so
no training seed: the row's ``seed`` is that of the evaluation, which runs of all seeds share.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from b2bench.config.resolve import check_untrained_values
from b2bench.config.run import RunConfig, cell_hash
from b2bench.config.settings import BASELINE_SETTINGS
from b2bench.engine import accelerator
from b2bench.errors import UserError
from b2bench.evaluation.evaluate import Draw, eval_noise, measure
from b2bench.pocket.world import STYLES, parse_caption
from b2bench.protocols import Policy
from b2bench.rollout import Noise, sample
from b2bench.seeding import derive, normal
from b2bench.store.database import FOR_HOURS
from b2bench.store.store import Store
from b2bench.text import suggestion
from b2bench.training.inputs import digests
from b2bench.training.provenance import run_row
from b2bench.training.setup import load
from b2bench.version import benchmark_version

KINDS = ("guidance", "best-of", "oracle")
GUIDANCES = (1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0)
CANDIDATES = (4, 16)
EVALUATED = ("eval_seed", "eval_images", "eval_train_images", "inception", "inception_splits")
SAMPLED = ("steps", "eta", "guidance", "precision", *EVALUATED)
"""Settings that an evaluation depends on; of them, the oracle's images depend on EVALUATED alone."""


@dataclass(frozen=True)
class Baseline:
    """One row of headroom. ``value``: a guidance scale, or how many images are drawn for one; 0 for the oracle."""

    kind: str
    value: float = 0.0

    @property
    def name(self) -> str:
        """``guidance-2.5``, ``best-of-4``, ``oracle``."""
        return f"{self.kind}-{self.value:g}" if self.value else self.kind

    @property
    def queries_per_image(self) -> int:
        """Reward queries that choosing an image costs."""
        return int(self.value) if self.kind == "best-of" else 0

    def content(self, config: RunConfig) -> dict[str, Any]:
        """Everything that its numbers depend on, under the keys of :meth:`RunConfig.as_dict`."""
        whole = config.as_dict()
        own: dict[str, Any] = {"kind": self.kind}
        if self.value:
            own["guidance" if self.kind == "guidance" else "candidates"] = self.value
        if self.queries_per_image:
            own["queries_per_image"] = self.queries_per_image
        names, images = EVALUATED if self.kind == "oracle" else SAMPLED, config.images_at(config.queries)
        settings = whole["settings"] | {"eval_images": images.test, "eval_train_images": images.train}
        files = digests(config)  # a path says nothing of the weights that lie there today
        return {
            "baseline": own,
            **{part: whole[part] for part in ("reward", "backbone", "prompts")},
            "settings": {name: settings[name] for name in names},
            **({"files": files} if files else {}),
        }

    def run_id(self, config: RunConfig) -> str:
        """Return the same for the same measurement, on every machine."""
        cell = cell_hash(self.content(config))
        key = hashlib.sha256(f"{benchmark_version()}:{cell}".encode()).hexdigest()[:10]
        return f"baseline-{self.name}-{key}"


def parse_kinds(given: Sequence[str]) -> list[str]:
    """Kinds in their own order, of ``--kind`` options that may be given twice, hold commas, or say ``all``.

    Raises:
        UserError: the kind does not exist.
    """
    asked = [part.strip() for text in given for part in text.split(",")]
    for kind in asked:
        if kind not in (*KINDS, "all"):
            raise UserError(f"unknown kind {kind!r}.{suggestion(kind, KINDS)} Kinds: {', '.join(KINDS)}; or all")
    return [kind for kind in KINDS if kind in asked or "all" in asked]


def check_values(config: RunConfig, values: Mapping[str, Any]) -> None:
    """Refuse settings that change nothing without training.

    Raises:
        UserError: which, and what may be set instead.
    """
    check_untrained_values("a baseline", BASELINE_SETTINGS, config, values)


def plan(kinds: Iterable[str], config: RunConfig) -> list[Baseline]:
    """Return the rows of each kind; the sweep has the guidance of runs in it, whatever that is."""
    rows = {
        "guidance": [Baseline("guidance", value) for value in sorted({*GUIDANCES, _guidance(config)})],
        "best-of": [Baseline("best-of", value) for value in CANDIDATES],
        "oracle": [Baseline("oracle")],
    }
    return [row for kind in kinds for row in rows[kind]]


def _guidance(config: RunConfig) -> float:
    return float(config.settings.guidance or config.backbone.guidance)


# -- images ------------------------------------------------------------------------------------------------


def candidate_noise(policy: Policy, seed: int, split: str, pairs: Sequence[tuple[int, int]], candidate: int) -> Noise:
    """Noise of the ``candidate``-th image of each place: 0 is what runs have there, the others are further streams."""
    if candidate == 0:
        return eval_noise(policy, seed, split, pairs)

    def draw(rows: Sequence[int], step: int) -> Tensor:
        indices = [(*pairs[row], candidate, step) for row in rows]
        return normal(policy.latent_shape, seed, f"eval-{split}-candidates", indices)

    return draw


def best_of(
    candidates: Callable[[int], Tensor], score: Callable[[Tensor], Tensor], counts: Sequence[int]
) -> dict[int, Tensor]:
    """{N: images}: of the first N candidates of each place the one with the highest score, the first among equals.

    ``candidates(i)`` gives the i-th candidate of all places [P, 3, h, w], ``score`` a number for each [P]. They are
    drawn once for all ``counts``, so that a larger count chooses among those of a smaller one and more; and as many
    images are kept as there are places and counts.
    """
    best = candidates(0)
    highest = score(best)
    kept = {1: best}
    for i in range(1, max(counts)):
        images = candidates(i)
        scores = score(images)
        better = scores > highest
        best = torch.where(better.reshape(-1, 1, 1, 1), images, best)
        highest = torch.where(better, scores, highest)
        if i + 1 in counts:
            kept[i + 1] = best
    return {count: kept[count] for count in counts}


def faithful_scenes(
    sprites: Any, seed: int, split: str, prompts: Sequence[str], pairs: Sequence[tuple[int, int]]
) -> Tensor:
    """Scenes that show what the prompts say, [N, 3, 64, 64] in [0, 1].

    A scene depends on (seed, split, prompt index, noise index) alone. The styles take turns over prompts and over
    noises, so that all are equally frequent, but for a remainder, whatever N is.
    """
    from b2bench.pocket.build.scenes import draw

    scenes = []
    for prompt, (index, noise) in zip(prompts, pairs, strict=True):
        rng = np.random.default_rng(derive(seed, f"oracle-{split}", index, noise))
        style = STYLES[(seed + index + noise) % len(STYLES)]
        scenes.append(draw(sprites, parse_caption(prompt), style, rng))
    return torch.from_numpy(np.stack(scenes)).permute(0, 3, 1, 2).float() / 255


# -- into the store ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Result:
    """A row that is in the store. ``measured`` false: it was there before."""

    baseline: str
    run_id: str
    measured: bool


def run_baselines(
    config: RunConfig,
    kinds: Sequence[str],
    store: Store,
    art: Path | None,
    cache: Path,
    stage: Callable[[str], None],
    done: Callable[[Result], None],
) -> list[Result]:
    """Measure every row of ``kinds`` that the store lacks; each is stored, whole, as soon as it is measured.

    ``stage`` is told what happens now, ``done`` of each row; ``cache`` receives the art where ``art`` is None.

    Raises:
        UserError: the store, the backbone, the reward or the art cannot be used; nothing is measured then.
        RunFailed: the reward answers with something else than finite numbers.
    """
    if "oracle" in kinds and not config.backbone.is_pocket:
        raise UserError(
            f"oracle is defined for pocket only, whose scenes can be drawn; the backbone is {config.backbone.name}. "
            "Try --kind guidance,best-of"
        )
    store.check()
    rows = plan(kinds, config)
    known = {row["run_id"] for row in store.runs(algorithm="baseline")} if store.path.exists() else set()
    missing = [row for row in rows if row.run_id(config) not in known]
    for row in rows:
        if row not in missing:
            done(Result(row.name, row.run_id(config), False))
    if missing:
        _Bench(config, store, missing, art, cache, stage, done).run()
    return [Result(row.name, row.run_id(config), row in missing) for row in rows]


class _Bench:
    """What measures several rows of one configuration: one pipeline, one set of judges."""

    def __init__(
        self,
        config: RunConfig,
        store: Store,
        rows: Sequence[Baseline],
        art: Path | None,
        cache: Path,
        stage: Callable[[str], None],
        done: Callable[[Result], None],
    ) -> None:
        self.config, self.store, self.rows, self.stage, self.done = config, store, rows, stage, done
        self.sprites = None
        if any(row.kind == "oracle" for row in rows):
            from b2bench.pocket.build.art import load_art

            self.sprites = load_art(art, cache, stage)
        self.policy, self.judges = load(config, accelerator().device, stage)
        self.prompts = {"test": config.prompts.test, "train": config.prompts.train}
        self.images = config.images_at(config.queries).splits

    def run(self) -> None:
        settings = self.config.settings
        for row in self.rows:
            if row.kind == "guidance":
                self._record(row, self._sampled(row.value))
            elif row.kind == "oracle":
                self._record(row, lambda *place: faithful_scenes(self.sprites, settings.eval_seed, *place))
        chosen = [row for row in self.rows if row.kind == "best-of"]
        if chosen:
            self._best_of(chosen)

    def _sampled(self, guidance: float) -> Draw:
        policy, usual = self.policy, self.policy.guidance

        def draw(split: str, names: Sequence[str], pairs: Sequence[tuple[int, int]]) -> Tensor:
            noise = eval_noise(policy, self.config.settings.eval_seed, split, pairs)
            policy.guidance = guidance
            try:
                return sample(policy, names, noise, self.config.settings.micro_batch)
            finally:
                policy.guidance = usual

        return draw

    def _best_of(self, rows: Sequence[Baseline]) -> None:
        """Draw the candidates once, for all rows, then record each."""
        config, policy = self.config, self.policy
        counts = [row.queries_per_image for row in rows]
        drawn: dict[str, dict[int, Tensor]] = {}

        def choose(split: str, names: Sequence[str], pairs: Sequence[tuple[int, int]]) -> dict[int, Tensor]:
            def candidates(i: int) -> Tensor:
                self.stage(f"best-of: image {i + 1} of {max(counts)} for each of {len(names)} places, {split} prompts")
                noise = candidate_noise(policy, config.settings.eval_seed, split, pairs, i)
                return sample(policy, names, noise, config.settings.micro_batch)

            def score(images: Tensor) -> Tensor:
                return self.judges.scores(images, names)

            return best_of(candidates, score, counts)

        for row in rows:

            def draw(
                split: str, names: Sequence[str], pairs: Sequence[tuple[int, int]], count: int = row.queries_per_image
            ) -> Tensor:
                if split not in drawn:
                    drawn[split] = choose(split, names, pairs)
                return drawn[split][count]

            self._record(row, draw)

    def _record(self, row: Baseline, draw: Draw) -> None:
        config, started = self.config, datetime.now(UTC).replace(tzinfo=None)
        result = measure(
            self.judges,
            self.prompts,
            self.images,
            draw,
            lambda split: self.stage(f"{row.name}: {split} prompts"),
        )
        evals = result.metric_rows(0)
        if row.queries_per_image:
            for found in evals:
                found["settings"]["queries_per_image"] = row.queries_per_image
        run_id, content = row.run_id(config), row.content(config)
        entry = run_row(config, run_id, None, self.policy) | {
            "algorithm": "baseline",
            "wrapper": row.name,
            "seed": config.settings.eval_seed,
            "budget": None,
            "config": content,
            "config_hash": cell_hash(content),
            "started": started,
        }
        with self.store.waiting(FOR_HOURS):
            new = self.store.record_baseline(entry, evals, result.image_rows(0, config.reward_name))
        self.done(Result(row.name, run_id, new))
