"""What a report says first: sentences, the matrix of gains, and how training went."""

import math
import re
from dataclasses import replace
from typing import Any

import pytest
from b2bench.leaderboard.answers import MANY, answers
from b2bench.leaderboard.curves import learning_makers
from b2bench.leaderboard.document import document
from b2bench.leaderboard.glossary import GLOSSARY, explained, glossary
from b2bench.leaderboard.html import html
from b2bench.leaderboard.matrix import axis, learning, matrix, most, sparkline
from b2bench.leaderboard.noise import Noise
from b2bench.leaderboard.rows import HeadroomRow
from b2bench.leaderboard.stats import estimate, paired
from b2bench.leaderboard.tables import tables
from b2bench.leaderboard.written import markdown
from synthetic import Rows

NOISE = (0.001, -0.001, 0.0005, -0.0005, 0.0)


def add(rows: Rows, algorithm: str, wrapper: str, gains: Any, **more: Any) -> None:
    for seed, noise in enumerate(NOISE):
        gain = gains[seed] if isinstance(gains, tuple) else gains + noise
        rows.add(algorithm, wrapper, seed, {0: 0.6, 1000: 0.6 + gain}, **more)


@pytest.fixture
def known() -> Rows:
    """ddpo learns and bpt helps it, bs harms; pg vanilla collapses in every seed, pg bpt does nothing."""
    rows = Rows()
    for wrapper, gain in (("vanilla", 0.05), ("bpt", 0.09), ("bs", 0.01)):
        add(rows, "ddpo", wrapper, gain)
    add(rows, "pg", "vanilla", (-0.1, -0.7, -0.2, -0.4, -0.3))
    add(rows, "pg", "bpt", (0.01, -0.01, 0.005, -0.005, 0.0))
    return rows


def said(rows: Rows) -> dict[str, str]:
    return {answer.about: answer.text for answer in answers(rows.one())}


def baseline(rows: Rows, kind: str, name: str, value: float, queries: int) -> None:
    config = {"baseline": {"kind": kind, "queries_per_image": queries}}
    rows.add("baseline", name, 0, {0: value}, budget=None, config=config)


def test_sentences_say_what_learned_collapsed_and_is_open(known: Rows) -> None:
    found = said(known)
    assert list(found) == ["Learned", "Against vanilla", "Collapsed", "Cannot be said", "Without training"]
    assert found["Learned"].startswith("3 of 5 cells: ddpo (vanilla, bpt, bs). Highest at the end: ddpo bpt, clipscore")
    assert "+0.090 ±" in found["Learned"]
    assert found["Against vanilla"] == "better: ddpo (bpt); worse: ddpo (bs)"
    assert found["Collapsed"].startswith(
        "lost against pretrained: pg (vanilla); 5 of 25 runs collapsed (pg vanilla 5/5)"
    )
    assert "whether these learned: pg (bpt)" in found["Cannot be said"]
    assert re.search(r"in four experiments of five: 0\.\d+", found["Cannot be said"])
    assert found["Without training"].startswith("not measured")


def test_an_upper_reference_that_learned_is_called_one(known: Rows) -> None:
    """It follows the reward's gradient, which no other may."""
    add(known, "draft1", "vanilla", 0.2)
    text = said(known)["Learned"]
    assert text.startswith("3 of 5 cells: ddpo (vanilla, bpt, bs); beside them, tested apart: draft1 (upper reference)")


def test_seeds_that_all_ended_below_are_named_and_stay_open(known: Rows) -> None:
    """The median of five fell by less than what makes a loss without a test, and the spread allows no test."""
    add(known, "rwr", "vanilla", (-0.01, -0.2, -0.05, -0.01, -0.02))
    found = said(known)
    assert "not shown to have lost, but all seeds ended below pretrained: rwr (vanilla)" in found["Collapsed"]
    assert "rwr (vanilla)" in found["Cannot be said"]


def test_three_seeds_below_are_no_collapse() -> None:
    rows = Rows()
    for seed, gain in enumerate((-0.0001, -0.004, -0.0002)):
        rows.add("nft", "vanilla", seed, {0: 0.6, 1000: 0.6 + gain})
    (answer,) = [answer for answer in answers(rows.one()) if answer.about == "Collapsed"]
    assert (answer.kind, "all seeds ended below pretrained: nft" in answer.text) == ("inconclusive", True)


