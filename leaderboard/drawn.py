"""Figures as the bytes of files. They are most of a report's time, so all cores take part."""

from __future__ import annotations

import contextlib
import gc
import io
import os
import signal
import sys
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from b2bench.environment import threads
from b2bench.errors import UserError

POINTS = 72  # an inch: the unit of both SVG and PDF
MOST = 8  # processes: a container may have the time of fewer cores than it shows
Maker: TypeAlias = Callable[[], Any]
"""Returns a matplotlib figure, or None where there is nothing to show."""


def written_figures(makers: Sequence[Maker], kinds: Sequence[str] = ("svg",)) -> list[dict[str, bytes]]:
    """Make figures, and return each as a file of each kind (``svg`` or ``pdf``); no files where a maker makes none.

    The same figures give the same bytes. On Linux forks of this process take part: all together as many as there are
    cores, but eight at most, or as many as ``OMP_NUM_THREADS`` says.
    """
    others = min(_processes(), len(makers)) - 1
    if others < 1:
        return [_files(make, kinds) for make in makers]
    _import_matplotlib(kinds)
    try:
        folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
    except OSError:  # there is no place for what forks draw
        return [_files(make, kinds) for make in makers]
    with folder as name:
        drawn = _shared(makers, kinds, Path(name), others)
    # What a fork took and did not finish is drawn here: whatever ended it, an error comes up in this process.
    return [drawn[place] if place in drawn else _files(make, kinds) for place, make in enumerate(makers)]


def written_figure(figure: Any, kind: str) -> bytes:
    """Return a figure as ``svg`` or ``pdf``, the same bytes for the same figure."""
    from matplotlib import rc_context

    out = io.StringIO() if kind == "svg" else io.BytesIO()  # of bytes matplotlib would encode each word by itself
    written_as = rc_context({"svg.hashsalt": "b2bench", "svg.fonttype": "path"})
    with written_as, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from")  # of names in other scripts: a box is drawn
        metadata = {"Date": None} if kind == "svg" else {"CreationDate": None}
        with _laid_out(figure, kind):
            figure.savefig(out, format=kind, metadata=metadata)
    written = out.getvalue()
    return written.encode() if isinstance(written, str) else written


def _files(make: Maker, kinds: Sequence[str]) -> dict[str, bytes]:
    figure = make()
    return {} if figure is None else {kind: written_figure(figure, kind) for kind in kinds}


def _import_matplotlib(kinds: Sequence[str]) -> None:
    """Here once, and not in each fork."""
    from matplotlib import figure  # noqa: F401
    from matplotlib.backend_bases import get_registered_canvas_class

    for kind in kinds:
        get_registered_canvas_class(kind)


def _processes() -> int:
    """How many processes may draw; 1 where a fork is not safe beside the system's own threads."""
    if sys.platform != "linux" or threading.active_count() > 1:  # whose locks a fork would wait for
        return 1
    try:
        return threads() or min(len(os.sched_getaffinity(0)), MOST)
    except UserError:  # OMP_NUM_THREADS is no number, which is of no concern to a report
        return 1


def _shared(makers: Sequence[Maker], kinds: Sequence[str], taken: Path, others: int) -> dict[int, dict[str, bytes]]:
    """Draw the figures with ``others`` forks, that leave what they draw in the folder ``taken``; files by place."""
    children: list[int] = []
    try:
        with contextlib.suppress(OSError):  # the system grants no more processes: those that there are do it
            for _ in range(others):
                _fork(makers, kinds, taken, children)
        drawn = dict(_drawn(makers, kinds, taken))
        while children:
            _wait(children[-1])
            children.pop()
    finally:  # an interrupt, or an error of a figure: what they draw is not wanted any more
        for child in children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
            _wait(child)
    for place in range(len(makers)):
        if place not in drawn and (taken / f"{place}.done").exists():
            files = {kind: taken / f"{place}.{kind}" for kind in kinds}
            drawn[place] = {kind: file.read_bytes() for kind, file in files.items() if file.exists()}
    return drawn


def _fork(makers: Sequence[Maker], kinds: Sequence[str], taken: Path, children: list[int]) -> None:
    """Fork, and note the child, which writes what it draws into ``taken`` and ends."""
    ending = {signal.SIGINT, signal.SIGTERM}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ending)  # none gets between a fork and what is to know of it
    try:
        with warnings.catch_warnings():
            # Python warns of locks that other threads hold; those of its own there are not (_processes).
            warnings.filterwarnings("ignore", ".*fork", DeprecationWarning)
            child = os.fork()
        if child == 0:
            try:
                gc.disable()  # a search for garbage would copy every page that this process shares
                for number in ending:
                    signal.signal(number, signal.SIG_DFL)  # ends it without a word
                signal.pthread_sigmask(signal.SIG_UNBLOCK, ending)
                for place, files in _drawn(makers, kinds, taken):
                    for kind, content in files.items():
                        (taken / f"{place}.{kind}").write_bytes(content)
                    (taken / f"{place}.done").touch()
            finally:
                os._exit(0)  # nothing of what this process would do at its end
        children.append(child)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _wait(child: int) -> None:
    with contextlib.suppress(ChildProcessError):  # whoever embeds this ignores SIGCHLD: the system has waited
        os.waitpid(child, 0)


def _drawn(makers: Sequence[Maker], kinds: Sequence[str], taken: Path) -> Iterator[tuple[int, dict[str, bytes]]]:
    """Draw the figures that no other process has taken; each is taken when its turn comes, so that none waits."""
    for place, make in enumerate(makers):
        try:
            (taken / str(place)).touch(exist_ok=False)
        except FileExistsError:
            continue
        except OSError:  # a full disk: then it may be drawn twice
            pass
        yield place, _files(make, kinds)


@contextlib.contextmanager
def _laid_out(figure: Any, kind: str) -> Iterator[None]:
    """Lay a figure out for this kind of file. Otherwise savefig draws it to the end to do so, and then once more."""
    from matplotlib import rc_context
    from matplotlib.backend_bases import get_registered_canvas_class

    engine, canvas, dpi = figure.get_layout_engine(), figure.canvas, figure.dpi
    if engine is None:
        yield
        return
    get_registered_canvas_class(kind)(figure)  # it measures texts
    figure.dpi = POINTS
    engine.execute(figure)
    figure.dpi = dpi
    figure.set_canvas(canvas)
    with rc_context({"figure.autolayout": False, "figure.constrained_layout.use": False}):
        figure.set_layout_engine(None)  # none at all
    try:
        yield
    finally:
        figure.set_layout_engine(engine)
