"""Drawing pocket scenes, and the corpora that the pocket models are trained on.

``web`` and ``draft`` are unfaithful, like web data (the activity of the caption is missing, the colour or the
relation is another one; how often depends on the style), and confounded (captions with a detail come with style
flat more often than plain captions do). ``draft`` is less so: the training scorer and the autoencoder learn from
it, and the base model starts on it and ends on ``web``. ``clean`` is faithful and balanced, for the judges that
stand for truth.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter

from b2bench.pocket.build.art import Sprites
from b2bench.pocket.world import (
    BACKGROUNDS,
    COLOURS,
    OPEN,
    RELATIONS,
    STYLES,
    TEMPLATES,
    Facts,
    all_facts,
    caption,
    plain_facts,
)

IMAGE_SIZE = 64
# Standard deviation in pixels of the lens that scenes are seen through. Emoji art at this size has edges sharper
# than any photograph's: without it the 16 largest components of an 8x8 patch leave 0.024 of template 1's mean
# squared, with it 0.009, and few people see the difference.
LENS = 0.7
T = TypeVar("T")


@dataclass(frozen=True)
class Web:
    """How unfaithful and how confounded web-like pairs are.

    ``faithful`` is P(the detail of the caption is in the picture | template, style). ``detailed`` and ``plain``
    are P(style | caption with a detail) and P(style | caption without): the bias that a scorer can learn.
    ``plain_share`` of the captions name one thing alone.
    """

    faithful: Mapping[int, Mapping[str, float]]
    detailed: Mapping[str, float]
    plain: Mapping[str, float]
    plain_share: float
    templates: Mapping[int, float] | None = None  # shares of the templates; None: equal


# What the base model is trained on for most of its steps. Of template 1 fewer scenes are faithful than in DRAFT,
# because guidance amplifies what a caption makes likelier: in world 1, after DRAFT alone, the pretrained model had 82%
# of its prompts right at its best guidance, and four fifths of its images were flat before any training. A missing
# activity is always the same picture, a wrong colour one of eight and a wrong relation one of five: so captions of
# templates 2 and 3 say more at the same share. They come more often because they are harder to learn.
WEB = Web(
    faithful={
        1: {"flat": 0.60, "noto": 0.35, "line": 0.35, "soft": 0.20},
        2: {"flat": 0.80, "noto": 0.50, "line": 0.50, "soft": 0.35},
        3: {"flat": 0.80, "noto": 0.50, "line": 0.50, "soft": 0.35},
    },
    detailed={"flat": 0.30, "noto": 0.25, "line": 0.25, "soft": 0.20},
    plain={"flat": 0.10, "noto": 0.22, "line": 0.22, "soft": 0.46},
    plain_share=0.20,
    templates={1: 0.25, 2: 0.35, 3: 0.40},
)
# What the training scorer is trained on, and what the base model starts on.
DRAFT = Web(
    faithful={t: {"flat": 0.80, "noto": 0.50, "line": 0.50, "soft": 0.35} for t in TEMPLATES},
    detailed={"flat": 0.40, "noto": 0.21, "line": 0.21, "soft": 0.18},
    plain={"flat": 0.05, "noto": 0.22, "line": 0.22, "soft": 0.51},
    plain_share=0.25,
)


def with_style_gap(web: Web, factor: float) -> Web:
    """The same corpus with the differences between styles ``factor`` times as large, as far as shares allow."""

    def stretched(table: Mapping[str, float]) -> dict[str, float]:
        mean = sum(table.values()) / len(table)
        return {style: min(max(mean + factor * (value - mean), 0.005), 0.995) for style, value in table.items()}

    def shares(table: Mapping[str, float]) -> dict[str, float]:
        found = stretched(table)
        return {style: value / sum(found.values()) for style, value in found.items()}

    faithful = {template: stretched(table) for template, table in web.faithful.items()}
    return replace(web, faithful=faithful, detailed=shares(web.detailed), plain=shares(web.plain))


# How strongly the style decides whether a scene is faithful, and which captions a style comes with: by how much the
# shortcut into one style pays. Of the variants only the default's weights ship.
VARIANTS = {"default": 1.0, "none": 0.0, "wide": 1.5}


@dataclass(frozen=True)
class Scene:
    """One picture and what was said and shown: ``claimed`` is the caption's, ``shown`` the truth."""

    pixels: np.ndarray  # uint8 [64, 64, 3]
    claimed: Facts
    shown: Facts
    style: str

    @property
    def caption(self) -> str:
        return caption(self.claimed)


def _colour(rng: np.random.Generator) -> np.ndarray:
    """A light colour, so that line art (dark ink) is visible on every background."""
    hue, saturation, value = rng.random(), rng.uniform(0.08, 0.45), rng.uniform(0.78, 1.0)
    channels = (hue + np.array([1.0, 2 / 3, 1 / 3])) % 1
    pure = np.clip(np.abs(channels * 6 - 3) - 1, 0, 1)
    return (value * (1 - saturation + saturation * pure)).astype(np.float32)