def test_an_upper_reference_is_no_cell_above_what_is_to_be_had_without_training(known: Rows) -> None:
    baseline(known, "best-of", "best-of-4", 0.72, 4)
    add(known, "draft1", "vanilla", 0.3)
    assert said(known)["Without training"].endswith("; every cell is below it")
    assert free(known) == "loss"


def test_of_several_guidances_the_best_alone_is_named(known: Rows) -> None:
    baseline(known, "guidance", "guidance-3", 0.63, 1)
    baseline(known, "guidance", "guidance-5", 0.61, 1)
    assert "guidance 5" not in said(known)["Without training"]
    assert "guidance 3 has 0.630" in said(known)["Without training"]


def test_the_highest_cell_that_is_not_shown_to_learn_is_named_as_such(known: Rows) -> None:
    add(known, "dpok", "vanilla", (0.6, 0.0, 0.01, 0.0, 0.0))
    text = said(known)["Learned"]
    assert "Which is best cannot be said: the highest at the end, dpok vanilla (clipscore 0." in text


def test_what_a_wrapper_does_to_the_held_out_score_is_said_where_the_trained_one_is_open() -> None:
    rows = Rows()
    for wrapper, fall in (("vanilla", 0.0), ("b2", 0.1)):
        for seed, noise in enumerate(NOISE):
            held = {0: 0.5, 1000: 0.5 - fall + noise}
            rows.add("ddpo", wrapper, seed, {0: 0.6, 1000: 0.65 + noise * (1 if fall else -1)}, heldout=held)
    found = said(rows)
    assert "worse in the held-out score: ddpo (b2)" in found["Against vanilla"]


def oracle(gain: float) -> HeadroomRow:
    one, gained = estimate([0.6 + gain] * 3), paired([gain] * 3, [0.0] * 3)
    return HeadroomRow("oracle", "oracle", "", "", one, gained, one, one, gained, one, {}, {}, (0, 1, 2), 0)


def test_a_least_effect_beyond_the_oracle_is_no_effect_that_could_be_seen(known: Rows) -> None:
    (group,) = known.tables()
    (row,) = [row for row in group.compatibility if row.algorithm == "pg"]
    detectable = [cell.gain_detectable for cell in row.cells if cell.learned == "inconclusive"]
    (least,) = [value for value in detectable if value is not None]
    for gain, is_said in ((least / 2, True), (least * 2, False)):
        (found,) = [a.text for a in answers(replace(group, headroom=(oracle(gain),))) if a.about == "Cannot be said"]
        words = f"; of 1 cell it is more than the oracle gains ({gain:.4f}), so it could hardly be shown to learn"
        assert found.endswith(words) == is_said


def test_controls_are_told_apart_from_the_wrappers_that_make_claims() -> None:
    rows = Rows()
    for wrapper, gain in (("vanilla", 0.05), ("bpt", 0.09), ("random2", 0.01), ("spread", 0.0501)):
        add(rows, "ddpo", wrapper, tuple(gain - noise * (wrapper != "vanilla") for noise in NOISE))
    parts = said(rows)["Against vanilla"].split("; ")
    apart = "controls, tested apart: equal: ddpo (spread (control)), worse: ddpo (random2 (control))"
    assert parts == ["better: ddpo (bpt)", apart]
    alone = Rows()
    for wrapper, gain in (("vanilla", 0.05), ("random2", 0.0501)):
        add(alone, "ddpo", wrapper, tuple(gain - noise * (wrapper != "vanilla") for noise in NOISE))
    assert said(alone)["Against vanilla"].startswith("controls, tested apart: ")


def test_many_cells_are_counted_and_not_named() -> None:
    rows = Rows()
    for place in range(MANY + 1):
        add(rows, f"algorithm{place}", "vanilla", tuple(3 * noise for noise in NOISE))
    assert said(rows)["Cannot be said"].startswith(f"whether {MANY + 1} cells learned (table Verdicts); ")


