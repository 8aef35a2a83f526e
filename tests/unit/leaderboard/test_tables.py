"""Tables from synthetic store rows, and how a terminal shows them."""

import io
import json
import math
import re
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from b2bench.leaderboard.cells import ABSENT, PAIRED, Run, flat, labels
from b2bench.leaderboard.document import document
from b2bench.leaderboard.grid import count
from b2bench.leaderboard.headroom import headroom
from b2bench.leaderboard.matrix import learning
from b2bench.leaderboard.rows import Tables
from b2bench.leaderboard.selection import held, parse_where, problems, select
from b2bench.leaderboard.tables import tables
from b2bench.leaderboard.terminal import render, to_json
from rich.console import Console
from scipy import stats as scipy_stats
from synthetic import Rows

from b2bench.config.run import cell_hash
from b2bench.registry import Registry
from b2bench.store.store import Store


@pytest.fixture
def rows() -> Rows:
    return Rows()


def factorial_rows(rows: Rows, seeds: int = 4) -> None:
    """ddpo under all wrappers: BPT is worth 0.02, BS 0.01, together 0.005 more; seeds differ a little."""
    for seed in range(seeds):
        base = 0.6 + 0.01 * seed
        for place, (wrapper, gain) in enumerate({"vanilla": 0.03, "bpt": 0.05, "bs": 0.04, "b2": 0.065}.items()):
            wobble = 0.0005 * ((seed * 3 + place * 5) % 4)
            rows.add("ddpo", wrapper, seed, {0: base, 500: 0.9, 1000: base + gain + wobble})


def row_of(found: Tables, algorithm: str, wrapper: str, label: str = "") -> Any:
    (row,) = [
        row for row in found.leaderboard if (row.algorithm, row.wrapper) == (algorithm, wrapper) and label in row.label
    ]
    return row


def text_of(found: list[Tables], width: int = 100) -> str:
    stream = io.StringIO()
    render(found, Console(file=stream, width=width, color_system=None, highlight=False))
    return stream.getvalue()


def test_a_narrow_terminal_breaks_no_name_of_a_setting(rows: Rows) -> None:
    factorial_rows(rows)
    for wrapper in ("vanilla", "bpt", "bs", "b2"):
        for seed in range(4):
            config = {"settings": {"advantage": "group"}, "algorithm": {"name": "ddpo"}}
            rows.add("ddpo", wrapper, seed, {0: 0.6, 1000: 0.75 + 0.01 * seed}, config=config)
    shown = text_of(rows.tables(), width=70)
    assert max(map(len, shown.splitlines())) <= 70
    matrix = shown.partition("Gain over the pretrained model")[2].partition("area of gain:")[0]
    assert "advantage=group" in matrix


def test_controls_stand_below_the_others_without_a_rank(rows: Rows) -> None:
    factorial_rows(rows)
    alone = rows.one()
    for seed in range(4):
        rows.add("ddpo", "random2", seed, {0: 0.6 + 0.01 * seed, 500: 0.9, 1000: 0.9 + 0.01 * seed})
    found = rows.one()
    assert [row.wrapper for row in found.leaderboard] == ["b2", "bpt", "bs", "vanilla", "random2", "-"]
    control = row_of(found, "ddpo", "random2")
    assert (control.control, control.ranks) == (True, None)
    assert [row.ranks for row in found.leaderboard[:4]] == [row.ranks for row in alone.leaderboard[:4]]
    assert (found.head.target, found.head.matched) == (alone.head.target, alone.head.matched)
    assert found.contrasts == alone.contrasts
    assert found.compatibility[0].cells[:4] == alone.compatibility[0].cells
    assert found.compatibility[0].cells[4].delta is not None
    text = " ".join(text_of([found], 200).split())
    assert "ddpo random2 (control)" in text
    assert "control: stands in for a part of a wrapper" in text
    assert "control" not in text_of([alone], 200)


def test_an_algorithm_on_pairs_is_said_to_ignore_selection(rows: Rows) -> None:
    factorial_rows(rows)
    assert "ignores selection" not in text_of([rows.one()], 300)
    for run in rows.runs:
        run["algorithm"] = "dpo"
    text = " ".join(text_of([rows.one()], 300).split())
    assert "best and worst of each group; its BS contrast is that of the shared prefix alone" in text  # contrasts
    assert "best and worst of each group, under every wrapper" in text  # compatibility


def test_a_report_knows_the_algorithms_on_pairs() -> None:
    registry = Registry("algorithm")
    assert [name for name in registry.names() if registry.get(name).pairs] == [*PAIRED]  # type: ignore[attr-defined]


def test_the_last_evaluation_counts_and_not_the_best(rows: Rows) -> None:
    for seed, last in enumerate([0.70, 0.72, 0.71]):
        rows.add("ddpo", "b2", seed, {0: 0.60 + 0.01 * seed, 500: 0.95, 1000: last})
    row = row_of(rows.one(), "ddpo", "b2")
    assert row.alignment.mean == pytest.approx(0.71)
    assert row.gain.values == pytest.approx((0.10, 0.11, 0.09))
    assert row.gain.p == pytest.approx(scipy_stats.ttest_1samp([0.10, 0.11, 0.09], 0).pvalue)
    assert (row.heldout.mean, row.inception["is_style"].mean) == (0.5, 3.0)
    assert row.diversity["style_entropy"].mean == 1.25
    assert (row.denoiser_calls, row.queries, row.seeds) == (300, 1000, (0, 1, 2))
    assert row.forward_equivalents == 2 * (100 + 50 + 2 * 30)
    rows.rounds[0]["denoiser_calls_gradient"] = None  # a run from before they were counted
    assert row_of(rows.one(), "ddpo", "b2").forward_equivalents is None
    reference = row_of(rows.one(), "pretrained", "-")
    assert reference.alignment.mean == pytest.approx(0.61)


def test_cells_are_sorted_by_alignment_and_the_reference_is_last(rows: Rows) -> None:
    factorial_rows(rows)
    assert [row.wrapper for row in rows.one().leaderboard] == ["b2", "bpt", "bs", "vanilla", "-"]


def test_contexts_are_never_mixed(rows: Rows) -> None:
    rows.add("ddpo", "b2", 0, {0: 0.6, 1000: 0.7})
    rows.add("ddpo", "b2", 1, {0: 0.6, 2000: 0.8}, budget=2000)
    rows.add("ddpo", "b2", 2, {0: 0.6, 1000: 0.9}, prompts_hash="other")
    rows.add("ddpo", "b2", 3, {0: 0.6, 1000: 0.9}, benchmark_version="4")
    assert [row_of(found, "ddpo", "b2").alignment.n for found in rows.tables()] == [1, 1, 1, 1]


def test_settings_that_differ_are_rows_labelled_by_the_difference(rows: Rows) -> None:
    for seed in range(3):
        rows.add("ddpo", "b2", seed, {0: 0.6, 1000: 0.7})
        rows.add("ddpo", "b2", seed, {0: 0.6, 1000: 0.8}, config={"lr": 3e-3, "loss": {"clip": 0.2}})
    found = rows.one()
    assert row_of(found, "ddpo", "b2", "lr=0.001").alignment.mean == pytest.approx(0.7)
    assert row_of(found, "ddpo", "b2", "clip=0.2 lr=0.003").alignment.mean == pytest.approx(0.8)


