"""The leaderboard's page, from Parquet files to Markdown."""

import re
import shutil
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pytest
import typer
from b2bench.leaderboard.page import leaderboard_page
from b2bench.leaderboard.paper import beside_paper
from b2bench.leaderboard.plan import PLAN
from b2bench.leaderboard.searches import presets_in
from b2bench.leaderboard.selection import problems
from b2bench.leaderboard.tables import tables
from store_rows import run_row
from synthetic import Rows

from b2bench.cli.leaderboard import leaderboard
from b2bench.config.run import cell_hash, stored_hash
from b2bench.describe.tables import tables_of
from b2bench.errors import UserError
from b2bench.store.parquet import export_results, import_results
from b2bench.store.store import Store

NOISE = (0.001, -0.001, 0.0005, -0.0005, 0.0)
ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("results")
    store = Store(folder / "b.duckdb")
    for seed, noise in enumerate(NOISE[:3]):
        for wrapper, gain in (("vanilla", 0.05), ("b2", 0.09)):
            run_id = f"{wrapper}-{seed}"
            config = {"seed": seed, "wrapper": {"name": wrapper}, "settings": {"eval_seed": 0, "note": "<script>"}}
            hashed = cell_hash(config)
            store.start_run(run_row(run_id, name=run_id, wrapper=wrapper, seed=seed, config=config, config_hash=hashed))
            for queries in (0, 1000):
                value = 0.6 + (gain + noise) * (queries > 0)
                row = {"queries": queries, "split": "test", "metric": "clipscore", "value": value, "n": 6}
                store.record_evals(run_id, [row | {"settings": None}])
            store.finish_run(run_id, "done")
    profile = {name: run_row()[name] for name in ("benchmark_version", "backbone", "reward", "prompts", "prompts_hash")}
    profile |= {"profile_id": "p", "started": datetime(2026, 11, 28), "split": "train", "seed": 0}
    profile |= {"settings": {"steps": 20}, "branches": 48, "leaves": 5}
    store.record_profile(
        [
            profile | {"tau": tau, "metric": metric, "value": value, "low": value - 0.01, "high": value + 0.01}
            for tau, share in ((14, 0.8), (10, 0.3))
            for metric, value in (("open_share", share), ("within_sd", 0.1), ("total_sd", 0.1), ("range", 0.2))
        ]
    )
    export_results(store, folder / "results")
    return folder / "results"


