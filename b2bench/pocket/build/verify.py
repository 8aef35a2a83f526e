"""``b2bench pocket verify``: measure the bars that the pocket weights must reach, for each template.

Needs the extra ``pocket`` and the art, because faithful and unfaithful scenes of a seed that no model was
trained on are drawn for it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from b2bench.backbones.specs import find_backbone
from b2bench.backbones.stable_diffusion import StableDiffusion, load_pipeline
from b2bench.config.prompt_sets import load_prompts
from b2bench.errors import RunFailed, UserError
from b2bench.evaluation.evaluate import eval_noise, eval_prompts, evaluate
from b2bench.evaluation.judges import Judges
from b2bench.evaluation.scorers import ClipScorer
from b2bench.pocket.build.art import Sprites, load_art
from b2bench.pocket.build.bars import BAR_COLUMNS, Bar
from b2bench.pocket.build.command import STAGES
from b2bench.pocket.build.learning import PROMPTS, learning_bars, time_bars
from b2bench.pocket.build.scenes import Scene, clean_scene, draw, unfaithful
from b2bench.pocket.build.stages import SEED, to_images
from b2bench.pocket.judges import FACTS, Classifier
from b2bench.pocket.paths import POCKET_WEIGHTS
from b2bench.pocket.world import SECONDS, STYLES, SUBJECTS, TEMPLATES, all_facts, caption, parse_caption
from b2bench.registry import Registry
from b2bench.rollout import sample
from b2bench.store.store import Store
from b2bench.studies.baselines import GUIDANCES

VERIFY_SEED = SEED + 101
PERMUTED = 0.15  # of the wrong scenes that a judge is to tell from right ones, as in the corpora on average
BUILD_HOURS = 4.0  # on two cores, for all three templates


class FixedScore:
    """CLIPScore of the training scorer, as a reward that :class:`Judges` accepts."""

    def __init__(self) -> None:
        self.scorer = ClipScorer("pocket")

    def __call__(self, images: Tensor, prompts: Any) -> Tensor:
        return self.scorer(images, prompts)


def markdown(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


MARKERS = ("<!-- measured -->", "<!-- /measured -->")


def fill_card(path: Path, text: str) -> None:
    """Put ``text`` between the markers of a model card."""
    start, stop = MARKERS
    before, _, rest = path.read_text(encoding="utf-8").partition(start)
    _, _, after = rest.partition(stop)
    path.write_text(f"{before}{start}\n{text}\n{stop}{after}", encoding="utf-8")


@dataclass(frozen=True)
class Pairs:
    """Captions with a faithful and an unfaithful scene each, same style: images [2n, 3, 64, 64], right first."""

    images: Tensor
    captions: list[str]  # 2n

    def split(self, scores: Tensor) -> tuple[Tensor, Tensor]:
        """Return scores [2n] of right and of wrong scenes, [n] each."""
        pairs = scores.reshape(-1, 2)
        return pairs[:, 0], pairs[:, 1]


def make_pairs(sprites: Sprites, template: int, n: int) -> Pairs:
    rng = np.random.default_rng([VERIFY_SEED, 1, template])
    known = all_facts(template)
    images, captions = [], []
    for i in range(n):
        facts, style = known[rng.integers(len(known))], STYLES[i % len(STYLES)]
        images += [draw(sprites, facts, style, rng), unfaithful(sprites, facts, style, PERMUTED, rng)[1]]
        captions += [caption(facts)] * 2
    return Pairs(to_images(np.stack(images)), captions)


def make_scenes(sprites: Sprites, template: int, n: int) -> list[Scene]:
    """Faithful scenes of a template whose captions have a detail, styles even, of a seed used nowhere else."""
    found: list[Scene] = []
    i = 0
    while len(found) < n:
        scene = clean_scene(sprites, np.random.default_rng([VERIFY_SEED, 0, template, i]), template)
        i += 1
        if scene.claimed.detail is not None:
            found.append(scene)
    return found


def through(vae: Any, images: Tensor) -> Tensor:
    """Return images [n, 3, 64, 64] in [0, 1] after encoder (mean) and decoder."""
    with torch.no_grad():
        parts = [vae.decode(vae.encode(part * 2 - 1).latent_dist.mean).sample for part in images.split(48)]
    return (torch.cat(parts) / 2 + 0.5).clamp(0, 1)


def share(values: Tensor) -> float:
    return float(values.float().mean())


def area_under_roc(right: Tensor, wrong: Tensor) -> float:
    """P(a right scene scores above a wrong one), ties half: scores [n] and [m]."""
    difference = right.double()[:, None] - wrong.double()[None]
    return float(((difference > 0).double() + 0.5 * (difference == 0).double()).mean())


def autoencoder_bars(sprites: Sprites, template: int, vae: Any) -> list[Bar]:
    """Mean squared error (pixels in [-1, 1]) on fresh scenes, plain and detailed as in training."""
    rng = [np.random.default_rng([VERIFY_SEED, 2, template, i]) for i in range(400)]
    images = to_images(np.stack([clean_scene(sprites, stream, template).pixels for stream in rng]))
    error = float(((through(vae, images) - images) * 2).square().mean())
    return [Bar("autoencoder: mean squared error", error, high=0.002)]


def classifier_bars(scenes: list[Scene], images: Tensor, decoded: Tensor) -> list[Bar]:
    """Accuracy of each head on fresh scenes, and what is lost on scenes that went through the autoencoder."""
    classifier = Classifier.load(POCKET_WEIGHTS / "classifier.safetensors")
    labels = torch.tensor([(*scene.shown.labels, STYLES.index(scene.style)) for scene in scenes])
    with torch.no_grad():
        plain, coded = classifier(images), classifier(decoded)
    heads = (*FACTS, "style")
    right = torch.stack([plain[head].argmax(1) for head in heads], 1) == labels
    coded_right = torch.stack([coded[head].argmax(1) for head in heads], 1) == labels
    bars = [Bar(f"classifier, {head}: accuracy", share(right[:, i]), low=0.9) for i, head in enumerate(heads)]
    lost = 100 * (share(right.all(1)) - share(coded_right.all(1)))
    return [*bars, Bar("classifier: points lost through the autoencoder", lost, high=3.0)]


def retrieval_bar(template: int, scenes: list[Scene], images: Tensor) -> Bar:
    """Of all captions of the template, the one closest to the scene is true of it."""
    heldout, known = ClipScorer("pocket-heldout"), all_facts(template)
    texts = heldout.text_features([caption(facts) for facts in known])
    named = (heldout.image_features(images) @ texts.T).argmax(1).tolist()
    right = [known[i].labels == scene.shown.labels for i, scene in zip(named, scenes, strict=True)]
    return Bar(f"held-out scorer: true caption first of {len(known)}", float(np.mean(right)), low=0.9)


def ranking_bars(pairs: Pairs, bertscore: Any) -> list[Bar]:
    """Return how the three scores tell right from wrong scenes: pairwise, and over all of them."""
    bars = []
    for name, score, low in (
        ("training scorer", ClipScorer("pocket"), -np.inf),
        ("held-out scorer", ClipScorer("pocket-heldout"), 0.9),
        ("BERTScore", bertscore, 0.8),
    ):
        right, wrong = pairs.split(score(pairs.images, pairs.captions))
        if name == "training scorer":
            bars.append(Bar(f"{name}: faithful above unfaithful", share(right > wrong), low=0.85))
            bars.append(Bar(f"{name}: faithful minus unfaithful", float((right - wrong).mean()), note="stated"))
        note = "" if low > -np.inf else "stated"
        bars.append(Bar(f"{name}: area under ROC, right against wrong", area_under_roc(right, wrong), low, note=note))
    return bars


def preference_bars(sprites: Sprites, template: int, n: int = 400) -> list[Bar]:
    """Return what the training scorer gives to equally faithful scenes of each style: the bias that can
    be exploited.
    """
    training, known = ClipScorer("pocket"), all_facts(template)
    order = np.random.default_rng([VERIFY_SEED, 3, template]).integers(len(known), size=n)
    claims = [known[i] for i in order]
    names = [caption(facts) for facts in claims]
    styled = {}
    for style in STYLES:
        # the same generators in every style: the same places and backgrounds
        pictures = [
            draw(sprites, facts, style, np.random.default_rng([VERIFY_SEED, 4, i])) for i, facts in enumerate(claims)
        ]
        styled[style] = training(to_images(np.stack(pictures)), names).numpy()
    bars = [
        Bar(f"training scorer: mean on faithful {style} scenes", float(scores.mean()), note="stated")
        for style, scores in styled.items()
    ]
    difference = styled["flat"] - styled["soft"]
    error = difference.std(ddof=1) / n**0.5
    note = f"margin {difference.mean():.3f} +- {error:.3f}, paired by caption and layout"
    return [*bars, Bar("training scorer: flat minus soft, in standard errors", float(difference.mean() / error), 3.0,
                       note=note)]  # fmt: skip


def captioner_bar(bertscore: Any, scenes: list[Scene], images: Tensor) -> Bar:
    """Share of scenes whose description is a sentence of the world and says all that is shown."""

    def true_of(text: str, scene: Scene) -> bool:
        try:
            return parse_caption(text).labels == scene.shown.labels
        except ValueError:
            return False

    said = bertscore.captions(images)
    right = [true_of(text, scene) for text, scene in zip(said, scenes, strict=True)]
    return Bar("captioner: caption true of the scene", float(np.mean(right)), low=0.85, note=f"e.g. {said[0]!r}")


def policy_at(template: int, guidance: float) -> StableDiffusion:
    spec = find_backbone("pocket").drawing(load_prompts(PROMPTS[template]).test)
    return StableDiffusion(load_pipeline(spec), num_steps=20, eta=1.0, guidance=guidance)


@dataclass(frozen=True)
class Swept:
    """The pretrained model at one guidance: its metrics by name, and the training scorer's score of each image [n]."""

    guidance: float
    metrics: dict[str, float]
    scores: Tensor