@pytest.mark.parametrize(
    ("both", "said_of_it"), [(0.15, "gain more or lose less"), (0.02, "gain less or lose more"), (0.0701, None)]
)
def test_what_bpt_and_bs_do_together_is_said_where_it_is_shown(both: float, said_of_it: str | None) -> None:
    rows = Rows()
    for wrapper, gain in (("vanilla", 0.05), ("bpt", 0.06), ("bs", 0.06)):
        add(rows, "ddpo", wrapper, gain)
    add(rows, "ddpo", "b2", tuple(both - noise for noise in NOISE))
    found = said(rows)
    # areas are half of the gains at the end
    size = f"{(both - 0.07) / 2:+.4f}".replace("-", "\N{MINUS SIGN}")
    more = f"bpt and bs together {said_of_it} than the sum of what each does: ddpo ({size})"
    (group,) = rows.tables()
    (row,) = group.contrasts
    by_chance = [replace(contrast, noise=Noise(0.002, 0.0, 540, None)) for contrast in row.contrasts]
    loud = {a.about: a.text for a in answers(replace(group, contrasts=(replace(row, contrasts=tuple(by_chance)),)))}
    chance = f"ddpo ({size}, though its seeds spread no more than their images do)"
    assert (chance in loud["Against vanilla"]) == (said_of_it is not None)
    assert (more in found["Against vanilla"]) == (said_of_it is not None)
    open_still = "whether BPT and BS do together what they do apart: ddpo" in found["Cannot be said"]
    assert open_still == (said_of_it is None)
    assert ("bpt and bs together" in found["Against vanilla"]) == (said_of_it is not None)


def free(rows: Rows) -> str:
    (answer,) = [answer for answer in answers(rows.one()) if answer.about == "Without training"]
    return answer.kind


def test_what_is_free_is_the_best_baseline_and_never_the_oracle(known: Rows) -> None:
    baseline(known, "guidance", "guidance-3", 0.63, 1)
    baseline(known, "best-of", "best-of-4", 0.66, 4)
    baseline(known, "oracle", "oracle", 0.99, 0)
    text = said(known)["Without training"]
    assert text.startswith("best-of-4 (4 queries an image, 1,080 on the test set) has 0.660 (+0.060)")
    assert text.endswith(
        "above it with their interval: ddpo (bpt); guidance 3 has 0.630, with 2 cells above it by the whole interval"
    )
    assert free(known) == "gain"
    baseline(known, "best-of", "best-of-8", 0.69, 8)
    assert "; no cell is above it with its interval; best-of-4 (4 " in said(known)["Without training"]
    assert free(known) == "inconclusive"
    baseline(known, "best-of", "best-of-16", 0.72, 16)
    assert said(known)["Without training"].startswith("best-of-16")
    assert "; every cell is below it; best-of-8 (8 " in said(known)["Without training"]
    assert free(known) == "loss"


def test_few_seeds_and_no_runs_are_no_verdict() -> None:
    rows = Rows()
    rows.add("ddpo", "vanilla", 0, {0: 0.6, 1000: 0.9})
    found = said(rows)
    assert found["Learned"].startswith("nothing can be said")
    assert "ddpo (vanilla)" in found["Cannot be said"]
    rows = Rows()
    rows.add("ddpo", "vanilla", 0, {0: 0.6}, status="running")
    assert answers(rows.one()) == ()


def test_the_matrix_has_each_gain_with_its_interval_and_below_it_the_difference_to_vanilla(known: Rows) -> None:
    found = matrix(known.one())
    assert [column.name for column in found.columns] == ["algorithm", "vanilla", "bpt", "bs", "b2"]
    ddpo, pg = found.rows
    assert ddpo[1].text.startswith("▲ +0.0250 ±0.00")
    assert (ddpo[1].note, ddpo[1].kind) == ("", "gain")
    assert (ddpo[2].note, ddpo[3].note) == ("▲ Δ+0.0200", "▼ Δ−0.0200")
    assert (ddpo[3].kind, ddpo[4].text) == ("gain", "·")  # it learned, and less than vanilla
    assert (pg[1].kind, pg[2].kind) == ("loss", "inconclusive")


def with_rewards(rows: Rows, error: float = 0.004) -> Any:
    learned = [
        {"run_id": run["run_id"], "round": r, "queries": 100 * (r + 1), "reward": 0.6 + 0.01 * r}
        for run in rows.runs
        for r in range(10)
    ]
    spreads = [{"run_id": run["run_id"], "queries": 1000, "error": error} for run in rows.runs]
    (found,) = tables(rows.runs, rows.evals, rows.rounds, learning=learned, spreads=spreads)
    return found


def test_curves_are_training_rewards_as_lines_and_evaluations_as_dots_with_their_error(known: Rows) -> None:
    group = with_rewards(known)
    figures = {name: make() for name, make in learning_makers(group).items()}
    assert list(figures) == ["ddpo", "pg"]
    axes = figures["ddpo"].axes[0]
    assert axes.get_ylim() == figures["pg"].axes[0].get_ylim()
    lines = {line.get_label(): line for line in axes.lines}
    assert lines["bpt"].get_xydata()[-1].tolist() == pytest.approx([1000, 0.69])
    (bars, *_) = axes.containers
    (segments,) = [bar.get_segments() for bar in bars[2]]
    assert segments[-1][1][1] - segments[-1][0][1] == pytest.approx(0.008)
    row = learning(group).rows[0]
    assert (row[0].text, row[2].text, row[3].text, row[4].text) == ("ddpo vanilla", "0.600", "0.690", "10")


