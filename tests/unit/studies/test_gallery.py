"""The picture of a gallery: tiles where they belong, two sheets side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from b2bench.config.prompt_sets import load_prompts
from b2bench.errors import UserError
from b2bench.studies.gallery import LABEL, MARGIN, draw_gallery, image_grid, side_by_side


def test_images_stand_in_rows_of_their_prompt():
    shades = torch.linspace(0, 0.9, 6)
    sheet = image_grid(shades.reshape(6, 1, 1, 1).expand(6, 3, 8, 8), ["a cat", "a dog"], columns=3)
    pixels = np.asarray(sheet)
    for i, shade in enumerate((shades * 255).round().tolist()):
        row, column = divmod(i, 3)
        top, left = MARGIN + row * (16 + LABEL + MARGIN) + LABEL, MARGIN + column * (16 + MARGIN)
        assert (pixels[top : top + 16, left : left + 16] == shade).all()


def test_what_no_run_could_draw_is_refused(tmp_path: Path) -> None:
    for prompts, guidance, lora, reason in (
        (["template1"], 0.0, None, "--guidance 0 is not above 0"),
        (["template1"], float("nan"), None, "--guidance nan is not above 0"),
        (["template1", "pocket-template2"], None, tmp_path, "a LoRA is of one"),
    ):
        with pytest.raises(UserError, match=reason):
            draw_gallery(tmp_path / "g.png", prompts, 1, 1, guidance, lora, 0)


def test_two_sheets_stand_side_by_side_under_their_headings():
    one = torch.zeros(1, 3, 8, 8)
    sheets = [image_grid(one + shade, ["a cat"], columns=1) for shade in (0.2, 0.8)]
    both = np.asarray(side_by_side(sheets, ["before", "after"]))
    height, width = sheets[0].height, sheets[0].width
    assert (both[-height:, :width] == np.asarray(sheets[0])).all()
    assert (both[-height:, -width:] == np.asarray(sheets[1])).all()
    assert (both[:-height] < 128).any()  # the headings are written


def test_more_rows_than_prompts_show_each_prompt_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[str] = []

    def sample(_: Any, prompts: list[str], noise: Any) -> torch.Tensor:
        drawn.extend(prompts)
        return torch.zeros(len(prompts), 3, 64, 64)

    monkeypatch.setattr("b2bench.rollout.sample", sample)
    draw_gallery(tmp_path / "g.png", ["template1"], 1, 100, None, None, 0)
    assert sorted(drawn) == sorted(load_prompts("template1").test)
