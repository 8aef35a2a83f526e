"""Two runs or cells side by side, from a store."""

import json
from pathlib import Path
from typing import Any

import duckdb
import pytest
from b2bench.leaderboard.compare import compare, samples, section, verdict
from b2bench.leaderboard.html import alone, page
from PIL import Image
from store_rows import run_row

from b2bench.cli.compare import compare as command
from b2bench.describe.compared import sides
from b2bench.errors import UserError
from b2bench.store.store import Store

PROMPTS = ("a <cat> sleeping", "a dog running", "a fox reading")
GAINS = {"a <cat> sleeping": 0.10, "a dog running": 0.02, "a fox reading": -0.05}


def add(store: Store, wrapper: str, seed: int, shift: float, **more: Any) -> str:
    """A run whose images gain ``shift`` times ``GAINS``, from 0.5."""
    run_id = f"ddpo-{wrapper}-{more.get('prompts_hash', 'ab')}-{seed}"
    settings = {"eval_seed": more.pop("eval_seed", 0), "lr": more.pop("lr", 1e-3)}
    config = {"wrapper": {"name": wrapper}, "seed": seed, "settings": settings, "reward": more.pop("of_reward", {})}
    row = run_row(run_id, name=run_id, wrapper=wrapper, seed=seed, config=config, config_hash=f"{settings}{wrapper}")
    store.start_run(row | more)
    for queries in (0, 100):
        rows = [
            {"prompt": prompt, "noise_index": n, "score": 0.5 + (queries > 0) * (shift * gain + 0.001 * n * seed),
             "path": f"samples/{queries}-{n}.png" if prompt == PROMPTS[0] else None}
            for prompt, gain in GAINS.items() for n in range(2)
        ]  # fmt: skip
        values = {"clipscore": sum(row["score"] for row in rows) / len(rows), "success": 0.1 + queries / 1000}
        evals = [{"split": "test", "metric": m, "value": v, "n": 6, "settings": None} for m, v in values.items()]
        store.record_evals(
            run_id, [{**row, "queries": queries} for row in evals], [{**row, "queries": queries} for row in rows]
        )
    store.finish_run(run_id, "done")
    return run_id


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    store = Store(tmp_path_factory.mktemp("compare") / "b.duckdb")
    for seed in range(3):
        add(store, "vanilla", seed, 1.0)
        add(store, "b2", seed, 2.0 + 0.1 * seed, lr=1e-2)
    return store


@pytest.mark.slow
def test_cells_are_compared_by_seed_and_image(store: Store) -> None:
    found = compare(*sides(store, ("ddpo/vanilla", "ddpo/b2"), {}))
    mean = sum(GAINS.values()) / 3
    assert found.delta.values == pytest.approx([mean * (1 + 0.1 * seed) for seed in range(3)])
    assert (found.images, found.better, found.delta.wins) == (18, pytest.approx(2 / 3), 3)
    assert [row.prompt for row in found.prompts] == list(GAINS)
    assert found.prompts[0].mean == pytest.approx(0.11)
    assert [row[0] for row in found.settings] == ["settings.lr", "wrapper.name"]
    assert verdict(found).about == "Better"
    assert found.delta.low is not None


def test_settings_of_cells_are_those_of_every_pair_of_runs(tmp_path: Path) -> None:
    """Both sides have both commits, and one pair of runs differs in it; the threads are swapped in both pairs."""
    store = Store(tmp_path / "b.duckdb")
    for wrapper, shift, commits, threads in (("vanilla", 1.0, "ccd", (1, 2, 1)), ("b2", 2.0, "cdd", (1, 2, 1))):
        for seed, (commit, used) in enumerate(zip(commits, threads, strict=True)):
            add(store, wrapper, seed, shift, commit=commit, threads=used)
    found = compare(*sides(store, ("ddpo/vanilla", "ddpo/b2"), {}))
    assert found.settings == (("wrapper.name", "vanilla", "b2"), ("commit", "c, d", "c, d"))


def test_seeds_that_drew_the_same_images_are_no_further_evidence(tmp_path: Path) -> None:
    store = Store(tmp_path / "b.duckdb")
    for seed in (0, 1):
        add(store, "vanilla", seed, 1.0)
        add(store, "b2", seed, 2.0)
    one = compare(*sides(store, ("ddpo-vanilla-ab-0", "ddpo-b2-ab-0"), {}))
    both = compare(*sides(store, ("ddpo/vanilla", "ddpo/b2"), {}))
    assert (one.images, both.images) == (6, 12)
    assert both.error == pytest.approx(one.error)


