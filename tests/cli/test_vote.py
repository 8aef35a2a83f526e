"""``b2bench vote``, as a person types it: a page, files that come back, and reports."""

import json
from pathlib import Path

import pytest
from polled import make_runs

from b2bench.store.store import Store


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.chdir(tmp_path)
    return make_runs(tmp_path, seeds=(0,))


def rater_file(store: Store, number: int, chooses: str = "ddpo b2") -> Path:
    """What a rater's browser would have downloaded who prefers one cell."""
    (poll,) = store.ballots()[0]
    votes = []
    for position, (key, one) in enumerate(poll["comparisons"].items()):
        shown = list(one["images"]) if one["kind"] != "identical" else list(one["images"]) * 2
        cells = [one["images"][image] for image in shown]
        place = cells.index(chooses) if chooses in cells and one["kind"] != "identical" else None
        votes.append(
            {"comparison": key, "position": position, "shown": shown, "place": place, "milliseconds": 700 + position}
        )
    content = {"format": "b2bench votes", "version": 1, "poll": poll["poll_id"]}
    file = Path(f"votes-{number}.json")
    file.write_text(json.dumps(content | {"raters": [{"rater": f"{number:024x}", "votes": votes}]}))
    return file


@pytest.mark.slow
def test_from_a_page_to_a_report(b2bench, store) -> None:
    assert "no preference test" in b2bench("vote", "show").stdout
    made = b2bench(
        "vote", "make", "--cells", "pretrained,ddpo/vanilla", "--cells", "ddpo/b2", "--kept", "--out", "v.html"
    )
    assert made.code == 0
    assert "24 comparisons of pretrained, ddpo vanilla, ddpo b2, and 6 identical and 6 repeated" in made.stdout
    assert Path("v.html").stat().st_size > 20_000
    assert "has no votes yet" in b2bench("vote", "show").stdout
    plain = b2bench("report").stdout
    assert "Human" not in plain
    files = [rater_file(store, number) for number in range(4)]
    added = b2bench("vote", "add", *files, "--json")
    assert json.loads(added.stdout)["new"] == 4 * 36
    again = b2bench("vote", "add", *files)
    assert again.stdout.startswith("0 new votes of 0 raters")
    shown = b2bench("vote", "show").stdout
    assert "ddpo b2 over pretrained" in shown
    assert "1.000 [1.000, 1.000]" in shown
    (found,) = json.loads(b2bench("vote", "show", "poll-", "--json").stdout)
    assert (found["raters"], found["left_out"]) == (4, [])
    terminal = b2bench("report").stdout
    assert terminal.startswith(plain)
    assert "Human preferences" in terminal
    for form in ("markdown", "html", "csv", "latex"):
        text = b2bench("report", "--format", form).stdout
        assert "Preferences of raters" in text or "votes_pairs" in text
    assert "Human" not in b2bench("report", "--where", "prompts=template2").stdout
    assert isinstance(json.loads(b2bench("report", "--json").stdout), list)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("make", "--cells", "pretrained,ddpo/b3", "--kept"), "no finished run of ddpo/b3"),
        (("make", "--cells", "pretrained,ddpo/b2"), "has no weights"),
        (("make", "--cells", "pretrained,ddpo/b2", "--kept", "--out", "no/v.html"), "the folder no does not exist"),
        (("make", "--cells", "pretrained,ddpo/b2", "--kept", "--out", "."), "--out . is a folder"),
        (("make", "--cells", "pretrained,ddpo/b2", "--kept", "--show", "triples"), "try --show pairs"),
        (("make", "--cells", "pretrained,ddpo/b2", "--kept", "--prompts", "template9"), "no finished run of ddpo/b2"),
        (("make", "--cells", "pretrained,ddpo/b2", "--kept", "--seeds", "7"), "no finished run of seed 7"),
        (("add", "nothing.json"), "nothing.json cannot be read"),
        (("add", "b2bench.duckdb"), "is not a file of votes"),
        (("show", "poll-x"), "holds no preference test 'poll-x'"),
    ],
)
def test_mistakes_are_one_line(b2bench, store, arguments, reason) -> None:
    before = sorted(Path().rglob("*"))
    found = b2bench("vote", *arguments)
    assert found.code == 2
    assert found.stdout == ""
    assert reason in found.stderr
    assert len(found.stderr.strip().splitlines()) == 1
    assert sorted(Path().rglob("*")) == before
    assert store.ballots() == ([], [])


def test_one_damaged_file_adds_none(b2bench, store) -> None:
    assert b2bench("vote", "make", "--cells", "pretrained,ddpo/b2", "--kept").code == 0
    good = rater_file(store, 1)
    bad = Path("bad.json")
    bad.write_text(good.read_text()[:-30])
    assert b2bench("vote", "add", good, bad).code == 2
    assert store.ballots()[1] == []


@pytest.mark.slow
def test_a_page_that_cannot_be_written_leaves_no_test_without_votes(b2bench, store, monkeypatch) -> None:
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    refused = b2bench("vote", "make", "--cells", "pretrained,ddpo/b2", "--kept", "--out", "v.html")
    assert (refused.code, "v.html cannot be written: No space left on device" in refused.stderr) == (2, True)
    assert store.ballots()[0] == []
    assert not Path("v.html").exists()
