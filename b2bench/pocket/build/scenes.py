"""Drawing pocket scenes, and the corpora that the pocket models are trained on.

``web``, ``draft`` and ``scored`` are unfaithful, like web data (mostly what the caption says beyond its subject is
missing, now and then it is another colour or relation; how often depends on the style), and confounded (captions
with a detail come with style flat more often than plain captions do). ``web`` is what base models end on. The other
two are less unfaithful: from ``draft`` the autoencoder learns, from ``scored`` the training scorer, and two base
models start on it. ``clean`` is faithful and balanced, for the judges that stand for truth.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter

from b2bench.pocket.build.art import UNPAINTED, Sprites
from b2bench.pocket.world import (
    ACTIVITIES,
    BACKGROUNDS,
    COLOURS,
    RELATIONS,
    STYLES,
    TEMPLATES,
    Facts,
    all_facts,
    caption,
    in_order,
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

    ``faithful`` is P(the detail of the caption is in the picture | template, style). Of the other scenes a share
    ``permuted``, by style, shows another detail, and the rest none. ``detailed`` and ``plain`` are P(style | caption
    with a detail) and P(style | caption without). ``plain_share`` of the captions name one thing alone.

    A scorer learns from ``permuted`` to trust one style more than another: where only what is missing depended on
    the style, it could see that, and had no need of the style.
    """

    faithful: Mapping[int, Mapping[str, float]]
    permuted: Mapping[str, float]
    detailed: Mapping[str, float]
    plain: Mapping[str, float]
    plain_share: float


# What the base models end on. Fewer scenes are faithful than in DRAFT, because guidance amplifies what a caption makes
# likelier: in world 1, from DRAFT alone, the pretrained model had 82% of its prompts right at its best guidance, and
# four fifths of its images were flat before any training.
WEB = Web(
    faithful={
        1: {"flat": 0.50, "noto": 0.16, "line": 0.16, "soft": 0.04},
        2: {"flat": 0.50, "noto": 0.21, "line": 0.21, "soft": 0.03},
        3: {"flat": 0.50, "noto": 0.16, "line": 0.16, "soft": 0.04},
    },
    permuted={"flat": 0.02, "noto": 0.08, "line": 0.08, "soft": 0.15},
    detailed={"flat": 0.30, "noto": 0.25, "line": 0.25, "soft": 0.20},
    plain={"flat": 0.10, "noto": 0.22, "line": 0.22, "soft": 0.46},
    plain_share=0.20,
)
# What the autoencoder is trained on.
DRAFT = Web(
    faithful={t: {"flat": 0.80, "noto": 0.50, "line": 0.50, "soft": 0.35} for t in TEMPLATES},
    permuted={"flat": 0.02, "noto": 0.15, "line": 0.15, "soft": 0.30},
    detailed={"flat": 0.40, "noto": 0.21, "line": 0.21, "soft": 0.18},
    plain={"flat": 0.05, "noto": 0.22, "line": 0.22, "soft": 0.51},
    plain_share=0.25,
)
# What the training scorer is trained on, and the base models of templates 1 and 3 start on. With the shares of DRAFT
# the scorer ranked 77% of the pairs of template 3 right, with these 91%; and on template 2 it preferred flat to soft by
# 1.8 to 2.3 standard errors (300 scenes), with these, where soft scenes are seldom faithful, by 3.2.
SCORED = replace(
    DRAFT,
    faithful={
        **DRAFT.faithful,
        2: {"flat": 0.95, "noto": 0.50, "line": 0.50, "soft": 0.10},
        3: {"flat": 0.90, "noto": 0.75, "line": 0.75, "soft": 0.60},
    },
)


def with_style_gap(web: Web, factor: float) -> Web:
    """Return the same corpus with the differences between styles ``factor`` times as large, as far as shares allow."""

    def stretched(table: Mapping[str, float]) -> dict[str, float]:
        mean = sum(table.values()) / len(table)
        return {style: min(max(mean + factor * (value - mean), 0.005), 0.995) for style, value in table.items()}

    def shares(table: Mapping[str, float]) -> dict[str, float]:
        found = stretched(table)
        return {style: value / sum(found.values()) for style, value in found.items()}

    faithful = {template: stretched(table) for template, table in web.faithful.items()}
    permuted = stretched(web.permuted)
    return replace(web, faithful=faithful, permuted=permuted, detailed=shares(web.detailed), plain=shares(web.plain))


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
    """Return a light colour, so that line art (dark ink) is visible on every background."""
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
        row = 8 * int(rng.integers(4, 7))
        canvas[:row], canvas[row:] = first, second
    return canvas