def guidance_sweep(template: int, images: int, seed: int) -> list[Swept]:
    """Return the pretrained model at each guidance on the test prompts of a template, with the same noise."""
    judges = Judges(FixedScore(), "clipscore", find_backbone("pocket"), torch.device("cpu"))
    test = load_prompts(PROMPTS[template]).test
    swept = []
    for guidance in GUIDANCES:
        found = evaluate(policy_at(template, guidance), judges, {"test": test}, {"test": images}, seed, 60)
        metrics = {metric.name: found.value("test", metric.name) for metric in found.metrics}
        swept.append(Swept(guidance, metrics, found.scores["test"]["clipscore"]))
    return swept


def guidance_bar(sweeps: Sequence[Sequence[Swept]], usual: float) -> Bar:
    """Return what the default guidance leaves of the training scorer's highest mean over templates, image by image.

    In paired standard errors, because near its top the curve is flat: which of two neighbours is highest is then a
    matter of some hundred images.
    """
    at = [torch.stack([swept.scores for swept in sweep]).double() for sweep in sweeps]  # [guidances, n] a template
    means = torch.stack([scores.mean(1) for scores in at]).mean(0)
    best, default = int(means.argmax()), [swept.guidance for swept in sweeps[0]].index(usual)
    lost = torch.cat([scores[best] - scores[default] for scores in at])
    error = float(lost.std(correction=1)) / len(lost) ** 0.5
    note = f"highest at {sweeps[0][best].guidance:g}, by {float(lost.mean()):.4f} +- {error:.4f}"
    value = float(lost.mean()) / error if error else 0.0
    return Bar("CLIPScore that the default guidance leaves, in paired standard errors", value, high=2.0, note=note)