def test_scores_of_another_quantity_are_refused(tmp_path: Path) -> None:
    store = Store(tmp_path / "b.duckdb")
    add(store, "vanilla", 0, 1.0, of_reward={"name": "jpeg", "goal": "compressibility"})
    add(store, "b2", 0, 2.0, of_reward={"name": "jpeg", "goal": "incompressibility"})
    with pytest.raises(UserError, match=r"settings of the reward \(the usual; goal=incompressibility\)"):
        compare(*sides(store, ("ddpo-vanilla-ab-0", "ddpo-b2-ab-0"), {}))


def test_two_runs_have_an_error_over_images_and_no_verdict(store: Store) -> None:
    found = compare(*sides(store, ("ddpo-vanilla-ab-1", "ddpo-b2-ab-1"), {}))
    assert (found.first, found.second) == ("ddpo vanilla seed 1", "ddpo b2 seed 1")
    assert found.delta.low is None
    assert found.error > 0
    assert verdict(found).kind == "untested"
    assert any("says nothing of other training seeds" in note for note in found.notes)
    other = compare(*sides(store, ("ddpo-vanilla-ab-0", "ddpo-b2-ab-2"), {}))
    assert any("different training seeds" in note for note in other.notes)


def test_the_pretrained_model_is_what_a_cell_began_with(store: Store) -> None:
    found = compare(*sides(store, ("pretrained", "ddpo/vanilla"), {}))
    assert found.mean == pytest.approx(sum(GAINS.values()) / 3 + 0.001 / 2)
    (success,) = found.beside  # not the trained reward alone
    assert [each.mean for each in success[1:]] == pytest.approx([0.1, 0.2, 0.1])
    back = compare(*sides(store, ("ddpo/vanilla", "pretrained"), {}))
    assert back.mean == pytest.approx(-found.mean)
    assert not any("different numbers" in note for note in (*found.notes, *back.notes))


def test_evaluations_of_other_sizes_share_their_images_alone(tmp_path: Path) -> None:
    """As of a run that failed between its evaluations, or of another budget; diversity depends on their number."""
    store = Store(tmp_path / "a.duckdb")
    add(store, "vanilla", 0, 1.0)
    add(store, "b2", 0, 2.0)
    with duckdb.connect(str(store.path)) as con:
        con.execute("DELETE FROM images WHERE run_id LIKE '%b2%' AND queries = 100 AND noise_index = 1")
    found = compare(*sides(store, ("ddpo/vanilla", "ddpo/b2"), {}))
    (scores, *others) = section(found).grids[0].rows
    assert others == []
    assert any("6 and 3 images" in note for note in found.notes)
    first, second, difference = (cell.sort for cell in scores[1:])
    assert second - first == pytest.approx(difference)


@pytest.mark.slow
def test_what_cannot_be_compared_says_why(store: Store, tmp_path: Path) -> None:
    other = Store(tmp_path / "other.duckdb")
    add(other, "vanilla", 0, 1.0)
    add(other, "b2", 0, 1.0, prompts_hash="cd")
    add(other, "bs", 0, 1.0, eval_seed=7)
    add(other, "bpt", 5, 1.0)
    add(other, "bpt", 6, 1.0)
    add(other, "random2", 0, 1.0)
    add(other, "random2", 1, 1.0, lr=0.5)
    add(other, "spread", 0, 1.0)
    add(other, "spread", 1, 1.0)
    cases = {
        ("ddpo/vanilla", "ddpo/b2"): "different prompt sets",
        ("ddpo/vanilla", "ddpo/bs"): "eval_seed 0 and 7",
        ("ddpo/spread", "ddpo/bpt"): "has seeds 0, 1 and ddpo/bpt has 5, 6",
        ("ddpo/vanilla", "pg/bpt"): "no finished run of cell pg/bpt",
        ("ddpo/vanilla", "ddpo/vanilla"): "with itself",
        ("ddpo/vanilla", "ddpo/random2"): "2 settings.*: lr=0.5",
        ("ddpo/vanilla", "nothing"): "no run 'nothing'",
    }
    for names, words in cases.items():
        with pytest.raises(UserError, match=words):
            compare(*sides(other, names, {}))


