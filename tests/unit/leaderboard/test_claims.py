"""What a report claims, and its verdicts: of the 60 runs of b2bench 0.2.0.dev5, and of effects that are known."""

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from b2bench.leaderboard.contrasts import residual_variance, variance_ratio
from b2bench.leaderboard.document import document
from b2bench.leaderboard.noise import noise
from b2bench.leaderboard.rows import CompatibilityCell, Tables
from b2bench.leaderboard.stats import ALPHA, LOOK
from b2bench.leaderboard.tables import tables
from synthetic import Rows

from b2bench.describe.tables import tables_of
from b2bench.errors import UserError
from b2bench.store.store import Store

OLD = Path(__file__).with_name("runs_of_0_2_0.csv")
NOISE = (0.001, -0.001, 0.0005, -0.0005, 0.0)
SAME = {"settings": {"eval_seed": 0}}


def cells_of(found: Tables) -> dict[str, CompatibilityCell]:
    return {f"{row.algorithm} {cell.wrapper}": cell for row in found.compatibility for cell in row.cells}


def grid(found: Tables, key: str) -> dict[str, dict[str, str]]:
    """The texts of a table by the first cell of a row and the name of a column."""
    (section,) = document([found])
    (table,) = [table for table in section.grids if table.key == key]
    names = [column.name for column in table.columns]
    return {row[0].text: dict(zip(names, (cell.text for cell in row), strict=True)) for row in table.rows}


# -- the 60 runs ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def old() -> Tables:
    """Twelve cells, untuned, five seeds, each with evaluation noise of its own."""
    runs: dict[tuple[str, str, int], dict[int, dict[str, float]]] = {}
    with OLD.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            values = {name: float(row[name]) for name in ("clipscore", "held_out", "entropy")}
            run = runs.setdefault((row["algorithm"], row["wrapper"], int(row["seed"])), {})
            run[int(row["queries"])] = values
    rows = Rows()
    for (algorithm, wrapper, seed), at in runs.items():
        of = {name: {q: v[name] for q, v in at.items()} for name in ("clipscore", "held_out", "entropy")}
        rows.add(algorithm, wrapper, seed, of["clipscore"], budget=2400, heldout=of["held_out"], entropy=of["entropy"])
    assert len(rows.runs) == 60
    return rows.one()


def test_a_cell_that_lost_in_all_of_its_seeds_is_a_loss(old: Tables) -> None:
    cell = cells_of(old)["pg vanilla"]
    assert cell.verdict == "loss"
    assert cell.words == "lost: all 5 seeds fell below the pretrained model, the median one by 0.61"
    assert cell.gain is not None
    assert cell.gain.p_adjusted is not None
    assert cell.gain.p_adjusted > 0.5  # to the t-test alone it is inconclusive
    assert cells_of(old)["pg b2"].verdict == "loss"


def test_no_null_cell_is_equal_to_anything(old: Tables) -> None:
    assert "equivalent" not in {cell.verdict for cell in cells_of(old).values()}
    for name, cell in cells_of(old).items():
        if not name.startswith("ddpo"):
            assert cell.margin is None, name  # vanilla of these learned nothing, and there is no margin
    assert cells_of(old)["dpok bpt"].words == "no gain shown; not told apart from vanilla"


def test_the_variance_that_power_is_stated_for_is_that_of_these_runs(old: Tables) -> None:
    ends: dict[str, list[float]] = {}
    for curve in old.curves:
        if curve.algorithm == "ddpo":
            ends.setdefault(curve.wrapper, []).append(curve.values["clipscore"][-1])
    block = np.array([ends[wrapper] for wrapper in ("vanilla", "bpt", "bs", "b2")])
    assert residual_variance(block)[0] ** 0.5 == pytest.approx(0.00254, abs=1e-5)
    assert variance_ratio(block) == pytest.approx(5.07, abs=0.01)  # and so its contrasts had the paired t-test
    assert {c.delta.method for row in old.contrasts for c in row.contrasts} == {"paired"}