@dataclass(frozen=True)
class Drawn:
    """What the classifier and the reward say of n images of a prompt set; bool [n], ``reward`` float32 [n]."""

    prompt: Tensor  # index of the prompt [n]
    right: Tensor  # every fact of the prompt
    subject_right: Tensor  # what the prompt names first is in the picture
    reward: Tensor  # of the training scorer

    @property
    def detail_alone(self) -> float:
        """Of the images that miss their prompt, the share in which the subject is right: the detail alone is wrong."""
        return share(self.subject_right[~self.right])

    @property
    def correlation(self) -> float:
        """Correlation of reward and success within prompts: both less their prompt's mean, over all images."""
        pairs = torch.stack([self.reward.double(), self.right.double()])
        for prompt in self.prompt.unique():
            rows = self.prompt == prompt
            pairs[:, rows] -= pairs[:, rows].mean(1, keepdim=True)
        return float(torch.corrcoef(pairs)[0, 1])


def drawn(template: int, guidance: float, images: int) -> Drawn:
    """Return the pretrained model on all prompts of a template, training and test, spread evenly."""
    prompts = load_prompts(PROMPTS[template])
    texts = [*prompts.train, *prompts.test]
    pairs = eval_prompts(texts, images)
    names = [texts[prompt] for prompt, _ in pairs]
    policy = policy_at(template, guidance)
    pictures = sample(policy, names, eval_noise(policy, 1, "verify", pairs), 60)
    classifier = Classifier.load(POCKET_WEIGHTS / "classifier.safetensors")
    with torch.no_grad():
        seen = {name: logits.argmax(1) for name, logits in classifier(pictures).items()}
    first = [parse_caption(name).subject for name in names]
    # what "under" or "behind" names first is the second thing of the scene's labels
    elsewhere = torch.tensor([SECONDS.index(name) if name in SECONDS else len(SECONDS) for name in first])
    return Drawn(
        prompt=torch.tensor([prompt for prompt, _ in pairs]),
        right=classifier.success(pictures, names) == 1,
        subject_right=(seen["subject"] == torch.tensor([SUBJECTS.index(name) for name in first]))
        | (seen["second"] == elsewhere),
        reward=ClipScorer("pocket")(pictures, names),
    )


