"""Tuned cells beside untuned ones: what is compared with what, and which tests are a family."""

from pathlib import Path
from typing import Any

import pytest
from b2bench.leaderboard.answers import answers
from b2bench.leaderboard.asked import EXPECTED, claims_of_paper
from b2bench.leaderboard.document import document
from b2bench.leaderboard.page import leaderboard_page
from b2bench.leaderboard.plan import PLAN
from b2bench.leaderboard.rows import Tables
from b2bench.leaderboard.tables import tables
from b2bench.leaderboard.validity import card
from synthetic import Rows

from b2bench.config.presets import load_preset
from b2bench.search import Sampler

FOLDER = Path(__file__).parents[3] / "leaderboard" / "tuned"
PUBLISHED = dict(PLAN.presets)  # before a test has its own

CHOSEN = {"vanilla": (0.004, 0.4), "bpt": (0.003, 0.3), "bs": (0.002, 0.2), "b2": (0.001, 0.1)}
DEFAULT = (0.1, 1.0)
GAINS = {"vanilla": 0.03, "bpt": 0.05, "bs": 0.04, "b2": 0.065}


def preset(
    wrapper: str, deviations: Any = (), on: str = "template1", runs: int = 8, of_plan: bool = False
) -> dict[str, Any]:
    return {
        "name": f"ddpo-{wrapper}",
        "hash": f"{'the plan' if of_plan else 'another'}'s {wrapper}",
        "tuning_seeds": [1000],
        "tuned_by": {
            "sampler": Sampler.sobol.described,
            "configurations": runs,
            "queries_a_run": 2400,
        },
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


@pytest.fixture(autouse=True)
def four_seeds(monkeypatch: pytest.MonkeyPatch) -> None:
    """A plan of as many seeds as these tests have, with presets of their names."""
    wrappers = (*GAINS, "forward", "random2")
    monkeypatch.setattr(PLAN, "seeds", range(4))
    monkeypatch.setattr(PLAN, "queries", 1000)
    monkeypatch.setattr(PLAN, "presets", {f"{a}-{w}": f"the plan's {w}" for a in PLAN.algorithms for w in wrappers})


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
    add(rows, CHOSEN, of_plan=True)
    found = rows.one()
    assert list(contrasts(found)) == ["", "tuned"]
    assert found.contrasts[0] == alone.contrasts[0]  # the tuned ones change no claim of the others
    assert found.compatibility[0] == alone.compatibility[0]
    assert (found.head.tests, found.head.tuned_tests) == (alone.head.tests, alone.head.tests)
    both = f"{found.head.tuned_tests} claims on the plan's cells or {found.head.tests} on others"
    (section,) = document([found])
    assert all(both in " ".join(grid.legend) for grid in section.grids if grid.key in ("matrix", "contrasts"))
    assert both in leaderboard_page([found])
    assert "on the plan's cells" not in leaderboard_page([alone])


def test_the_plan_has_four_algorithms(rows: Rows) -> None:
    """A tuned cell of another one is among the other claims, whatever wrappers it has."""
    untuned(rows)
    alone = rows.one()
    add(rows, CHOSEN, of_plan=True)
    found = rows.one()
    assert (found.head.tests, found.head.tuned_tests) == (alone.head.tests, alone.head.tests)
    for wrapper in ("vanilla", "b2"):
        for seed in range(4):
            chosen = config(*CHOSEN[wrapper], preset=preset(wrapper, of_plan=True))
            rows.add("awr", wrapper, seed, {0: 0.6, 1000: 0.65 + 0.001 * (seed % 3)}, config=chosen)
    others = rows.one()
    assert others.head.tests > found.head.tests
    assert others.head.tuned_tests == found.head.tuned_tests
    (awr,) = [row for row in others.contrasts if row.algorithm == "awr"]
    assert (awr.label, [contrast.name for contrast in awr.contrasts]) == ("tuned", ["b2"])
    assert {detail.planned for detail in others.details if detail.algorithm == "awr"} == {False}


@pytest.mark.parametrize(
    ("of_preset", "planned"),
    [
        ({"of_plan": True}, True),
        ({}, False),  # another search, or the same one with another choice
        ({"of_plan": True, "deviations": ["run.micro_batch"]}, True),
        ({"of_plan": True, "deviations": ["run.eval_points"]}, False),
        ({"of_plan": True, "deviations": ["run.eval_images"]}, False),
        ({"of_plan": True, "deviations": ["run.lr"]}, False),
        ({"of_plan": True, "deviations": 3}, False),
    ],
)
def test_the_plan_has_its_presets_alone(rows: Rows, of_preset: dict[str, Any], planned: bool) -> None:
    """Whoever tunes a cell of its algorithms in another way, or runs its settings otherwise, adds no test to it."""
    deviations = of_preset.pop("deviations", [])
    add(rows, CHOSEN, **of_preset)
    for row in rows.runs:
        found = [{"name": name} for name in deviations] if isinstance(deviations, list) else deviations
        row["config"]["preset"]["deviations"] = found
    tables = rows.one()
    assert (tables.head.tests == 0, tables.head.tuned_tests == 0) == (planned, not planned)
    assert {row.planned for row in tables.compatibility} == {planned}


def planned_part(found: Tables) -> Any:
    [row] = [row for row in found.compatibility if row.planned]
    [contrast] = [one for one in found.contrasts if (one.algorithm, one.label) == (row.algorithm, row.label)]
    return row, contrast, found.head.tuned_tests


def test_further_runs_change_no_claim_of_the_plan(rows: Rows) -> None:
    """More seeds, the same seeds again, without the preset, or by another search: they are cells of their own."""
    add(rows, CHOSEN, of_plan=True)
    for row in rows.runs:  # as cell_hash does it, without the preset
        row["config_hash"] = str((row["wrapper"], row["config"]["settings"], row["config"]["algorithm"]))
    alone = planned_part(rows.one())
    before = len(rows.runs)
    for seed in (0, 4, 5):
        for of_preset in ({"preset": preset("b2", of_plan=True)}, {}, {"preset": preset("b2")}):
            rows.add("ddpo", "b2", seed, {0: 0.6, 1000: 0.4}, config=config(*CHOSEN["b2"], **of_preset))
        other = config(0.7, 0.7, preset=preset("vanilla"))
        rows.add("ddpo", "vanilla", seed, {0: 0.6, 1000: 0.4}, config=other)
    for row in rows.runs[before:]:
        row["config_hash"] = str((row["wrapper"], row["config"]["settings"], row["config"]["algorithm"]))
    found = rows.one()
    assert planned_part(found) == alone
    names = [(row.algorithm, row.wrapper, row.label) for row in found.leaderboard if not row.reference]
    assert len(names) == len(set(names))
    assert len([row for row in found.compatibility if row.planned]) == 1


@pytest.mark.parametrize("lacking", ["a wrapper", "a seed"])
def test_cells_are_the_plans_when_all_seeds_are_there(rows: Rows, lacking: str) -> None:
    """Before, whoever runs some of its presets has tuned cells like any others, with all of their seeds."""
    add(rows, CHOSEN, of_plan=True)
    for seed in range(4, 6):
        own = config(*CHOSEN["b2"], preset=preset("b2", of_plan=True))
        rows.add("ddpo", "b2", seed, {0: 0.6, 1000: 0.66 + 0.001 * seed}, config=own)
    whole = rows.one()
    assert whole.head.tuned_tests == 14
    assert sorted(len(row.seeds) for row in whole.leaderboard if row.wrapper == "b2") == [2, 4]
    assert not any(row.lacking for row in whole.leaderboard)
    drop = (lambda row: row["wrapper"] == "bs") if lacking == "a wrapper" else (lambda row: row["seed"] == 3)
    gone = {row["run_id"] for row in rows.runs if drop(row)}
    rows.runs = [row for row in rows.runs if row["run_id"] not in gone]
    rows.evals = [row for row in rows.evals if row["run_id"] not in gone]
    found = rows.one()
    assert found.head.tuned_tests == 0
    assert found.head.tests > 0
    [row] = found.compatibility
    assert (row.label, row.planned) == ("tuned", False)
    assert {cell.verdict for cell in row.cells if cell.gain is not None} == {"gain"}
    assert [len(row.seeds) for row in found.leaderboard if row.wrapper == "b2"] == [6 - (lacking == "a seed")]


def test_a_claim_of_the_plan_that_lacks_a_value_stays_one_of_its_claims(rows: Rows) -> None:
    add(rows, CHOSEN, of_plan=True)
    whole = rows.one()
    [run] = [row["run_id"] for row in rows.runs if (row["wrapper"], row["seed"]) == ("b2", 0)]
    for row in rows.evals:
        if row["run_id"] == run and row["queries"] == 1000:
            row["value"] = None
    found = rows.one()
    assert found.head.tuned_tests == whole.head.tuned_tests
    verdicts = {cell.wrapper: cell.verdict for cell in found.compatibility[0].cells}
    assert verdicts["b2"] == "untested"
    assert verdicts["bpt"] == "gain"
    page = leaderboard_page([found])
    assert f"{found.head.tuned_tests} claims" in page


def test_less_of_a_loss_is_no_support(rows: Rows) -> None:
    """Both fell far: that one fell less is a difference, and no gain."""
    for wrapper, end in (("vanilla", 0.2), ("b2", 0.5)):
        for seed in range(4):
            rows.add("ddpo", wrapper, seed, {0: 0.6, 1000: end + 0.001 * (seed % 3)}, config=config(*DEFAULT))
    found = rows.one()
    b2 = next(cell for cell in found.compatibility[0].cells if cell.wrapper == "b2")
    assert b2.delta is not None
    assert b2.delta.p_adjusted is not None
    assert b2.verdict == "loss"
    assert b2.delta.p_adjusted < 0.01
    [claim] = [one for one in claims_of_paper(found) if (one.contrast, one.said) == ("b2 − vanilla", EXPECTED["b2"])]
    assert claim.verdict == "undecided"
    assert "its seeds fell below the pretrained model" in claim.figures


def test_a_wrapper_of_the_name_of_a_contrast_takes_nothing_from_it(rows: Rows) -> None:
    untuned(rows)
    alone = rows.one()
    for seed in range(4):
        rows.add("ddpo", "interaction", seed, {0: 0.6, 1000: 0.4 + 0.001 * seed}, config=config(*DEFAULT))
    found = rows.one()
    means = [[contrast.delta.mean for contrast in one.contrasts[0].contrasts] for one in (alone, found)]
    assert means[0] == means[1]


def test_sign_5_waits_for_all_cells_of_the_plan(rows: Rows) -> None:
    def what() -> str:
        [sign] = [sign for sign in card(rows.one()) if sign.number == 5]
        return sign.parts[0].what

    untuned(rows)
    add(rows, CHOSEN, of_plan=True)
    for name in ("dpok", "dpo", "pg"):
        for wrapper in GAINS:
            if (name, wrapper) != ("pg", "b2"):
                for seed in range(4):
                    own = config(*CHOSEN[wrapper], preset=preset(wrapper, of_plan=True))
                    own["algorithm"] = {"name": name, "clip_nats": 0.1}
                    rows.add(name, wrapper, seed, {0: 0.6, 1000: 0.65 + 0.001 * seed}, config=own)
    assert not what().startswith("tuned")
    for seed in range(4):
        own = config(*CHOSEN["b2"], preset=preset("b2", of_plan=True))
        own["algorithm"] = {"name": "pg", "clip_nats": 0.1}
        rows.add("pg", "b2", seed, {0: 0.6, 1000: 0.65 + 0.001 * seed}, config=own)
    assert what().startswith("tuned")


def test_a_cell_outside_of_the_plan_has_its_own_numbers(rows: Rows) -> None:
    add(rows, CHOSEN, of_plan=True)
    for wrapper in ("vanilla", "b2"):
        for seed in range(4, 8):
            own = config(*CHOSEN[wrapper], preset=preset(wrapper, of_plan=True))
            rows.add("ddpo", wrapper, seed, {0: 0.6, 1000: 0.5 + 0.001 * seed}, config=own)
    found = rows.one()
    assert {row.label for row in found.compatibility} == {"tuned", "tuned outside of the plan"}
    of = {row.label: {cell.wrapper: cell for cell in row.cells} for row in found.compatibility}
    rows_of = {row.identity: row for row in found.leaderboard if not row.reference}
    for cells, mean in ((of["tuned"], 0.6 + GAINS["b2"]), (of["tuned outside of the plan"], 0.5055)):
        assert rows_of[cells["b2"].identity].alignment.mean == pytest.approx(mean, abs=2e-3)
    [learned] = [answer for answer in answers(found) if answer.about == "Learned"]
    assert learned.text.startswith("4 of 6 cells: ")


@pytest.mark.parametrize("odd", [{"tuned_by": 3}, {"tuned_on": ["template1"]}, {"tuning_seeds": []}, {"hash": None}])
def test_a_repetition_by_another_search_of_equal_values_is_none_of_the_plans(rows: Rows, odd: Any) -> None:
    """A preset's hash is of its values: cut before [tuning], or by another search, it has the same."""
    add(rows, CHOSEN, of_plan=True)
    alone = planned_part(rows.one())
    rows.add(
        "ddpo", "b2", 0, {0: 0.6, 1000: 0.4}, config=config(*CHOSEN["b2"], preset=preset("b2", of_plan=True) | odd)
    )
    assert planned_part(rows.one()) == alone


def test_of_two_runs_of_a_planned_seed_the_first_that_was_done_counts(rows: Rows) -> None:
    """One that the machine failed is repeated, and one that was done is not."""
    chosen = config(*CHOSEN["b2"], preset=preset("b2", of_plan=True))
    rows.add("ddpo", "b2", 0, {0: 0.6, 1000: 0.3}, config=chosen, status="failed")
    add(rows, CHOSEN, of_plan=True)
    alone = planned_part(rows.one())
    assert alone[1].failed == 0
    for status in ("done", "failed"):
        again = config(*CHOSEN["b2"], preset=preset("b2", of_plan=True))
        rows.add("ddpo", "b2", 0, {0: 0.6, 1000: 0.2}, config=again, status=status)
    assert planned_part(rows.one()) == alone


def test_the_plan_says_what_stands_in_the_folder_of_tuned_presets() -> None:
    """And each of these was chosen by its search: 8 configurations on template 1, defaults in all that was not."""
    there = {
        path.stem: load_preset(str(path)) for path in FOLDER.glob("*.toml") if path.stem.partition("-")[0] != "awr"
    }
    assert {name: preset.content_hash for name, preset in there.items()} == PUBLISHED
    for found in there.values():
        tuning = found.tuning or {}
        assert (tuning["sampler"], tuning["configurations"]) == (Sampler.sobol.described, 8)
        assert (tuning["queries_a_run"], tuning["on"]["prompts"], tuning["seeds"]) == (
            2400,
            "template1",
            [1000, 1001, 1002],
        )
        open_ = {value.name for value in found.values if value.source == "open"}
        assert open_ == {"eval_points"}
        chosen = {
            f"run.{v.name}" if v.section == "set" else v.section.partition(".")[0] + f".{v.name}"
            for v in found.values
            if v.source == "b2bench tune" and v.section != "options"
        }
        assert chosen == set(tuning["space"])


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
        (["run.inception", "run.inception_splits"], {}, "tuned"),
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
        parts = [part for sign in card(group) if sign.number in (2, 10) for part in sign.parts]
        return {part.what.partition(" (")[0]: part.missing for part in parts}  # without the settings of its cells

    add(rows, CHOSEN, of_plan=True)
    for seed in range(4):
        rows.add("rwr", "vanilla", seed, {0: 0.6, 1000: 0.55 + 0.001 * seed}, config=config(*DEFAULT))
    found = tests()
    assert found["ddpo − rwr"] == "not run: ddpo"
    assert not any(what.startswith("tuned") for what in found)  # sign 10 asks about forward, too
    for seed in range(4):
        chosen = config(*CHOSEN["b2"], preset=preset("forward", of_plan=True))
        rows.add("ddpo", "forward", seed, {0: 0.6, 1000: 0.61 + 0.001 * (seed % 3)}, config=chosen)
    assert tests()["tuned ddpo: bpt − vanilla"] == ""
    untuned(rows)
    found = tests()
    assert found["ddpo − rwr"] == ""
    assert found["tuned ddpo: bpt − vanilla"] == ""  # of which all is there, tuned


def test_the_card_chooses_its_cells_by_what_was_run_and_not_by_what_it_shows(rows: Rows) -> None:
    """Sign 4 needs two that gained: where tuned ones are there and lost, untuned ones that gained do not stand in."""
    untuned(rows)
    add(rows, CHOSEN, shift=-0.2, of_plan=True)
    for seed in range(4):
        own = [(wrapper, 0.4, preset(wrapper, of_plan=True)) for wrapper in GAINS]
        for wrapper, value, of_preset in (("vanilla", 0.63, None), *own):
            chosen = config(*DEFAULT) if of_preset is None else config(*CHOSEN[wrapper], preset=of_preset)
            chosen["algorithm"] = {"name": "dpok", "clip_nats": chosen["algorithm"]["clip_nats"]}
            rows.add("dpok", wrapper, seed, {0: 0.6, 1000: value + 0.001 * (seed % 3)}, config=chosen)
    (sign,) = [sign for sign in card(rows.one()) if sign.number == 4]
    assert [part.missing for part in sign.parts] == ["a seed of one of the two did not gain"]


def test_an_untuned_cell_comes_before_one_that_a_search_chose(rows: Rows) -> None:
    """Of an algorithm outside of the plan, which has both: whatever has more seeds."""
    for seed in range(6):
        tuned = config(*CHOSEN["b2"], preset=preset("vanilla"))
        rows.add("rwr", "vanilla", seed, {0: 0.6, 1000: 0.68 + 0.001 * (seed % 3)}, config=tuned)
        if seed < 4:
            rows.add("rwr", "vanilla", seed, {0: 0.6, 1000: 0.55 + 0.001 * (seed % 3)}, config=config(*DEFAULT))
    untuned(rows, ("vanilla",))
    (sign,) = [sign for sign in card(rows.one()) if sign.number == 2]
    first = sign.parts[0]
    assert first.mean is not None
    assert first.mean > 0


def test_a_cell_of_both_rows_is_counted_once(rows: Rows) -> None:
    untuned(rows)
    for wrapper in ("vanilla", "b2"):
        for seed in range(4, 7):
            end = 0.6 + GAINS[wrapper] / 3 + 0.0005 * (seed % 3)
            chosen = config(*DEFAULT, preset=preset(wrapper))
            rows.add("ddpo", wrapper, seed, {0: 0.6, 1000: end}, config=chosen)
    for row in rows.runs:
        row["config_hash"] = str((row["wrapper"], row["config"]["settings"], row["config"]["algorithm"]))
    found = rows.one()
    assert len([cell for row in found.compatibility for cell in row.cells if cell.gain is not None]) == 6
    [learned] = [answer for answer in answers(found) if answer.about == "Learned"]
    assert learned.text.startswith("4 of 4 cells: ddpo (vanilla, bpt, bs, b2)")


def test_a_preset_counts_even_if_the_same_run_was_repeated_without_it(rows: Rows) -> None:
    add(rows, {**CHOSEN, "bs": DEFAULT})
    untuned(rows, ("bs",))  # later, with the same seeds
    for row in rows.runs:
        row["config_hash"] = str((row["wrapper"], row["config"]["settings"], row["config"]["algorithm"]))
    assert contrasts(rows.one()) == {"": [], "tuned": ["bpt", "bs", "interaction", "b2"]}


def test_two_searches_that_chose_the_same_have_the_cell_in_both_rows(rows: Rows) -> None:
    add(rows, {name: CHOSEN[name] for name in ("vanilla", "bpt")})
    add(rows, {name: CHOSEN[name] for name in ("vanilla", "b2")}, runs=32)
    for row in rows.runs:
        row["config_hash"] = str((row["wrapper"], row["config"]["settings"], row["config"]["algorithm"]))
    assert contrasts(rows.one()) == {"tuned (8 x 2,400)": ["bpt"], "tuned (32 x 2,400)": ["b2"]}


def test_names_of_searches_differ_where_the_searches_do(rows: Rows) -> None:
    add(rows, {name: CHOSEN[name] for name in ("vanilla", "bpt")})
    before = len(rows.runs)
    add(rows, {name: (lr + 1, clip) for name, (lr, clip) in CHOSEN.items() if name in ("vanilla", "b2")})
    for row in rows.runs[before:]:
        row["config"]["preset"]["tuned_by"] = {**row["config"]["preset"]["tuned_by"], "sampler": "tpe"}
    sobol = f"tuned (8 x 2,400, {Sampler.sobol.described})"
    assert contrasts(rows.one()) == {sobol: ["bpt"], "tuned (8 x 2,400, tpe)": ["b2"]}


def test_a_preset_of_before_is_of_the_prompts_that_its_runs_have(rows: Rows) -> None:
    add(rows, {"vanilla": CHOSEN["vanilla"]}, on="")
    add(rows, {"b2": CHOSEN["b2"]})
    assert contrasts(rows.one()) == {"tuned": ["b2"]}


def test_a_tuned_cell_takes_no_place_of_an_untuned_one(rows: Rows) -> None:
    untuned(rows)
    alone = rows.one()
    for seed in range(8):
        chosen = config(*DEFAULT, preset=preset("b2"), wrapper={"name": "b2", "k": 8})
        rows.add("ddpo", "b2", seed, {0: 0.6, 1000: 0.7 + 0.001 * (seed % 3)}, config=chosen)
    means = [[contrast.delta.mean for contrast in found.contrasts[0].contrasts] for found in (alone, rows.one())]
    assert means[0] == means[1]


def test_untuned_cells_keep_their_names_beside_tuned_ones(rows: Rows) -> None:
    untuned(rows)
    for _ in range(2):
        add(rows, CHOSEN)
    found = rows.one()
    assert [row.label for row in found.leaderboard if row.label and not row.label.startswith("tuned ")] == []
    assert not any("without settings beside its name has lr=0.00" in note for note in found.head.notes)


@pytest.mark.parametrize(
    "odd",
    [
        {"deviations": 3},
        {"deviations": {"name": "run.lr"}},
        {"searched": "run.lr"},
        {"searched": 3},
        {"tuned_by": "much"},
        {"tuned_on": ["template1"]},
        {"tuning_seeds": "1000"},
    ],
)
def test_what_others_write_into_a_preset_breaks_nothing(odd: dict[str, Any], rows: Rows) -> None:
    for seed in range(3):
        rows.add("ddpo", "b2", seed, {0: 0.6, 1000: 0.7}, config=config(*DEFAULT, preset=preset("b2") | odd))
    assert "ddpo" in leaderboard_page(rows.tables())


def test_a_run_that_goes_on_is_of_the_search_that_chose_its_settings(rows: Rows) -> None:
    for runs, shift in ((8, 0.0), (32, 1.0)):
        add(rows, {"vanilla": (CHOSEN["vanilla"][0] + shift, 0.4)}, runs=runs)
    chosen = config(*CHOSEN["b2"], preset=preset("b2", runs=32))
    rows.add("ddpo", "b2", 0, {0: 0.6}, status="running", config=chosen)
    verdicts = {row.label: {cell.wrapper: cell.verdict for cell in row.cells} for row in rows.one().compatibility}
    assert {label: cells["b2"] for label, cells in verdicts.items()} == {
        "tuned (8 x 2,400)": "not run",
        "tuned (32 x 2,400)": "incomplete",
    }


def test_tuned_cells_of_few_seeds_are_not_on_the_card(rows: Rows) -> None:
    """Neither a loss nor a gain of one seed takes the place of untuned cells that can be tested."""
    untuned(rows, ("vanilla",))
    for end in (0.4, 0.8):
        for name in ("dpok", "ddpo"):
            chosen = config(*CHOSEN["vanilla"], preset=preset("vanilla", of_plan=True))
            rows.add(name, "vanilla", 0, {0: 0.6, 1000: end}, config=chosen)
        (sign,) = [sign for sign in card(rows.one()) if sign.number == 4]
        assert [part.missing for part in sign.parts] == ["not run: dpok"]


@pytest.mark.parametrize(("algorithm", "runs"), [("awr", (8,)), ("ddpo", (16, 32))])
def test_a_cell_of_two_rows_of_one_family_is_one_test(algorithm: str, runs: tuple[int, ...], rows: Rows) -> None:
    for seed in range(6):
        presets: Any = (None, preset("vanilla")) if len(runs) == 1 else tuple(preset("vanilla", runs=n) for n in runs)
        own = presets[seed % 2]
        chosen = config(*DEFAULT, **({"preset": own} if own else {}))
        end = 0.65 + 0.001 * (seed % 3)
        rows.add(algorithm, "vanilla", seed, {0: 0.6, 1000: end}, config=chosen, config_hash="the same")
    found = rows.one()
    assert len(found.compatibility) == 2
    assert found.head.tests + found.head.tuned_tests == 1
    assert {row.cells[0].learned for row in found.compatibility} == {"gain"}
    [learned] = [answer for answer in answers(found) if answer.about == "Learned"]
    assert learned.text.startswith("1 of 1 cell: ")


def test_cells_of_equal_values_are_two_cells(rows: Rows) -> None:
    """As those of which every run failed before its first evaluation."""
    untuned(rows, ("bs",))
    for wrapper, chosen in (("vanilla", config(*DEFAULT)), ("vanilla", config(0.9, 0.9, preset=preset("vanilla")))):
        for seed in range(4):
            rows.add("ddpo", wrapper, seed, {0: 0.6}, status="failed", config=chosen)
    [collapsed] = [answer for answer in answers(rows.one()) if answer.about == "Collapsed"]
    assert "every run failed: ddpo (vanilla) and ddpo tuned (vanilla)" in collapsed.text


def test_presets_that_name_other_searched_settings_are_joined(rows: Rows) -> None:
    for wrapper, searched in (("vanilla", ["run.lr"]), ("b2", ["algorithm.clip_nats"])):
        for seed in range(3):
            own = preset(wrapper) | {"searched": searched}
            end = 0.6 + GAINS[wrapper] + 0.001 * (seed % 2)
            rows.add("ddpo", wrapper, seed, {0: 0.6, 1000: end}, config=config(*CHOSEN[wrapper], preset=own))
    assert contrasts(rows.one()) == {"tuned": ["b2"]}