def test_collapses_are_counted_beside_the_mean_of_all(old: Tables) -> None:
    found = grid(old, "collapse")
    assert found["pg vanilla"]["collapsed"] == "5/5 [0.57, 1.00]"
    assert found["pg vanilla"]["mean of the others"] == "-"
    assert found["dpo vanilla"]["collapsed"] == "1/5 [0.04, 0.62]"
    assert (found["dpo vanilla"]["mean of all"], found["dpo vanilla"]["median"]) == ("0.530 ±0.336", "0.651")
    assert found["dpo vanilla"]["mean of the others"] == "0.651"
    assert found["pg b2"]["Fisher's p to vanilla"] == "0.44"


def test_old_runs_have_one_family_and_say_so(old: Tables) -> None:
    # twelve gains; four contrasts twice and one twice; three wrappers twice and one twice, in two measures
    assert old.head.tests == 12 + 10 + 2 * 8
    (section,) = document([old])
    for key in ("verdicts", "contrasts", "compatibility"):
        (table,) = [table for table in section.grids if table.key == key]
        assert any(f"{old.head.tests} tests" in line or f"the {old.head.tests} claims" in line for line in table.legend)
    for key in ("leaderboard", "collapse", "generalisation", "diversity"):
        (table,) = [table for table in section.grids if table.key == key]
        assert table.legend[0].startswith("exploratory")


def test_a_start_above_the_target_is_not_a_target_that_was_reached(old: Tables) -> None:
    """Seed 0 starts at 0.661, above where the mean of the best cell is after half of its gain."""
    (row,) = [row for row in old.leaderboard if (row.algorithm, row.wrapper) == ("pg", "vanilla")]
    assert row.reached == 0
    assert all(row.to_target.values[0] > 0 for row in old.leaderboard if row.to_target and not row.reference)


# -- verdicts --------------------------------------------------------------------------------------------------


def learned(rows: Rows, wrapper: str, gain: float, heldout: float, entropy: float, algorithm: str = "ddpo") -> None:
    for seed in range(5):
        jitter = NOISE[(seed + len(wrapper)) % 5]
        rows.add(
            algorithm, wrapper, seed, {0: 0.5, 500: 0.5 + gain / 2, 1000: 0.5 + gain + jitter}, config=SAME,
            heldout={0: 0.5, 1000: 0.5 + heldout - jitter}, entropy={0: 1.3, 1000: 1.3 + entropy + jitter},
        )  # fmt: skip


def test_equal_on_the_trained_reward_and_worse_held_out_is_a_verdict() -> None:
    rows = Rows()
    learned(rows, "vanilla", 0.2, 0.2, -0.2)
    learned(rows, "bpt", 0.2, 0.1, -0.2)
    learned(rows, "bs", 0.2, 0.2, -0.2)
    learned(rows, "b2", 0.3, 0.3, -0.4)
    found = cells_of(rows.one())
    assert {name: cell.verdict for name, cell in found.items()} == {
        "ddpo vanilla": "gain", "ddpo bpt": "mixed", "ddpo bs": "equivalent", "ddpo b2": "mixed",
    }  # fmt: skip
    assert found["ddpo bpt"].words == (
        "learned; equal to vanilla in trained reward and diversity, worse than vanilla in held-out"
    )
    assert found["ddpo bs"].words == "learned; equal to vanilla in trained reward and held-out and diversity"
    assert found["ddpo b2"].words == (
        "learned; better than vanilla in trained reward and held-out, worse than vanilla in diversity"
    )
    assert found["ddpo bs"].margin == pytest.approx(0.025, abs=1e-3)  # a quarter of an area of 0.1
    assert rows.one().head.equalities == 9


def test_a_margin_above_the_gain_is_none() -> None:
    rows = Rows()
    learned(rows, "vanilla", 0.2, 0.2, -0.2)
    learned(rows, "bpt", 0.2, 0.2, -0.2)
    for margin, verdict in ((0.05, "equivalent"), (0.2, "inconclusive")):
        (found,) = tables(rows.runs, rows.evals, rows.rounds, margin=margin)
        assert cells_of(found)["ddpo bpt"].verdict == verdict
    assert cells_of(found)["ddpo bpt"].margin is None