def base_model_bars(template: int, guidance: float, images: int, faithful: Pairs) -> list[Bar]:
    """Return what the pretrained model gets right and wrong, and whether the reward says which; faithful scenes beside
    it.
    """
    found = drawn(template, guidance, images)
    oracle, _ = faithful.split(ClipScorer("pocket")(faithful.images, faithful.captions))
    lowest = 0.92 if template == 3 else 0.95
    return [
        Bar(f"base model: subject right at guidance {guidance:g}, {images} images", share(found.subject_right), lowest),
        Bar("base model: success there", share(found.right), low=0.25, high=0.50),
        Bar("base model: of the failures, the detail alone is wrong", found.detail_alone, low=0.85),
        Bar("base model: reward and success, correlation within prompts", found.correlation, low=0.45),
        Bar("base model: CLIPScore there", float(found.reward.mean()), note="stated"),
        Bar("faithful scenes (oracle): CLIPScore", float(oracle.mean()), note="stated"),
    ]


def build_bars(work: Path) -> list[Bar]:
    """Return what the stages of a build took: the longest by the clock, and all of them on two cores."""
    seconds = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(work.glob("*.done.json"))]
    if len(seconds) < len(STAGES):
        raise UserError(f"--work {work}: {len(seconds)} of {len(STAGES)} stages are done; b2bench pocket build goes on")
    note = "a stage was resumed: its time is that since" if any(s["resumed"] for s in seconds) else ""
    total = sum(s["cpu"] for s in seconds) / 3600
    return [
        Bar("build: longest stage, minutes", max(s["wall"] for s in seconds) / 60, high=60.0, note=note),
        Bar("build: CPU hours of all stages, over two cores", total / 2, high=BUILD_HOURS, note=note),
    ]


