"""Emoji art for the pocket scenes: fetched by ``npm pack`` at pinned versions, checked by hash, rendered."""

from __future__ import annotations

import hashlib
import importlib.util
import io
import json
import subprocess
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from b2bench.errors import UserError
from b2bench.layout import install_extra
from b2bench.pocket.world import ANIMALS, FOODS, OBJECTS, STYLES

SPRITE_SIZE = 128


@dataclass(frozen=True)
class ArtPackage:
    """One npm package of SVG art. ``sha256`` is that of the packed archive."""

    style: str
    name: str
    version: str
    sha256: str
    licence: str

    @property
    def archive(self) -> str:
        return f"{self.name.replace('@', '').replace('/', '-')}-{self.version}.tgz"


ART_PACKAGES = (
    ArtPackage("soft", "@iconify-json/fluent-emoji", "1.2.7",
               "8044210dbf11e016d4de85f15d01a243423bd832457e7e2491df1b751c0e272b", "MIT"),
    ArtPackage("flat", "@iconify-json/fluent-emoji-flat", "1.2.6",
               "7d064769dee690815f823bc5bcc511d957198caf9f5edd8dd9c1aa48a6aeb175", "MIT"),
    ArtPackage("noto", "@iconify-json/noto", "1.2.9",
               "3e918d88fc945c0bb3d468dbace6f88caef67f01c9f0e7bcae0915a042e8f1ad", "Apache-2.0"),
    ArtPackage("line", "@iconify-json/fluent-emoji-high-contrast", "1.2.6",
               "0b92d48c90d2200bd499e3cdd09a127ca6a8c8ddefd34c35eb5a1e4994012ae0", "MIT"),
)  # fmt: skip

# Words whose emoji goes by another name.
ICON_NAMES = {
    "sheep": "ewe",
    "squirrel": "chipmunk",
    "bee": "honeybee",
    "apple": "red-apple",
    "orange": "tangerine",
    "grape": "grapes",
    "kiwi": "kiwi-fruit",
    "blueberry": "blueberries",
    "cherry": "cherries",
    "lettuce": "leafy-green",
    "bell pepper": "bell-pepper",
    "sweet potato": "roasted-sweet-potato",
    "peas": "pea-pod",
    "corn": "ear-of-corn",
    "hot pepper": "hot-pepper",
    "ginger": "ginger-root",
    "peanut": "peanuts",
    "pumpkin": "jack-o-lantern",
    "person": "person-standing",
    "car": "automobile",
    "truck": "delivery-truck",
    "train": "locomotive",
    "boat": "sailboat",
    "building": "office-building",
    "tree": "deciduous-tree",
    "vase": "amphora",
    "ball": "soccer-ball",
    "bag": "handbag",
    "suitcase": "luggage",
    "cup": "teacup-without-handle",
    "box": "package",
    "shirt": "t-shirt",
    "bottle": "lotion-bottle",
    # what the activities need
    "bike": "bicycle",
    "pawn": "chess-pawn",
    "plate": "fork-and-knife-with-plate",
    "bubbles": "bubbles",
}
SPRITE_NAMES: tuple[str, ...] = (
    *dict.fromkeys((*ANIMALS, *FOODS, *OBJECTS)),
    *("bike", "pawn", "plate", "bubbles"),
)

UNPAINTED = "grey"  # how a food looks that nobody has given a colour; no caption names it
# RGB in [0, 1] of what a food's body is painted with.
PAINT = {
    "red": (0.86, 0.13, 0.15),
    "yellow": (0.98, 0.84, 0.15),
    "green": (0.25, 0.65, 0.25),
    "brown": (0.48, 0.30, 0.16),
    "orange": (0.97, 0.55, 0.10),
    "purple": (0.55, 0.25, 0.75),
    "blue": (0.18, 0.40, 0.88),
    "black": (0.14, 0.14, 0.15),
    "white": (0.96, 0.96, 0.95),
    UNPAINTED: (0.60, 0.60, 0.60),
}


BACKING = (0.35, 0.35, 0.38)  # behind white ink


