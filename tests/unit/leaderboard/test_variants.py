"""Tuned cells beside untuned ones: what is compared with what, and which tests are a family."""

from typing import Any

import pytest
from b2bench.leaderboard.document import document
from b2bench.leaderboard.page import leaderboard_page
from b2bench.leaderboard.rows import Tables
from b2bench.leaderboard.tables import tables
from b2bench.leaderboard.validity import card
from synthetic import Rows

CHOSEN = {"vanilla": (0.004, 0.4), "bpt": (0.003, 0.3), "bs": (0.002, 0.2), "b2": (0.001, 0.1)}
DEFAULT = (0.1, 1.0)
GAINS = {"vanilla": 0.03, "bpt": 0.05, "bs": 0.04, "b2": 0.065}


def preset(wrapper: str, deviations: Any = (), on: str = "template1", runs: int = 8) -> dict[str, Any]:
    return {
        "name": f"ddpo-{wrapper}",
        "tuning_seeds": [1000],
        "tuned_by": {"sampler": "sobol", "configurations": runs, "queries_a_run": 2400},
        "tuned_on": on,
        "searched": ["run.lr", "algorithm.clip_nats"],
        "deviations": [{"name": name, "preset": 0, "value": 1} for name in deviations],
    }


def config(lr: float, clip: float, **more: Any) -> dict[str, Any]:
    return {"settings": {"lr": lr, "eval_points": 2}, "algorithm": {"name": "ddpo", "clip_nats": clip}, "lr": 0, **more}


def add(rows: Rows, chosen: dict[str, tuple[float, float]], shift: float = 0.0, **of_preset: Any) -> None:
    """Four seeds of each wrapper, with presets of a search that chose these settings."""
    for place, (wrapper, values) in enumerate(chosen.items()):
        for seed in range(4):
            end = 0.6 + GAINS[wrapper] + shift + 0.0005 * ((seed * 3 + place * 5) % 4)
            rows.add(
                "ddpo", wrapper, seed, {0: 0.6, 1000: end}, config=config(*values, preset=preset(wrapper, **of_preset))
            )


def untuned(rows: Rows, wrappers: Any = GAINS) -> None:
    for place, wrapper in enumerate(wrappers):
        for seed in range(4):
            end = 0.6 + GAINS[wrapper] / 3 + 0.0005 * ((seed * 3 + place * 5) % 4)
            rows.add("ddpo", wrapper, seed, {0: 0.6, 1000: end}, config=config(*DEFAULT))


def contrasts(found: Tables) -> dict[str, list[str]]:
    return {row.label: [contrast.name for contrast in row.contrasts] for row in found.contrasts}


@pytest.fixture
def rows() -> Rows:
    return Rows()


def test_tuned_cells_are_compared_whatever_was_chosen_for_each(rows: Rows) -> None:
    add(rows, CHOSEN)
    found = rows.one()
    assert contrasts(found) == {"tuned": ["bpt", "bs", "interaction", "b2"]}
    (row,) = found.contrasts
    b2 = row.of("b2")
    assert b2 is not None
    assert b2.delta.mean == pytest.approx((GAINS["b2"] - GAINS["vanilla"]) / 2, abs=0.001)
    assert [cell.verdict for cell in found.compatibility[0].cells] == ["gain"] * 4
    assert {row.label.partition(" ")[0] for row in found.leaderboard if not row.reference} == {"tuned"}


def test_tuned_and_untuned_cells_stand_apart_and_are_two_families(rows: Rows) -> None:
    untuned(rows)
    alone = rows.one()
    add(rows, CHOSEN)
    found = rows.one()
    assert list(contrasts(found)) == ["", "tuned"]
    assert found.contrasts[0] == alone.contrasts[0]  # the tuned ones change no claim of the others
    assert found.compatibility[0] == alone.compatibility[0]
    assert (found.head.tests, found.head.tuned_tests) == (alone.head.tests, alone.head.tests)
    both = f"{found.head.tuned_tests} claims on tuned cells, or {found.head.tests} on others,"
    (section,) = document([found])
    assert all(both in " ".join(grid.legend) for grid in section.grids if grid.key in ("matrix", "contrasts"))
    assert both in leaderboard_page([found])
    assert "on tuned cells" not in leaderboard_page([alone])


def test_one_tuned_wrapper_joins_the_family_of_the_others(rows: Rows) -> None:
    """Alone it can be compared with nothing, and a family of one test would flatter it."""
    untuned(rows)
    alone = rows.one()
    add(rows, {"vanilla": CHOSEN["vanilla"]})
    found = rows.one()
    assert (found.head.tests, found.head.tuned_tests) == (alone.head.tests + 1, 0)
    assert all(detail.other and not detail.planned for detail in found.details)