@pytest.mark.slow
def test_the_same_files_give_the_same_page_and_a_changed_page_is_found(
    results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "README.md"
    leaderboard(results, out=page)
    first = page.read_bytes()
    leaderboard(results, out=page)
    assert page.read_bytes() == first
    leaderboard(results, out=page, check=True)
    text = first.decode()
    for words in (
        "**Learned:** 2 of 2 cells: ddpo (vanilla, b2)",
        "- B2 improves alignment at equal queries (b2 − vanilla): **supported here**: ddpo.",
        "- *ddpo*: **supported here**, +0.0200",
        "Settings: none of 2 cells tuned",
        "**Room for B2:** with 14 of 20 steps to go, where bpt and b2 begin, most of the reward is open: 80%",
        "## Validity card",
        "0.5 − share of variance open at tau = 10 of 20",
        "### The paper's table 1: inception score (template1)",
        "## Add a row",
    ):
        assert words in text
    page.write_text(text + " ")
    with pytest.raises(typer.Exit):
        leaderboard(results, out=page, check=True)
    assert "try b2bench leaderboard" in capsys.readouterr().err
    assert "There are no results" in leaderboard_page([], version="3")


@pytest.mark.slow
def test_a_page_with_figures_is_checked_as_one_and_nothing_is_written(
    results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page, figures = tmp_path / "README.md", tmp_path / "figures"
    leaderboard(results, out=page, figures=True)
    assert "](figures/learning-of-ddpo.svg)" in page.read_text()
    for figure in figures.glob("*.pdf"):  # which no page shows
        figure.unlink()
    leaderboard(results, out=page, check=True)
    assert not list(figures.glob("*.pdf"))

    def stale(name: str, text: str) -> str:
        (figures / name).write_text(text)
        with pytest.raises(typer.Exit):
            leaderboard(results, out=page, check=True)
        return " ".join(capsys.readouterr().err.split())

    drawn = (figures / "learning-of-ddpo.svg").read_text()
    assert "(learning-of-ddpo.svg); try b2bench leaderboard --figures" in stale("learning-of-ddpo.svg", drawn + " ")
    other_version = re.sub(r"Matplotlib v[\w.]+", "Matplotlib v3.0.0", drawn)
    (figures / "learning-of-ddpo.svg").write_text(other_version)
    leaderboard(results, out=page, check=True)
    (figures / "learning-of-ddpo.svg").unlink()
    assert "learning-of-ddpo.svg, planned-contrasts.svg" in stale("planned-contrasts.svg", "")
    assert not (figures / "learning-of-ddpo.svg").exists()


def test_a_page_says_which_cells_are_tuned() -> None:
    """A preset of ``b2bench tune`` names the seeds of its search; a published one has none."""
    tuned, published = {"name": "tuned", "tuning_seeds": [1000]}, {"name": "paper"}
    for presets, words in (
        ({"vanilla": tuned, "b2": published}, "1 of 2 cells tuned (ddpo vanilla); the other"),
        ({"vanilla": tuned, "b2": tuned}, "Settings: tuned, by one protocol"),
    ):
        rows = Rows()
        for wrapper, preset in (presets | {"random2": tuned}).items():  # a control makes no claim, and is not counted
            for seed, noise in enumerate(NOISE):
                rows.add("ddpo", wrapper, seed, {0: 0.6, 1000: 0.65 + noise}, config={"preset": preset})
        assert words in leaderboard_page(tables(rows.runs, rows.evals, rows.rounds))


def claims(gains: dict[str, float], **more: dict[int, float]) -> str:
    rows = Rows()
    for wrapper, gain in gains.items():
        for seed, noise in enumerate(NOISE):
            sign = 1 if wrapper == "vanilla" else -1
            held = {0: 0.5, 1000: 0.5 - (0.1 if wrapper in more else 0.0) + noise}
            rows.add("ddpo", wrapper, seed, {0: 0.6, 1000: 0.6 + gain + sign * noise}, heldout=held)
    return leaderboard_page(tables(rows.runs, rows.evals, rows.rounds))


def test_claims_of_the_paper_are_judged_by_the_preregistered_rules() -> None:
    page = claims({"vanilla": 0.05, "bpt": 0.09, "bs": 0.01, "b2": 0.0501})
    assert line_of(page, "bpt − vanilla").startswith("- *ddpo*: **supported here**, +0.0200 [+0.0")
    assert line_of(page, "bs − vanilla").startswith("- *ddpo*: **not supported**, the opposite is shown, −0.0200")
    assert line_of(page, "b2 − vanilla").startswith("- *ddpo*: **not supported**, shown to be equal, +0.0000")
    assert "p of equality" in line_of(page, "b2 − vanilla")
    assert " in the area of gain, 5 seeds, p " in line_of(page, "bpt − vanilla")
    for said, verdict in (("bpt", "**supported here**"), ("bs", "**not supported**, the opposite is shown")):
        assert f"({said} − vanilla): {verdict}: ddpo." in page  # the sentence of all algorithms
    open_ = line_of(claims({"vanilla": 0.0, "b2": 0.0004}), "b2 − vanilla")
    assert open_.startswith("- *ddpo*: **undecided**, +0.0002")
    assert "all that vanilla gained" not in open_
    assert "all that vanilla gained (+0.0010)" in line_of(claims({"vanilla": 0.002, "b2": 0.0024}), "b2 − vanilla")
    assert "(vanilla itself is not shown to learn)" in open_
    worse = line_of(claims({"vanilla": 0.05, "b2": 0.09}, b2={}), "b2 − vanilla")
    assert worse.startswith("- *ddpo*: **undecided**, +0.0200")
    assert "and worse in another measure; beside it worse in the held-out score (−0.100, p" in worse


def line_of(page: str, contrast: str, said: str = "improves") -> str:
    """What one algorithm says of a claim: the line below the claim's own, among those that are folded."""
    folded = page.split("Each claim, algorithm by algorithm</summary>")[1].splitlines()
    (place,) = [i for i, line in enumerate(folded) if line.endswith(f"({contrast}):") and said in line]
    return folded[place + 2]


def test_a_claim_says_how_many_optimizer_steps_it_was_made_with() -> None:
    rows = Rows()
    for wrapper, steps in (("vanilla", 40), ("b2", 10)):
        for seed, noise in enumerate(NOISE):
            rows.add("ddpo", wrapper, seed, {0: 0.6, 1000: 0.65 + noise}, steps=steps // 2)
    page = leaderboard_page(tables(rows.runs, rows.evals, rows.rounds))
    assert "10 of vanilla's 40 optimizer steps" in line_of(page, "b2 − vanilla")
    assert "The wrapper took 25% of vanilla's optimizer steps." in page
    rows.runs[-1]["status"] = "failed"  # it may have stopped early, and says nothing of the wrapper
    assert "optimizer steps" not in line_of(
        leaderboard_page(tables(rows.runs, rows.evals, rows.rounds)), "b2 − vanilla"
    )


def test_what_b2_changed_in_the_papers_tables_stands_beside_what_it_changed_here() -> None:
    rows = Rows()
    for wrapper, gain, style in (("vanilla", 0.05, 2.4), ("b2", 0.03, 2.5)):
        for seed, noise in enumerate(NOISE):
            scores = {0: 0.6, 1000: 0.6 + gain + noise * (wrapper == "b2")}
            rows.add("ddpo", wrapper, seed, scores, style={0: 2.6, 1000: style + noise})
    (group,) = tables(rows.runs, rows.evals, rows.rounds)
    found = beside_paper(group)
    texts = [[cell.text for cell in row] for row in found.rows]
    assert texts[0][:4] == ["1: inception score", "ddpo", "+0.0241", "is_style"]
    assert (texts[0][5], texts[1][5]) == ("the same", "the other")
    assert texts[0][6].startswith("−0.0200 ±")  # more diverse, and gained less
    assert texts[1][0] == "3: CLIPScore on unseen prompts"
    other = replace(group, head=replace(group.head, context=replace(group.head.context, prompts="mine")))
    assert beside_paper(other).rows == ()
    of_paper = replace(group.head.context, backbone="sd14")
    assert beside_paper(replace(group, head=replace(group.head, context=of_paper))).rows == ()


@pytest.mark.parametrize(
    ("kept", "spread", "words"),
    [
        (0.1, 1, "**supported here**, +0.100 [+0.099, +0.101] in style entropy (nats) at the end, 5 seeds, p "),
        (-0.1, 1, "**not supported**, the opposite is shown, −0.100"),
        (0.01, 20, "**undecided**, +0.010"),
    ],
)
def test_what_the_paper_says_of_diversity_is_judged_too(kept: float, spread: float, words: str) -> None:
    for gain in (0.05, 0.01):
        rows = Rows()
        for seed, noise in enumerate(NOISE):
            for wrapper, gained, left in (("vanilla", 0.05, 1.2), ("b2", gain, 1.2 + kept + spread * noise)):
                entropy = {0: 1.3, 1000: left}
                rows.add("ddpo", wrapper, seed, {0: 0.6, 1000: 0.6 + gained + noise}, entropy=entropy)
        page = leaderboard_page(tables(rows.runs, rows.evals, rows.rounds))
        line = line_of(page, "b2 − vanilla", "keeps more diversity")
        assert line.startswith(f"- *ddpo*: {words}")
        assert ("(B2 gained less there: ddpo)" in page) == (gain < 0.05 and kept == 0.1)
        assert ("it gained less of the reward, too" in line) == (gain < 0.05 and kept > 0)


def test_a_page_explains_its_words_and_introduces_its_card(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PLAN, "queries", 1000)  # as these runs have
    page = claims({"vanilla": 0.05, "b2": 0.09})
    words = page.split("## Words")[1]
    assert "- **area of gain**" in words
    assert "- **from**" not in words
    assert "Of 8 signs of that, 0 pass, 0 fail, 8 are undecided" in page
    assert "asked at equal tuning; of that, none of its algorithms has all runs here yet." in page
    assert "no run was evaluated between its start and its end" in page
    rows = Rows()
    for seed, noise in enumerate(NOISE):
        rows.add("ddpo", "vanilla", seed, {0: 0.6, 500: 0.61, 1000: 0.65 + noise})
    assert "no run was evaluated between" not in leaderboard_page(tables(rows.runs, rows.evals, rows.rounds))


def test_the_published_results_are_whole_and_the_committed_page_is_what_they_give(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What ``b2bench report --check --seeds 0-2`` asks of them: each cell has three seeds or more, and none failed.

    Both at once, since their import takes most of the time.
    """
    results, store = ROOT / "leaderboard" / "results", Store(tmp_path / "published.duckdb")
    import_results(store, results, stored_hash)
    assert problems(tables_of(store, planned=range(3))) == []
    cell = store.runs(algorithm="ddpo", wrapper="vanilla")[0]["config_hash"]
    few = Store(tmp_path / "few.duckdb")  # a comparison of all cells with itself takes seconds
    few.insert_runs(store.whole_runs(run["run_id"] for run in store.runs(config_hash=cell)))
    assert any("lacks seeds" in text for text in problems(tables_of(few, planned=range(99))))

    def imported(into: Store, folder: Path, _: object) -> None:
        assert folder == results
        shutil.copyfile(store.path, into.path)

    monkeypatch.setattr("b2bench.store.parquet.import_results", imported)
    leaderboard(results, out=ROOT / "leaderboard" / "README.md", check=True)


def test_the_front_page_has_the_numbers_of_the_leaderboard() -> None:
    """Each row of its table is the first columns of a row there; the claims that it counts are those of the page."""
    front, page = ((ROOT / name / "README.md").read_text(encoding="utf-8") for name in ("", "leaderboard"))
    section = front[front.index("## Results so far") : front.index("## Algorithms and wrappers")]
    head, _, *rows = [line for line in section.splitlines() if line.startswith("|")]
    there = [line.strip("| ").split(" | ") for line in page.splitlines()]
    columns = head.strip("| ").split(" | ")
    assert columns in [found[: len(columns)] for found in there]
    assert len(rows) >= 4
    for row in rows:
        algorithm, *cells = row.strip("| ").split(" | ")
        assert cells in [found[1 : len(columns)] for found in there if found[0].split(" ")[0] == algorithm]
    (claims,) = re.findall(r"all (\d+)\s+claims", section)
    assert f"after Holm over {claims} claims" in page


def test_contexts_of_two_rewards_have_each_their_claims() -> None:
    rows = Rows()
    for reward, gain in (("clipscore", 0.01), ("aesthetic", 0.09)):
        for seed, noise in enumerate(NOISE):
            rows.add("ddpo", "vanilla", seed, {0: 0.6, 1000: 0.65 + noise}, reward=reward)
            rows.add("ddpo", "b2", seed, {0: 0.6, 1000: 0.6 + gain - noise}, reward=reward)
    evals = rows.evals + [row | {"metric": "aesthetic"} for row in rows.evals if row["metric"] == "clipscore"]
    page = leaderboard_page(tables(rows.runs, evals, rows.rounds))
    seen = page[page.index("## What the paper says") : page.index("\n## b2bench")]
    first, second = (seen.index(f"reward {name} ") for name in ("aesthetic", "clipscore"))
    assert first < seen.index("**supported here**: ddpo") < second < seen.index("**not supported**")


def test_a_contrast_that_is_open_is_undecided_though_all_seeds_fell() -> None:
    rows = Rows()
    for seed, fall in enumerate((0.1, 0.5, 0.2, 0.4, 0.3)):
        rows.add("pg", "vanilla", seed, {0: 0.6, 1000: 0.6 - fall})
        rows.add("pg", "b2", seed, {0: 0.6, 1000: 0.3 + 0.02 * (seed % 2)})
    page = leaderboard_page(tables(rows.runs, rows.evals, rows.rounds))
    assert line_of(page, "b2 − vanilla").startswith("- *pg*: **undecided**")
    assert "its seeds fell below the pretrained model" in page


TUNED = """
[options]
algo = { value = "ddpo", source = "b2bench tune" }
wrapper = { value = "b2", source = "b2bench tune" }
[set]
lr = { value = 0.002, source = "b2bench tune" }
[algorithm.ddpo]
clip_nats = { value = 0.5, source = "b2bench tune" }
[tuning]
benchmark_version = "3"
sampler = "Sobol points, scipy"
configurations = 8
queries_a_run = 2400
queries = 28800
tuned = 0.75
default = 0.74
gain = -0.002
best_of = { 1 = 0.73, 8 = 0.75 }
collapsed = 2
below_pretrained = 3
[tuning.on]
prompts = "template1"
[tuning.space."run.lr"]
low = 0.0001
[tuning.space."algorithm.clip_nats"]
low = 0.2
"""


def test_a_page_tells_how_cells_were_tuned(tmp_path: Path) -> None:
    (tmp_path / "ddpo-b2.toml").write_text(TUNED)
    (tmp_path / "old.toml").write_text(TUNED.replace('"3"', '"2"'))
    presets = presets_in(tmp_path, "3")
    rows = Rows()
    rows.add("ddpo", "b2", 0, {0: 0.6, 1000: 0.65})
    page = leaderboard_page(rows.tables(), presets=presets)
    numbers = (
        "0.7500 | 0.7400 | −0.0020 | 0.7300 | 0.7500 | 2 of 8 | 3 of 8 | 8 x 2,400, Sobol points | template1 | 28,800 |"
    )
    assert f"| ddpo b2 | lr=0.002, clip_nats=0.5 | {numbers}" in page.replace("\\_", "_")
    assert "Searched, and without runs on this page yet: ddpo b2." in page
    assert "How tuned cells were tuned" not in leaderboard_page(rows.tables())
    tuned = Rows()
    tuned.add("ddpo", "b2", 0, {0: 0.6, 1000: 0.65}, config={"preset": {"name": "tuned", "tuning_seeds": [1000]}})
    assert "Searched, and without" not in leaderboard_page(tuned.tables(), presets=presets)
    assert presets_in(tmp_path / "none", "3") == []


@pytest.mark.parametrize(
    "text",
    [
        "a = " + "[" * 5000,
        "[tuning]",
        "options = 3",
        TUNED.replace("[options]", "[other]"),
        TUNED.replace("{ 1 = 0.73, 8 = 0.75 }", "3"),
        TUNED.replace("{ 1 = 0.73, 8 = 0.75 }", "{ a = 1 }"),
        TUNED.partition("[tuning.space")[0].replace("collapsed = 2", "collapsed = 2\nspace = 3"),
    ],
)
def test_what_is_no_tuned_preset_is_named(text: str, tmp_path: Path) -> None:
    (tmp_path / "odd.toml").write_text(text)
    with pytest.raises(UserError, match=r"odd\.toml is not a tuned preset"):
        presets_in(tmp_path, "3")