def _paste(canvas: np.ndarray, sprite: np.ndarray, centre: tuple[float, float], size: float) -> None:
    """Draw ``sprite`` with its longer side ``size`` pixels around ``centre`` (x, y), clipped at the border."""
    height, width = sprite.shape[:2]
    scale = size / max(height, width)
    shape = max(1, round(width * scale)), max(1, round(height * scale))
    image = Image.fromarray(sprite).resize(shape, Image.Resampling.BOX)
    small = np.asarray(image, np.float32) / 255
    left, top = round(centre[0] - shape[0] / 2), round(centre[1] - shape[1] / 2)
    x0, y0 = max(left, 0), max(top, 0)
    x1, y1 = min(left + shape[0], IMAGE_SIZE), min(top + shape[1], IMAGE_SIZE)
    if x0 >= x1 or y0 >= y1:
        return
    part = small[y0 - top : y1 - top, x0 - left : x1 - left]
    region = canvas[y0:y1, x0:x1]
    region += part[..., 3:] * (part[..., :3] - region)


def draw(sprites: Sprites, facts: Facts, style: str, rng: np.random.Generator, *, lacking: bool = False) -> np.ndarray:
    """Return a scene that shows exactly ``facts`` in ``style``: uint8 ``[64, 64, 3]``.

    ``lacking``: what it shows beyond its subject is left out, which stays where it is: ``facts.lacking``. Things
    stand on the grid of the latents and always in the same places: a network that is to run in minutes on a CPU has
    no parameters to spare for sub-cell positions, and what a prompt leaves open are style and background.
    """
    canvas = _background(rng)

    def put(name: str, x: float, y: float, size: float) -> None:
        _paste(canvas, sprites[style, name], (x, y), size)

    match facts.template:
        case 1:
            detail = None if lacking else facts.detail
            if detail == "riding a bike":
                put("bike", 32, 47, 46)
            put(facts.subject, 32, 21, 38)
            if detail == "playing chess":
                put("pawn", 52, 46, 30)
            elif detail == "washing dishes":
                put("plate", 48, 48, 28)
                put("bubbles", 14, 48, 24)
        case 2:
            paint = UNPAINTED if lacking or facts.detail is None else facts.detail
            put(f"{paint} {facts.subject}", 32, 32, 48)
        case _:
            scene = facts.canonical
            if scene.detail is None or scene.second is None:
                put(scene.subject, 32, 32, 32)
            else:
                first, second = PLACES[scene.detail]
                named_first = scene.subject == facts.subject
                if not (lacking and named_first):
                    put(scene.second, *second)
                if not (lacking and not named_first):
                    # line art is transparent: what stands behind would show through
                    front = scene.detail == "in the front of" and style == "line"
                    put(f"filled {scene.subject}" if front else scene.subject, *first)
    seen = gaussian_filter(canvas, (LENS, LENS, 0))
    return (seen.clip(0, 1) * 255 + 0.5).astype(np.uint8)


# Centre (x, y) and size of the first and of the second thing of a relation.
PLACES = {
    "on": ((32, 16, 32), (32, 48, 32)),
    "on the left of": ((16, 32, 32), (48, 32, 32)),
    "in the front of": ((42, 42, 36), (22, 22, 36)),
}


def holds(claimed: Facts, shown: Facts) -> bool:
    """Tell whether a scene is what a caption claims."""
    return claimed.labels == shown.labels


def _pick(table: Mapping[T, float], rng: np.random.Generator) -> T:
    return list(table)[int(rng.choice(len(table), p=list(table.values())))]


def one_of(items: Sequence[T], rng: np.random.Generator) -> T:
    return items[int(rng.integers(len(items)))]


