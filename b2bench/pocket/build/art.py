"""Emoji art for the pocket scenes: fetched by ``npm pack`` at pinned versions, checked by hash, rendered."""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
import tarfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from b2bench.pocket.world import ANIMALS, STYLES

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

# Words of the paper whose emoji goes by another name.
ICON_NAMES = {"sheep": "ewe", "squirrel": "chipmunk", "bee": "honeybee"}
OBJECT_ICONS = {
    "bike": "bicycle",
    "pawn": "chess-pawn",
    "plate": "fork-and-knife-with-plate",
    "bubbles": "bubbles",
}
SPRITE_NAMES: tuple[str, ...] = (*ANIMALS, *OBJECT_ICONS)


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
    """An icon body as RGBA (alpha not premultiplied), uint8 ``[h, w, 4]``, trimmed to what is drawn."""
    import resvg_py

    svg = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {size} {size}">{body}</svg>'
    png = resvg_py.svg_to_bytes(svg_string=svg, width=SPRITE_SIZE, height=SPRITE_SIZE)
    pixels = np.asarray(Image.open(io.BytesIO(bytes(png))).convert("RGBA"))
    rows, columns = np.nonzero(pixels[..., 3] > 5)
    return pixels[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1].copy()


def load_sprites(folder: Path) -> dict[tuple[str, str], np.ndarray]:
    """``{(style, name): RGBA uint8 [h, w, 4]}`` for every name of ``SPRITE_NAMES``.

    Raises:
        RuntimeError: an archive is missing or has another hash than the pinned one.
    """
    sprites = {}
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
            icon = icons["icons"][OBJECT_ICONS.get(name) or ICON_NAMES.get(name, name)]
            sprites[package.style, name] = _render(icon["body"], icon.get("width", size))
    assert {style for style, _ in sprites} == set(STYLES)
    return sprites