def test_settings_of_most_runs_of_an_algorithm_are_not_told_in_its_names(rows: Rows) -> None:
    def add(wrapper: str, seeds: int, final: float, **settings: float | str) -> None:
        config = {"settings": {"lr": 1e-3, "advantage": "history"} | settings, "algorithm": {"name": "ddpo", "lr": 1}}
        for seed in range(seeds):
            rows.add("ddpo", wrapper, seed, {0: 0.6, 1000: final + 0.001 * seed}, config=config)

    add("vanilla", 3, 0.7)
    add("b2", 3, 0.72)
    add("vanilla", 3, 0.75, advantage="group")
    add("vanilla", 2, 0.65, lr=1e-2)
    found = rows.one()
    assert [(row.label, [c.name for c in row.contrasts]) for row in found.contrasts] == [
        ("", ["b2"]),
        ("advantage=group", []),
        ("lr=0.01", []),
    ]
    assert {row.label for row in found.leaderboard if row.wrapper == "vanilla"} == {"", "lr=0.01", "advantage=group"}
    assert "ddpo without settings beside its name has advantage=history lr=0.001" in found.head.notes
    add("tree", 8, 0.7, advantage="loo")  # no half has one value of the advantage: it is told of all
    found = rows.one()
    assert {row.label for row in found.leaderboard if row.wrapper == "vanilla"} == {
        "advantage=history",
        "advantage=history lr=0.01",
        "advantage=group",
    }
    assert not any("without settings" in note and "advantage" in note for note in found.head.notes)


def test_settings_of_one_last_name_are_told_in_full() -> None:
    configs = [{"algorithm.lr": "1", "settings.lr": "2", "settings.eta": "1.0"}, {"settings.lr": "3"}]
    assert labels(configs, ["", ""]) == [
        "algorithm.lr=1 eta=1.0 settings.lr=2",
        "algorithm.lr=unset eta=unset settings.lr=3",
    ]


def test_how_often_scores_were_looked_at_is_told_only_where_nothing_else_tells(rows: Rows) -> None:
    def add(seeds: int, lr: float, eval_points: int) -> None:
        config = {"settings": {"lr": lr, "eval_points": eval_points}, "algorithm": {"name": "ddpo"}}
        for seed in range(seeds):
            rows.add("ddpo", "vanilla", seed, {0: 0.6, 1000: 0.7}, config=config)

    add(3, lr=0.001, eval_points=2)
    add(1, lr=0.003, eval_points=3)
    found = rows.one()
    assert {row.label for row in found.leaderboard} == {"", "lr=0.003"}
    assert "ddpo without settings beside its name has lr=0.001" in found.head.notes
    add(1, lr=0.001, eval_points=3)
    found = rows.one()
    assert {row.label for row in found.leaderboard} == {"", "eval_points=3", "eval_points=3 lr=0.003"}
    assert "ddpo without settings beside its name has eval_points=2 lr=0.001" in found.head.notes


def test_identical_reruns_count_once_and_the_latest_done(rows: Rows) -> None:
    rows.add("ddpo", "b2", 0, {0: 0.6, 1000: 0.7})
    rows.add("ddpo", "b2", 0, {0: 0.6, 1000: 0.8})
    rows.add("ddpo", "b2", 0, {0: 0.6}, status="failed")
    row = row_of(rows.one(), "ddpo", "b2")
    assert (row.alignment.values, row.failed) == ((0.8,), 0)


def test_a_failed_run_counts_with_its_last_value_and_is_flagged(rows: Rows) -> None:
    rows.add("ddpo", "b2", 0, {0: 0.6, 1000: 0.8})
    rows.add("ddpo", "b2", 1, {0: 0.6, 500: 0.5, 750: None}, status="failed")
    rows.add("ddpo", "b2", 2, {0: 0.62}, status="failed")
    row = row_of(rows.one(), "ddpo", "b2")
    assert row.alignment.values == pytest.approx((0.8, 0.5, 0.62))
    assert row.failed == 2
    assert "2†" in text_of(rows.tables())


def test_a_run_that_failed_before_its_first_evaluation_has_the_pretrained_value(rows: Rows) -> None:
    rows.add("ddpo", "vanilla", 0, {0: 0.61, 1000: 0.8})
    rows.add("ddpo", "b2", 0, {}, status="failed")
    assert row_of(rows.one(), "ddpo", "b2").alignment.values == (0.61,)


def test_running_and_interrupted_runs_are_listed_and_not_averaged(rows: Rows) -> None:
    rows.add("ddpo", "b2", 0, {0: 0.6, 1000: 0.7})
    rows.add("ddpo", "b2", 1, {0: 0.6, 500: 0.9}, status="running")
    rows.add("dpok", "bs", 1, {0: 0.6, 500: 0.9}, status="interrupted")
    found = rows.one()
    assert row_of(found, "ddpo", "b2").alignment.values == (0.7,)
    assert [(run.run_id, run.status, run.queries) for run in found.incomplete] == [
        ("run1", "running", 1000),
        ("run2", "interrupted", 1000),
    ]
    verdicts = {row.algorithm: {cell.wrapper: cell.verdict for cell in row.cells} for row in found.compatibility}
    assert verdicts["dpok"]["bs"] == "incomplete"


def test_two_seeds_give_numbers_without_interval_and_say_so(rows: Rows) -> None:
    rows.add("ddpo", "b2", 0, {0: 0.6, 1000: 0.7})
    rows.add("ddpo", "b2", 1, {0: 0.6, 1000: 0.8})
    found = rows.one()
    assert row_of(found, "ddpo", "b2").gain.low is None
    assert "no interval" in text_of([found])


def test_a_null_metric_of_one_seed_leaves_no_flattering_mean(rows: Rows) -> None:
    for seed, value in enumerate([0.7, None, 0.8]):
        rows.add("ddpo", "b2", seed, {0: 0.6, 1000: value})
    found = rows.tables()
    assert row_of(found[0], "ddpo", "b2").alignment.mean is None
    assert math.isnan(row_of(found[0], "ddpo", "b2").alignment.values[1])
    exported = json.loads(json.dumps(to_json(found), allow_nan=False))
    assert exported[0]["leaderboard"][0]["alignment"]["values"] == [0.7, None, 0.8]


def means(row: Any, endpoint: str) -> dict[str, float]:
    return {contrast.name: getattr(contrast, endpoint).mean for contrast in row.contrasts}


def test_planned_contrasts_by_hand(rows: Rows) -> None:
    factorial_rows(rows)
    (row,) = rows.one().contrasts
    end = {"bpt": 0.02, "bs": 0.01, "interaction": 0.005, "b2": 0.035}
    assert means(row, "end") == pytest.approx(end, abs=2e-3)
    # from start to 0.9 to the end: the end weighs a quarter of the area
    assert means(row, "delta") == pytest.approx({name: value / 4 for name, value in means(row, "end").items()})
    assert (row.seeds, row.missing) == ((0, 1, 2, 3), "")