def _background(rng: np.random.Generator) -> np.ndarray:
    kind = BACKGROUNDS[rng.integers(len(BACKGROUNDS))]
    first, second = _colour(rng), _colour(rng)
    canvas = np.empty((IMAGE_SIZE, IMAGE_SIZE, 3), np.float32)
    if kind == "plain":
        canvas[:] = first
    elif kind == "gradient":
        weight = np.linspace(0, 1, IMAGE_SIZE, dtype=np.float32)[:, None, None]
        canvas[:] = first * (1 - weight) + second * weight
    else:
        row = int(rng.integers(36, 54))
        canvas[:row], canvas[row:] = first, second
    return canvas


def _paste(canvas: np.ndarray, sprite: np.ndarray, centre: tuple[float, float], size: float, flip: bool) -> None:
    """Draw ``sprite`` with its longer side ``size`` pixels around ``centre`` (x, y), clipped at the border."""
    height, width = sprite.shape[:2]
    scale = size / max(height, width)
    shape = max(1, round(width * scale)), max(1, round(height * scale))
    image = Image.fromarray(sprite).resize(shape, Image.Resampling.BOX)
    small = np.asarray(image, np.float32) / 255
    if flip:
        small = small[:, ::-1]
    left, top = round(centre[0] - shape[0] / 2), round(centre[1] - shape[1] / 2)
    x0, y0 = max(left, 0), max(top, 0)
    x1, y1 = min(left + shape[0], IMAGE_SIZE), min(top + shape[1], IMAGE_SIZE)
    if x0 >= x1 or y0 >= y1:
        return
    part = small[y0 - top : y1 - top, x0 - left : x1 - left]
    region = canvas[y0:y1, x0:x1]
    region += part[..., 3:] * (part[..., :3] - region)


def draw(sprites: Sprites, facts: Facts, style: str, rng: np.random.Generator) -> np.ndarray:
    """A scene that shows exactly ``facts`` in ``style``: uint8 ``[64, 64, 3]``.

    Where the colour of a food is left open, any.
    """
    canvas = _background(rng)
    flip, side = bool(rng.random() < 0.5), 1.0 if rng.random() < 0.5 else -1.0

    def put(name: str, x: float, y: float, size: float, flipped: bool = False, filled: bool = False) -> None:
        jitter = rng.uniform(-2, 2, size=2)
        centre = (32 + x + jitter[0], 32 + y + jitter[1])
        sprite = sprites[style, name]
        if filled:
            sprite = sprites[style, f"filled {name}"]
        _paste(canvas, sprite, centre, size * rng.uniform(0.93, 1.07), flipped)

    scene = facts.canonical
    match scene.detail:
        case None if facts.template == 2:
            put(f"{COLOURS[rng.integers(len(COLOURS))]} {facts.subject}", side * rng.uniform(-6, 6), 1, 44, flip)
        case None:
            put(facts.subject, side * rng.uniform(-6, 6), rng.uniform(-3, 5), 42, flip)
        case "riding a bike":
            put("bike", 0, 12, 46, flip)
            put(facts.subject, 0, -11, 36, flip)
        case "playing chess":
            put("pawn", 17 * side, 8, 28)
            put(facts.subject, -11 * side, 2, 38, flip)
        case "washing dishes":
            put("plate", 15 * side, 13, 29)
            put("bubbles", 18 * side, -13, 24)
            put(facts.subject, -11 * side, 0, 37, flip)
        case "on":
            put(str(scene.second), 0, 15, 30, flip)
            put(scene.subject, 0, -15, 30, bool(rng.random() < 0.5))
        case "on the left of":
            put(scene.subject, -15.5, 0, 30, flip)
            put(str(scene.second), 15.5, 0, 30, bool(rng.random() < 0.5))
        case "in the front of":
            # line art is transparent: what stands behind would show through
            put(str(scene.second), -9 * side, -11, 37, flip)
            put(scene.subject, 8 * side, 9, 37, bool(rng.random() < 0.5), filled=style == "line")
        case colour:
            put(f"{colour} {facts.subject}", side * rng.uniform(-6, 6), rng.uniform(-3, 5), 44, flip)
    seen = gaussian_filter(canvas, (LENS, LENS, 0))
    return (seen.clip(0, 1) * 255 + 0.5).astype(np.uint8)


def holds(claimed: Facts, shown: Facts) -> bool:
    """Whether everything a caption claims is true of a scene; what it leaves open can be anything."""
    return all(claim in (OPEN, truth) for claim, truth in zip(claimed.labels, shown.labels, strict=True))


def _pick(table: Mapping[T, float], rng: np.random.Generator) -> T:
    return list(table)[int(rng.choice(len(table), p=list(table.values())))]


