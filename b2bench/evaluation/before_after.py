"""A picture of what a run did: test images of the same prompts and noise, before and after, with their scores."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from b2bench.files import replaced
from b2bench.layout import PICTURE

TILE, GAP, MOST = 128, 8, 8  # pixels, pixels, images in a row
LINE, LINES = 13, 3  # of a prompt, in pixels
HEADINGS = ("before", "after")


def draw_before_after(folder: Path, before: Sequence[dict[str, Any]], after: Sequence[dict[str, Any]]) -> Path | None:
    """Draw at most eight images that both evaluations kept, in two rows, into ``before_after.png`` of a run's folder.

    ``before`` and ``after`` are rows of table ``images``: prompt, noise_index, score, and path relative to ``folder``.

    Returns:
        The file; None if there is no image of both, or a file of theirs is gone.
    """
    kept = [{(row["prompt"], row["noise_index"]): row for row in rows if row["path"]} for rows in (before, after)]
    places = [place for place in kept[0] if place in kept[1]][:MOST]
    files = [folder / rows[place]["path"] for rows in kept for place in places]
    if not places or not all(file.is_file() for file in files):
        return None
    small, large = ImageFont.load_default(size=11), ImageFont.load_default(size=14)
    left, top, row_height = 60, GAP + LINES * LINE, TILE + LINE + GAP
    sheet = Image.new("RGB", (left + len(places) * (TILE + GAP), top + 2 * row_height), "white")
    pen = ImageDraw.Draw(sheet)
    for column, place in enumerate(places):
        x = left + column * (TILE + GAP)
        for number, text in enumerate(textwrap.wrap(place[0], TILE // 6, max_lines=LINES, placeholder=" ...")):
            pen.text((x, GAP // 2 + number * LINE), text, fill="black", font=small)
        for row, rows in enumerate(kept):
            y = top + row * row_height
            with Image.open(folder / rows[place]["path"]) as picture:
                sheet.paste(_fitted(picture.convert("RGB")), (x, y))
            pen.text((x, y + TILE), f"{rows[place]['score']:.3f}", fill="black", font=small)
    for row, heading in enumerate(HEADINGS):
        pen.text((GAP, top + row * row_height + TILE // 2), heading, fill="black", font=large)
    file = folder / PICTURE
    with replaced(file) as temporary:
        sheet.save(temporary, format="PNG")
    return file


def _fitted(picture: Image.Image) -> Image.Image:
    """Return an image as a tile; a small one is enlarged without smoothing, so that what was drawn is seen."""
    how = Image.Resampling.NEAREST if max(picture.size) < TILE else Image.Resampling.LANCZOS
    return picture.resize((TILE, TILE), how)