def test_one_family_holds_every_claim(rows: Rows) -> None:
    factorial_rows(rows)
    found = rows.one()
    # four gains, four contrasts, and three wrappers in the held-out score and in diversity
    assert found.head.tests == 4 + 4 + 3 + 3
    claims = [cell.gain for cell in found.compatibility[0].cells]
    claims += [contrast.delta for contrast in found.contrasts[0].contrasts]
    claims += [beside.delta for cell in found.compatibility[0].cells for beside in cell.beside]
    by_p = sorted(claims, key=lambda claim: claim.p)
    expected, highest = [], 0.0
    for place, claim in enumerate(by_p):
        highest = max(highest, min(1.0, (14 - place) * claim.p))
        expected.append(highest)
    assert [claim.p_adjusted for claim in by_p] == pytest.approx(expected)
    deltas = {cell.wrapper: cell.delta for cell in found.compatibility[0].cells[1:]}
    assert deltas == {c.name: c.delta for c in found.contrasts[0].contrasts if c.name != "interaction"}


def test_a_contrast_takes_the_seeds_that_its_wrappers_share_and_the_row_names_what_is_missing(rows: Rows) -> None:
    factorial_rows(rows)
    rows.runs = [run for run in rows.runs if (run["wrapper"], run["seed"]) != ("bs", 2)]
    (row,) = rows.one().contrasts
    assert row.seeds == (0, 1, 3)
    assert {c.name: c.delta.n for c in row.contrasts} == {"bpt": 4, "bs": 3, "interaction": 3, "b2": 4}
    assert {c.delta.method for c in row.contrasts} == {"paired"}  # no block with a hole
    rows.runs = [run for run in rows.runs if run["wrapper"] != "bs"]
    (row,) = rows.one().contrasts
    assert ([c.name for c in row.contrasts], row.missing) == (["bpt", "b2"], "not run: bs")
    assert "not run: bs" in text_of(rows.tables())


def test_contrasts_join_cells_that_differ_in_wrapper_settings_alone(rows: Rows) -> None:
    for seed in range(3):
        for wrapper in ("vanilla", "bpt", "bs", "b2"):
            for lr in (1e-3, 3e-3):
                # where a plugin was found and the micro-batch are in the configuration, not in its hash
                loose = {"found": {"plugins": [wrapper]}, "settings": {"micro_batch": len(wrapper), "T": 20}}
                config: dict[str, Any] = {"lr": lr, **loose}
                if wrapper != "vanilla":
                    config["wrapper.best"] = 0.5
                rows.add("ddpo", wrapper, seed, {0: 0.6, 1000: 0.7 + lr}, config=config)
    assert sorted(row.label for row in rows.one().contrasts) == ["lr=0.001", "lr=0.003"]
    assert all(len(row.contrasts) == 4 for row in rows.one().contrasts)


def test_wrapper_settings_with_most_seeds_stand_for_several_and_a_note_says_so(rows: Rows) -> None:
    factorial_rows(rows)
    for seed in range(2):
        rows.add("ddpo", "bs", seed, {0: 0.6, 1000: 0.99}, config={"wrapper.best": 0.1})
    found = rows.one()
    assert found.contrasts[0].seeds == (0, 1, 2, 3)
    assert "ddpo bs stands for several in the lower tables: best=unset" in found.head.notes
    assert len(found.leaderboard) == 6


def test_compatibility_verdicts(rows: Rows) -> None:
    noise = [0.001, -0.001, 0.0005, -0.0005, 0.0]
    for seed in range(5):
        start, jitter = 0.6 + 0.01 * seed, noise[seed]
        rows.add("ddpo", "vanilla", seed, {0: start, 1000: start + 0.05 + jitter})
        rows.add("ddpo", "bpt", seed, {0: start, 1000: start + 0.09 - jitter})
        rows.add("ddpo", "bs", seed, {0: start, 1000: start + 0.01 - jitter})
        rows.add("ddpo", "b2", seed, {0: start, 1000: start + 0.05 + 20 * noise[seed - 1]})
        rows.add("dpo", "bs", seed, {0: start}, status="failed")
    rows.add("dpo", "b2", 0, {0: 0.6, 1000: 0.7})
    found = {row.algorithm: {cell.wrapper: cell for cell in row.cells} for row in rows.one().compatibility}
    assert {wrapper: cell.verdict for wrapper, cell in found["ddpo"].items()} == {
        "vanilla": "gain",
        "bpt": "gain",
        "bs": "loss",
        "b2": "inconclusive",
    }
    assert {wrapper: cell.verdict for wrapper, cell in found["dpo"].items()} == {
        "vanilla": "not run",
        "bpt": "not run",
        "bs": "failed",
        "b2": "untested",
    }
    assert found["ddpo"]["bs"].delta.mean == pytest.approx(-0.02)  # type: ignore[union-attr]  # half of it, over the budget
    assert found["ddpo"]["bs"].baseline == "vanilla"
    assert found["dpo"]["b2"].baseline == "pretrained"
    shown = text_of(rows.tables())
    for symbol in "▲▼≈✗?·":
        assert symbol in shown


def test_what_was_refused_is_not_not_run() -> None:
    rows = Rows()
    for seed in range(2):
        rows.add("ddpo", "vanilla", seed, {0: 0.6, 1000: 0.7})
    context = rows.one().head.context
    here = {
        name: getattr(context, name) for name in ("benchmark_version", "backbone", "reward", "prompts_hash", "budget")
    }
    reason = "takes whole [red]trajectories[/red]\x1b[31m"
    refusals = [
        {**here, "algorithm": "ddpo", "wrapper": "bpt", "reason": reason},
        {**here, "algorithm": "ddpo", "wrapper": "vanilla", "reason": "a run there is says more"},
        {**here, "algorithm": "mine", "wrapper": "bs", "reason": reason},
        {**here, "budget": 5, "algorithm": "ddpo", "wrapper": "bs", "reason": "of another budget"},
    ]
    (found,) = tables(rows.runs, rows.evals, rows.rounds, refusals=refusals)
    cells = {row.algorithm: {cell.wrapper: cell for cell in row.cells} for row in found.compatibility}
    assert {name: cell.verdict for name, cell in cells["ddpo"].items()} == {
        "vanilla": "untested",
        "bpt": "refused",
        "bs": "not run",
        "b2": "not run",
    }
    assert cells["mine"]["bs"].verdict == "refused"
    shown = text_of([found], 160)
    assert "⊘ refused" in shown
    assert "refused: ddpo bpt, takes whole [red]trajectories[/red]" in shown
    assert "\x1b" not in shown
    assert "another budget" not in shown
    (section,) = document([found])
    (grid,) = [grid for grid in section.grids if grid.key == "compatibility"]
    assert "refused: ddpo bpt" in "\n".join(grid.legend)


def test_notes_say_what_limits_the_comparison(rows: Rows) -> None:
    rows.add("ddpo", "vanilla", 0, {0: 0.6, 1000: 0.7})
    rows.add("ddpo", "b2", 1, {0: 0.6, 500: 0.7})
    notes = " | ".join(rows.one().head.notes)
    assert "ddpo vanilla lacks seed 1" in notes
    assert "ddpo b2 has no evaluation at the budget for seed 1" in notes
    rows.evals[0]["n"] = 540
    assert "different numbers of images" in " ".join(rows.one().head.notes)


