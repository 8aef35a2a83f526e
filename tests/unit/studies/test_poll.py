"""Preference tests: which cells and comparisons, what the page says and hides, and what files of votes may hold."""

from __future__ import annotations

import base64
import io
import json
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pytest
from PIL import Image, PngImagePlugin
from polled import PROMPTS, make_runs, picture

from b2bench.errors import UserError
from b2bench.store.parquet import export_results, import_results
from b2bench.store.store import Store
from b2bench.studies.ballots import differing, read_votes
from b2bench.studies.poll import Poll, PollCell, chosen_cells, make_poll
from b2bench.studies.poll_images import Kept, check_weights, data_urls
from b2bench.studies.poll_page import page

CELLS = ["pretrained", "ddpo/vanilla", "ddpo/b2"]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return make_runs(tmp_path)


def poll_of(store: Store, cells: list[str] = CELLS, **options: Any) -> Poll:
    chosen = chosen_cells(store, cells, {})
    return make_poll(chosen, Kept(store, chosen, store.path.parent / "runs").shown(8, 1), **options)


# -- cells and comparisons --------------------------------------------------------------------------


@pytest.mark.slow
def test_cells_have_the_runs_of_the_seeds_that_all_have(tmp_path: Path) -> None:
    store = make_runs(tmp_path, seeds=(0, 1, 2))
    store.finish_run("ddpo-b2-s2", "interrupted")
    cells = chosen_cells(store, CELLS, {})
    assert [(cell.name, [run["seed"] for run in cell.runs]) for cell in cells] == [
        ("pretrained", []), ("ddpo vanilla", [0, 1]), ("ddpo b2", [0, 1]),
    ]  # fmt: skip
    (_, one) = chosen_cells(store, ["pretrained", "ddpo-b2-s1"], {})
    assert (one.name, [run["seed"] for run in one.runs]) == ("ddpo-b2-s1", [1])
    (_, of_seed) = chosen_cells(store, ["pretrained", "ddpo/vanilla"], {}, [2])
    assert [run["seed"] for run in of_seed.runs] == [2]
    tuning = {"config": {"tuning": True, "settings": {"eval_seed": 0}}, "config_hash": "of its small evaluations"}
    make_runs(tmp_path, ("vanilla",), (1000,), **tuning)
    assert [run["seed"] for run in chosen_cells(store, CELLS, {})[1].runs] == [0, 1]


@pytest.mark.slow
def test_what_cannot_be_compared_is_refused(store: Store, tmp_path: Path) -> None:
    make_runs(tmp_path, ("b2",), (0,), algorithm="other", prompts="template2")
    make_runs(tmp_path, ("bs",), (0,), eval_seed=1)
    guided = {"config": {"settings": {"eval_seed": 0, "guidance": 8.0}}, "algorithm": "guided"}
    make_runs(tmp_path, ("b2",), (0,), **guided)
    assert len(chosen_cells(store, ["ddpo/b2", "guided/b2"], {})) == 2
    for number in range(2):
        make_runs(tmp_path, ("bpt",), (0,), suffix=f"-{number}", config_hash=f"hash {number}")
    refused: list[tuple[list[str], dict[str, set[str]], str]] = [
        (["ddpo/b2"], {}, "compares two cells or more"),
        (["pretrained", "pretrained"], {}, "compares two cells or more"),
        (["pretrained", "ddpo/vanila"], {}, r"no finished run of ddpo/vanila that fits\. Did you mean ddpo/vanilla"),
        (["pretrained", "ddpo/b2"], {"prompts": {"template2"}}, "no finished run of ddpo/b2"),
        (["pretrained", "nothing"], {}, "no run 'nothing'"),
        (["ddpo/vanilla", "other/b2"], {}, "differ in prompts"),
        (["ddpo/vanilla", "ddpo/bs"], {}, r"different noise \(eval_seed \[0, 1\]\)"),
        (["pretrained", "ddpo/bpt"], {}, "is 2 cells"),
        (["pretrained", "ddpo/b2", "guided/b2"], {}, "sample differently .*guidance 8.0.* or without pretrained"),
    ]
    for cells, where, reason in refused:
        with pytest.raises(UserError, match=reason):
            chosen_cells(store, cells, where)


def test_pairs_are_even_over_cells_and_checks_are_of_each_kind(store: Store) -> None:
    poll = poll_of(store, checks=3)
    kinds = Counter(one.kind for one in poll.comparisons)
    assert kinds == {"cells": 24, "repeat": 3, "identical": 3}
    cells = Counter(tuple(sorted(poll.images[i].cell for i in o.images)) for o in poll.comparisons if o.kind == "cells")
    assert set(cells.values()) == {8}
    for one in poll.comparisons:
        shots = [poll.images[image] for image in one.images]
        assert {(shot.prompt, shot.noise) for shot in shots} == {(one.prompt, one.noise)}
        assert len({shot.run_id[-2:] for shot in shots if shot.run_id}) <= 1  # runs of one seed
        assert (len(set(one.images)) == 1) is (one.kind == "identical")
    of_id = {one.id: one for one in poll.comparisons}
    for one in poll.comparisons:
        if one.kind == "repeat":
            assert of_id[str(one.repeat_of)].images == one.images
    few = poll_of(store, most=7, checks=0)
    assert len(few.comparisons) == 7
    assert len(poll_of(store, size=3, checks=0).comparisons) == 8
    with pytest.raises(UserError, match="try --show pairs"):
        poll_of(store, ["pretrained", "ddpo/b2"], size=3)


