"""The live display of a run, on a terminal that is a text."""

import io
from types import SimpleNamespace
from typing import Any

import torch
from rich.console import Console

from b2bench.terminal.progress import RunProgress, Work
from b2bench.training.listener import Several, Silent
from b2bench.training.phase import Phase


def evaluation(value: float, **settings: Any) -> Any:
    names = ("clipscore", "clipscore_heldout")
    return SimpleNamespace(
        metrics=[SimpleNamespace(split="test", name=name, value=value, settings=settings) for name in names]
    )


def console(height: int = 40, width: int = 100) -> Console:
    return Console(file=io.StringIO(), force_terminal=True, width=width, height=height, legacy_windows=False)


def shown(progress: RunProgress) -> str:
    screen = Console(file=io.StringIO(), width=progress.console.width, height=progress.console.height)
    screen.print(*progress.progress.get_renderables())
    return screen.file.getvalue()  # type: ignore[attr-defined]


def test_the_time_left_goes_by_work_from_the_first_evaluation_on() -> None:
    progress = RunProgress(console(), 10, "clipscore", work=lambda: Work(1000, 100))
    (task,) = progress.progress.tasks
    assert (task.total, task.completed) == (10, 0)
    progress.begins("r")
    assert task.total == 1000
    progress.stage("evaluating")
    phase = Phase(Several(Silent(), progress))
    phase.begin("round 1: sampling 4 images", 4, 8)
    phase.called(4, gradient=False)
    assert "round 1: sampling 4 images: 2/4 images, 4/8 steps" in shown(progress)
    assert task.completed == 4
    phase.begin("round 1: optimising")
    phase.called(2, gradient=True)  # a backward pass costs twice a call more
    phase.stepped(1, 3)
    assert task.completed == 10
    assert "round 1: optimising: 1/3 optimizer steps" in shown(progress)
    progress.evaluated(0, evaluation(0.5, reused_from="another"))
    assert task.total == 900


def test_a_resumed_run_begins_where_it_goes_on_and_several_processes_share_the_work() -> None:
    progress = RunProgress(console(), 10, "clipscore", work=lambda: Work(1000, 100), processes=4)
    progress.begins("r")
    Several(Silent(), progress).resumed(8)
    (task,) = progress.progress.tasks
    assert (task.total, task.completed) == (180, 0)  # a fifth of what is not the start
    assert "8/10 queries" in shown(progress)
    progress.advanced(45, "")  # the three others did as much meanwhile
    assert task.completed == 180


def test_without_knowing_the_work_it_goes_by_queries() -> None:
    progress = RunProgress(console(), 10, "clipscore")
    progress.begins("r")
    progress.advanced(100, "")
    report = SimpleNamespace(metrics={}, kept=torch.ones(5, dtype=torch.bool), optimizer_steps=1)
    progress.round_done(1, 2, 5, 0.6, report)
    (task,) = progress.progress.tasks
    assert (task.total, task.completed) == (10, 5)
    assert "5/10 queries" in shown(progress)


def test_curves_are_drawn_from_two_points_on_and_where_there_is_room() -> None:
    progress, low = RunProgress(console(), 10, "clipscore"), RunProgress(console(height=10), 10, "clipscore")
    for one in (progress, low):
        one.evaluated(0, evaluation(0.5))
        assert "reward queries" not in shown(one)
        one.evaluated(10, evaluation(0.7))
    assert "clipscore, test" in shown(progress)
    assert "held-out, test" in shown(progress)
    assert "0.700" in shown(progress)
    assert "clipscore, test" not in shown(low)
    assert len(shown(progress).splitlines()) <= 12


def test_nothing_is_drawn_where_there_is_no_terminal() -> None:
    def never() -> Work:
        raise AssertionError("nobody asked")

    plain = Console(file=io.StringIO(), width=80)
    progress = RunProgress(plain, 10, "clipscore", work=never)
    progress.begins("r")
    progress.advanced(3, "x")
    assert progress.progress.disable