def test_a_cell_of_several_settings_is_told_by_one_of_them(tmp_path: Path) -> None:
    other = Store(tmp_path / "other.duckdb")
    for seed in (0, 1):
        add(other, "b2", seed, 1.0)
    add(other, "vanilla", 0, 1.0)
    add(other, "vanilla", 1, 1.0)
    add(other, "vanilla", 2, 2.0, lr=0.5)
    add(other, "vanilla", 3, 2.0, eval_seed=7)
    with pytest.raises(UserError, match=r"3 settings; try ddpo/vanilla:NAME=VALUE with .*eval_seed=7 lr=0.001"):
        sides(other, ("ddpo/vanilla", "ddpo/b2"), {})
    with pytest.raises(UserError, match=r"2 settings; try ddpo/vanilla:lr=0.001,NAME=VALUE with .*eval_seed=7"):
        sides(other, ("ddpo/vanilla:lr=0.001", "ddpo/b2"), {})

    def seeds(*names: str) -> list[list[int]]:
        return [sorted(side.runs) for side in sides(other, (names[0], names[1]), {})]

    assert seeds("ddpo/vanilla:lr=1e-3,eval_seed=0", "ddpo/b2") == [[0, 1], [0, 1]]
    assert seeds("ddpo/vanilla:settings.lr=0.001, eval_seed=0", "ddpo/vanilla:lr=0.5") == [[0, 1], [2]]
    assert seeds("ddpo/vanilla:lr=.5", "pretrained") == [[2], [2]]
    assert seeds("ddpo/b2:", "ddpo/vanilla:eval_seed=7") == [[0, 1], [3]]
    for name, words in {
        "ddpo/vanilla:lr=2": "no run of ddpo/vanilla has lr=2; try 0.001, 0.5",
        "ddpo/vanilla:eval_sed=7": r"names no setting of its runs. Did you mean eval_seed\?",
        "ddpo/vanilla:lr": "ddpo/vanilla:lr names no setting",
        "ddpo/bpt:lr=2": "no finished run of cell ddpo/bpt in",
    }.items():
        with pytest.raises(UserError, match=words):
            sides(other, (name, "ddpo/b2"), {})


def test_a_cell_of_several_contexts_is_told_by_one_of_them(tmp_path: Path) -> None:
    other = Store(tmp_path / "other.duckdb")
    for prompts in ("one", "two"):
        add(other, "vanilla", 0, 1.0, prompts=prompts, prompts_hash=prompts, config_hash=prompts)
    with pytest.raises(UserError, match=r"2 settings; try --where prompts=\.\.\., or ddpo/vanilla:NAME=VALUE"):
        sides(other, ("ddpo/vanilla", "pretrained"), {})
    assert sides(other, ("ddpo/vanilla", "pretrained"), {"prompts": {"two"}})


def test_the_page_shows_images_of_equal_noise_side_by_side_as_text_and_pictures(store: Store, tmp_path: Path) -> None:
    for run in store.runs():
        folder = tmp_path / run["run_id"] / "samples"
        folder.mkdir(parents=True)
        for name in ("0-0", "0-1", "100-0", "100-1"):
            Image.new("RGB", (4, 4), "red").save(folder / f"{name}.png")
    found = compare(*sides(store, ("ddpo/vanilla", "ddpo/b2"), {}))
    grid = samples(found, tmp_path)
    assert grid is not None
    assert grid.columns == ("pretrained", "ddpo/vanilla", "ddpo/b2")
    assert len(grid.rows) == 6
    assert [sample is not None and bool(sample.png) for sample in grid.rows[0][1]] == [True, True, True]
    assert grid.rows[0][0].endswith("(+0.120, seed 2)")
    text = page("b2bench compare", [alone(section(found), grid)])
    assert "a &lt;cat&gt; sleeping" in text
    assert "<cat>" not in text
    assert text.count("data:image/png") == 18


@pytest.mark.slow
def test_the_command_prints_json_and_writes_a_page(
    store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command("ddpo/vanilla", "ddpo/b2", db=store.path, runs=tmp_path, as_json=True)
    found = json.loads(capsys.readouterr().out)
    assert found["verdict"]["about"] == "Better"
    assert len(found["runs"]) == 3
    command("ddpo/vanilla", "ddpo/b2", db=store.path, runs=tmp_path, out=tmp_path / "c.html")
    assert "Settings that differ" in capsys.readouterr().out
    assert "Prompts on which ddpo/b2 gained most" in (tmp_path / "c.html").read_text()
    with pytest.raises(UserError, match="does not exist"):
        command("ddpo/vanilla", "ddpo/b2", db=store.path, out=tmp_path / "none" / "c.html")