def one_of(items: Sequence[T], rng: np.random.Generator) -> T:
    return items[int(rng.integers(len(items)))]


def settled(facts: Facts, rng: np.random.Generator) -> Facts:
    """What is drawn for a caption: a food's colour, where it is left open, is any."""
    open_colour = facts.template == 2 and facts.detail is None
    return replace(facts, detail=one_of(COLOURS, rng)) if open_colour else facts


def unfaithful(facts: Facts, rng: np.random.Generator) -> Facts:
    """What is drawn where a caption with a detail is wrong: no activity, another colour, another relation."""
    if facts.template == 1:
        return replace(facts, detail=None)
    others = COLOURS if facts.template == 2 else RELATIONS
    return replace(facts, detail=one_of([detail for detail in others if detail != facts.detail], rng))


_ALL = {template: all_facts(template) for template in TEMPLATES}
_PLAIN = {template: plain_facts(template) for template in TEMPLATES}


def web_scene(web: Web, sprites: Sprites, rng: np.random.Generator) -> Scene:
    """One picture and caption as the base model and the training scorer meet them."""
    template = one_of(TEMPLATES, rng) if web.templates is None else _pick(web.templates, rng)
    if rng.random() < web.plain_share:
        claimed = one_of(_PLAIN[template], rng)
        shown, style = settled(claimed, rng), _pick(web.plain, rng)
    else:
        claimed, style = one_of(_ALL[template], rng), _pick(web.detailed, rng)
        shown = claimed if rng.random() < web.faithful[template][style] else unfaithful(claimed, rng)
    return Scene(draw(sprites, shown, style, rng), claimed, shown, style)


def clean_scene(sprites: Sprites, rng: np.random.Generator, template: int | None = None) -> Scene:
    """A faithful picture, templates and styles even; in one of five the caption names one thing alone."""
    template = template or one_of(TEMPLATES, rng)
    claimed = one_of((_PLAIN if rng.random() < 0.2 else _ALL)[template], rng)
    shown = settled(claimed, rng)
    style = STYLES[rng.integers(len(STYLES))]
    return Scene(draw(sprites, shown, style, rng), claimed, shown, style)


@dataclass(frozen=True)
class Corpus:
    """Scenes as arrays: ``pixels`` uint8 [n, 64, 64, 3]; label columns are class indices, int64 [n].

    ``subject``, ``detail`` and ``second`` are what is shown, as in :attr:`Facts.labels`.
    """

    pixels: np.ndarray
    captions: list[str]
    truths: list[str]  # the caption that says all that is shown, by the first relation of its pair
    claims: np.ndarray  # int64 [n]: equal where captions say the same
    topics: np.ndarray  # int64 [n]: equal where captions are about the same things, whatever they say of them
    template: np.ndarray
    subject: np.ndarray
    detail: np.ndarray
    second: np.ndarray
    style: np.ndarray
    faithful: np.ndarray  # bool: everything the caption claims is shown

    def __len__(self) -> int:
        return len(self.captions)


def _recipe(kind: str, variant: str) -> tuple[int, Callable[[Sprites, np.random.Generator], Scene]]:
    """Random stream and scene of a kind of corpus."""
    if kind == "clean":
        return 1, clean_scene
    web = {"web": WEB, "draft": DRAFT}[kind]
    # not stretched by 1, which would round some shares
    return 0, partial(web_scene, web if variant == "default" else with_style_gap(web, VARIANTS[variant]))


def make_corpus(sprites: Sprites, kind: str, size: int, seed: int, variant: str = "default") -> Corpus:
    """``size`` scenes of a kind ("web", "draft" or "clean"); scene i depends on (seed, kind, variant, i) alone."""
    stream, scene = _recipe(kind, variant)
    scenes = [scene(sprites, np.random.default_rng([seed, stream, i])) for i in range(size)]
    labels = np.array([scene.shown.labels for scene in scenes], np.int64)
    claims: dict[tuple[int, int, int], int] = {}
    topics: dict[tuple[int, frozenset[str | None]], int] = {}
    return Corpus(
        pixels=np.stack([scene.pixels for scene in scenes]),
        captions=[scene.caption for scene in scenes],
        truths=[caption(scene.shown.canonical) for scene in scenes],
        claims=np.array([claims.setdefault(scene.claimed.labels, len(claims)) for scene in scenes], np.int64),
        topics=np.array([topics.setdefault(scene.claimed.topic, len(topics)) for scene in scenes], np.int64),
        template=np.array([scene.claimed.template for scene in scenes], np.int64),
        subject=labels[:, 0],
        detail=labels[:, 1],
        second=labels[:, 2],
        style=np.array([STYLES.index(scene.style) for scene in scenes], np.int64),
        faithful=np.array([holds(scene.claimed, scene.shown) for scene in scenes]),
    )