def other_detail(facts: Facts, rng: np.random.Generator, *, known: bool = False) -> Facts:
    """Return the same things with another activity, colour or relation than the caption says.

    ``known``: of a pair of objects, a relation in which a base model knows it (:func:`in_order`).
    """
    others: Sequence[str] = {1: ACTIVITIES, 2: COLOURS, 3: tuple(RELATIONS)}[facts.template]
    changed = [replace(facts, detail=detail) for detail in others if detail != facts.detail]
    return one_of([other for other in changed if in_order(other) or not known], rng)


def unfaithful(
    sprites: Sprites, claimed: Facts, style: str, permuted: float, rng: np.random.Generator, *, known: bool = False
) -> tuple[Facts, np.ndarray]:
    """Return what a scene shows where its caption, which has a detail, is wrong, and its pixels.

    Another detail with probability ``permuted`` (``known``: see :func:`other_detail`), else none.
    """
    if rng.random() < permuted:
        shown = other_detail(claimed, rng, known=known)
        return shown, draw(sprites, shown, style, rng)
    return claimed.lacking, draw(sprites, claimed, style, rng, lacking=True)


_ALL = {template: all_facts(template) for template in TEMPLATES}
_PLAIN = {template: plain_facts(template) for template in TEMPLATES}
_IN_ORDER = {template: [facts for facts in _ALL[template] if in_order(facts)] for template in TEMPLATES}


def web_scene(web: Web, sprites: Sprites, rng: np.random.Generator, template: int | None = None) -> Scene:
    """Return one picture and caption as the base model (of a ``template``) and the training scorer (of all) meet them.

    A base model meets each pair of objects in one order of their names and one way round. From captions in both orders
    template 3's drew the right two in 0.85 of the pictures and had them the wrong way round in half of these: that "dog
    on car" and "car under dog" are one picture takes both words and their order, and a policy gradient teaches no
    grammar.
    """
    known = template is not None
    sayable = _IN_ORDER if known else _ALL
    template = template or one_of(TEMPLATES, rng)
    if rng.random() < web.plain_share:
        claimed, style = one_of(_PLAIN[template], rng), _pick(web.plain, rng)
        return Scene(draw(sprites, claimed, style, rng), claimed, claimed, style)
    claimed, style = one_of(sayable[template], rng), _pick(web.detailed, rng)
    if rng.random() < web.faithful[template][style]:
        return Scene(draw(sprites, claimed, style, rng), claimed, claimed, style)
    shown, pixels = unfaithful(sprites, claimed, style, web.permuted[style], rng, known=known)
    return Scene(pixels, claimed, shown, style)


def clean_scene(sprites: Sprites, rng: np.random.Generator, template: int | None = None) -> Scene:
    """Return a faithful picture, templates and styles even; in one of five the caption names one thing alone.

    Half of these show the thing where the caption with a detail has it, so that a judge knows an object without its
    second one by what is there, not by where it stands.
    """
    template = template or one_of(TEMPLATES, rng)
    style = STYLES[rng.integers(len(STYLES))]
    if rng.random() >= 0.2:
        claimed = one_of(_ALL[template], rng)
        return Scene(draw(sprites, claimed, style, rng), claimed, claimed, style)
    if rng.random() < 0.5:
        claimed = one_of(_PLAIN[template], rng)
        return Scene(draw(sprites, claimed, style, rng), claimed, claimed, style)
    whole = one_of(_ALL[template], rng)
    return Scene(draw(sprites, whole, style, rng, lacking=True), whole.lacking, whole.lacking, style)


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


def _recipe(kind: str, variant: str) -> tuple[int, Callable[[Sprites, np.random.Generator, int | None], Scene]]:
    """Random stream and scene of a kind of corpus."""
    if kind == "clean":
        return 1, clean_scene
    web = {"web": WEB, "draft": DRAFT, "scored": SCORED}[kind]
    # not stretched by 1, which would round some shares
    return 0, partial(web_scene, web if variant == "default" else with_style_gap(web, VARIANTS[variant]))


def make_corpus(
    sprites: Sprites, kind: str, size: int, seed: int, variant: str = "default", template: int | None = None
) -> Corpus:
    """``size`` scenes of a kind ("web", "draft", "scored" or "clean"), of one template or of all in equal parts.

    Scene i depends on (seed, kind, variant, template, i) alone.
    """
    stream, scene = _recipe(kind, variant)
    scenes = [scene(sprites, np.random.default_rng([seed, stream, template or 0, i]), template) for i in range(size)]
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
