"""The few test images that a run keeps as files, for the sample grids of a report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from b2bench.files import replaced

LARGEST = 256  # pixels: a grid needs no more, and a run folder stays small
FOLDER = "samples"


def chosen(prompts: int, images: int, wanted: int) -> list[int]:
    """Places of ``wanted`` images among an evaluation's, each of another prompt, spread evenly: fixed before training.

    An evaluation draws every prompt once before it draws one again, so places below ``prompts`` differ in it.
    """
    room = min(prompts, images)
    count = min(wanted, room)
    return [i * room // count for i in range(count)]


def save(folder: Path, queries: int, places: Sequence[int], images: Mapping[int, Tensor]) -> dict[int, str]:
    """Write those of ``places`` that are among ``images``, place -> [3, h, w] in [0, 1], as PNG.

    Returns:
        Place -> file, relative to ``folder``, of all ``places``: others' files are written by other processes.
    """
    (folder / FOLDER).mkdir(exist_ok=True)
    names = {place: f"{FOLDER}/{queries}-{place}.png" for place in places}
    for place, name in names.items():
        if place in images:
            pixels = (images[place] * 255).round().to(torch.uint8).permute(1, 2, 0).cpu().numpy()
            picture = Image.fromarray(pixels)
            picture.thumbnail((LARGEST, LARGEST))
            with replaced(folder / name) as temporary:
                picture.save(temporary, format="PNG")
    return names