def fetch_art(folder: Path) -> None:
    """Put the four archives into ``folder`` with ``npm pack``, where they are not there already.

    Raises:
        RuntimeError: npm is missing or fails, or an archive has another hash than the pinned one.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for package in ART_PACKAGES:
        target = folder / package.archive
        if not target.exists():
            command = ["npm", "pack", f"{package.name}@{package.version}", "--pack-destination", str(folder)]
            try:
                subprocess.run(command, check=True, capture_output=True, text=True)
            except FileNotFoundError:
                raise RuntimeError(
                    "npm is not installed, and the art comes from npm packages. Install Node.js, or "
                    f"download {package.archive} and its siblings elsewhere and pass their folder with --art."
                ) from None
            except subprocess.CalledProcessError as error:
                raise RuntimeError(f"{' '.join(command)} failed: {error.stderr.strip()[-400:]}") from None
        found = hashlib.sha256(target.read_bytes()).hexdigest()
        if found != package.sha256:
            raise RuntimeError(f"{target} has sha256 {found}, expected {package.sha256}. Delete it and fetch it again.")


def _render(body: str, size: int) -> np.ndarray:
    """Return an icon body as RGBA (alpha not premultiplied), uint8 ``[h, w, 4]``, trimmed to what is drawn."""
    import resvg_py

    svg = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {size} {size}">{body}</svg>'
    png = resvg_py.svg_to_bytes(svg_string=svg, width=SPRITE_SIZE, height=SPRITE_SIZE)
    pixels = np.asarray(Image.open(io.BytesIO(bytes(png))).convert("RGBA"))
    rows, columns = np.nonzero(pixels[..., 3] > 5)
    return pixels[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1].copy()


def _inside(alpha: np.ndarray) -> np.ndarray:
    """Pixels that no path over transparent ones joins with the border: line art and what it encloses, bool [h, w]."""
    image = Image.fromarray(np.pad(np.where(alpha > 100, 255, 0).astype(np.uint8), 1)).copy()
    ImageDraw.floodfill(image, (0, 0), 128)
    return np.array(image)[1:-1, 1:-1] != 128


def fill(sprite: np.ndarray, paint: tuple[float, float, float]) -> np.ndarray:
    """Line art with its inside painted: RGBA uint8 [h, w, 4]."""
    ink = sprite[..., 3:].astype(np.float32) / 255
    body = _inside(sprite[..., 3])[..., None]
    colour = np.where(body, np.array(paint, np.float32), 0) * (1 - ink) + sprite[..., :3] / 255 * ink
    alpha = np.maximum(ink, body)
    return (np.concatenate([colour / np.maximum(np.where(body, 1, ink), 1e-3), alpha], -1).clip(0, 1) * 255).astype(
        np.uint8
    )


def recolour(sprite: np.ndarray, style: str, colour: str) -> np.ndarray:
    """Return a food in ``colour``: its body painted, its shading kept; leaves and stalks of another hue stay as they
    are.

    Line art has no body to paint: its inside is filled, or, where there is next to none, its ink is coloured.
    """
    paint = np.array(PAINT[colour], np.float32)
    rgb, alpha = sprite[..., :3].astype(np.float32) / 255, sprite[..., 3]
    if style == "line":
        body = _inside(alpha)
        if (alpha[body] > 100).mean() > 0.55:
            # a mostly black drawing: colour the ink
            inked = np.concatenate([np.broadcast_to((paint * 255).astype(np.uint8), rgb.shape), sprite[..., 3:]], -1)
            return fill(inked, BACKING) if colour == "white" else inked  # white ink alone would not be seen
        inked = sprite
        if colour == "black":  # black ink on black would be a blot
            inked = np.concatenate([np.full_like(sprite[..., :3], 150), sprite[..., 3:]], -1)
        return fill(inked, PAINT[colour])
    value, low = rgb.max(-1), rgb.min(-1)
    saturation = (value - low) / np.maximum(value, 1e-3)
    red, green, blue = np.moveaxis(rgb, -1, 0)
    hue = np.arctan2(np.sqrt(3) * (green - blue), 2 * red - green - blue)
    opaque = alpha > 100
    vivid = opaque & (saturation > 0.25) & (value > 0.15)
    body = opaque
    if vivid.any():
        weights, edges = np.histogram(hue[vivid], bins=36, range=(-np.pi, np.pi), weights=saturation[vivid])
        smooth = weights + np.roll(weights, 1) + np.roll(weights, -1)
        main = edges[smooth.argmax()] + np.pi / 36
        distance = np.abs((hue - main + np.pi) % (2 * np.pi) - np.pi)
        near = (distance < 0.65) & (saturation > 0.12)
        if (near & opaque).sum() >= 0.4 * opaque.sum():
            body = near
    light = rgb @ np.array([0.3, 0.59, 0.11], np.float32)
    typical = np.median(light[body & opaque])
    shade = np.clip(light / max(float(typical), 0.05), 0.4, 1.7)[..., None]
    # towards black for shades, towards white for lights, so that white and black keep some shading too
    painted = np.where(
        shade < 1, paint * (0.45 + 0.55 * shade), paint + (1 - paint) * np.minimum(0.45 * (shade - 1), 0.35)
    )
    mixed = np.where(body[..., None], painted, rgb)
    return np.concatenate([(mixed.clip(0, 1) * 255).astype(np.uint8), sprite[..., 3:]], -1)


class Sprites(dict[tuple[str, str], np.ndarray]):
    """``{(style, name): RGBA uint8 [h, w, 4]}``.

    ``(style, "red apple")`` and ``("line", "filled dog")`` are made from the sprite of the plain name when they
    are asked for first.
    """

    def __missing__(self, key: tuple[str, str]) -> np.ndarray:
        style, name = key
        how, _, plain = name.partition(" ")
        if how == "filled" and plain:
            self[key] = fill(self[style, plain], (0.97, 0.97, 0.97))
        elif how in PAINT and plain:
            self[key] = recolour(self[style, plain], style, how)
        else:
            raise KeyError(key)
        return self[key]


def load_sprites(folder: Path) -> Sprites:
    """Return a sprite for every name of ``SPRITE_NAMES`` in every style.

    Raises:
        RuntimeError: an archive is missing or has another hash than the pinned one.
    """
    sprites = Sprites()
    for package in ART_PACKAGES:
        path = folder / package.archive
        if not path.exists():
            raise RuntimeError(f"{path} is missing: run without --art to fetch it with npm, or put it there")
        if hashlib.sha256(path.read_bytes()).hexdigest() != package.sha256:
            raise RuntimeError(f"{path} is not {package.name} {package.version} (its sha256 differs)")
        with tarfile.open(path) as archive:
            member = archive.extractfile("package/icons.json")
            assert member is not None
            icons = json.load(member)
        size = icons.get("width", 16)
        for name in SPRITE_NAMES:
            icon = icons["icons"][ICON_NAMES.get(name, name)]
            sprites[package.style, name] = _render(icon["body"], icon.get("width", size))
    assert {style for style, _ in sprites} == set(STYLES)
    return sprites


def load_art(art: Path | None, cache: Path, progress: Callable[[str], None]) -> Sprites:
    """Return the sprites, from the archives in ``art``, or else from those in ``cache``, where npm puts them.

    Raises:
        UserError: the extra is not installed, or the art cannot be had.
    """
    if art is not None and not art.is_dir():
        raise UserError(f"--art {art} is no folder; leave it out to fetch the art with npm")
    if art is None and importlib.util.find_spec("resvg_py") is None:  # before anything is fetched
        raise UserError(_NO_EXTRA)
    try:
        if art is None:
            progress(f"fetching the art into {cache} with npm")
            fetch_art(cache)
        progress("drawing the art")
        return load_sprites(art or cache)
    except ModuleNotFoundError as error:
        if error.name != "resvg_py":
            raise
        raise UserError(_NO_EXTRA) from None
    except RuntimeError as error:
        raise UserError(str(error)) from None


_NO_EXTRA = f"the scenes are drawn, which needs the extra 'pocket': {install_extra('pocket')}"