@pytest.mark.parametrize("preset_first", [False, True])
def test_a_search_that_chose_the_defaults_has_one_cell_in_both(rows: Rows, preset_first: bool) -> None:
    """Its seeds were run without the preset, all or some of them; the settings are the same."""
    untuned(rows)
    add(rows, {**CHOSEN, "bs": DEFAULT} if preset_first else {name: CHOSEN[name] for name in ("vanilla", "b2")})
    if not preset_first:
        for seed in range(4, 6):
            chosen = config(*DEFAULT, preset=preset("bs"))
            rows.add("ddpo", "bs", seed, {0: 0.6, 1000: 0.6 + GAINS["bs"]}, config=chosen)
    for row in rows.runs:  # as cell_hash does it, without the preset
        row["config_hash"] = str((row["wrapper"], row["config"]["settings"], row["config"]["algorithm"]))
    found = rows.one()
    of = {row.label: {cell.wrapper: cell for cell in row.cells} for row in found.compatibility}
    assert set(of) == {"", "tuned"}
    seeds = {label: cells["bs"].gain.n for label, cells in of.items() if cells["bs"].gain is not None}
    assert len(set(seeds.values())) == 1
    assert of["tuned"]["bs"].verdict != "not run"
    shown = [row for row in found.leaderboard if row.wrapper == "bs"]
    assert len(shown) == 1


def test_every_run_by_a_preset_of_the_defaults_is_beside_the_untuned_ones_too(rows: Rows) -> None:
    untuned(rows, ("vanilla", "b2"))
    add(rows, {**CHOSEN, "bs": DEFAULT})
    assert contrasts(rows.one()) == {"": ["bs", "b2"], "tuned": ["bpt", "bs", "interaction", "b2"]}


@pytest.mark.parametrize(
    ("deviations", "of_search", "label"),
    [
        (["run.eval_points"], {}, "tuned"),
        (["eval_images", "queries"], {}, "tuned"),
        (["prompts"], {"on": "template2"}, "tuned on template2"),
        (["run.lr"], {}, None),
        (["run.draws"], {}, None),
    ],
)
def test_what_leaves_a_cell_tuned(rows: Rows, deviations: list[str], of_search: Any, label: str | None) -> None:
    add(rows, CHOSEN, deviations=deviations, **of_search)
    assert (list(contrasts(rows.one())) == [label]) == (label is not None)


def test_cells_without_an_evaluation_in_between_are_counted(rows: Rows) -> None:
    def said() -> str:
        return " ".join(line for section in document(rows.tables()) for grid in section.grids for line in grid.legend)

    untuned(rows)
    assert "no run was evaluated between its start and its end: the area of gain is" in said()
    assert "runs were evaluated at their start and end alone" in said()
    rows.add("ddpo", "bs", 9, {0: 0.6, 500: 0.62, 1000: 0.64}, config=config(*CHOSEN["bs"], preset=preset("bs")))
    assert "no run of 4 of the 5 cells was evaluated between its start and its end: there the area of gain is" in said()
    assert "runs of 4 of 5 cells were evaluated at their start and end alone" in said()


def test_searches_that_were_given_more_are_variants_of_their_own(rows: Rows) -> None:
    add(rows, {name: CHOSEN[name] for name in ("vanilla", "bpt")})
    add(rows, {name: (lr + 1, clip) for name, (lr, clip) in CHOSEN.items() if name in ("vanilla", "b2")}, runs=32)
    assert contrasts(rows.one()) == {"tuned (8 x 2,400)": ["bpt"], "tuned (32 x 2,400)": ["b2"]}


def test_a_preset_of_before_that_says_not_what_was_searched(rows: Rows) -> None:
    old = {key: value for key, value in preset("vanilla").items() if key not in ("searched", "tuned_on")}
    for seed in range(3):
        rows.add("ddpo", "vanilla", seed, {0: 0.6, 1000: 0.7}, config=config(*DEFAULT, preset=old))
    assert contrasts(rows.one()) == {"tuned": []}


def test_a_run_that_goes_on_is_of_the_variant_whose_preset_it_has(rows: Rows) -> None:
    untuned(rows, ("vanilla",))
    add(rows, {"vanilla": CHOSEN["vanilla"]})
    rows.add("ddpo", "b2", 0, {0: 0.6}, status="running", config=config(*CHOSEN["b2"], preset=preset("b2")))
    verdicts = {row.label: {cell.wrapper: cell.verdict for cell in row.cells} for row in rows.one().compatibility}
    assert (verdicts[""]["b2"], verdicts["tuned"]["b2"]) == ("not run", "incomplete")


def test_the_validity_card_holds_no_tuned_cell_against_an_untuned_one(rows: Rows) -> None:
    def tests() -> dict[str, str]:
        group = tables(rows.runs, rows.evals, rows.rounds)[0]
        return {part.what: part.missing for sign in card(group) if sign.number in (2, 10) for part in sign.parts}

    add(rows, CHOSEN)
    for seed in range(4):
        rows.add("rwr", "vanilla", seed, {0: 0.6, 1000: 0.55 + 0.001 * seed}, config=config(*DEFAULT))
    found = tests()
    assert found["ddpo − rwr"] == "not run: ddpo"
    assert found["tuned ddpo: bpt − vanilla"] == ""
    untuned(rows)
    found = tests()
    assert found["ddpo − rwr"] == ""
    assert found["ddpo: bpt − vanilla"] == ""