@pytest.mark.parametrize("width", [80, 100, 200])
def test_the_terminal_keeps_to_its_width(rows: Rows, width: int) -> None:
    factorial_rows(rows)
    shown = text_of(rows.tables(), width)
    assert max(map(len, shown.splitlines())) <= width
    assert "is_style N=270 splits=1 (pocket classifier, style)" in " ".join(shown.split())
    assert "Diversity" in shown
    assert ("held-out gain" in " ".join(shown.split()).partition("wider terminal")[0]) == (width == 200)
    assert "ddpo b2" in shown


def test_the_terminal_says_what_the_files_say(rows: Rows) -> None:
    factorial_rows(rows)
    for seed in range(3):
        rows.add("pg", "vanilla", seed, {0: 0.6, 1000: 0.7 + 0.001 * seed}, heldout={0: 0.5, 1000: 0.4 + 0.001 * seed})
    found = rows.tables()
    shown = text_of(found, 300)
    words = " ".join(shown.split())
    (section,) = document(found)
    assert [grid.key for grid in section.grids] == [
        "matrix", "leaderboard", "verdicts", "contrasts", "compatibility", "generalisation", "diversity",
    ]  # fmt: skip
    for grid in section.grids:
        assert grid.title in shown
        for line in grid.legend:
            assert line in words
        for row in grid.rows:
            assert re.search(r"\s+".join(re.escape(cell.text) for cell in row if cell.text), shown)
    narrow = text_of(found, 80)
    assert "over-optimised" in next(line for line in narrow.splitlines() if line.startswith(" pg vanilla"))
    assert "forward-equivalents: " not in narrow  # what explains a column that is not there


def test_one_lucky_seed_is_not_the_best_of_the_table(rows: Rows) -> None:
    factorial_rows(rows)
    rows.add("pg", "vanilla", 0, {0: 0.6, 1000: 0.99})
    found = rows.one()
    assert [row.algorithm for row in found.leaderboard] == ["ddpo"] * 4 + ["pg", "pretrained"]
    assert found.leaderboard[-2].lacking == (1, 2, 3)
    assert re.search(r"pg vanilla .* 1 of 4 ", text_of([found], 100))


def test_a_value_that_is_no_number_is_named(rows: Rows) -> None:
    factorial_rows(rows)
    for seed in range(4):
        rows.add("pg", "vanilla", seed, {0: 0.6, 1000: math.nan if seed == 2 else 0.7})
    found = rows.tables()
    note = "pg vanilla has no finite clipscore for seed 2, so no mean"
    assert note in found[0].head.notes
    assert any(note in line for line in problems(found))
    assert row_of(found[0], "pg", "vanilla").alignment.mean is None


def test_what_is_infinite_is_no_number(rows: Rows, recwarn: pytest.WarningsRecorder) -> None:
    factorial_rows(rows)
    for seed in range(3):
        rows.add("pg", "vanilla", seed, {0: 0.6, 1000: math.inf if seed else 0.7})
    assert "pg vanilla has no finite clipscore for seed 1, 2, so no mean" in rows.one().head.notes
    assert not recwarn.list


def test_a_filter_that_leaves_no_cell_is_a_problem(rows: Rows) -> None:
    factorial_rows(rows)
    found = select(rows.tables(), parse_where(["algorithm=nope"]))
    assert problems(found) == ["no finished run"]
    assert "version=3; backbone=pocket" in held(rows.tables())


def test_when_a_run_was_last_written_and_how_exact_an_evaluation_is(rows: Rows) -> None:
    done = rows.add("ddpo", "vanilla", 0, {0: 0.6, 1000: 0.7})
    rows.add("ddpo", "b2", 0, {0: 0.6}, status="running", heartbeat=datetime(2025, 12, 24, 18, 5))
    found = tables(rows.runs, rows.evals, rows.rounds, errors=[{"run_id": done, "error": 0.016}])
    assert any("is running, last written 2025-12-24 18:05 UTC" in line for line in problems(found))
    assert "2025-12-24 18:05" in text_of(found)
    shown = " ".join(text_of(found).split())
    assert "270 images per evaluation" in shown
    # before there was eval_seed each seed had its own noise, which its interval holds
    assert "standard error of an evaluation: 0.016" in shown
    assert "one test set" not in shown


def test_a_cell_alone_has_no_rank(rows: Rows) -> None:
    for seed in range(3):
        rows.add("ddpo", "vanilla", seed, {0: 0.6, 1000: 0.7})
    assert row_of(rows.one(), "ddpo", "vanilla").ranks is None


def test_planned_seeds_are_lacking_where_no_cell_has_them(rows: Rows) -> None:
    factorial_rows(rows)
    found = tables(rows.runs, rows.evals, rows.rounds, planned=range(6))
    assert {row.lacking for row in found[0].leaderboard if not row.reference} == {(4, 5)}
    assert any("ddpo b2 lacks seeds 4, 5" in line for line in problems(found))
    assert not any("lacks seed" in line for line in problems(rows.tables()))


def test_what_several_cells_lack_is_said_once(rows: Rows) -> None:
    for algorithm, wrapper, seeds in (("ddpo", "vanilla", 3), ("ddpo", "b2", 2), ("dpok", "bs", 2), ("pg", "bpt", 1)):
        for seed in range(seeds):
            rows.add(algorithm, wrapper, seed, {0: 0.6, 1000: 0.7})
    assert [note for note in rows.one().head.notes if " lack" in note] == [
        "pg bpt lacks seeds 1, 2",
        "ddpo b2, dpok bs lack seed 2",
    ]


@pytest.mark.parametrize(("images", "said"), [(60, True), (67, True), (68, False), (270, False)])
def test_few_images_of_training_prompts_are_said_to_say_little(rows: Rows, images: int, said: bool) -> None:
    """Few are less than a quarter of those of unseen prompts, 270."""
    for seed in range(3):
        rows.add("ddpo", "vanilla", seed, {0: 0.6, 1000: 0.7}, seen={0: 0.6, 1000: 0.7 + 0.01 * seed})
    for row in rows.evals:
        if row["split"] == "train":
            row["n"] = images
    (grid,) = [grid for section in document(rows.tables()) for grid in section.grids if grid.key == "generalisation"]
    (line,) = [line for line in grid.legend if line.startswith("an evaluation on training prompts has")]
    assert f"has {images} images, on unseen ones 270" in line
    assert ("so few say little" in line) == said


def test_a_fall_below_the_lowest_bar_is_said(rows: Rows) -> None:
    rising = [0.70 + 0.01 * i for i in range(8)]
    runs = [rows.add(algorithm, "vanilla", 0, {0: 0.6, 1000: 0.7}) for algorithm in ("ddpo", "pg")]

    def legend(*last: float) -> str:
        """Of a cell that rises, and of one whose training rewards end with ``last``."""
        rewards = zip(runs, (rising, [0.70, 0.71, 0.72, *last]), strict=True)
        learned = [
            {"run_id": run, "queries": 100 * (place + 1), "reward": reward}
            for run, each in rewards
            for place, reward in enumerate(each)
        ]
        (found,) = tables(rows.runs, rows.evals, rows.rounds, learning=learned)
        return " ".join(learning(found).legend)

    assert "lowest bar" not in legend(0.71, 0.72)
    assert "; what lies below is drawn as the lowest bar" in legend(0.30, 0.10)


