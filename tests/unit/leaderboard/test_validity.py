"""The validity card on cells of known effects, and the smallest effects that seeds find."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from b2bench.leaderboard.contrasts import CONTRASTS
from b2bench.leaderboard.power import least_effect, pooled, spreads
from b2bench.leaderboard.stats import Paired, detectable
from b2bench.leaderboard.tables import tables
from b2bench.leaderboard.terminal import render_sections
from b2bench.leaderboard.validity import FORWARD, TRAJECTORY, Part, Sign, _digits, card, section
from rich.console import Console
from synthetic import Rows

NOISE = (0.002, -0.002, 0.001, -0.001, 0.0)


def add(rows: Rows, algorithm: str, gain: float, wrapper: str = "vanilla", **settings: Any) -> None:
    for seed, noise in enumerate(NOISE):
        end = 0.6 + gain + (noise if settings.get("samples") != 3 else 20 * noise) * (-1) ** len(algorithm)
        rows.add(
            algorithm, wrapper, seed, {0: 0.6, 500: 0.6 + 0.6 * gain, 1000: end},
            config={"settings": {"eval_seed": 0, **settings}},
            heldout={0: 0.5, 500: 0.5 + gain / 4, 1000: 0.5 + gain / 2 + noise / 10},
            entropy={0: 1.3, 500: 1.3 - gain, 1000: 1.3 - 2 * gain + noise / 10},
        )  # fmt: skip


def verdicts(rows: Rows, profiles: Any = ()) -> dict[int, str]:
    (group,) = tables(rows.runs, rows.evals, rows.rounds)
    return {sign.number: sign.verdict for sign in card(group, profiles)}


def test_every_sign_is_undecided_where_nothing_was_run_and_says_what_is_missing() -> None:
    rows = Rows()
    add(rows, "ddpo", 0.0)
    (group,) = tables(rows.runs, rows.evals, rows.rounds)
    signs = card(group)
    assert [sign.number for sign in signs] == list(range(1, 12))
    assert {sign.verdict for sign in signs[:-1]} == {"undecided"}
    assert all(part.missing for sign in signs for part in sign.parts)
    assert signs[-1].verdict == "fail"  # guidance and best-of-N are not there


def test_signs_pass_where_the_cells_show_them() -> None:
    rows = Rows()
    add(rows, "ddpo", 0.10, advantage="history", samples=5)
    add(rows, "ddpo", 0.13, advantage="loo", samples=5)
    add(rows, "pg", 0.02)
    add(rows, "rwr", 0.05)
    add(rows, "ddpo", 0.15, "bpt")
    add(rows, "ddpo", 0.06, "forward")
    add(rows, "ddpo", 0.12, "b2")
    for wrapper, gain in (("b2", 0.01), ("random2", 0.04)):  # on pairs: no random subset of anything
        add(rows, "dpo", gain, wrapper)
    add(rows, "ddpo", 0.04, "random2")
    add(rows, "awm", 0.20)
    found = verdicts(rows)
    assert {number: found[number] for number in (1, 5, 6, 8, 10)} == dict.fromkeys((1, 5, 6, 8, 10), "pass")
    assert found[2] == "undecided"  # ddpo is above rwr, but raft was not run


def test_a_sign_fails_where_the_cells_show_the_contrary() -> None:
    rows = Rows()
    add(rows, "ddpo", 0.05)
    add(rows, "pg", 0.10)
    add(rows, "ddpo", 0.01, "b2")
    add(rows, "ddpo", 0.04, "random2")
    found = verdicts(rows)
    assert (found[1], found[8]) == ("fail", "fail")


@pytest.mark.parametrize(("kept", "verdict"), [(0.7, "pass"), (0.3, "fail")])
def test_a_kl_keeps_the_held_out_score_where_every_seed_had_the_same_reward(kept: float, verdict: str) -> None:
    """The level is what the weakest seed of both reached: at the smaller mean, half of its cell would lie below it."""
    rows = Rows()
    for seed, noise in enumerate(NOISE):
        of_ddpo, of_dpok = 0.10 + noise, 0.05 + 10 * noise
        held = {name: {0: 0.5, 1000: 0.5 + share * gain + noise / 10} for name, share, gain in
                (("ddpo", 0.5, of_ddpo), ("dpok", kept, of_dpok))}  # fmt: skip
        rows.add("ddpo", "vanilla", seed, {0: 0.6, 1000: 0.6 + of_ddpo}, heldout=held["ddpo"])
        rows.add("dpok", "vanilla", seed, {0: 0.6, 1000: 0.6 + of_dpok}, heldout=held["dpok"])
    (part,) = parts(rows, 4)
    assert part.mean == pytest.approx((kept - 0.5) * (0.05 - 0.02), abs=2e-4)
    assert verdicts(rows)[4] == verdict
    rows.add("dpok", "vanilla", 5, {0: 0.6, 1000: 0.59}, heldout={0: 0.5, 1000: 0.5})
    rows.add("ddpo", "vanilla", 5, {0: 0.6, 1000: 0.70}, heldout={0: 0.5, 1000: 0.55})
    assert parts(rows, 4)[0].missing == "a seed of one of the two did not gain"


@pytest.mark.parametrize(("end", "verdict"), [(0.55, "pass"), (0.70, "fail")])
def test_raft_falls_late_or_does_not(end: float, verdict: str) -> None:
    rows = Rows()
    add(rows, "ddpo", 0.10)
    add(rows, "rwr", 0.02)
    for seed, noise in enumerate(NOISE):
        rows.add("raft", "vanilla", seed, {0: 0.6, 500: 0.65, 1000: end + noise}, config={"settings": {"eval_seed": 0}})
    assert verdicts(rows)[2] == verdict
    assert (parts(rows, 2)[1].mean or 0) == pytest.approx(0.65 - end, abs=1e-3)


def test_what_is_free_stands_there_or_does_not() -> None:
    rows = Rows()
    add(rows, "ddpo", 0.05)
    (group,) = tables(rows.runs, rows.evals, rows.rounds)
    for kinds, verdict in ((("guidance", "best-of"), "pass"), (("best-of",), "fail")):
        beside = replace(group, headroom=tuple(_Free(kind) for kind in kinds))  # type: ignore[misc]
        assert card(beside)[-1].verdict == verdict


@dataclass
class _Free:
    kind: str
    reference: bool = False


def test_of_a_gain_that_is_not_shown_there_is_no_quarter() -> None:
    """awm cannot be no worse by a quarter of what ddpo did not gain."""
    rows = Rows()
    for seed, noise in enumerate(NOISE):
        rows.add("ddpo", "vanilla", seed, {0: 0.6, 1000: 0.604 + 5 * noise})
        rows.add("awm", "vanilla", seed, {0: 0.6, 1000: 0.604 + 5 * noise + noise / 100})
    assert parts(rows, 6)[0].margin is None
    assert verdicts(rows)[6] == "undecided"
    add(other := Rows(), "ddpo", 0.05)
    add(other, "awm", 0.05)
    assert parts(other, 6)[0].margin == pytest.approx(0.05 / 4, abs=1e-3)


def test_smaller_groups_that_spread_more_are_less_stable() -> None:
    rows = Rows()
    add(rows, "ddpo", 0.05, samples=3)
    add(rows, "ddpo", 0.05, samples=12)
    assert verdicts(rows)[3] == "pass"


@pytest.mark.parametrize(("low", "high", "verdict"), [(0.1, 0.3, "pass"), (0.6, 0.7, "fail"), (0.4, 0.6, "undecided")])
def test_when_the_reward_is_decided_comes_from_profiles_of_the_pretrained_model(
    low: float, high: float, verdict: str
) -> None:
    rows = Rows()
    add(rows, "ddpo", 0.05)
    names = ("benchmark_version", "backbone", "reward", "prompts_hash")
    row = {name: rows.runs[0][name] for name in names} | {
        "metric": "open_share", "lora": None, "tau": 10, "settings": {"steps": 20},
        "value": (low + high) / 2, "low": low, "high": high, "branches": 48,
    }  # fmt: skip
    assert verdicts(rows, [row])[9] == verdict
    assert verdicts(rows, [row | {"prompts_hash": "other"}])[9] == "undecided"
    assert verdicts(rows, [row | {"lora": "mine"}])[9] == "undecided"
    assert verdicts(rows, [row | {"value": None}])[9] == "undecided"  # others may have written it


def test_a_sign_needs_all_of_its_parts_and_fails_by_one() -> None:
    good, bad, none = Part("", 0.1, p_adjusted=0.01), Part("", -0.1, p_adjusted=0.01), Part("", missing="not run")
    assert Sign(1, "", (good, good), 0.05).verdict == "pass"
    assert Sign(1, "", (good, none), 0.05).verdict == "undecided"
    assert Sign(1, "", (none, bad), 0.05).verdict == "fail"
    assert Part("", -0.01, -0.02, 0.0, p_adjusted=0.2, margin=0.03).verdict(0.05) == "pass"
    assert Part("", -0.01, -0.04, 0.02, p_adjusted=0.2, margin=0.03).verdict(0.05) == "undecided"


def test_the_card_is_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    rows = Rows()
    add(rows, "ddpo", 0.05)
    (group,) = tables(rows.runs, rows.evals, rows.rounds)
    render_sections([section(group)], Console(width=200))
    assert "1 pass, 1 fail, 9 undecided" in " ".join(capsys.readouterr().out.split())


def test_least_effects_follow_from_the_spread() -> None:
    rows = Rows()
    add(rows, "ddpo", 0.05)
    add(rows, "ddpo", 0.05, "b2")
    (found, other) = spreads(rows.tables())
    assert len(found.ends) == len(other.areas) == 5
    sd, df = pooled([found.ends, other.ends])
    assert (sd, df) == (pytest.approx(0.001581, abs=1e-5), 8)
    delta = Paired(0.0, None, None, 10, error=sd * (2 / 10) ** 0.5, df=9)
    assert least_effect(sd, "b2", 10) == pytest.approx(detectable(delta))
    assert least_effect(sd, "interaction", 10) == pytest.approx(2**0.5 * (least_effect(sd, "b2", 10) or 0))
    assert set(CONTRASTS) == {"bpt", "bs", "interaction", "b2"}
    with pytest.raises(ValueError, match="two seeds"):
        pooled([[1.0]])


def parts(rows: Rows, number: int) -> tuple[Part, ...]:
    (group,) = tables(rows.runs, rows.evals, rows.rounds)
    return next(sign.parts for sign in card(group) if sign.number == number)


def test_diversity_is_asked_of_the_settings_that_learned() -> None:
    rows = Rows()
    add(rows, "ddpo", 0.10)
    before = parts(rows, 5)[0].mean
    for seed in range(5):
        rows.add(
            "ddpo", "vanilla", seed, {0: 0.6, 1000: 0.3 - 0.01 * seed}, entropy={0: 1.3, 1000: 1.8},
            config={"lr": 0.1, "settings": {"eval_seed": 0}},
        )  # fmt: skip
    assert parts(rows, 5)[0].mean == before == pytest.approx(0.2, abs=0.001)


def test_an_upper_reference_has_no_say_in_what_learning_costs() -> None:
    rows = Rows()
    for seed, noise in enumerate(NOISE):
        for algorithm, change in (("ddpo", -0.1), ("draft1", 0.4)):
            entropy = {0: 1.0, 1000: 1.0 + change + noise}
            rows.add(algorithm, "vanilla", seed, {0: 0.6, 1000: 0.7 + noise}, entropy=entropy)
    (part,) = parts(rows, 5)
    assert part.mean == pytest.approx(0.1)


def test_a_square_is_written_with_digits_that_are_not_zero() -> None:
    assert _digits(Part("square", -5.0e-5, -1.7e-4, 0.7e-4)) == 5
    assert _digits(Part("gain", 0.005, -0.001, 0.011)) == 4
    assert _digits(Part("nothing", missing="not run")) == 4


def test_of_several_cells_of_a_group_size_the_one_with_most_seeds_counts() -> None:
    rows = Rows()
    add(rows, "ddpo", 0.05, samples=3)
    add(rows, "ddpo", 0.05, samples=12)
    for lr in (1e-5, 9.0):
        rows.add(
            "ddpo", "vanilla", 0, {0: 0.6, 1000: 0.7}, config={"settings": {"eval_seed": 0, "samples": 3, "lr": lr}}
        )
    assert verdicts(rows)[3] == "pass"


def test_of_two_cells_of_a_group_size_with_as_many_seeds_the_latest_counts() -> None:
    """As for every sign: its settings may stand anywhere in the alphabet."""
    rows = Rows()
    add(rows, "ddpo", 0.05, samples=3, lr=9.0)
    add(rows, "ddpo", 0.05, samples=12, lr=9.0)
    assert verdicts(rows)[3] == "pass"
    for seed, noise in enumerate(NOISE):
        settings = {"eval_seed": 0, "samples": 3, "lr": 0.001}
        rows.add("ddpo", "vanilla", seed, {0: 0.6, 500: 0.63, 1000: 0.65 + noise}, config={"settings": settings})
    assert verdicts(rows)[3] == "undecided"


def test_a_failed_run_counts_and_takes_nothing_from_the_others() -> None:
    rows = Rows()
    add(rows, "ddpo", 0.05)
    add(rows, "awm", 0.20)
    whole = parts(rows, 6)[0]
    rows.add("awm", "vanilla", 5, {0: 0.6}, status="failed", config={"settings": {"eval_seed": 0}})
    rows.add("ddpo", "vanilla", 5, {0: 0.6, 500: 0.63, 1000: 0.65}, config={"settings": {"eval_seed": 0}})
    found = parts(rows, 6)[0]
    assert (whole.n, found.n) == (5, 6)
    assert found.mean == pytest.approx((5 * (whole.mean or 0) - 0.05) / 6, abs=0.002)


def test_a_value_that_is_missing_leaves_no_test_and_no_traceback() -> None:
    rows = Rows()
    add(rows, "ddpo", 0.05)
    add(rows, "ddpo", 0.09, "b2")
    add(rows, "ddpo", 0.05, "random2")
    assert parts(rows, 8)[0].p is not None
    rows.add("ddpo", "b2", 5, {0: 0.6, 1000: None}, config={"settings": {"eval_seed": 0}})
    rows.add("ddpo", "random2", 5, {0: 0.6, 1000: 0.6}, config={"settings": {"eval_seed": 0}})
    assert (parts(rows, 8)[0].missing, parts(rows, 8)[0].p) == ("a value is missing", None)
    rows.evals = [row for row in rows.evals if row["metric"] != "clipscore"]
    assert verdicts(rows)[8] == "undecided"


def test_a_failed_run_takes_no_sign_away() -> None:
    """Without an evaluation it counts with the pretrained model's score, and with its last one if that is missing."""
    rows = Rows()
    for name, gain in (("ddpo", 0.05), ("rwr", 0.01), ("raft", 0.02), ("dpok", 0.06)):
        add(rows, name, gain)
    ddpo_rwr, raft = parts(rows, 2)
    (kl,) = parts(rows, 4)
    failed = {"status": "failed", "config": {"settings": {"eval_seed": 0}}}
    rows.add("rwr", "vanilla", 5, {}, **failed)
    rows.add("ddpo", "vanilla", 5, {0: 0.6, 500: 0.63, 1000: 0.65}, config=failed["config"])
    for name in ("raft", "dpok"):
        rows.add(name, "vanilla", 5, {0: 0.6, 500: 0.61, 1000: None}, **failed)
    later = [*parts(rows, 2), *parts(rows, 4)]
    for before, after in zip((ddpo_rwr, raft, kl), later, strict=True):
        assert after.mean is not None, after
        assert (after.n, after.missing) == (before.n + 1, "")


