"""``b2bench profile``: table, figure and rows, on pocket and on a backbone that is not."""

import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import b2bench as b2bench_package
from b2bench.config.prompt_sets import load_prompts
from b2bench.store.store import Store

DOCS = Path(__file__).parents[2] / "docs" / "profile.md"
SMALL = ("--taus", "1,3", "--branches", 4, "--leaves", 3, "--set", "steps=3")
BRIGHT = '''
from b2bench.registry import reward

@reward
class Bright:
    """Mean of the pixels."""
    scale: float = 1.0
    """Factor"""

    def __call__(self, images, prompts):
        return self.scale * images.flatten(1).mean(1)
'''


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bright.py").write_text(BRIGHT)
    (tmp_path / "mine.txt").write_text("a cat\na dog riding a bike\n")
    return tmp_path


def numbers(stdout: str, prompts: str = "template1") -> dict[tuple[int, str], float]:
    (found,) = [profile for profile in json.loads(stdout)["profiles"] if profile["prompts"] == prompts]
    return {(row["tau"], row["metric"]): row["value"] for row in found["rows"]}


@pytest.mark.slow
def test_a_profile_of_two_prompt_sets(place: Path, b2bench: Callable[..., Any]) -> None:
    done = b2bench("profile", *SMALL, "--prompts", "template1,mine.txt", "--out", "open.png", "--json")
    assert done.code == 0, done.stderr
    printed = json.loads(done.stdout)
    assert (printed["queries"], printed["figure"]) == (2 * 2 * 4 * 3, "open.png")
    with Image.open("open.png") as image:
        assert image.format == "PNG"

    rows = Store("b2bench.duckdb").profiles()
    assert len(rows) == 2 * 2 * 5  # sets, taus, measures
    for profile in printed["profiles"]:
        mine = [row for row in rows if row["profile_id"] == profile["profile_id"]]
        assert {(row["tau"], row["metric"]): row["value"] for row in mine} == numbers(done.stdout, profile["prompts"])
        assert {(row["branches"], row["leaves"], row["queries"]) for row in mine} == {(4, 3, 24)}
        assert {row["prompts_hash"] for row in mine} == {load_prompts(profile["prompts"]).content_hash}
        assert {(row["backbone"], row["reward"], row["split"], row["seed"], row["lora"]) for row in mine} == {
            ("pocket", "clipscore", "train", 0, None)
        }
        assert {row["settings"]["steps"] for row in mine} == {3}
        versions = {(row["benchmark_version"], row["settings"]["versions"]["b2bench"]) for row in mine}
        assert versions == {(b2bench_package.benchmark_version(), b2bench_package.__version__)}
    shares = [row for row in rows if row["metric"] in ("open_share", "same_style")]
    assert all(0 <= row["low"] <= row["high"] <= 1 for row in shares)

    (query,) = re.findall(r"```sql\n(.*?)```", DOCS.read_text(encoding="utf-8"), flags=re.S)
    found = Store("b2bench.duckdb").sql(query)
    assert [(row["prompts"], row["tau"]) for row in found] == [
        (name, tau) for name in ("template1", "mine.txt") for tau in (3, 1)
    ]

    # A set by itself gives the same numbers, in the table too; the other split gives others.
    alone = b2bench("profile", *SMALL, "--json")
    assert numbers(alone.stdout) == numbers(done.stdout)
    assert json.loads(alone.stdout)["figure"] is None
    table = b2bench("profile", *SMALL, "--prompts", "template1")
    assert table.code == 0, table.stderr
    assert "24 reward queries" in table.stdout
    assert f"{numbers(done.stdout)[3, 'within_sd']:.3f}" in table.stdout
    other = b2bench("profile", *SMALL, "--split", "test", "--json")
    assert numbers(other.stdout) != numbers(done.stdout)
    assert len(Store("b2bench.duckdb").profiles()) == 2 * 10 + 3 * 10


@pytest.mark.slow
def test_a_lora_has_a_profile_of_its_own(
    place: Path, b2bench: Callable[..., Any], make_policy: Callable[..., Any]
) -> None:
    make_policy(rank=2, moved=0.5).save_lora(place / "trained")
    plain, adapted = (b2bench("profile", *SMALL, *more, "--json") for more in ((), ("--lora", "trained")))
    assert adapted.code == 0, adapted.stderr
    assert numbers(plain.stdout) != numbers(adapted.stdout)
    assert {row["lora"] is None for row in Store("b2bench.duckdb").profiles()} == {True, False}


@pytest.mark.slow
def test_any_backbone_that_rolls_out_has_a_profile(
    place: Path, other_pipeline: Path, b2bench: Callable[..., Any]
) -> None:
    options = ("--backbone", other_pipeline, "--reward", "bright", "--plugin", "bright.py", *SMALL)
    one, two = (b2bench("profile", *options, "--set", f"scale={scale}", "--json") for scale in (1, 2))
    assert one.code == 0, one.stderr
    found, doubled = numbers(one.stdout), numbers(two.stdout)
    assert not any(metric == "same_style" for _, metric in found)  # nobody can tell its styles
    assert doubled[3, "range"] == pytest.approx(2 * found[3, "range"])
    assert doubled[3, "open_share"] == pytest.approx(found[3, "open_share"])
    constant = b2bench("profile", *options, "--set", "scale=0")
    assert constant.code == 0, constant.stderr
    assert [line.split()[1] for line in constant.stdout.splitlines() if line.split()[:1] in (["3"], ["1"])] == ["-"] * 2
    rows = Store("b2bench.duckdb").profiles(metric="open_share")
    assert sum(math.isnan(row["value"]) for row in rows) == 2
    assert len(rows) == 6


def test_a_reward_that_answers_nonsense_fails_the_profile(place: Path, b2bench: Callable[..., Any]) -> None:
    done = b2bench("profile", "--reward", "bright", "--plugin", "bright.py", *SMALL, "--set", "scale=1e39")
    assert done.code == 1
    assert "run failed: reward bright returned 12 scores that are not finite" in done.stderr
    assert not (place / "b2bench.duckdb").exists()