def test_text_of_users_is_no_markup(rows: Rows) -> None:
    rows.add("[red]x[/red]", "b2", 0, {0: 0.6, 1000: 0.7})
    assert "[red]x[/red]" in text_of(rows.tables(), 160)


def test_nothing_yet_says_what_to_do() -> None:
    assert "b2bench run" in text_of([])


@pytest.mark.slow
def test_tables_read_what_a_store_gives(tmp_path: Path) -> None:
    store = Store(tmp_path / "b.duckdb")
    for seed in range(3):
        run_id = f"r{seed}"
        store.start_run(
            {
                "run_id": run_id,
                "benchmark_version": "3",
                "algorithm": "pg",
                "wrapper": "bs",
                "backbone": "pocket",
                "reward": "clipscore",
                "prompts": "template1",
                "seed": seed,
                "budget": 10,
                "config": {"lr": 0.1},
                "config_hash": "h",
            }
        )
        for queries, value in ((0, 0.5), (10, 0.6 + 0.1 * seed)):
            row = {"queries": queries, "split": "test", "metric": "clipscore", "value": value, "n": 4}
            store.record_evals(run_id, [row])
        store.finish_run(run_id, "done")
    (found,) = tables(store.runs(), store.evals(), store.rounds())
    assert row_of(found, "pg", "bs").alignment.mean == pytest.approx(0.7)
    assert row_of(found, "pg", "bs").success.mean is None


# -- headroom --------------------------------------------------------------------------------------

SETTINGS = {"settings": {"steps": 20, "guidance": 3.0, "eval_images": 270, "eval_train_images": 90}}
FIXED = {"settings": {**SETTINGS["settings"], "eval_seed": 0}}


def add_baseline(rows: Rows, name: str, seed: int, value: float, **settings: Any) -> str:
    """A baseline as ``b2bench baseline`` stores it: no budget, one evaluation at 0 queries."""
    kind, _, number = name.rpartition("-") if name != "oracle" else (name, "", "")
    own: dict[str, Any] = {"kind": kind}
    if kind == "guidance":
        own["guidance"] = float(number)
    if kind == "best-of":
        own |= {"candidates": int(number), "queries_per_image": int(number)}
    chosen = {**SETTINGS["settings"], **settings}
    if kind == "oracle":
        chosen = {key: chosen[key] for key in ("eval_seed", "eval_images", "eval_train_images") if key in chosen}
    run_id = rows.add("baseline", name, seed, {0: value}, config={"baseline": own, "settings": chosen}, budget=None)
    rows.rounds = [row for row in rows.rounds if row["run_id"] != run_id]
    return run_id


def headroom_of(found: Tables, name: str) -> Any:
    (row,) = [row for row in found.headroom if row.name == name]
    return row


def test_baselines_stand_beside_the_cells_and_are_none(rows: Rows) -> None:
    for seed in range(3):
        for wrapper in ("vanilla", "bpt", "bs", "b2"):
            rows.add("ddpo", wrapper, seed, {0: 0.6, 1000: 0.7 + 0.01 * seed}, config=SETTINGS)
    before = rows.one()
    for seed in range(3):
        for name in ("oracle", "best-of-16", "best-of-4", "guidance-10", "guidance-3", "guidance-2"):
            add_baseline(rows, name, seed, 0.8)
    after = rows.one()
    assert before.contrasts == after.contrasts
    assert before.compatibility == after.compatibility
    assert before.head == after.head
    assert [row.algorithm for row in after.leaderboard] == ["ddpo"] * 4 + ["pretrained"]
    names = ["guidance-3", "guidance-2", "guidance-10", "best-of-4", "best-of-16", "oracle"]
    assert [row.name for row in after.headroom] == names
    assert [row.reference for row in after.headroom] == [True] + [False] * 5
    assert headroom_of(after, "best-of-16").queries_per_image == 16
    assert headroom_of(after, "guidance-2").alignment.n == 3


def test_alignment_is_also_a_share_of_the_way_to_the_oracle(rows: Rows) -> None:
    for seed, (start, end) in enumerate([(0.60, 0.70), (0.50, 0.60), (0.55, 0.55)]):
        rows.add("ddpo", "b2", seed, {0: start, 1000: end}, config=SETTINGS)
    for seed, value in enumerate([0.78, 0.82]):
        add_baseline(rows, "oracle", seed, value)
    add_baseline(rows, "best-of-4", 1, 0.65)
    found = rows.one()
    # the oracle is 0.80, whatever the seed; the pretrained model is each run's own
    assert row_of(found, "ddpo", "b2").headroom.values == pytest.approx((0.1 / 0.2, 0.1 / 0.3, 0.0))
    assert row_of(found, "pretrained", "-").headroom.mean == 0
    best = headroom_of(found, "best-of-4")
    assert best.headroom.values == pytest.approx((0.15 / 0.3,))  # against the run of its seed
    assert best.gain.mean == pytest.approx(0.15)
    assert headroom_of(found, "oracle").headroom.values == pytest.approx((0.18 / 0.2, 0.32 / 0.3))
    assert found.oracle == ""
    shown = text_of([found], 200)
    assert "headroom: (x \u2212 pretrained) / (oracle \u2212 pretrained)" in shown
    assert "0.28" in shown
    exported = json.loads(json.dumps(to_json([found]), allow_nan=False))
    assert exported[0]["leaderboard"][0]["headroom"]["mean"] == pytest.approx((0.5 + 1 / 3) / 3)
    assert [row["name"] for row in exported[0]["headroom"]] == ["best-of-4", "oracle"]


def test_the_pretrained_baseline_stands_for_runs_of_its_seed(rows: Rows) -> None:
    add_baseline(rows, "guidance-3", 0, 0.6)
    add_baseline(rows, "guidance-4", 0, 0.7)
    add_baseline(rows, "guidance-4", 1, 0.7)
    add_baseline(rows, "oracle", 0, 0.8)
    found = rows.one()
    assert found.head.context.budget is None
    assert found.leaderboard == ()
    row = headroom_of(found, "guidance-4")
    assert row.headroom.values[0] == pytest.approx(0.5)
    assert row.headroom.mean is None  # nobody measured the pretrained model of seed 1
    assert "pretrained (guidance 3)" in text_of([found], 160)


def test_on_one_test_set_the_pretrained_model_and_baselines_are_measured_once(rows: Rows) -> None:
    for seed in range(3):
        rows.add("ddpo", "b2", seed, {0: 0.6, 1000: 0.7 + 0.01 * seed}, config=FIXED)
    add_baseline(rows, "oracle", 0, 0.8, eval_seed=0)
    add_baseline(rows, "guidance-2", 0, 0.65, eval_seed=0)
    add_baseline(rows, "guidance-2", 1, 0.75, eval_seed=1)  # other noise: it stands beside no cell
    errors = [{"run_id": rows.runs[0]["run_id"], "error": 0.011}]
    (found, _) = tables(rows.runs, rows.evals, rows.rounds, errors=errors)
    assert found.head.eval_seeds == (0,)
    reference = row_of(found, "pretrained", "-")
    assert (reference.alignment.mean, reference.alignment.n, reference.alignment.low) == (0.6, 1, None)
    assert row_of(found, "ddpo", "b2").headroom.values == pytest.approx((0.5, 0.55, 0.6))
    assert headroom_of(found, "guidance-2").gain.values == pytest.approx((0.05,))
    assert headroom_of(found, "guidance-2").headroom.mean == pytest.approx(0.25)
    shown = text_of([found], 300)
    assert "one test set for all runs (eval_seed 0): intervals over seeds are given it" in shown
    assert "standard error of the test set, which is in no interval: 0.011" in shown
    assert "no interval" not in shown.partition("Leaderboard")[2].partition("Headroom")[0]