def test_two_null_cells_that_are_alike_are_not_equal() -> None:
    rows = Rows()
    learned(rows, "vanilla", 0.0, 0.0, 0.0)
    learned(rows, "bpt", 0.0, 0.0, 0.0)
    cell = cells_of(rows.one())["ddpo bpt"]
    assert (cell.verdict, cell.margin) == ("inconclusive", None)
    assert cell.words == "no gain shown; not told apart from vanilla"


def test_vanilla_that_was_not_run_leaves_the_gain() -> None:
    rows = Rows()
    learned(rows, "b2", 0.2, 0.2, -0.2)
    found = rows.one()
    assert (cells_of(found)["ddpo b2"].verdict, cells_of(found)["ddpo b2"].words) == ("gain", "learned")
    assert found.contrasts[0].missing == "not run: vanilla, bpt, bs"


def test_a_wrapper_of_somebody_else_is_compared_with_vanilla() -> None:
    rows = Rows()
    learned(rows, "vanilla", 0.2, 0.2, -0.2)
    learned(rows, "mine", 0.1, 0.2, -0.2)
    found = rows.one()
    assert cells_of(found)["ddpo mine"].verdict == "loss"
    assert found.head.tests == 2 + 1 + 2
    assert cells_of(found)["ddpo mine"].baseline == "vanilla"


def test_controls_are_a_family_of_their_own() -> None:
    rows = Rows()
    learned(rows, "vanilla", 0.2, 0.2, -0.2)
    learned(rows, "bpt", 0.2, 0.1, -0.2)
    alone = rows.one()
    learned(rows, "spread", 0.2, 0.2, -0.3)
    found = rows.one()
    assert (found.head.tests, found.head.equalities) == (alone.head.tests, alone.head.equalities)
    assert cells_of(found)["ddpo bpt"] == cells_of(alone)["ddpo bpt"]
    assert cells_of(found)["ddpo spread"].verdict == "mixed"  # equal on the trained reward, less diverse


def test_two_looks_have_a_level_of_their_own() -> None:
    rows = Rows()
    learned(rows, "vanilla", 0.2, 0.2, -0.2)
    one, two = (tables(rows.runs, rows.evals, rows.rounds, looks=looks)[0] for looks in (1, 2))
    assert (one.head.alpha, two.head.alpha) == (ALPHA, LOOK)
    assert "2 looks at these runs: each has a level of 0.029" in document([two])[0].facts
    verdicts = next(grid for grid in document([two])[0].grids if grid.key == "verdicts")
    assert "claims: 1 test at 2.9%" in verdicts.legend[0]


def test_looks_and_margins_that_mean_nothing_are_refused(tmp_path: Path) -> None:
    store = Store(tmp_path / "b.duckdb")
    with pytest.raises(UserError, match="--looks 3"):
        tables_of(store, looks=3)
    with pytest.raises(UserError, match="--margin 0 "):
        tables_of(store, margin=0)


# -- equal compute -----------------------------------------------------------------------------------------------


def test_cells_at_equal_compute() -> None:
    """b2 costs half: at the cost of a whole run of it, vanilla has had half of its queries."""
    rows = Rows()
    learned(rows, "vanilla", 0.2, 0.2, -0.2)
    learned(rows, "b2", 0.15, 0.2, -0.2)
    assert rows.one().head.compute is None  # all spent the same: the leaderboard says it already
    cheap = {run["run_id"] for run in rows.runs if run["wrapper"] == "b2"}
    for row in rows.rounds:
        if row["run_id"] in cheap:
            row.update(denoiser_calls_sampling=50, denoiser_calls_training=25, denoiser_calls_gradient=15)
    found = rows.one()
    assert found.head.compute == 2 * (50 + 25 + 2 * 15)
    by = {row.wrapper: row for row in found.compute}
    assert (by["vanilla"].queries.mean, by["b2"].queries.mean) == (500, 1000)
    assert by["vanilla"].alignment.mean == pytest.approx(0.6)
    assert by["b2"].alignment.mean == pytest.approx(0.65)
    assert by["b2"].delta is not None
    assert by["b2"].delta.mean == pytest.approx(0.05)
    assert by["vanilla"].delta is None
    assert [row.wrapper for row in found.compute] == ["b2", "vanilla"]
    assert grid(found, "compute")["ddpo b2"]["to vanilla"].startswith("+0.050 ±")
    rows.rounds[0]["denoiser_calls_gradient"] = None  # a run from before they were counted
    assert rows.one().compute == ()


