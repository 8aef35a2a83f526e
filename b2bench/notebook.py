"""The commands ``run`` and ``report``, and a store's rows, as functions: for notebooks and scripts.

They do what the commands do, by the same code. What a command prints as one line is raised here: mistakes as
:class:`b2bench.errors.UserError`, a run that could not go on as :class:`b2bench.errors.RunFailed`. Nothing is printed
on stdout.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Any

from b2bench.errors import RunFailed, UserError

if TYPE_CHECKING:  # the door is open without torch, DuckDB and SciPy
    from b2bench.config.choices import Choices
    from b2bench.leaderboard.rows import Tables
    from b2bench.store.frames import Library
    from b2bench.training.listener import Listener
    from b2bench.training.request import Request
    from b2bench.training.summary import Summary

AnyPath = str | os.PathLike[str]


def run(
    *,
    algo: str | None = None,
    wrapper: str | None = None,
    backbone: AnyPath | None = None,
    reward: str | None = None,
    prompts: AnyPath | None = None,
    queries: int | None = None,
    seed: int | None = None,
    set: Mapping[str, Any] | None = None,
    preset: AnyPath | None = None,
    config: AnyPath | None = None,
    plugin: AnyPath | Iterable[AnyPath] | None = (),
    db: AnyPath = "b2bench.duckdb",
    out: AnyPath = "runs",
    name: str | None = None,
    resume: str | None = None,
    threads: int | None = None,
    vram: float | None = None,
    progress: bool = False,
) -> Summary:
    """Fine-tune a backbone with an algorithm under a wrapper: ``b2bench run``, with its options as keywords.

    The same choices and seed give the same rows as the command. ``set`` maps hyperparameters to values, as
    ``{"lr": 1e-3, "dpo.eps": 0.2}``; ``plugin`` is a Python file with a plugin, or several; ``config`` and ``preset``
    are as in the command, and what is given here overrules them. ``queries`` is the budget in reward queries. ``vram``
    is the GiB of the GPU's memory that micro-batches are chosen to fit; ``threads`` are the CPU threads of this
    process from now on. ``db`` is the store's file and ``out`` the folder of the run folders.

    ``resume`` continues a run, by its id or name: alone, or with all that started it, of which what changes no result
    (such as ``micro_batch``) may differ. A ``name`` whose run was broken off continues it, and one whose run
    is finished gives its summary at once. ``progress``: a line on stderr for each round and evaluation. To share a
    run between several processes, use the command (``--processes``).

    Raises:
        UserError: a choice, a hyperparameter, a file or the store cannot be used; nothing of the run is stored.
        RunFailed: the run started and could not go on; its reason is in the store.
        KeyboardInterrupt: it was interrupted; the message says how to continue it.
    """
    # Threads that spin at barriers are slow on a busy machine; OpenMP reads this when torch is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    options = {"algo": algo, "wrapper": wrapper, "reward": reward, "queries": queries, "seed": seed}
    options |= {"backbone": _text(backbone), "prompts": _text(prompts)}
    _check_types(
        {
            "set": (set, Mapping, "a mapping of hyperparameters to values"),
            "preset": (preset, str | os.PathLike, "a name or a path"),
            "config": (config, str | os.PathLike, "a path"),
            "db": (db, str | os.PathLike, "a path"),
            "out": (out, str | os.PathLike, "a path"),
            "name": (name, str, "a text"),
            "resume": (resume, str, "a text"),
            "threads": (threads, int, "a whole number"),
            "vram": (vram, int | float, "a number"),
        },
        needed=("db", "out"),
    )
    paths, store, folder = _paths(plugin), Path(db), Path(out).expanduser()
    known = resume
    with _one_line(), ExitStack() as stack:
        try:  # from here on an interrupt says what it left
            choices = _choices(options, set or {}, paths, _text(preset))
            others = {"--set": set, "--config": config, "--preset": preset, "--plugin": paths, "--vram": vram}
            from b2bench.config.choices import is_whole, refuse_beside_resume

            if resume is not None and (name is not None or not is_whole(choices, config)):
                refuse_beside_resume(choices, others | {"--name": name})
            again = bool(choices.options or any(others.values()))
            request = _request(choices, config, store, name, resume, vram, again=again)
            if request.done is not None:
                from b2bench.training.summary import summary_again

                return summary_again(request.store, request.done, folder)
            known = request.run_id
            return request.make(folder, threads, _listener(request, stack, progress))
        except KeyboardInterrupt as stop:  # with the run's id, once it is in the store
            raise KeyboardInterrupt(_how_to_go_on(stop.args[0] if stop.args else known, store, folder)) from None


@dataclass(frozen=True, repr=False)
class Results:
    """Tables of a store as data frames, of one moment: a row per run, per metric of an evaluation, per reward query.

    Columns are those of the store's tables ``runs``, ``evals`` and ``queries`` (docs/store.md); ``run_id`` joins them.
    JSON columns are text, times are UTC. Each frame is a ``pandas.DataFrame`` or a ``pyarrow.Table``.
    """

    runs: Any
    evaluations: Any
    queries: Any

    def __repr__(self) -> str:
        rows = ", ".join(f"{name}: {len(frame)} rows" for name, frame in vars(self).items())
        return f"<{type(self).__name__} {rows}>"


def load_results(db: AnyPath = "b2bench.duckdb", frames: Library = "pandas") -> Results:
    """Read a store into data frames; ``frames``: pandas or arrow, whose package must be installed. Nothing is written.

    A store that an earlier b2bench made is first lifted to today's schema, beside a copy of what it was, as by every
    command that reads it.

    Raises:
        UserError: the package is not installed, or the file is not a store that can be read.
    """
    from b2bench.store.store import Store

    _check_types({"db": (db, str | os.PathLike, "a path")}, needed=("db",))
    with _one_line():
        found = Store(Path(db)).frames(frames)
        return Results(runs=found["runs"], evaluations=found["evals"], queries=found["queries"])


def report(
    db: AnyPath = "b2bench.duckdb",
    *,
    where: Mapping[str, object] | None = None,
    margin: float | None = None,
    seeds: str | Iterable[int] = "",
    looks: int = 1,
) -> list[Tables]:
    """Return the tables of ``b2bench report``, as the objects that it draws: one :class:`Tables` per context.

    A context is what must be equal for two numbers to be compared: benchmark version, backbone, reward, prompts and
    budget. ``where`` shows a part, as ``{"algorithm": ["ddpo", "pg"], "budget": 2400}``; rows are left out, not runs,
    so that p-values stay those of the whole context. ``margin``: the area of gain within which two cells are equal;
    None for a quarter of what vanilla gained. ``seeds``, as ``"0-4"`` or ``range(5)``: those that every cell should
    have, in place of all that any cell has. ``looks``: 2 if the same runs are looked at twice, with half of the seeds
    and with all.

    Raises:
        UserError: the store cannot be read, or a condition, the margin or the seeds mean nothing.
    """
    from b2bench.describe.tables import tables_of
    from b2bench.leaderboard.selection import parse_where, select
    from b2bench.store.store import Store
    from b2bench.sweep.plan import parse_seeds

    _check_types(
        {
            "db": (db, str | os.PathLike, "a path"),
            "where": (where, Mapping, "a mapping of what to show to its values"),
            "margin": (margin, int | float, "a number"),
            "seeds": (seeds, str | Iterable, "a text as 0-4, or whole numbers"),
            "looks": (looks, int, "1 or 2"),
        },
        needed=("db", "seeds", "looks"),
    )
    numbers = [] if isinstance(seeds, str) else list(seeds)
    for seed in numbers:
        _check_types({"seeds": (seed, Integral, "a text as 0-4, or whole numbers")}, needed=("seeds",))
    with _one_line():
        conditions = parse_where([f"{key}={_listed(value)}" for key, value in (where or {}).items()])
        planned = parse_seeds(seeds) if isinstance(seeds, str) and seeds else numbers
        return select(tables_of(Store(Path(db)), margin, planned, looks), conditions)


def _check_types(given: Mapping[str, tuple[Any, Any, str]], needed: Iterable[str]) -> None:
    """Refuse keywords of another type than theirs: (value, type, what it is) by name. None will do if not ``needed``.

    Raises:
        UserError: which, and what it should be.
    """
    for keyword, (value, kind, what) in given.items():
        missing = value is None and keyword not in needed
        if not missing and (not isinstance(value, kind) or isinstance(value, bool)):
            raise UserError(f"{keyword} = {value!r} is not {what}")


def _paths(plugin: Any) -> tuple[Path, ...]:
    """Return the plugin's file, or several.

    Raises:
        UserError: it is no path, and no list of them.
    """
    several = () if plugin is None else (plugin,) if isinstance(plugin, str | os.PathLike) else plugin
    given = tuple(several) if isinstance(several, Iterable) else (plugin,)
    if not all(isinstance(path, str | os.PathLike) for path in given):
        raise UserError(f"plugin = {plugin!r} is not a path, or a list of paths")
    return tuple(map(Path, given))


def _choices(options: Mapping[str, Any], values: Mapping[str, Any], plugins: tuple[Path, ...], preset: Any) -> Choices:
    """Return what was given, each option of its type.

    Raises:
        UserError: one is of another type.
    """
    from b2bench.config.choices import Choices
    from b2bench.config.given import wrong_type

    for option, value in options.items():
        if value is not None and (wrong := wrong_type(option, value)):
            raise UserError(wrong)
    return Choices(**options, values=values, plugins=plugins, preset=preset)


def _request(
    choices: Choices,
    config: AnyPath | None,
    db: Path,
    name: str | None,
    resume: str | None,
    vram: float | None,
    *,
    again: bool,
) -> Request:
    """Return the run that is asked for, looked up in the store; ``again``: one to resume is described, too.

    Raises:
        UserError: it cannot be made.
    """
    from b2bench.config.choices import resolved, with_file
    from b2bench.config.given import run_name
    from b2bench.store.store import Store
    from b2bench.training.request import to_resume, to_start

    store = Store(db)
    name = run_name(name)
    if resume is not None and not again:
        return to_resume(resume, store)
    wanted = with_file(choices, None if config is None else Path(config), ())
    chosen = resolved(wanted)
    if vram is not None:
        from b2bench.estimate.fit import within

        chosen = within(chosen, vram, wanted.values)
    return to_start(chosen, store, name) if resume is None else to_resume(resume, store, chosen)


def _listener(request: Request, stack: ExitStack, progress: bool) -> Listener:
    """Who is told what the run does: nobody, or the command's display of it on stderr until the stack unwinds."""
    if not progress:
        from b2bench.training.listener import Silent

        return Silent()
    from b2bench.terminal.console import SafeConsole
    from b2bench.terminal.progress import RunProgress, work_of
    from b2bench.training.launch import is_first, world

    # not as Jupyter's own output, which would come between the cell's results and could not be sent elsewhere
    console = SafeConsole(stderr=True, force_jupyter=False)
    work = lambda: None if request.config is None else work_of(request.config)  # noqa: E731
    bar = RunProgress(console, request.budget, request.reward, quiet=not is_first(), work=work, processes=world())
    return stack.enter_context(bar)


@contextmanager
def _one_line() -> Iterator[None]:
    """Raise what the command line says in one line as a UserError; what it does not foresee goes through as it is."""
    from b2bench.text import refused

    try:
        yield
    except (UserError, RunFailed, KeyboardInterrupt):
        raise
    except BaseException as error:  # a plugin may raise SystemExit, too
        if (reason := refused(error)) is None:
            raise
        raise UserError(reason) from error


def _how_to_go_on(run_id: str | None, db: Path, out: Path) -> str:
    """Say what an interrupted run left, and which call continues it."""
    if run_id is None:
        return "interrupted before the run began; nothing of it is stored"
    again = f"b2bench.run(resume={run_id!r}, db={str(db)!r}, out={str(out)!r})"
    return f"interrupted; every finished round is in {db}. Continue with: {again}"


def _text(path: AnyPath | None) -> str | None:
    """Return a path, or a name, as text; anything else stays what it is, to be refused by its type."""
    return os.fspath(path) if isinstance(path, os.PathLike) else path


def _listed(value: object) -> str:
    """One value, or several, as ``--where`` takes them."""
    return ",".join(map(str, value)) if isinstance(value, Iterable) and not isinstance(value, str) else str(value)