def test_cells_of_other_noise_are_named_and_no_oracle_of_other_noise_counts(rows: Rows) -> None:
    for number, noise in enumerate((0, 0, 3)):
        config = {"settings": {**SETTINGS["settings"], "eval_seed": noise}, "lr": number}
        rows.add("ddpo", "b2", 5, {0: 0.6 + noise / 100, 1000: 0.7}, config=config)
    rows.add("dpok", "b2", 5, {1000: 0.7}, config={"settings": {**SETTINGS["settings"], "eval_seed": 3}})
    add_baseline(rows, "oracle", 0, 0.8, eval_seed=0)
    (found,) = rows.tables()
    assert found.head.eval_seeds == (0, 3)
    assert any("different noise (eval_seed 0, 3)" in note for note in found.head.notes)
    assert row_of(found, "pretrained", "-").alignment.values == (0.6, 0.63)
    # a run without a start has that of another run on its noise
    assert row_of(found, "dpok", "b2").gain.mean == pytest.approx(0.07)
    assert found.oracle.endswith("--prompts template1 --seed 3 --set eval_images=270")


def test_the_command_for_an_oracle_says_what_its_judges_are(rows: Rows) -> None:
    """Else it measured another inception score, or of the reward the opposite, and the note would stay."""
    judged = {"eval_seed": 0, "inception": "none", "inception_splits": 2}
    for number in range(3):
        config = {
            "settings": {**SETTINGS["settings"], **judged},
            "reward": {"name": "jpeg", "goal": "incompressibility", "checkpoint": "pocket", "code": "ab"},
        }
        rows.add("ddpo", "b2", number, {0: 0.6, 1000: 0.7}, config=config)
    (found,) = rows.tables()
    told = "--set eval_images=270 --set inception=none --set inception_splits=2 --set goal=incompressibility"
    assert found.oracle.endswith(f"--plugin FILE {told}")


@pytest.mark.parametrize("start", [0.8, 0.9, math.nan])
def test_no_way_to_go_is_no_share(start: float) -> None:
    assert headroom([0.85, 0.7], [start, 0.6], 0.8).mean is None  # type: ignore[union-attr]
    assert headroom([0.85], [start], None) is None


def test_an_automatic_number_of_images_is_that_of_its_budget(rows: Rows) -> None:
    automatic = {"settings": {**SETTINGS["settings"], "eval_images": None, "eval_seed": 0}, "queries": 1200}
    rows.add("ddpo", "b2", 0, {0: 0.6, 1200: 0.7}, config=automatic, budget=1200)
    add_baseline(rows, "oracle", 0, 0.9, eval_seed=0, eval_images=540)
    assert rows.tables()[0].oracle.endswith("--set eval_images=270")
    add_baseline(rows, "oracle", 0, 0.8, eval_seed=0)  # of 270
    assert row_of(rows.tables()[0], "ddpo", "b2").headroom.mean == pytest.approx(0.5)


def half(rows: Rows, run_id: str, **of_first: float) -> None:
    """Make the evaluation at 500 queries of a run one of 135 images, on which the start's metrics were ``of_first``."""
    for row in rows.evals:
        if row["run_id"] != run_id or row["split"] != "test":
            continue
        if row["queries"] == 500:
            row["n"] = 135
        if row["queries"] == 0 and row["metric"] in of_first:
            row["settings"] = {**(row["settings"] or {}), "first": {"images": 135, "value": of_first[row["metric"]]}}


def test_an_evaluation_of_fewer_images_counts_by_its_change_on_them(rows: Rows) -> None:
    values = {0: 0.60, 500: 0.71, 1000: 0.70}
    for seed in range(3):
        run = rows.add("ddpo", "b2", seed, values, entropy={0: 1.3, 500: 1.0, 1000: 1.2}, config=FIXED)
        half(rows, run, clipscore=0.64, style_entropy=1.25, is_style=2.9)
    found = rows.one()
    for curve in found.curves:
        assert curve.values["clipscore"] == pytest.approx((0.60, 0.67, 0.70))
        assert curve.values["style_entropy"] == pytest.approx((1.3, 1.05, 1.2))
        assert curve.values["clipscore_heldout"] == (0.5, 0.5, 0.5)  # the start says nothing of it: as it was stored
    assert row_of(found, "ddpo", "b2").area.mean == pytest.approx((0.635 + 0.685) / 2 - 0.6)
    assert (found.head.images, found.head.between) == ((270,), (135,))
    assert found.head.inception == ("is_style N=270 splits=1 (pocket classifier, style)",)
    assert found.head.notes == ()
    assert "270 images per evaluation, 135 between the first and the last" in " ".join(text_of([found]).split())


def test_a_run_that_failed_between_has_its_change_on_the_images_of_both(rows: Rows) -> None:
    for seed in range(3):
        run = rows.add("ddpo", "b2", seed, {0: 0.60, 500: 0.71}, status="failed", config=FIXED)
        half(rows, run, clipscore=0.64)
    assert row_of(rows.one(), "ddpo", "b2").gain.mean == pytest.approx(0.07)


def test_what_was_evaluated_otherwise_is_never_put_beside(rows: Rows) -> None:
    rows.add("ddpo", "b2", 0, {0: 0.6, 1000: 0.7}, config=SETTINGS)
    for changed in ({"eval_images": 540}, {"steps": 50}, {"guidance": 5.0}):
        add_baseline(rows, "guidance-2", 0, 0.9, **changed)
    add_baseline(rows, "oracle", 0, 0.9, eval_images=540)
    add_baseline(rows, "guidance-4", 0, 0.9, eval_train_images=0)  # the train split is in no table
    trained, apart = rows.tables()
    assert [row.name for row in trained.headroom] == ["guidance-4"]
    assert row_of(trained, "ddpo", "b2").headroom is None
    command = "b2bench baseline --kind oracle --reward clipscore --prompts template1 --set eval_images=270"
    assert trained.oracle.endswith(command)
    assert command in " ".join(text_of([trained]).split())
    assert (apart.head.context.budget, len(apart.headroom)) == (None, 4)
    assert {row.label for row in apart.headroom if row.name == "guidance-2"} == {
        "eval_images=270 guidance=3.0 steps=50",
        "eval_images=270 guidance=5.0 steps=20",
        "eval_images=540 guidance=3.0 steps=20",
    }


