"""The picture of a gallery: tiles where they belong, two sheets side by side."""

from __future__ import annotations

import numpy as np
import torch

from b2bench.studies.gallery import LABEL, MARGIN, image_grid, side_by_side


def test_images_stand_in_rows_of_their_prompt():
    shades = torch.linspace(0, 0.9, 6)
    sheet = image_grid(shades.reshape(6, 1, 1, 1).expand(6, 3, 8, 8), ["a cat", "a dog"], columns=3)
    pixels = np.asarray(sheet)
    for i, shade in enumerate((shades * 255).round().tolist()):
        row, column = divmod(i, 3)
        top, left = MARGIN + row * (16 + LABEL + MARGIN) + LABEL, MARGIN + column * (16 + MARGIN)
        assert (pixels[top : top + 16, left : left + 16] == shade).all()


def test_two_sheets_stand_side_by_side_under_their_headings():
    one = torch.zeros(1, 3, 8, 8)
    sheets = [image_grid(one + shade, ["a cat"], columns=1) for shade in (0.2, 0.8)]
    both = np.asarray(side_by_side(sheets, ["before", "after"]))
    height, width = sheets[0].height, sheets[0].width
    assert (both[-height:, :width] == np.asarray(sheets[0])).all()
    assert (both[-height:, -width:] == np.asarray(sheets[1])).all()
    assert (both[:-height] < 128).any()  # the headings are written