def test_every_run_is_shown_with_every_noise(store: Store) -> None:
    shown = [(prompt, noise) for prompt in PROMPTS for noise in range(2)]  # as many noises as runs of a cell
    poll = make_poll(chosen_cells(store, CELLS, {}), shown, checks=0)
    found = {(shot.run_id[-2:], shot.noise) for shot in poll.images.values() if shot.run_id}
    assert found == {(seed, noise) for seed in ("s0", "s1") for noise in range(2)}
    for prompt in PROMPTS:
        assert len({shot.run_id[-2:] for shot in poll.images.values() if shot.run_id and shot.prompt == prompt}) == 1


def test_the_seed_chooses_and_ids_are_new_every_time(store: Store) -> None:
    def said(poll: Poll) -> list[Any]:
        every = [[o.kind, o.prompt, sorted(poll.images[i].cell for i in o.images)] for o in poll.comparisons]
        return sorted(every)

    one, same, other = poll_of(store, most=9), poll_of(store, most=9), poll_of(store, most=9, seed=1)
    assert said(one) == said(same) != said(other)
    assert one.poll_id != same.poll_id
    assert not set(one.images) & set(same.images)


# -- the page ---------------------------------------------------------------------------------------


def test_the_page_names_nobody_and_says_nothing_but_pixels(store: Store, tmp_path: Path) -> None:
    for file in tmp_path.glob("runs/*/samples/*.png"):  # a file may say whose it is
        notes = PngImagePlugin.PngInfo()
        notes.add_text("Comment", file.parts[-3])
        Image.open(file).save(file, pnginfo=notes)
    cells = chosen_cells(store, CELLS, {})
    kept = Kept(store, cells, tmp_path / "runs")
    poll = make_poll(cells, kept.shown(8, 1), question="Which <b>one</b> & why?")
    text = page(poll, data_urls(kept.read(poll), 512), "A </title> page")
    data = json.loads(re.search(r'id="poll">(.*?)</script>', text, flags=re.S)[1])  # type: ignore[index]
    words = [cell.name for cell in cells[1:]] + [run["run_id"] for cell in cells for run in cell.runs]
    words += ["vanilla", "ddpo", "pretrained", "identical", "samples", "template1", str(tmp_path)]
    assert not [word for word in words if word in text]
    for url in data["images"].values():
        head, content = url.split(",")
        assert head == "data:image/png;base64"
        picture = Image.open(io.BytesIO(base64.b64decode(content)))
        assert (picture.size, picture.info) == ((64, 64), {})
    assert data["prompts"] == sorted(PROMPTS)  # <b> in a prompt is text of a script
    assert "Which &lt;b&gt;one&lt;/b&gt; &amp; why?" in text
    assert "A &lt;/title&gt; page" in text
    assert not re.findall(r"https?://|//\w", re.sub(r"base64,[^\"]*", "", text.replace("// ", "")))
    assert "default-src 'none'" in text
    assert "unsafe" not in text
    for kind in ("images", "id"):  # nothing stands in an order that tells
        listed = [one[kind] for one in data["comparisons"]]
        assert listed == sorted(listed) or kind == "images"
    assert all(one["images"] == sorted(one["images"]) for one in data["comparisons"])
    assert list(data["images"]) == sorted(data["images"])


def test_large_images_are_made_smaller() -> None:
    found = data_urls({"a": picture("red", 1).resize((700, 700)), "b": picture("red", 1)}, 512)
    large = Image.open(io.BytesIO(base64.b64decode(found["a"].split(",")[1])))
    assert (large.format, large.size) == ("JPEG", (512, 512))
    assert found["b"].startswith("data:image/png")


def test_images_that_are_not_there(store: Store, tmp_path: Path) -> None:
    cells = chosen_cells(store, CELLS, {})
    with pytest.raises(UserError, match=r"has no weights .*; try --runs"):
        check_weights(cells, tmp_path / "runs")
    (tmp_path / "runs" / "ddpo-b2-s0" / "samples" / "1000-0.png").unlink()
    kept = Kept(store, cells, tmp_path / "runs")
    with pytest.raises(UserError, match=r"sample image samples/1000-0\.png of run ddpo-b2-s0 is not in"):
        kept.read(make_poll(cells, kept.shown(8, 1)))
    alone = (cells[0], PollCell("other", ({"run_id": "no such run", "seed": 0},)))
    with pytest.raises(UserError, match="kept no sample images"):
        Kept(store, alone, tmp_path / "runs").shown(8, 1)


# -- files of votes ---------------------------------------------------------------------------------