def test_every_budget_has_the_headroom_beside_it_and_other_prompts_do_not(rows: Rows) -> None:
    rows.add("ddpo", "b2", 0, {0: 0.6, 1000: 0.7}, config=SETTINGS)
    rows.add("ddpo", "b2", 0, {0: 0.6, 2000: 0.7}, config=SETTINGS, budget=2000)
    rows.add("ddpo", "b2", 0, {0: 0.6, 1000: 0.7}, config=SETTINGS, prompts_hash="other")
    add_baseline(rows, "oracle", 0, 0.8)
    heads = {(found.head.context.budget, found.head.context.prompts_hash): found.headroom for found in rows.tables()}
    assert {key: len(shown) for key, shown in heads.items()} == {
        (1000, "abcdef0123"): 1,
        (2000, "abcdef0123"): 1,
        (1000, "other"): 0,
    }


def test_no_oracle_is_named_where_none_can_be_had(rows: Rows) -> None:
    rows.add("ddpo", "b2", 0, {0: 0.6, 1000: 0.7}, config=SETTINGS, backbone="sd14")
    assert rows.one().oracle == ""
    assert row_of(rows.one(), "ddpo", "b2").headroom is None


@pytest.mark.parametrize("width", [80, 100])
def test_the_headroom_keeps_to_the_width_of_the_terminal(rows: Rows, width: int) -> None:
    factorial_rows(rows)
    for name in ("guidance-3", "guidance-2.5", "best-of-16", "oracle"):
        for seed in range(4):
            add_baseline(rows, name, seed, 0.7 + 0.01 * seed)
    shown = text_of(rows.tables(), width)
    assert max(map(len, shown.splitlines())) <= width
    for name in ("Headroom (no training)", "pretrained (guidance 3)", "guidance 2.5", "best-of-16", "oracle"):
        assert name in shown


def test_rewards_that_measure_something_else_have_tables_of_their_own(rows: Rows) -> None:
    """Two formulas of a mix, and the two goals of jpeg; what a setting is by default needs no mention."""
    rewards: list[dict[str, Any]] = [
        {"name": "mix", "rewards": "clipscore + 0.05 * jpeg"},
        {"name": "mix", "rewards": "clipscore + 0.5 * jpeg"},
        {"name": "jpeg", "goal": "compressibility"},
        {"name": "jpeg", "goal": "incompressibility"},
        {"name": "pickscore", "checkpoint": "published", "batch": 8},
        {"name": "pickscore", "checkpoint": "published", "batch": 32},
    ]
    for i, reward in enumerate(rewards):
        rows.add("ddpo", "vanilla", i, {0: 0.6, 1000: 0.7}, config={"reward": reward}, reward=reward["name"])
    contexts = [group.head.context for group in tables(rows.runs, rows.evals, rows.rounds)]
    assert sorted((context.reward, context.reward_settings) for context in contexts) == [
        ("jpeg", ""),
        ("jpeg", "goal=incompressibility"),
        ("mix", "rewards=clipscore + 0.05 * jpeg"),
        ("mix", "rewards=clipscore + 0.5 * jpeg"),
        ("pickscore", ""),
    ]


def test_a_lora_is_compared_with_the_pretrained_model_that_was_evaluated_as_it_was() -> None:
    def sampled(guidance: float, **reward: Any) -> dict[str, Any]:
        settings = {"steps": 20, "guidance": guidance, "eta": 1.0}
        return {"settings": settings, "reward": {"name": "clipscore", **reward}}

    rows = Rows()
    rows.add("external", "pretrained", 0, {0: 0.3}, config=sampled(1.0))  # before the runs, which are most
    for seed in range(3):
        rows.add("ddpo", "vanilla", seed, {0: 0.5, 1000: 0.6}, config=sampled(5.0))
    rows.add("external", "same", 0, {1000: 0.6}, config=sampled(5.0))
    rows.add("external", "unguided", 0, {1000: 0.4}, config=sampled(1.0))
    rows.add("external", "strong", 0, {1000: 0.9}, config=sampled(7.5))
    rows.add("external", "scaled", 0, {1000: 60.0}, config=sampled(5.0, scale=100))
    [group] = rows.tables()
    gains = {row.wrapper: row.gain and row.gain.mean for row in group.leaderboard if row.algorithm == "external"}
    assert (gains["same"], gains["unguided"]) == (pytest.approx(0.1), pytest.approx(0.1))
    assert (gains["strong"], gains["scaled"]) == (None, None)
    assert group.head.start == 0.5
    [reference] = [row for row in group.leaderboard if row.reference]
    assert reference.alignment.mean == 0.5
    lacking = [note.split()[1] for note in group.head.notes if "no pretrained model to be compared with" in note]
    assert sorted(lacking) == ["scaled", "strong"]


def test_a_run_from_before_a_setting_mixes_no_others(rows: Rows) -> None:
    """One cell without the setting is a variant of its own where the others differ in it, and else none."""
    for seed in range(5):
        noise = 0.001 * (seed % 3)
        rows.add("ddpo", "vanilla", seed, {0: 0.6, 1000: 0.65 + noise}, config={"settings": {"samples": 4}})
        rows.add("ddpo", "b2", seed, {0: 0.6, 1000: 0.69 + noise}, config={"settings": {"samples": 4}})
        rows.add("ddpo", "bpt", seed, {0: 0.6, 1000: 0.70 + noise})
    (row,) = rows.one().contrasts
    assert [contrast.name for contrast in row.contrasts] == ["bpt", "b2"]
    for seed in range(6):
        rows.add("ddpo", "vanilla", seed, {0: 0.6, 1000: 0.72}, config={"settings": {"samples": 8}})
    found = {row.label: [c.name for c in row.contrasts] for row in rows.one().contrasts}
    assert found == {"samples=4": ["b2"], "samples=8": [], "samples=unset": []}
    (b2,) = [row.of("b2") for row in rows.one().contrasts if row.label == "samples=4"]
    assert b2 is not None
    assert b2.delta.mean == pytest.approx(0.02)


@pytest.mark.parametrize(
    ("algorithm", "part", "name", "was", "is_now"),
    [
        ("ddpo", "settings", "advantage", "history", "loo"),
        ("ddpo", "settings", "timestep_fraction", 1.0, 0.5),
        ("ddpo", "settings", "reward_noise", 0.0, 0.1),
        ("ddpo", "settings", "updates_per_round", None, 1),
        ("ddpo", "algorithm", "kl_weight", 0.0, 0.04),
        ("ddpo", "algorithm", "clip_nats", None, 1.64),
        ("rwr", "algorithm", "guided", False, True),
        ("ddpo", "wrapper", "schedule_rounds", None, 100),
    ],
)
@pytest.mark.parametrize("lacking", [0, 3])
def test_a_run_from_before_a_setting_is_of_the_cell_that_says_what_it_was(
    algorithm: str, part: str, name: str, was: Any, is_now: Any, lacking: int, rows: Rows
) -> None:
    def add(wrapper: str, seed: int, end: float, value: Any, lacks: bool = False) -> None:
        config: dict[str, Any] = {"algorithm": {"name": algorithm}, "wrapper": {"name": wrapper}, "settings": {"lr": 1}}
        hashed = cell_hash({**config, part: {**config[part], name: value}})
        if not lacks:
            config[part] = {**config[part], name: value}
        assert cell_hash(config) == hashed or not lacks
        rows.add(algorithm, wrapper, seed, {0: 0.6, 1000: end}, config=config, config_hash=hashed)

    for seed in range(4):
        noise = 0.001 * (seed % 3)
        add("vanilla", seed, 0.66 + noise, was, lacks=seed == lacking)
        add("b2", seed, 0.69 - noise, was)
        if seed < 3:
            add("b2" if part == "wrapper" else "vanilla", 10 + seed, 0.7 + noise, is_now)
    found = rows.one()
    assert {ABSENT[f"{part}.{name}"]} == set(flat({part: {name: was}}).values())
    assert ["b2"] in [[contrast.name for contrast in row.contrasts] for row in found.contrasts]
    assert "unset" not in text_of([found], 200)


