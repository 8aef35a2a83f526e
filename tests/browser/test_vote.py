"""The page of a preference test in a real browser: it records what raters answer, and the report finds it again."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable
from math import exp
from pathlib import Path
from typing import Any

import pytest
from b2bench.leaderboard.preferences import preferences
from polled import make_runs

from b2bench.cli.vote import Show, add, make
from b2bench.store.store import Store

pytestmark = [pytest.mark.browser, pytest.mark.slow]
SCORES = {"pretrained": -0.8, "ddpo vanilla": 0.1, "ddpo b2": 0.7}
"""What simulated raters prefer, in log-odds with mean 0."""
NO_PREFERENCE = 0.05


@pytest.fixture
def poll(tmp_path: Path) -> Callable[..., tuple[Path, Store]]:
    """Make a page of hand-drawn images; its file and its store."""

    def make_page(**options: Any) -> tuple[Path, Store]:
        store = make_runs(tmp_path)
        out = tmp_path / "a page [of] votes.html"
        cells = ["pretrained,ddpo/vanilla,ddpo/b2"]
        make(cells, out=out, kept=True, runs=tmp_path / "runs", db=store.path, **options)
        return out, store

    return make_page


def begin(page: Any) -> int:
    """Start, or go on, by keyboard; the number of comparisons."""
    page.wait_for_selector("#begin:focus")
    page.keyboard.press("Enter")
    page.wait_for_selector("#images[data-ready]")
    return int(page.inner_text("#count").split()[-1])


def vote(page: Any, decide: Callable[[list[str]], int | None], most: int = 300) -> int:
    """Answer comparisons by keyboard until ``most`` or the end; ``decide`` gets image ids from the left."""
    look = (
        "() => document.getElementById('vote').hidden ? null : [document.querySelector('#images').dataset.ready, "
        "[...document.querySelectorAll('[data-image]')].map((image) => image.dataset.image)]"
    )
    for done in range(most):
        found = page.evaluate(look)
        if found is None:
            return done
        ready, images = found
        place = decide(images)
        page.keyboard.press("0" if place is None else str(place + 1))
        page.wait_for_function(
            "(at) => document.getElementById('vote').hidden"
            " || ![undefined, at].includes(document.querySelector('#images').dataset.ready)",
            arg=ready,
        )
    return most


def downloaded(page: Any, folder: Path) -> Path:
    with page.expect_download() as waiting:
        page.click("#download")
    file = folder / waiting.value.suggested_filename
    waiting.value.save_as(file)
    return file


def key_of(store: Store) -> dict[str, tuple[str, str]]:
    """Image id -> cell and prompt."""
    (row,) = store.ballots()[0]
    every = row["comparisons"].values()
    return {image: (cell, one["prompt"]) for one in every for image, cell in one["images"].items()}


def rater_with(number: int, key: dict[str, tuple[str, str]]) -> Callable[[list[str]], int | None]:
    """A rater who chooses by Bradley and Terry's model, and sees that images are identical.

    What is chosen depends on what is shown, not on its place or when: the page draws those anew in every test.
    """

    def decide(images: list[str]) -> int | None:
        cells = sorted(key[image][0] for image in images)
        draws = random.Random(f"{number} {key[images[0]][1]} {cells}")
        if len(set(images)) == 1 or draws.random() < NO_PREFERENCE:
            return None
        (chosen,) = draws.choices(cells, [exp(SCORES[cell]) for cell in cells])
        return [key[image][0] for image in images].index(chosen)

    return decide


@pytest.mark.parametrize("show", list(Show))
def test_thirty_raters_vote_by_keyboard_and_the_report_recovers_what_they_prefer(
    show: Show, poll: Any, opened: Any, tmp_path: Path
) -> None:
    out, store = poll(show=show)
    key, files = key_of(store), []
    for number in range(30 if show is Show.pairs else 8):
        page = opened(out)
        total = begin(page)
        assert vote(page, rater_with(number, key)) == total
        files.append(downloaded(page, tmp_path))
        page.context.close()
    clicker = opened(out)
    begin(clicker)
    vote(clicker, lambda images: 0)  # without looking
    files.append(downloaded(clicker, tmp_path))
    add(files, db=store.path)
    polls, votes = store.ballots()
    add(files, db=store.path)
    assert store.ballots() == (polls, votes)
    found = preferences(polls[0], votes)
    assert found.raters == len(files) - 1
    assert [checks.reason for checks in found.left_out] == ["identical"]
    for cell in found.cells:
        assert cell.score.low is not None
        assert cell.score.high is not None
        assert cell.score.low < SCORES[cell.cell] < cell.score.high
    for pair in found.pairs if show is Show.pairs else ():  # of triples, no preference weighs more
        odds = exp(SCORES[pair.first] - SCORES[pair.second])
        assert pair.share.low is not None
        assert pair.share.high is not None
        assert pair.share.low < (1 - NO_PREFERENCE) * odds / (1 + odds) + NO_PREFERENCE / 2 < pair.share.high
    assert [pair.first for pair in found.pairs] == ["ddpo b2", "ddpo b2", "ddpo vanilla"]


def test_two_hundred_votes_survive_closing_in_the_middle(poll: Any, opened: Any, tmp_path: Path) -> None:
    out, store = poll(number=8, checks=40, comparisons=24, noises=1)
    given: dict[str, list[Any]] = {}
    page = opened(out)
    context, total, count = page.context, 0, 0
    draws = random.Random(0)

    def decide(images: list[str]) -> int | None:
        place = draws.choice([0, 1, None])
        given.setdefault(rater(), []).append([images, place])
        return place

    def rater() -> str:
        state = page.evaluate("() => Object.entries(localStorage)")
        return json.loads(state[0][1])["raters"][-1]["rater"]

    while count < 200:
        total = begin(page)
        count += vote(page, decide, most=23)
        if page.is_visible("#end-title"):
            page.click("#another")
            continue
        page.close()
        page = opened(out, context)
        assert re.search(r"\d+ of \d+ answered", page.inner_text("#begin"))
    begin(page)
    page.click("#stop")
    content = json.loads(downloaded(page, tmp_path).read_text())
    assert page.input_value("#answers") == json.dumps(content, separators=(",", ":"))  # the same as text
    recorded = {one["rater"]: [[v["shown"], v["place"]] for v in one["votes"]] for one in content["raters"]}
    assert recorded == given
    assert sum(map(len, recorded.values())) == count >= 200
    assert total < 200
    add([next(tmp_path.glob("votes-*.json"))], db=store.path)
    assert len(store.ballots()[1]) == count


def test_answers_outlive_the_browser(poll: Any, chromium: Any, tmp_path: Path) -> None:
    out, _ = poll(checks=2)
    starts, how = chromium
    for done in range(0, 28, 7):
        context = starts.launch_persistent_context(str(tmp_path / "profile"), **how)
        page = context.new_page()
        page.goto(out.as_uri())
        page.wait_for_selector("#begin:focus")
        assert page.inner_text("#begin") == (f"Continue ({done} of 28 answered)" if done else "Start")
        begin(page)
        assert vote(page, lambda images: 0, most=7) == 7
        context.close()


def test_without_storage_the_page_says_so_and_goes_on(poll: Any, opened: Any, tmp_path: Path) -> None:
    out, _ = poll(checks=0)
    text = out.read_text()
    page = opened(out)
    page.context.add_init_script("Storage.prototype.setItem = () => { throw new Error('full') }")
    page.reload()
    assert "does not keep answers" in page.inner_text("#warning")
    total = begin(page)
    assert vote(page, lambda images: 1) == total
    (one,) = json.loads(downloaded(page, tmp_path).read_text())["raters"]
    assert len(one["votes"]) == total
    assert out.read_text() == text


def test_two_tabs_of_a_page_share_their_answers(poll: Any, opened: Any) -> None:
    out, _ = poll(checks=0)
    first = opened(out)
    second = opened(out, first.context)
    for page in (first, second):
        begin(page)
    for turn in range(3):
        for page in (first, second):
            page.bring_to_front()
            page.wait_for_function(
                f"(at) => +document.querySelector('#progress').value === {2 * turn} + at", arg=int(page is second)
            )
            vote(page, lambda images: 0, most=1)
    state = json.loads(first.evaluate("() => Object.values(localStorage)[0]"))
    assert [len(one["votes"]) for one in state["raters"]] == [6]


def test_a_rater_goes_back_touches_and_is_read_to(poll: Any, opened: Any) -> None:
    out, _ = poll(checks=2)
    page = opened(out, viewport={"width": 375, "height": 667}, has_touch=True, is_mobile=True)
    page.tap("#begin")
    page.wait_for_selector("#images[data-ready='0']")
    page.tap(".image >> nth=1")
    page.wait_for_selector("#images[data-ready='1']")
    page.tap("#back")
    page.wait_for_selector("#images[data-ready='0']")
    assert page.get_attribute(".image >> nth=1", "aria-pressed") == "true"
    assert page.get_attribute(".image >> nth=0", "aria-label") == "Prefer image 1, left"
    page.tap("#tie")  # takes the place of the first answer
    page.wait_for_selector("#images[data-ready='1']")
    assert "Comparison 2 of" in page.inner_text("#live")
    assert page.evaluate("document.activeElement.id") == "prompt"
    assert page.evaluate("document.documentElement.scrollWidth") == 375
    (_, stored), *others = page.evaluate("() => Object.entries(localStorage)")
    (one,) = json.loads(stored)["raters"]
    assert [vote["place"] for vote in one["votes"].values()] == [None]
    assert not others


def test_orders_and_places_differ_by_rater_and_repeats_come_late_with_places_changed(
    poll: Any, opened: Any, tmp_path: Path
) -> None:
    out, store = poll(checks=6)
    orders = []
    for _ in range(2):
        page = opened(out)
        begin(page)
        vote(page, lambda images: None)
        (one,) = json.loads(downloaded(page, tmp_path).read_text())["raters"]
        orders.append({vote["comparison"]: (vote["position"], vote["shown"]) for vote in one["votes"]})
    (row,) = store.ballots()[0]
    assert list(orders[0]) != list(orders[1])
    assert any(orders[0][key][1] != orders[1][key][1] for key in orders[0])
    for order in orders:
        assert sorted(position for position, _ in order.values()) == list(range(len(row["comparisons"])))
        for key, known in row["comparisons"].items():
            if known["kind"] == "repeat":
                (first, shown), (again, turned) = order[known["repeat_of"]], order[key]
                assert again > first + 4
                assert turned == shown[::-1]