# -- noise of evaluations ------------------------------------------------------------------------------------------


def scored(rows: Rows, shared: bool = True) -> tuple[list[dict[str, Any]], np.ndarray]:
    """Scores of 40 images for each run, and the contrast bpt - vanilla by seed and image."""
    rng = np.random.default_rng(0)
    common = rng.normal(0.5, 0.2, 40)
    of = {run["run_id"]: common + rng.normal(0, 0.05, 40) + 0.02 * rng.normal() for run in rows.runs}
    found = [
        {"run_id": name, "scores": scores.tolist(), "images": "a" if shared else name, "prompts": 10}
        for name, scores in of.items()
    ]
    by = {(run["wrapper"], run["seed"]): of[run["run_id"]] for run in rows.runs}
    return found, np.array([by["bpt", seed] - by["vanilla", seed] for seed in range(5)])


def test_the_noise_of_a_contrast_is_that_of_its_images() -> None:
    rows = Rows()
    learned(rows, "vanilla", 0.2, 0.2, -0.2)
    learned(rows, "bpt", 0.2, 0.2, -0.2)
    scores, contrast = scored(rows)
    (found,) = tables(rows.runs, rows.evals, rows.rounds, scores=scores)
    assert found.contrasts[0].contrasts[0].noise == noise(contrast, shared=True, prompts=10)
    shown = grid(found, "contrasts")["ddpo"]
    assert shown["noise of images"] != "-"
    assert "(40 drawn)" in shown["images needed"]
    by_prompt = contrast.mean(0).reshape(10, 4).mean(1)
    assert float(shown["error of prompts"]) == pytest.approx(by_prompt.std(ddof=1) / 10**0.5, abs=5e-5)
    uneven = [row | {"prompts": None} for row in scores]  # some prompts have more images than others
    (unknown,) = tables(rows.runs, rows.evals, rows.rounds, scores=uneven)
    assert "error of prompts" not in grid(unknown, "contrasts")["ddpo"]
    (without,) = tables(rows.runs, rows.evals, rows.rounds)
    assert "noise of images" not in grid(without, "contrasts")["ddpo"]
    scores, _ = scored(rows, shared=False)
    (other,) = tables(rows.runs, rows.evals, rows.rounds, scores=scores)
    assert other.contrasts[0].contrasts[0].noise is None  # cells of other images have no common ones


def test_a_store_gives_the_scores_of_the_last_images(tmp_path: Path) -> None:
    store = Store(tmp_path / "b.duckdb")
    start = {"benchmark_version": "3", "algorithm": "pg", "wrapper": "bs", "backbone": "pocket", "reward": "clipscore"}
    start |= {"prompts": "template1", "budget": 10, "config": {}, "config_hash": "h"}
    for place, run_id in enumerate(("a", "b", "c")):
        store.start_run({**start, "run_id": run_id, "seed": place})
        for queries in (0, 10):
            images = [
                {
                    "queries": queries,
                    "prompt": prompt,
                    "noise_index": i,
                    "score": queries + i + 0.5 * place,
                    "path": None,
                }
                for prompt in ("x", "y")
                for i in range(2 if run_id != "c" else 3)
                if (run_id, prompt, i) != ("c", "y", 2)
            ]
            store.record_evals(run_id, [], images[::-1])
    found = {row["run_id"]: row for row in store.last_scores()}
    assert found["a"]["scores"] == [10, 11, 10, 11]
    assert found["b"]["scores"] == [10.5, 11.5, 10.5, 11.5]
    assert found["a"]["images"] == found["b"]["images"] != found["c"]["images"]
    assert (found["a"]["prompts"], found["c"]["prompts"]) == (2, None)  # of c one has more images than the other
