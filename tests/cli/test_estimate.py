"""``b2bench estimate``: tables or JSON, nothing written, and a line for every mistake."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

TINY = ("--queries", "10", "--set", "draws=2", "--set", "samples=2", "--set", "steps=4", "--set", "eval_images=3")


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.slow
def test_every_cell_where_none_is_named(b2bench: Callable[..., Any], tmp_path: Path) -> None:
    result = b2bench("estimate", *TINY, "--vram", "1", "--json")
    assert result.code == 0, result.stderr
    found = json.loads(result.stdout)
    assert len(found["cells"]) == 16
    assert {len({cell[kind] for cell in found["cells"]}) for kind in ("algorithm", "wrapper")} == {4}
    assert found["throughput_is_assumed"] is True
    assert {fit["precision"] for fit in found["micro_batches"]} == {"fp32", "bf16"}
    assert found["vram_bytes"] == 2**30
    assert not list(tmp_path.iterdir())


def test_one_cell_in_tables(b2bench: Callable[..., Any]) -> None:
    result = b2bench(
        "estimate", "--algo", "dpok", "--wrapper", "b2", *TINY, "--throughput", "100", "--seeds", "2", "--vram", "1"
    )
    assert result.code == 0, result.stderr
    words = " ".join(result.stdout.split())
    for text in ("UNet", "training, checkpointed", "Largest micro-batches in 1 GiB", "store: 10 rows of queries"):
        assert text in words
    assert "2 seeds: up to" in words
    assert "100.0 denoiser calls a second" in words
    assert "as given" in words


@pytest.mark.slow
def test_a_preset_says_the_cell_where_it_names_one(b2bench: Callable[..., Any], tmp_path: Path) -> None:
    preset = tmp_path / "mine.toml"
    preset.write_text(
        'seeds = 4\n[options]\nalgo = { value = "pg", source = "x" }\nqueries = { value = 50, source = "x" }\n'
    )
    result = b2bench("estimate", "--preset", preset, "--json", "--queries", "20")
    assert result.code == 0, result.stderr
    found = json.loads(result.stdout)
    assert {cell["algorithm"] for cell in found["cells"]} == {"pg"}
    assert (found["seeds"], found["queries"]) == (4, 20)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("--vram", "0"), "--vram 0 is not a number of GiB"),
        (("--vram", "nan"), "--vram nan is not a number of GiB"),
        (("--throughput", "-1"), "--throughput -1 is not a number of denoiser calls"),
        (("--margin", "1"), "--margin 1 is not a share"),
        (("--algo", "ddpp"), "Did you mean ddpo?"),
        (("--preset", "papr"), "unknown preset 'papr'"),
        (("--set", "stepz=3"), "unknown hyperparameter 'stepz'"),
        (("--set", "steps=2000"), "outside 1..1000"),
        (("--vram", "much"), "Invalid value for '--vram'"),
        (("--seeds", "0"), "--seeds"),
    ],
)
def test_mistakes(b2bench: Callable[..., Any], arguments: tuple[str, ...], reason: str) -> None:
    result = b2bench("estimate", *arguments)
    assert result.code == 2
    assert result.stdout == ""
    assert reason in result.stderr
    assert "Traceback" not in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


def test_a_folder_without_configurations_is_refused(b2bench: Callable[..., Any], tmp_path: Path) -> None:
    folder = tmp_path / "pipeline"
    folder.mkdir()
    (folder / "model_index.json").write_text("{}")
    result = b2bench("estimate", "--backbone", folder, "--algo", "pg", "--wrapper", "b2")
    assert result.code == 2
    assert "configurations" in result.stderr
    assert "save_pretrained" in result.stderr


@pytest.mark.slow
def test_a_backbone_of_ones_own(b2bench: Callable[..., Any], other_pipeline: Path) -> None:
    found = b2bench("estimate", "--backbone", other_pipeline, "--algo", "pg", "--wrapper", "b2", "--json")
    assert found.code == 0, found.stderr
    assert json.loads(found.stdout)["parameters"]["UNet"] < 1e6