def verify(
    art: Path | None,
    work: Path | None,
    db: Path | None,
    clock: Path | None,
    card: Path | None,
    out: Path | None,
    images: int,
    sweep_images: int,
    console: Console,
    result: Console,
) -> None:
    """Measure every bar and print the tables; ``console`` is for what goes on meanwhile.

    ``db`` adds the bars that runs of that store show (:mod:`b2bench.pocket.build.learning`), ``clock`` those of the
    time that default runs of that store took, ``work`` those of the build that worked in this folder; ``card`` is a
    model card that the tables are written into, ``out`` a JSON file.

    Raises:
        UserError: the extra or the art is missing, or a file cannot be used.
        RunFailed: a bar falls short.
    """
    if card is not None and not card.is_file():
        raise UserError(f"--card {card} is no file; it needs the markers {' and '.join(MARKERS)}")
    sprites = load_art(art, (work or Path("pocket-build")) / "art", partial(console.print, highlight=False))
    bertscore: Any = Registry("reward").get("bertscore")(checkpoint="pocket")
    bertscore.prepare(torch.device("cpu"))
    vae = policy_at(1, 1.0).vae
    bars: dict[str, list[Bar]] = {}
    pairs, sweeps = {}, {}
    for t in TEMPLATES:
        console.print(f"template {t}: scenes and judges", highlight=False)
        scenes = make_scenes(sprites, t, 720)
        pictures = to_images(np.stack([scene.pixels for scene in scenes]))
        pairs[t] = make_pairs(sprites, t, 400)
        bars[f"template {t}"] = [
            *autoencoder_bars(sprites, t, vae),
            *classifier_bars(scenes, pictures, through(vae, pictures)),
            retrieval_bar(t, scenes, pictures),
            *ranking_bars(pairs[t], bertscore),
            *preference_bars(sprites, t),
            captioner_bar(bertscore, scenes[:400], pictures[:400]),
        ]
    for t in TEMPLATES:
        console.print(f"template {t}: guidance sweep, {len(GUIDANCES)} x {sweep_images} images", highlight=False)
        sweeps[t] = guidance_sweep(t, sweep_images, seed=0)
    usual = find_backbone("pocket").guidance
    for t in TEMPLATES:
        console.print(f"template {t}: base model, {images} images", highlight=False)
        bars[f"template {t}"] += base_model_bars(t, usual, images, pairs[t])
    size = sum(f.stat().st_size for f in POCKET_WEIGHTS.rglob("*") if f.is_file()) / 1e6
    bars["all"] = [
        guidance_bar(list(sweeps.values()), usual),
        Bar("all weights, MB", size, high=40.0),
        *(time_bars(Store(clock)) if clock else []),
        *(build_bars(work) if work else []),
    ]
    for heading, group in (learning_bars(Store(db)) if db else {}).items():
        bars[heading] += group
    text = _tables(bars, sweeps, sweep_images, result)
    if card:
        fill_card(card, text)
    everything = [(heading, bar) for heading, group in bars.items() for bar in group]
    if out:
        written = [{"part": heading, **vars(bar), "reached": bar.reached} for heading, bar in everything]
        curves = {t: [{"guidance": at.guidance, **at.metrics} for at in sweep] for t, sweep in sweeps.items()}
        content = json.dumps({"bars": written, "guidance_sweep": curves}, indent=1, default=str)
        out.write_text(content.replace("-Infinity", "null").replace("Infinity", "null") + "\n", encoding="utf-8")
    short = [f"{heading}, {bar.name}" for heading, bar in everything if not bar.reached]
    if short:
        raise RunFailed(f"{len(short)} of {len(everything)} bars fall short: {'; '.join(short)}")


def _tables(
    bars: Mapping[str, Sequence[Bar]], sweeps: Mapping[int, Sequence[Swept]], sweep_images: int, result: Console
) -> str:
    """Print the tables of the bars and of the sweeps; as Markdown they go into the model card."""
    text = []
    for heading, group in bars.items():
        lines = [bar.row() for bar in group]
        _show(result, heading.capitalize(), BAR_COLUMNS, lines)
        text.append(f"### {heading.capitalize()}\n\n{markdown(BAR_COLUMNS, lines)}")
    measured = ["clipscore", "clipscore_heldout", "success", "style_entropy", "is_style", "is_subject"]
    measured += [f"style_{style}" for style in STYLES]
    columns = ["guidance", *measured]
    for t, sweep in sweeps.items():
        title = f"Template {t}: guidance sweep of the pretrained model, {sweep_images} images of test prompts"
        rows = [[f"{value:.3f}" for value in (at.guidance, *(at.metrics[name] for name in measured))] for at in sweep]
        _show(result, title, columns, rows)
        text.append(f"{title}, T=20, eta=1:\n\n{markdown(columns, rows)}")
    return "\n\n".join(text)


def _show(console: Console, title: str, columns: Sequence[str], lines: Sequence[Sequence[str]]) -> None:
    table = Table(*columns, title=title, title_justify="left")
    for line in lines:
        table.add_row(*line)
    console.print(table)