def test_a_failed_run_without_an_evaluation_counts_in_every_sign() -> None:
    """As one that stayed where the pretrained model is."""
    rows = Rows()
    for name, gain in (("ddpo", 0.05), ("rwr", 0.01), ("raft", 0.02), ("dpok", 0.06), ("awm", 0.07)):
        add(rows, name, gain)
    numbers = (2, 4, 5, 6)
    before = [part for number in numbers for part in parts(rows, number)]
    for name in ("raft", "dpok", "awm"):
        rows.add(name, "vanilla", 5, {}, status="failed", config={"settings": {"eval_seed": 0}})
    for name in ("ddpo", "rwr"):
        at = {0: 0.6, 500: 0.63, 1000: 0.65}
        rows.add(name, "vanilla", 5, at, config={"settings": {"eval_seed": 0}}, entropy={0: 1.3, 500: 1.2, 1000: 1.1})
    after = [part for number in numbers for part in parts(rows, number)]
    assert len(before) == len(after) == 5
    for one, other in zip(before, after, strict=True):
        assert other.missing == ""
        assert other.n == one.n + 1


def test_no_worse_by_a_margin_is_asked_before_worse() -> None:
    """A loss that is shown, and is smaller than what counts as one."""
    assert Part("", -0.010, -0.015, -0.005, 5, p_adjusted=0.01, margin=0.02).verdict(0.05) == "pass"
    assert Part("", -0.010, -0.025, -0.005, 5, p_adjusted=0.01, margin=0.02).verdict(0.05) == "fail"


def test_no_worse_takes_a_margin_above_zero() -> None:
    assert Part("", 0.01, 0.001, 0.02, p_adjusted=0.3, margin=0.0).verdict(0.05) == "undecided"


@pytest.mark.parametrize("seeds", [3, 5])
def test_equal_losses_and_likelihoods_are_no_sign_of_anything(seeds: int) -> None:
    """Sign 7 on cells that differ by noise alone, and on likelihoods that do differ while losses do not."""
    drawn, found = np.random.default_rng(seeds), []
    for apart in [0.0] * 40 + [0.5]:
        rows = Rows()
        for algorithm in (*TRAJECTORY, *FORWARD):
            for seed in range(seeds):
                gain = apart * (algorithm in FORWARD) + float(drawn.normal(0, 0.01))
                rows.add(algorithm, "vanilla", seed, {0: 0.6, 1000: 0.6 + gain}, config={"settings": {"eval_seed": 0}})
        found.append(parts(rows, 7)[0])
    alone = [part.p for part in found[:-1]]
    assert sum(p is not None and p < 0.05 for p in alone) <= 3
    assert (found[-1].mean or 0) == pytest.approx(0.25**2 / 4, rel=0.2)
    assert (found[-1].p or 1) < 0.01