def answers(poll: Poll, rater: str = "ab" * 12, place: int | None = 0) -> dict[str, Any]:
    votes = [
        {"comparison": one.id, "position": i, "shown": list(one.images), "place": place, "milliseconds": 500}
        for i, one in enumerate(poll.comparisons)
    ]
    return {"format": "b2bench votes", "version": 1, "poll": poll.poll_id, "raters": [{"rater": rater, "votes": votes}]}


@pytest.fixture
def asked(store: Store, tmp_path: Path) -> tuple[Poll, Callable[[Any], list[dict[str, Any]]]]:
    poll = poll_of(store, checks=2)
    store.record_votes([poll.row()], [])

    def read(content: Any) -> list[dict[str, Any]]:
        file = tmp_path / "votes.json"
        file.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
        polls, _ = store.ballots()
        return read_votes(file, {row["poll_id"]: row for row in polls}, store.path)

    return poll, read


@pytest.mark.slow
def test_votes_say_which_cell_was_chosen(asked: Any, store: Store) -> None:
    poll, read = asked
    rows = read(answers(poll))
    assert len(rows) == len(poll.comparisons)
    for row, one in zip(rows, poll.comparisons, strict=True):
        assert row["chosen"] == poll.images[one.images[0]].cell == row["shown"]["0"]
        assert (row["kind"], row["repeat_of"], row["prompt"]) == (one.kind, one.repeat_of, one.prompt)
    assert len(store.record_votes([], rows)) == len(rows)
    assert store.record_votes([], rows) == []
    assert {row["chosen"] for row in read(answers(poll, "cd" * 12, None))} == {None}
    changed = read(answers(poll, place=1))
    assert differing(changed, store.ballots()[1]) == len(rows)
    assert store.record_votes([], changed) == []  # what is there stays


@pytest.mark.slow
def test_damaged_and_foreign_files_are_one_line(asked: Any, store: Store) -> None:
    poll, read = asked
    whole = answers(poll)
    votes = whole["raters"][0]["votes"]

    def with_vote(**change: Any) -> dict[str, Any]:
        return whole | {"raters": [{"rater": "ab" * 12, "votes": [votes[0] | change]}]}

    bad = {
        "is not JSON": [b"", b"{", json.dumps(whole).encode()[:-20], b"[" * 100_000],
        "it is not text": [b"\xff\xfe\x00"],
        "is not a file of votes": [[], {}, 1, {"format": "other"}],
        "has version 2": [whole | {"version": 2}],
        "which .* does not hold": [whole | {"poll": "poll-0"}, whole | {"poll": ["x"]}],
        "no list of raters": [whole | {"raters": None}],
        "no list of votes": [whole | {"raters": [1]}, whole | {"raters": [{"rater": "ab" * 12}]}],
        "not one that the page draws": [whole | {"raters": [{"rater": "Jane Doe", "votes": []}]}],
        "a vote is not an object": [whole | {"raters": [{"rater": "ab" * 12, "votes": [1]}]}],
        "twice": [whole | {"raters": [{"rater": "ab" * 12, "votes": [votes[0], votes[0]]}]}],
        "no comparison": [with_vote(comparison="x\x1b[31m"), with_vote(comparison=[1])],
        "shows other images": [with_vote(shown=["a", "b"]), with_vote(shown=None), with_vote(shown=[{}])],
        "none of its images": [with_vote(place=2), with_vote(place=-1), with_vote(place=True), with_vote(place="0")],
        "no position": [with_vote(position=-1), with_vote(milliseconds=0.5), with_vote(milliseconds=None)],
    }
    for reason, contents in bad.items():
        for content in contents:
            with pytest.raises(UserError, match=reason) as error:
                read(content)
            assert str(error.value).isprintable()
    assert store.ballots()[1] == []


def test_a_store_that_says_nonsense_of_a_test_is_refused(asked: Any, store: Store) -> None:
    poll, read = asked
    content = answers(poll)
    nonsense = json.dumps({one.id: {"images": 1} for one in poll.comparisons})
    with duckdb.connect(str(store.path)) as con:
        con.execute("UPDATE polls SET comparisons = ?", [nonsense])
    with pytest.raises(UserError, match="what no b2bench wrote"):
        read(content)


@pytest.mark.slow
def test_votes_survive_merge_and_export(asked: Any, store: Store, tmp_path: Path) -> None:
    poll, read = asked
    store.record_votes([], read(answers(poll)))
    whole = store.ballots()
    merged, exported = Store(tmp_path / "merged.duckdb"), Store(tmp_path / "exported.duckdb")
    for _ in range(2):
        merged.merge(store.path)
        export_results(store, tmp_path / "results")
        import_results(exported, tmp_path / "results")
        assert merged.ballots() == exported.ballots() == whole
    export_results(store, tmp_path / "results", {"wrapper": {"b2"}})  # not all of the test's runs
    assert not list(tmp_path.glob("results/[pv]o*.parquet"))
    other = Store(tmp_path / "other.duckdb")
    import_results(other, tmp_path / "results")  # as folders from before there were votes
    assert other.ballots() == ([], [])
