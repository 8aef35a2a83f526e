"""Figures that several processes draw."""

import errno
import os
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from b2bench.leaderboard.drawn import written_figures
from matplotlib.artist import Artist
from matplotlib.figure import Figure

from b2bench.leaderboard import drawn

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only there forks draw")


class Asked(Artist):
    """Calls ``work`` when it is drawn."""

    def __init__(self, work: Callable[[], None]) -> None:
        super().__init__()
        self.work = work

    def draw(self, renderer: Any) -> None:
        self.work()


def figures(work: Callable[[], None] = lambda: None) -> list[Callable[[], Figure | None]]:
    """What makes five figures, and one that has nothing to show."""

    def make(place: int) -> Figure | None:
        if place == 3:
            return None
        figure = Figure(figsize=(3, 2), layout="constrained")
        axes = figure.add_subplot()
        axes.plot([0, place], [1, 2], label=f"line {place}")
        axes.legend()
        figure.add_artist(Asked(work))
        return figure

    return [partial(make, place) for place in range(6)]


@pytest.fixture
def on_three_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drawn, "_processes", lambda: 3)


def no_child_is_left() -> bool:
    try:
        return os.waitpid(-1, os.WNOHANG) == (0, 0)  # another test's
    except ChildProcessError:
        return True


@pytest.fixture
def alone() -> list[dict[str, bytes]]:
    """What one process draws: tests have one thread."""
    found = written_figures(figures(), ("svg", "pdf"))
    assert [sorted(files) for files in found] == [["pdf", "svg"]] * 3 + [[]] + [["pdf", "svg"]] * 2
    return found


def test_the_bytes_are_those_of_one_process(
    alone: list[dict[str, bytes]], on_three_cores: None, tmp_path: Path
) -> None:
    def note() -> None:
        (tmp_path / str(os.getpid())).touch()
        until(lambda: len(list(tmp_path.iterdir())) == 3)

    assert written_figures(figures(note), ("svg", "pdf")) == alone
    assert len(list(tmp_path.iterdir())) == 3  # all three drew
    assert no_child_is_left()
    assert written_figures([]) == []


def test_what_a_fork_does_not_finish_is_drawn_all_the_same(
    alone: list[dict[str, bytes]], on_three_cores: None, tmp_path: Path
) -> None:
    parent = os.getpid()

    def die() -> None:
        if os.getpid() != parent:
            (tmp_path / str(os.getpid())).touch()
            os._exit(9)
        until(lambda: len(list(tmp_path.iterdir())) == 2)

    assert written_figures(figures(die), ("svg", "pdf")) == alone
    assert no_child_is_left()


def test_without_a_place_for_files_one_process_draws(
    alone: list[dict[str, bytes]], on_three_cores: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(**_: Any) -> None:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(drawn.tempfile, "TemporaryDirectory", full)
    assert written_figures(figures(), ("svg", "pdf")) == alone


def test_beside_another_thread_there_is_no_fork(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    ended = threading.Event()
    other = threading.Thread(target=ended.wait)
    other.start()
    try:
        assert drawn._processes() == 1
    finally:
        ended.set()
        other.join()


def test_an_error_of_a_figure_is_an_error_here(on_three_cores: None) -> None:
    def fail() -> None:
        raise ZeroDivisionError("of a figure")

    with pytest.raises(ZeroDivisionError, match="of a figure"):
        written_figures(figures(fail))
    assert no_child_is_left()


@pytest.mark.parametrize(("asked", "processes"), [("1", 1), ("3", 3), ("many", 1), (None, 0)])
def test_threads_that_are_asked_for_are_processes(
    asked: str | None, processes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drawn.threading, "active_count", lambda: 1)  # xdist has some of its own
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if asked is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", asked)
    assert drawn._processes() == (processes or min(len(os.sched_getaffinity(0)), 8))


def until(done: Callable[[], bool], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not done() and time.monotonic() < end:
        time.sleep(0.005)
