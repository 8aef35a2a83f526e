"""Images that runs keep, and the grids that a report makes of them."""

import base64
import io
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from b2bench.leaderboard.grids import LARGEST as LARGEST_FILE
from b2bench.leaderboard.grids import _png, sample_grid
from b2bench.leaderboard.html import html
from PIL import Image
from synthetic import Rows

from b2bench.evaluation.samples import LARGEST, chosen, save


def test_places_are_of_different_prompts_and_spread_evenly() -> None:
    assert chosen(90, 270, 3) == [0, 30, 60]
    assert chosen(4, 10, 8) == [0, 1, 2, 3]  # no prompt twice
    assert chosen(90, 2, 8) == [0, 1]  # and no image that is not drawn
    assert chosen(90, 270, 0) == []


def test_files_are_what_was_drawn_and_each_process_writes_its_own(tmp_path: Path) -> None:
    images = torch.rand(6, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    places = [0, 2, 4]
    one = save(tmp_path, 1200, places, dict(enumerate(images[:3])))
    assert sorted(path.name for path in (tmp_path / "samples").iterdir()) == ["1200-0.png", "1200-2.png"]
    two = save(tmp_path, 1200, places, dict(enumerate(images[3:], 3)))
    assert one == two == {place: f"samples/1200-{place}.png" for place in places}
    for place, name in one.items():
        found = np.asarray(Image.open(tmp_path / name))
        expected = (images[place] * 255).round().byte().permute(1, 2, 0).numpy()
        assert np.array_equal(found, expected)


def test_large_images_are_kept_small(tmp_path: Path) -> None:
    (name,) = save(tmp_path, 0, [0], {0: torch.rand(3, 512, 768)}).values()
    assert Image.open(tmp_path / name).size == (LARGEST, 171)


def png(colour: str) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (2, 2), colour).save(out, format="PNG")
    return out.getvalue()


@pytest.fixture
def drawn(tmp_path: Path) -> tuple[Rows, list[dict[str, Any]], Path]:
    """Two cells of seeds 0 and 1, each with two prompts before and after."""
    rows, samples = Rows(), []
    for wrapper in ("vanilla", "b2"):
        for seed in (1, 0):
            run = rows.add("ddpo", wrapper, seed, {0: 0.6, 1000: 0.7})
            (tmp_path / run / "samples").mkdir(parents=True)
            for queries in (0, 1000):
                for place, prompt in enumerate(("a cat", "a dog")):
                    name = f"samples/{queries}-{place}.png"
                    (tmp_path / run / name).write_bytes(png("red" if queries else "blue"))
                    score = 0.5 + place / 10 + queries / 10_000
                    samples.append(
                        {
                            "run_id": run,
                            "queries": queries,
                            "prompt": prompt,
                            "noise_index": 0,
                            "score": score,
                            "path": name,
                        }
                    )
    return rows, samples, tmp_path


@pytest.mark.slow
def test_a_grid_is_of_one_seed_pretrained_first(drawn: tuple[Rows, list[dict[str, Any]], Path]) -> None:
    rows, samples, runs = drawn
    grid = sample_grid(rows.one(), samples, runs)
    assert grid is not None
    assert (grid.seed, grid.columns) == (0, ("pretrained", "ddpo vanilla", "ddpo b2"))
    assert [prompt for prompt, _ in grid.rows] == ["a cat", "a dog"]
    for _, images in grid.rows:
        colours = [Image.open(io.BytesIO(base64.b64decode(image.png))).getpixel((0, 0)) for image in images if image]
        assert colours == [(0, 0, 255), (255, 0, 0), (255, 0, 0)]
    assert [image.score for image in grid.rows[1][1] if image] == ["0.600", "0.700", "0.700"]
    page = html(rows.tables(), samples=samples, runs=runs)
    assert page.count("data:image/png;base64,") == 6


def test_a_row_of_a_grid_is_of_one_noise(drawn: tuple[Rows, list[dict[str, Any]], Path]) -> None:
    rows, samples, runs = drawn
    other = rows.add("ddpo", "bs", 0, {0: 0.6, 1000: 0.7}, config={"settings": {"eval_seed": 4}})
    more = [row | {"run_id": other} for row in samples if row["run_id"] == "run0"]
    grid = sample_grid(rows.one(), [*samples, *more], runs)
    assert grid is not None
    assert grid.columns == ("pretrained", "ddpo vanilla", "ddpo b2")


def test_without_images_there_is_no_grid(drawn: tuple[Rows, list[dict[str, Any]], Path], tmp_path: Path) -> None:
    rows, samples, runs = drawn
    assert sample_grid(rows.one(), [], runs) is None
    assert sample_grid(rows.one(), samples[:4], tmp_path / "elsewhere") is not None  # scores without pictures
    assert "data:image/png" not in html(rows.tables(), samples=samples, runs=tmp_path / "elsewhere")


@pytest.mark.parametrize("name", ["../secret.png", "/etc/passwd", "samples/link.png", "samples/text.png", "a\0b"])
def test_a_store_from_elsewhere_reads_no_other_file(name: str, drawn: tuple[Rows, list[dict[str, Any]], Path]) -> None:
    rows, samples, runs = drawn
    (runs / "secret.png").write_bytes(png("green"))
    for run in runs.glob("run*"):
        (run / "samples" / "text.png").write_text("<script>")
        (run / "samples" / "link.png").symlink_to(runs / "secret.png")
    grid = sample_grid(rows.one(), [row | {"path": name} for row in samples], runs)
    assert grid is not None
    assert {image.png for _, images in grid.rows for image in images if image} == {""}


@pytest.mark.parametrize("run", ["{runs}", "..", "../{name}", ".", "", "/dev"])
def test_a_run_is_no_path(run: str, drawn: tuple[Rows, list[dict[str, Any]], Path]) -> None:
    _, _, runs = drawn
    (runs / "secret.png").write_bytes(png("green"))
    run = run.format(runs=runs, name=runs.name)
    names = ("secret.png", f"{runs.name}/secret.png", "zero", "run0/samples/0-0.png")
    assert [_png(runs, run, name) for name in names] == [""] * 4
    assert _png(runs, "run0", "samples/0-0.png")
    (runs / "moved").symlink_to(runs / "run0")  # to another disk, say
    assert _png(runs, "moved", "samples/0-0.png")


def test_an_image_that_never_ends_is_not_read(drawn: tuple[Rows, list[dict[str, Any]], Path]) -> None:
    _, _, runs = drawn
    os.mkfifo(runs / "run0" / "pipe.png")
    (runs / "run0" / "large.png").write_bytes(png("red") + bytes(LARGEST_FILE))
    assert [_png(runs, "run0", name) for name in ("pipe.png", "large.png")] == ["", ""]