def test_more_lines_than_have_room_are_named_below_axes_of_the_same_size(known: Rows) -> None:
    few = learning_makers(with_rewards(known))["ddpo"]()
    for wrapper in ("b2", "spread", "random2", "forward"):
        add(known, "ddpo", wrapper, 0.02)
    many = learning_makers(with_rewards(known))["ddpo"]()
    assert many.axes[0].get_legend() is None
    (legend,) = many.legends
    names = ["vanilla", "bpt", "bs", "b2", "spread", "random2", "forward"]
    assert [text.get_text() for text in legend.get_texts()] == names
    sizes = [figure.axes[0].get_window_extent().size / figure.dpi for figure in (few, many)]
    assert sizes[0] == pytest.approx(sizes[1])
    many.draw_without_rendering()
    axes, box = many.axes[0].get_tightbbox(), legend.get_window_extent()
    assert 0 <= box.x0 < box.x1 <= many.bbox.x1
    assert 0 <= box.y0 < box.y1 <= axes.y0


@pytest.mark.parametrize("error", [0.004, 0.01, 0.015, 0.02, 0.1])
def test_no_error_bar_is_cut_off(known: Rows, error: float) -> None:
    axes = learning_makers(with_rewards(known, error))["ddpo"]().axes[0]
    ends = [y for bars in axes.containers for bar in bars[2] for segment in bar.get_segments() for _, y in segment]
    low, high = axes.get_ylim()
    known_ends = [end for end in ends if math.isfinite(end)]
    assert known_ends
    assert low < min(known_ends) < max(known_ends) < high


def test_an_axis_is_never_so_short_that_noise_fills_it() -> None:
    low, high = axis([0.600, 0.601], 0.003)
    assert high - low == pytest.approx(0.03)
    low, high = axis([0.5, 0.9], 0.003)
    assert low < 0.5 < 0.9 < high < 0.95
    assert axis([]) == (0.0, 1.0)
    assert min(most([0.6] * 4 + [0.61] * 4 + [0.1])) == 0.6
    assert sparkline([0, 1, 2], 0, 2) == "▁▅█"
    assert sparkline([-9, 9], 0, 1) == "▁█"


@pytest.mark.slow
def test_all_but_the_first_tables_fold(known: Rows) -> None:
    (section,) = document([with_rewards(known)])
    assert [grid.key for grid in section.opened] == ["matrix", "learning"]
    text = markdown([section])
    assert text.index("**Learned:**") < text.index("### Gain over the pretrained model") < text.index("<details>")
    assert text.count("<details>") == text.count("</details>") == len(section.folded)
    page = html([with_rewards(known)])
    assert page.index('class="answers"') < page.index('class="matrix"') < page.index('class="multiples"')
    assert page.index('class="multiples"') < page.index("<summary>Leaderboard")
    assert "<dt>commits</dt>" not in page  # rows that say nothing of a commit


@pytest.mark.slow
def test_every_setting_commit_and_device_is_in_the_page(known: Rows) -> None:
    for row in known.runs:
        row |= {"commit": "abc123-dirty", "device": "cuda", "versions": {"torch": "2"}}
    page = html(known.tables())
    for text in ("abc123-dirty", "cuda", "<dt>rounds</dt><dd>2</dd>", "<dt>lr</dt><dd>0.001</dd>", "torch 2"):
        assert text in page


def test_columns_are_explained() -> None:
    assert explained("is_style, change") == GLOSSARY["is_style"] == explained("is_style")
    assert explained("cell") == ""
    assert {"held-out", "success"} == set(glossary("held-out, success, from 0.1"))
    assert all(meaning.endswith(".") for meaning in GLOSSARY.values())


