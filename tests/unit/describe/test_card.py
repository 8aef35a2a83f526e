"""A run as a folder to publish, and a store as CSV."""

import csv
import subprocess
import sys
from pathlib import Path

import pytest
from huggingface_hub import ModelCard
from store_rows import run_row

from b2bench.describe.card import FILL_IN, write_card
from b2bench.errors import UserError
from b2bench.store.parquet import export_results
from b2bench.store.store import Store

HOSTILE = "<b>|x|</b> [a](javascript:b)"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A finished run whose folder holds weights and two samples, one of them gone, and one that is running."""
    found = Store(tmp_path / "a.duckdb")
    config = {"settings": {"lr": 1e-3}, "backbone": {"name": "sd14", "source": "CompVis/stable-diffusion-v1-4"}}
    own = {"reward": {"name": "clipscore", "checkpoint": "/home/me/clip"}, "found": {"plugins": ["/home/me"]}}
    own["settings"] = {"lr": 1e-3, "inception_weights": "C:\\Users\\me\\inception.pth"}
    found.start_run(run_row("r1", name="mine", prompts=HOSTILE, config={**config, **own}))
    folder = tmp_path / "runs" / "r1"
    (folder / "samples").mkdir(parents=True)
    for queries, value in ((0, 0.6), (1000, 0.7)):
        rows = [
            {"queries": queries, "split": "test", "metric": name, "value": value, "n": 2, "settings": {}}
            for name in ("clipscore", "style_flat")
        ]
        paths = [f"samples/{queries}-0.png", "../secret.png"]
        images = [
            {"queries": queries, "prompt": "p", "noise_index": place, "score": value + place / 10, "path": path}
            for place, path in enumerate(paths)
        ]
        found.record_evals("r1", rows, images)
        (folder / paths[0]).write_bytes(b"png")
    (tmp_path / "runs" / "secret.png").write_bytes(b"png")
    (folder / "pytorch_lora_weights.safetensors").write_bytes(b"weights")
    found.finish_run("r1", "done")
    found.start_run(run_row("r2", name="other"))
    return found


@pytest.mark.slow
def test_a_card_holds_what_a_hub_reads_and_what_a_person_asks(store: Store, tmp_path: Path) -> None:
    out = tmp_path / "card"
    files = write_card(store, "mine", tmp_path / "runs", out)
    assert files == ["README.md", "pytorch_lora_weights.safetensors", "config.json", "samples/1000-0.png"]
    assert sorted(str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()) == sorted(files)
    assert (out / "pytorch_lora_weights.safetensors").read_bytes() == b"weights"
    card = ModelCard.load(out / "README.md")
    (result,) = card.data.eval_results
    assert (result.metric_type, result.metric_value) == ("clipscore", 0.7)
    assert result.dataset_name == f"{HOSTILE}, test prompts"
    assert card.data.base_model == "CompVis/stable-diffusion-v1-4"
    assert card.data.license_name == FILL_IN
    assert "| CLIPScore (trained) | 0.6000 | 0.7000 | +0.1000 | 2 |" in card.text
    assert "| settings.lr | 0.001 |" in card.text
    assert "## Limits" in card.text
    assert "<b>" not in card.text
    assert r"\[a\](javascript:b)" in card.text
    for text in (card.text, (out / "config.json").read_text()):
        assert "/home/me" not in text
        assert "Users" not in text
    assert "| reward.checkpoint | clip |" in card.text
    assert "inception.pth" in card.text


@pytest.mark.slow
def test_what_is_no_card(store: Store, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is running, and a card is of a run that is done"):
        write_card(store, "other", tmp_path / "runs", tmp_path / "card")
    with pytest.raises(UserError, match="try --runs"):
        write_card(store, "mine", tmp_path, tmp_path / "card")
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot be written"):
        write_card(store, "mine", tmp_path / "runs", tmp_path / "file" / "card")
    assert not (tmp_path / "card").exists()


def test_csv_has_every_table_with_its_columns(store: Store, tmp_path: Path) -> None:
    assert export_results(store, tmp_path / "out", form="csv") == ["r1"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        f"{table}.csv" for table in ("evals", "images", "queries", "rounds", "runs")
    ]
    with (tmp_path / "out" / "evals.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["metric"], float(row["value"])) for row in rows[:2]] == [("clipscore", 0.6), ("style_flat", 0.6)]


def test_reading_results_needs_no_torch() -> None:
    """Reports, exports, cards, lists of runs: on a laptop, and at once."""
    code = (
        "import sys; import b2bench.describe.card, b2bench.store.parquet, b2bench.notebook, b2bench.describe.tables, "
        "b2bench.leaderboard.document, b2bench.leaderboard.html, huggingface_hub.repocard_data; "
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
