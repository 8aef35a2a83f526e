"""The picture that a run leaves: the same prompts and noise before and after."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from b2bench.evaluation.before_after import GAP, LINE, LINES, TILE, draw_before_after

LEFT, TOP = 60, GAP + LINES * LINE


def kept(folder: Path, queries: int, shades: dict[str, int], size: int = 8) -> list[dict[str, Any]]:
    """Rows of images of one shade of red each, as files."""
    rows = []
    for place, (prompt, shade) in enumerate(shades.items()):
        path = f"{queries}-{place}.png"
        Image.new("RGB", (size, size), (shade, 0, 0)).save(folder / path)
        rows.append({"prompt": prompt, "noise_index": 0, "score": shade / 255, "path": path})
    return rows


@pytest.mark.parametrize("size", [8, 512])
def test_columns_are_prompts_and_rows_are_before_and_after(size: int, tmp_path: Path) -> None:
    before = kept(tmp_path, 0, {"a": 10, "b": 20, "only before": 30}, size)
    after = kept(tmp_path, 9, {"b": 200, "a": 100}, size)
    file = draw_before_after(tmp_path, before, after)
    assert file == tmp_path / "before_after.png"
    pixels = np.asarray(Image.open(file))[..., 0]
    middle = TILE // 2
    shades = [
        [
            int(pixels[TOP + row * (TILE + LINE + GAP) + middle, LEFT + column * (TILE + GAP) + middle])
            for column in (0, 1)
        ]
        for row in (0, 1)
    ]
    assert shades == [[10, 20], [100, 200]]
    assert pixels.shape[1] == LEFT + 2 * (TILE + GAP)


def test_at_most_eight_and_none_without_files(tmp_path: Path) -> None:
    many = {f"prompt {i}" + " very long" * 30: 20 * i for i in range(9)}
    before, after = kept(tmp_path, 0, many), kept(tmp_path, 9, many)
    file = draw_before_after(tmp_path, before, after)
    assert file is not None
    assert Image.open(file).width == LEFT + 8 * (TILE + GAP)
    file.unlink()
    assert draw_before_after(tmp_path, [], after) is None
    (tmp_path / after[0]["path"]).unlink()
    assert draw_before_after(tmp_path, before, after) is None
    assert not file.exists()
