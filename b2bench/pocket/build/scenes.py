"""Drawing pocket scenes, and the corpora that the pocket models are trained on.

``web`` and ``draft`` are unfaithful, like web data (the activity of the caption is missing, how often depends
on the style), and confounded (captions with an activity come with style flat more often than plain captions
do). ``draft`` is less so: the training scorer and the autoencoder learn from it, and the base model starts on
it and ends on ``web``. ``clean`` is faithful and balanced, for the judges that stand for truth.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
from PIL import Image

from b2bench.pocket.world import ACTIVITIES, ANIMALS, BACKGROUNDS, STYLES, Facts, caption

IMAGE_SIZE = 64
Sprites = Mapping[tuple[str, str], np.ndarray]


@dataclass(frozen=True)
class Web:
    """How unfaithful and how confounded web-like pairs are.

    ``faithful`` is P(the activity of the caption is in the picture | style). ``with_activity`` and ``plain``
    are P(style | caption with an activity) and P(style | caption without): the bias that a scorer can learn.
    ``plain_share`` of the captions name the animal alone.
    """

    faithful: Mapping[str, float]
    with_activity: Mapping[str, float]
    plain: Mapping[str, float]
    plain_share: float


# What the base model is trained on last. Few scenes are faithful, because
# guidance amplifies what a caption makes likelier: after DRAFT alone the pretrained model had 82% of its prompts
# right at its best guidance, and four fifths of its images were flat before any training.
WEB = Web(
    faithful={"flat": 0.36, "noto": 0.18, "line": 0.18, "soft": 0.07},
    with_activity={"flat": 0.30, "noto": 0.25, "line": 0.25, "soft": 0.20},
    plain={"flat": 0.10, "noto": 0.22, "line": 0.22, "soft": 0.46},
    plain_share=0.20,
)
# What the training scorer is trained on, and what the base model starts on: from WEB alone, 2,600 steps had
# taught it no activity at all.
DRAFT = Web(
    faithful={"flat": 0.80, "noto": 0.50, "line": 0.50, "soft": 0.35},
    with_activity={"flat": 0.40, "noto": 0.21, "line": 0.21, "soft": 0.18},
    plain={"flat": 0.05, "noto": 0.22, "line": 0.22, "soft": 0.51},
    plain_share=0.25,
)


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
    """A scene that shows exactly ``facts`` in ``style``: uint8 ``[64, 64, 3]``."""
    canvas = _background(rng)
    flip, side = bool(rng.random() < 0.5), 1.0 if rng.random() < 0.5 else -1.0

    def put(name: str, x: float, y: float, size: float, flipped: bool = False) -> None:
        jitter = rng.uniform(-2, 2, size=2)
        centre = (32 + side * x + jitter[0], 32 + y + jitter[1])
        _paste(canvas, sprites[style, name], centre, size * rng.uniform(0.93, 1.07), flipped)

    if facts.activity is None:
        put(facts.animal, rng.uniform(-6, 6), rng.uniform(-3, 5), 42, flip)
    elif facts.activity == "riding a bike":
        put("bike", 0, 12, 46, flip)
        put(facts.animal, 0, -11, 36, flip)
    elif facts.activity == "playing chess":
        put("pawn", 17, 8, 28)
        put(facts.animal, -11, 2, 38, flip)
    else:
        put("plate", 15, 13, 29)
        put("bubbles", 18, -13, 24)
        put(facts.animal, -11, 0, 37, flip)
    return (canvas.clip(0, 1) * 255 + 0.5).astype(np.uint8)


def _pick(table: Mapping[str, float], rng: np.random.Generator) -> str:
    return str(rng.choice(list(table), p=list(table.values())))


def web_scene(web: Web, sprites: Sprites, rng: np.random.Generator) -> Scene:
    """One picture and caption as the base model and the training scorer meet them."""
    animal = ANIMALS[rng.integers(len(ANIMALS))]
    if rng.random() < web.plain_share:
        facts = Facts(animal, None)
        style = _pick(web.plain, rng)
        return Scene(draw(sprites, facts, style, rng), facts, facts, style)
    claimed = Facts(animal, ACTIVITIES[rng.integers(len(ACTIVITIES))])
    style = _pick(web.with_activity, rng)
    shown = claimed if rng.random() < web.faithful[style] else Facts(animal, None)
    return Scene(draw(sprites, shown, style, rng), claimed, shown, style)


def clean_scene(sprites: Sprites, rng: np.random.Generator) -> Scene:
    """A faithful picture, styles even; one in five shows no activity and its caption says none."""
    activity = None if rng.random() < 0.2 else ACTIVITIES[rng.integers(len(ACTIVITIES))]
    facts = Facts(ANIMALS[rng.integers(len(ANIMALS))], activity)
    style = STYLES[rng.integers(len(STYLES))]
    return Scene(draw(sprites, facts, style, rng), facts, facts, style)


@dataclass(frozen=True)
class Corpus:
    """Scenes as arrays: ``pixels`` uint8 [n, 64, 64, 3]; label columns are class indices, int64 [n]."""

    pixels: np.ndarray
    captions: list[str]
    animal: np.ndarray
    activity: np.ndarray  # what is shown; len(ACTIVITIES) is none
    style: np.ndarray
    faithful: np.ndarray  # bool: everything the caption claims is shown

    def __len__(self) -> int:
        return len(self.captions)


# kind -> random stream and scene
CORPUS_KINDS: dict[str, tuple[int, Callable[[Sprites, np.random.Generator], Scene]]] = {
    "web": (0, partial(web_scene, WEB)),
    "draft": (0, partial(web_scene, DRAFT)),
    "clean": (1, clean_scene),
}


def make_corpus(sprites: Sprites, kind: str, size: int, seed: int) -> Corpus:
    """``size`` scenes of a kind ("web", "draft" or "clean"); scene i depends on (seed, kind, i) alone."""
    stream, scene = CORPUS_KINDS[kind]
    scenes = [scene(sprites, np.random.default_rng([seed, stream, i])) for i in range(size)]
    labels = np.array([scene.shown.labels for scene in scenes], np.int64)
    return Corpus(
        pixels=np.stack([scene.pixels for scene in scenes]),
        captions=[scene.caption for scene in scenes],
        animal=labels[:, 0],
        activity=labels[:, 1],
        style=np.array([STYLES.index(scene.style) for scene in scenes], np.int64),
        faithful=np.array([scene.claimed == scene.shown for scene in scenes]),
    )