def test_the_least_effect_of_a_cell_that_may_have_learned_is_that_of_its_own_gain(known: Rows) -> None:
    """vanilla's collapse widens the difference to it a hundredfold, and says nothing of the gain."""
    (cell,) = [
        cell
        for row in known.one().compatibility
        if row.algorithm == "pg"
        for cell in row.cells
        if cell.wrapper == "bpt"
    ]
    assert cell.gain_detectable is not None
    assert cell.detectable is not None
    assert 0.005 < cell.gain_detectable < 0.02 < 0.2 < cell.detectable
    assert said(known)["Cannot be said"].endswith(f"in four experiments of five: {cell.gain_detectable:.4f}")
    (found,) = [row[2] for row in matrix(known.one()).rows if row[0].text == "pg"]
    assert found.detectable == cell.gain_detectable


def test_best_is_said_of_the_cells_in_the_ranking(known: Rows) -> None:
    add(known, "ddpo", "spread", 0.15)  # a control, higher, and without a rank
    assert (
        "ddpo bpt, clipscore 0.690, +0.090 ±0.001 against pretrained, better than every other cell in the ranking"
        in said(known)["Learned"]
    )


def test_a_cell_without_an_interval_is_not_below_what_is_free(known: Rows) -> None:
    baseline(known, "best-of", "best-of-4", 0.72, 4)
    known.add("dpo", "vanilla", 0, {0: 0.6, 1000: 0.95})
    assert said(known)["Without training"].endswith("every cell with an interval is below it")
    rows = Rows()
    rows.add("dpo", "vanilla", 0, {0: 0.6, 1000: 0.95})
    baseline(rows, "best-of", "best-of-4", 0.72, 4)
    (answer,) = [answer for answer in answers(rows.one()) if answer.about == "Without training"]
    assert (answer.text.endswith("no cell has the 3 seeds of an interval to set beside it"), answer.kind) == (
        True,
        "untested",
    )


def test_an_interaction_without_an_answer_is_named() -> None:
    rows = Rows()
    for wrapper, gain in {"vanilla": 0.05, "bpt": 0.09, "bs": 0.01, "b2": 0.05}.items():
        add(rows, "ddpo", wrapper, gain)
    assert "whether BPT and BS do together what they do apart: ddpo" in said(rows)["Cannot be said"]
    rows = Rows()
    for wrapper, gain in {"vanilla": 0.05, "b2": 0.09}.items():
        add(rows, "ddpo", wrapper, gain)
    assert said(rows)["Cannot be said"] == "nothing: every comparison of what was run has an answer"


def test_over_optimised_is_said_of_one_seed_with_reserve(known: Rows) -> None:
    known.add("dpo", "vanilla", 0, {0: 0.6, 1000: 0.62}, heldout={0: 0.5, 1000: 0.499})
    assert said(known)["Over-optimised"] == "so by the signs alone, of fewer than 3 seeds: dpo (vanilla)"
    for seed, noise in enumerate(NOISE):
        after = {0: 0.5, 1000: 0.45 + noise}
        known.add("dpok", "vanilla", seed, {0: 0.6, 1000: 0.65 + noise}, heldout=after)
    assert said(known)["Over-optimised"] == (
        "the trained reward rose and the held-out score fell: dpok (vanilla); so by the signs alone, of fewer than 3 "
        "seeds: dpo (vanilla)"
    )


def test_a_cell_may_be_open_beside_vanilla_and_beside_the_pretrained_model(known: Rows) -> None:
    add(known, "ddpo", "b2", (0.2, -0.1, 0.15, -0.05, 0.05))
    text = said(known)["Cannot be said"]
    assert re.search(r"whether these learned: ddpo \(b2\)", text)
    assert re.search(r"whether these differ from vanilla in the trained reward: ddpo \(b2\)", text)


def test_what_is_free_and_the_highest_are_of_one_test_set(known: Rows) -> None:
    baseline(known, "best-of", "best-of-4", 0.72, 4)
    known.runs[-1]["config"]["settings"] = {"eval_seed": 0}
    for run in known.runs[:-1]:
        run["config"]["settings"] = {"eval_seed": 0}
    before = said(known)
    assert "ddpo bpt, clipscore 0.690" in before["Learned"]
    for seed, noise in enumerate(NOISE):  # an easier one
        scores = {0: 0.9, 1000: 0.98 + noise}
        known.add("dpok", "vanilla", seed, scores, config={"settings": {"eval_seed": 1}})
    baseline(known, "best-of", "best-of-16", 0.99, 16)
    known.runs[-1]["config"]["settings"] = {"eval_seed": 1}
    after = said(known)
    assert "Highest at the end: ddpo bpt, clipscore 0.690" in after["Learned"]
    assert after["Without training"].startswith("best-of-4 (4 queries an image, 1,080 on the test set) has 0.720")
    assert "dpok" not in after["Without training"]