def test_ranks_are_of_cells_with_three_seeds_that_were_evaluated_as_most_were(rows: Rows) -> None:
    factorial_rows(rows)
    alone = {row.wrapper: row.ranks for row in rows.one().leaderboard}
    assert None not in [alone[wrapper] for wrapper in ("vanilla", "bpt", "bs", "b2")]
    rows.add("dpo", "vanilla", 0, {0: 0.6, 1000: 0.95})  # one seed: it takes nobody's rank away
    for seed in range(4):  # the scores of another test set
        rows.add("pg", "vanilla", seed, {0: 0.9, 1000: 0.91 + 0.001 * seed}, config={"settings": {"eval_seed": 1}})
    found = rows.one()
    assert {row.wrapper: row.ranks for row in found.leaderboard if row.algorithm == "ddpo"} | {"-": None} == alone
    assert {row.algorithm: row.ranks for row in found.leaderboard if row.algorithm in ("dpo", "pg")} == {
        "dpo": None,
        "pg": None,
    }
    assert not row_of(found, "pg", "vanilla").usual


def test_one_cell_with_values_has_no_rank(rows: Rows) -> None:
    for seed in range(3):
        rows.add("ddpo", "vanilla", seed, {0: 0.7, 1000: 0.72 + 0.001 * seed})
        rows.add("pg", "vanilla", seed, {0: 0.7, 1000: None if seed == 2 else 0.8})
    assert [row.ranks for row in rows.one().leaderboard] == [None, None, None]


def test_a_failed_run_takes_its_cell_out_of_no_table(rows: Rows) -> None:
    for seed in range(4):
        for wrapper, gain in (("vanilla", 0.02), ("b2", 0.04)):
            broken = wrapper == "b2" and seed == 3
            at = {0: 0.7, 500: 0.7 + gain / 2, 1000: 0.7 + gain + 0.001 * seed}
            rows.add(
                "ddpo", wrapper, seed, {} if broken else at, "failed" if broken else "done", seen=at,
                config={"settings": {"eval_seed": 0}},
            )  # fmt: skip
    found = rows.one()
    (row,) = [row for row in found.generalisation if row.wrapper == "b2"]
    assert row.seen.mean == pytest.approx(0.75 * 0.041)
    assert row.seen.values[3] == pytest.approx(0)
    (row,) = [row for row in found.diversity if row.wrapper == "b2"]
    assert row.matched["style_entropy"].mean is not None


def test_a_failed_run_is_read_between_its_finite_values() -> None:
    values = {1000: {"clipscore": math.nan}, 0: {"clipscore": 0.7}, 500: {"clipscore": 0.71}}
    done, failed = (Run({"status": status}, values, None, 1000) for status in ("done", "failed"))
    assert failed.where("clipscore", 250) == done.where("clipscore", 250) == pytest.approx(0.705)
    assert failed.where("clipscore", 800) == pytest.approx(0.71)
    assert math.isnan(done.where("clipscore", 800))


def test_what_a_part_of_a_report_lacks_is_not_what_the_rest_lacks(rows: Rows) -> None:
    factorial_rows(rows)
    rows.add("pg", "vanilla", 0, {0: 0.6, 1000: 0.7})
    whole = rows.one()
    assert problems([whole]) == ["pocket clipscore template1 1000: pg vanilla lacks seeds 1, 2, 3"]
    assert problems(select([whole], {"algorithm": {"ddpo"}})) == []
    planned = tables(rows.runs, rows.evals, rows.rounds, planned=[0])
    assert problems(planned) == []
    assert problems(tables(rows.runs, rows.evals, rows.rounds, planned=[0, 4]))[0].endswith("lacks seed 4")


def test_a_running_run_is_of_the_settings_that_it_has(rows: Rows) -> None:
    for seed in range(3):
        for weight in (0.0, 1.0, 3.0):
            rows.add("ddpo", "vanilla", seed, {0: 0.6, 1000: 0.7}, config={"settings": {"kl": weight}})
    rows.add("ddpo", "b2", 0, {0: 0.6}, "running", config={"settings": {"kl": 3.0}})
    found = {row.label: row.cells[3].verdict for row in rows.one().compatibility}
    assert sorted(found.values()) == ["incomplete", "not run", "not run"]
    assert next(verdict for label, verdict in found.items() if "3.0" in label) == "incomplete"


def test_a_baseline_without_a_configuration_is_read(rows: Rows) -> None:
    factorial_rows(rows)
    rows.add("baseline", "guidance-2", 0, {0: 0.7}, config={"baseline": {"kind": "guidance", "guidance": None}})
    rows.add("baseline", "oracle", 0, {0: 0.9})
    rows.runs[-1]["config"] = None
    assert rows.tables()


def test_a_cell_without_a_value_takes_no_target_from_the_others(rows: Rows) -> None:
    for seed in range(3):
        rows.add("ddpo", "vanilla", seed, {0: 0.6, 1000: 0.65})
        rows.add("pg", "vanilla", seed, {0: 0.6, 1000: None if seed else 0.7})
    assert rows.one().head.target == pytest.approx(0.025)


def test_a_run_of_another_reward_collapses_by_the_spread_of_that_reward(rows: Rows) -> None:
    """A mean of kilobytes that falls by one is no collapse where images spread by eight."""
    for seed in range(3):
        rows.add("ddpo", "vanilla", seed, {0: -8.0, 1000: -9.0 - 0.1 * seed}, reward="jpeg")
    evals = [row | {"metric": "jpeg"} if row["metric"] == "clipscore" else row for row in rows.evals]
    spreads = [{"run_id": run["run_id"], "queries": 0, "error": 8.0 / math.sqrt(270)} for run in rows.runs]
    for known, limit, collapsed in (
        (spreads, 2.0, 0),
        ([], None, 0),
        ([row | {"error": 0.1} for row in spreads], 0.41, 3),
    ):
        (found,) = tables(rows.runs, evals, rows.rounds, spreads=known)
        assert found.head.collapse == (None if limit is None else pytest.approx(limit, abs=0.01))
        assert found.collapses[0].counts.collapsed == collapsed
    assert "nothing says how far jpeg spreads over images" in text_of(tables(rows.runs, evals, rows.rounds), 300)


@pytest.mark.parametrize(
    ("value", "text"), [(9_999, "9,999"), (99_960, "100k"), (999_400, "999k"), (999_600, "1M"), (999_600_000, "1G")]
)
def test_counts_take_the_unit_of_what_is_printed(value: int, text: str) -> None:
    assert count(value) == text
