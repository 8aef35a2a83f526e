"""Measure the bars that the pocket weights must reach, and print them: ``python -m b2bench.pocket.build.verify``.

Needs the extra ``pocket`` and the art, because faithful and unfaithful scenes of a seed that no model was
trained on are drawn for it. Exits 1 if a bar falls short.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from b2bench.backbones import POCKET_WEIGHTS, Backbone, find_backbone
from b2bench.backbones.stable_diffusion import StableDiffusion, load_pipeline
from b2bench.config import Settings
from b2bench.errors import UserError
from b2bench.evaluate import Judges, evaluate
from b2bench.pocket.build.art import fetch_art, load_sprites
from b2bench.pocket.build.command import STAGES
from b2bench.pocket.build.scenes import Scene, Sprites, clean_scene, draw, make_corpus
from b2bench.pocket.build.stages import SEED, to_images
from b2bench.pocket.judges import Classifier
from b2bench.pocket.world import ACTIVITIES, ANIMALS, STYLES, Facts, all_captions, caption
from b2bench.prompts import load_prompts
from b2bench.scorers import ClipScorer
from b2bench.store import Store

VERIFY_SEED = SEED + 101
BAR_COLUMNS = ("bar", "measured", "asked", "", "note")
GUIDANCE_SWEEP = (1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0)


@dataclass(frozen=True)
class Bar:
    """One bar: what was measured, the value, and whether it reaches ``[low, high]``."""

    name: str
    value: float
    low: float = -np.inf
    high: float = np.inf
    note: str = ""

    @property
    def reached(self) -> bool:
        return bool(self.low <= self.value <= self.high)

    def row(self) -> tuple[str, str, str, str, str]:
        """Cells of a table line, in the order of ``BAR_COLUMNS``."""
        limits = [f">= {self.low:g}" if self.low > -np.inf else "", f"<= {self.high:g}" if self.high < np.inf else ""]
        asked = " and ".join(filter(None, limits))
        verdict = "" if not asked else "reached" if self.reached else "SHORT"
        return self.name, f"{self.value:.4g}", asked, verdict, self.note


class FixedScore:
    """CLIPScore of the training scorer, as a reward that :class:`Judges` accepts."""

    def __init__(self) -> None:
        self.scorer = ClipScorer("pocket")

    def __call__(self, images: Tensor, prompts: Any) -> Tensor:
        return self.scorer(images, prompts)


def markdown(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def fill_card(path: Path, text: str) -> None:
    """Put ``text`` between the markers of a model card."""
    start, stop = "<!-- measured -->", "<!-- /measured -->"
    before, _, rest = path.read_text(encoding="utf-8").partition(start)
    _, _, after = rest.partition(stop)
    path.write_text(f"{before}{start}\n{text}\n{stop}{after}", encoding="utf-8")


def scenes(sprites: Sprites, n: int) -> tuple[Tensor, list[Facts], list[str]]:
    """Faithful scenes with an activity, styles even, of a seed used nowhere else: images, facts, styles."""
    found: list[Scene] = []
    i = 0
    while len(found) < n:
        scene = clean_scene(sprites, np.random.default_rng([VERIFY_SEED, i]))
        i += 1
        if scene.shown.activity is not None:
            found.append(scene)
    images = to_images(np.stack([scene.pixels for scene in found]))
    return images, [scene.shown for scene in found], [scene.style for scene in found]


def through(vae: Any, images: Tensor) -> Tensor:
    """Images [n, 3, 64, 64] in [0, 1] after encoder (mean) and decoder."""
    with torch.no_grad():
        parts = [vae.decode(vae.encode(part * 2 - 1).latent_dist.mean).sample for part in images.split(48)]
    return (torch.cat(parts) / 2 + 0.5).clamp(0, 1)


def squared_error(vae: Any, images: Tensor) -> float:
    """Mean squared error through the autoencoder, pixels in [-1, 1]."""
    return float(((through(vae, images) - images) * 2).square().mean())


def share(values: Tensor) -> float:
    return float(values.float().mean())


def classifier_bars(images: Tensor, facts: list[Facts], styles: list[str], decoded: Tensor) -> list[Bar]:
    """Accuracy of each head on fresh scenes, and what is lost on scenes that went through the autoencoder."""
    classifier = Classifier.load(POCKET_WEIGHTS / "classifier.safetensors")
    wanted = {
        "animal": torch.tensor([ANIMALS.index(f.animal) for f in facts]),
        "activity": torch.tensor([f.labels[1] for f in facts]),
        "style": torch.tensor([STYLES.index(style) for style in styles]),
    }
    bars, right, right_decoded = [], [], []
    with torch.no_grad():
        plain, coded = classifier(images), classifier(decoded)
    for head, target in wanted.items():
        correct = plain[head].argmax(1) == target
        right.append(correct)
        right_decoded.append(coded[head].argmax(1) == target)
        bars.append(Bar(f"classifier, {head}: accuracy", share(correct), low=0.9))
    before = share(torch.stack(right).all(0))
    after = share(torch.stack(right_decoded).all(0))
    bars.append(Bar("classifier: points lost through the autoencoder", 100 * (before - after), high=3.0))
    return bars


def scorer_bars(sprites: Sprites, images: Tensor, facts: list[Facts]) -> list[Bar]:
    """Retrieval of the held-out scorer; ranking and style preference of the training scorer."""
    heldout, training = ClipScorer("pocket-heldout"), ClipScorer("pocket")
    captions = all_captions()
    texts = heldout.text_features(captions)
    named = (heldout.image_features(images) @ texts.T).argmax(1)
    right = torch.tensor([captions[i] == caption(f) for i, f in zip(named.tolist(), facts, strict=True)])
    bars = [Bar("held-out scorer: true caption first of 135", share(right), low=0.9)]
    rng = np.random.default_rng([VERIFY_SEED, 1])
    pairs, names = [], []
    for i in range(800):
        fact = Facts(ANIMALS[rng.integers(len(ANIMALS))], ACTIVITIES[rng.integers(len(ACTIVITIES))])
        style = STYLES[i % len(STYLES)]
        pairs.append(draw(sprites, fact, style, rng))
        pairs.append(draw(sprites, Facts(fact.animal, None), style, rng))
        names += [caption(fact)] * 2
    scores = training(to_images(np.stack(pairs)), names).reshape(-1, 2)
    bars.append(Bar("training scorer: faithful above unfaithful", share(scores[:, 0] > scores[:, 1]), low=0.85))
    gap = float((scores[:, 0] - scores[:, 1]).mean())
    bars.append(Bar("training scorer: faithful minus unfaithful", gap, note="stated"))
    styled: dict[str, list[float]] = {style: [] for style in STYLES}
    claims = [Facts(ANIMALS[i % 45], ACTIVITIES[(i // 45) % 3]) for i in range(405)]
    for style in STYLES:
        pictures = [draw(sprites, f, style, np.random.default_rng([VERIFY_SEED, 2, i])) for i, f in enumerate(claims)]
        styled[style] = training(to_images(np.stack(pictures)), [caption(f) for f in claims]).tolist()
    for style in STYLES:
        bars.append(
            Bar(
                f"training scorer: mean on faithful {style} scenes",
                float(np.mean(styled[style])),
                note="stated",
            )
        )
    difference = np.array(styled["flat"]) - np.array(styled["soft"])
    error = difference.std(ddof=1) / len(difference) ** 0.5
    bars.append(Bar("training scorer: flat minus soft, in standard errors", float(difference.mean() / error), low=3.0,
                    note=f"margin {difference.mean():.3f} +- {error:.3f}, paired by caption and layout"))  # fmt: skip
    return bars


def captioner_bar(images: Tensor, facts: list[Facts]) -> Bar:
    from b2bench.registry import Registry

    reward = Registry("reward").get("bertscore")(checkpoint="pocket")
    reward.prepare(torch.device("cpu"))
    said = reward.captions(images)
    right = [text == caption(f) for text, f in zip(said, facts, strict=True)]
    return Bar("captioner: caption true of the scene", float(np.mean(right)), low=0.85, note=f"e.g. {said[0]!r}")


def policy_at(guidance: float) -> StableDiffusion:
    spec = Backbone("pocket", str(POCKET_WEIGHTS / "pipeline"), "", guidance)
    return StableDiffusion(load_pipeline(spec), num_steps=20, eta=1.0, guidance=guidance)


def guidance_sweep(images: int, seed: int) -> list[dict[str, float]]:
    """The pretrained model at each guidance on the test prompts of template 1."""
    reward = FixedScore()
    judges = Judges(reward, "clipscore", "pocket", torch.device("cpu"))
    test = load_prompts("template1").test
    rows = []
    for guidance in GUIDANCE_SWEEP:
        found = evaluate(policy_at(guidance), judges, {"test": test}, {"test": images}, seed, 60)
        names = [m.name for m in found.metrics]
        rows.append({"guidance": guidance, **{name: found.value("test", name) for name in names}})
    return rows


def run_bars(store: Store) -> list[Bar]:
    """Bars that runs of the store show: style collapse under vanilla DDPO, and what the default run costs."""
    bars = []
    for row in store.runs(algorithm="ddpo", wrapper="vanilla", backbone="pocket", status="done"):
        found = {(e["queries"], e["metric"]): e["value"] for e in store.evals([row["run_id"]]) if e["split"] == "test"}
        points = sorted({queries for queries, _ in found})
        first, last = points[0], points[-1]
        gain = found[last, "clipscore"] - found[first, "clipscore"]
        lost = 1 - found[last, "style_entropy"] / found[first, "style_entropy"]
        note = f"seed {row['seed']}, {last} queries"
        bars.append(Bar("collapse: CLIPScore gained by ddpo vanilla", gain, low=0.0, note=note))
        bars.append(Bar("collapse: share of style entropy lost", lost, low=0.10, note=note))
    usual = asdict(Settings(guidance=find_backbone("pocket").guidance))
    for row in store.runs(algorithm="dpok", wrapper="b2", backbone="pocket", status="done"):
        if row["config"]["settings"] != usual:  # more images cost more
            continue
        minutes = (row["finished"] - row["started"]).total_seconds() / 60
        training = sum(r["seconds"] for r in store.rounds(row["run_id"])) / 60
        note = f"seed {row['seed']}, {row['threads']} threads"
        bars.append(Bar("default run: minutes", minutes, high=5.0, note=note))
        bars.append(Bar("default run: share that is evaluation", 1 - training / minutes, high=0.25, note=note))
    return bars


def build_bars(work: Path) -> list[Bar]:
    """What the stages of a build took: the longest by the clock, and all of them on two cores."""
    seconds = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(work.glob("*.done.json"))]
    if len(seconds) < len(STAGES):
        raise UserError(f"--work {work}: {len(seconds)} of {len(STAGES)} stages are done; b2bench pocket build goes on")
    note = "a stage was resumed: its time is that since" if any(s["resumed"] for s in seconds) else ""
    total = sum(s["cpu"] for s in seconds) / 3600
    return [
        Bar("build: longest stage, minutes", max(s["wall"] for s in seconds) / 60, high=60.0, note=note),
        Bar("build: CPU hours of all stages, over two cores", total / 2, high=2.5, note=note),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--art", type=Path, default=Path("pocket-build/art"))
    parser.add_argument("--images", type=int, default=1080, help="images of the final base-model figure")
    parser.add_argument("--sweep-images", type=int, default=270, help="images per guidance of the sweep")
    parser.add_argument("--card", type=Path, help="also write the tables between the markers of this model card")
    parser.add_argument("--db", type=Path, help="also the bars of runs: ddpo vanilla and dpok b2 of this store")
    parser.add_argument("--work", type=Path, help="also the bars of the build that worked in this folder")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    options = parser.parse_args()
    if not options.art.exists():
        fetch_art(options.art)
    sprites = load_sprites(options.art)
    console = Console()
    images, facts, styles = scenes(sprites, 720)
    vae = policy_at(1.0).vae
    bars, decoded = [], through(vae, images)
    for kind in ("web", "clean"):
        heldout = to_images(make_corpus(sprites, kind, 400, VERIFY_SEED).pixels)
        bars.append(Bar(f"autoencoder: mean squared error, {kind} scenes", squared_error(vae, heldout), high=0.008))
    error = float(((decoded - images) * 2).square().mean())
    bars.append(Bar("autoencoder: the same, scenes with an activity only (the hardest)", error, note="stated"))
    bars += classifier_bars(images, facts, styles, decoded)
    bars += scorer_bars(sprites, images, facts)
    bars.append(captioner_bar(images[:400], facts[:400]))
    sweep = guidance_sweep(options.sweep_images, seed=0)
    best = max(sweep, key=lambda row: row["clipscore"])["guidance"]
    judges = Judges(FixedScore(), "clipscore", "pocket", torch.device("cpu"))
    test = load_prompts("template1").test
    final = evaluate(policy_at(best), judges, {"test": test}, {"test": options.images}, 1, 60)
    success = final.value("test", "success")
    bars.append(Bar(f"base model: success at guidance {best:g}, {options.images} images", success, low=0.25, high=0.60))
    oracle = float(np.mean(ClipScorer("pocket")(images, [caption(f) for f in facts]).numpy()))
    bars.append(Bar("base model: CLIPScore there", final.value("test", "clipscore"), note="stated"))
    bars.append(Bar("faithful scenes (oracle): CLIPScore", oracle, note="stated"))
    size = sum(f.stat().st_size for f in POCKET_WEIGHTS.rglob("*") if f.is_file()) / 1e6
    bars.append(Bar("all weights, MB", size, high=30.0))
    bars += run_bars(Store(options.db)) if options.db else []
    bars += build_bars(options.work) if options.work else []
    rows = [bar.row() for bar in bars]
    measures = ("guidance", "clipscore", "clipscore_heldout", "success", "style_entropy", "is_style", "is_subject")
    columns = [*measures, *(f"style_{style}" for style in STYLES)]
    swept = [[f"{row[column]:.3f}" for column in columns] for row in sweep]
    for headings, lines in ((BAR_COLUMNS, rows), (columns, swept)):
        table = Table(*headings)
        for line in lines:
            table.add_row(*line)
        console.print(table)
    if options.card:
        title = f"Guidance sweep of the pretrained model: {options.sweep_images} images of test prompts, T=20, eta=1."
        fill_card(options.card, f"{markdown(BAR_COLUMNS, rows)}\n\n{title}\n\n{markdown(columns, swept)}")
    if options.json:
        figures = {"bars": [{**vars(bar), "reached": bar.reached} for bar in bars], "guidance_sweep": sweep}
        text = json.dumps(figures, indent=1, default=str).replace("-Infinity", "null").replace("Infinity", "null")
        options.json.write_text(text + "\n", encoding="utf-8")
    sys.exit(0 if all(bar.reached for bar in bars) else 1)


if __name__ == "__main__":
    main()
