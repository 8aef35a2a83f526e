"""A human preference test: which cells, which comparisons, and the key that says which image is whose."""

from __future__ import annotations

import itertools
import random
import secrets
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from b2bench.errors import UserError
from b2bench.leaderboard.selection import CONTEXT_KEYS, final_runs
from b2bench.store.rows import utc_now
from b2bench.store.store import Store
from b2bench.text import suggestion, visible

Row = dict[str, Any]
PRETRAINED = "pretrained"
QUESTION = "Which image do you prefer for this text?"
EQUAL = ("benchmark_version", "backbone", "prompts", "prompts_hash")
"""What the runs of a test have in common: without it an image of one has no counterpart of another."""
SAMPLED = ("steps", "eta", "guidance")
"""What images depend on beside weights, prompt and noise: in common, too, where the pretrained model is shown."""


@dataclass(frozen=True)
class PollCell:
    """A cell of a test, by the name that reports give it, with its runs by seed; none of the pretrained model."""

    name: str
    runs: tuple[Row, ...]


@dataclass(frozen=True)
class Shot:
    """An image: of a prompt and a noise, by a cell, of the run with ``run_id`` ("" of the pretrained model)."""

    cell: str
    run_id: str
    prompt: str
    noise: int


@dataclass(frozen=True)
class Comparison:
    """What is shown at once. ``kind`` is cells, identical or repeat; ``images`` are ids on the page, in no order."""

    id: str
    kind: str
    prompt: str
    noise: int
    images: tuple[str, ...]
    repeat_of: str | None = None


@dataclass(frozen=True)
class Poll:
    """A test before it is shown: its images by their id on the page, and its comparisons."""

    poll_id: str
    question: str
    seed: int
    size: int
    cells: tuple[PollCell, ...]
    images: Mapping[str, Shot]
    comparisons: tuple[Comparison, ...]

    def row(self) -> Row:
        """Return the row of table ``polls``, which is the key to the page."""
        run = next(run for cell in self.cells for run in cell.runs)
        return {
            "poll_id": self.poll_id,
            "made": utc_now(),
            **{name: run[name] for name in EQUAL},
            "eval_seed": eval_seed(run),
            "seed": self.seed,
            "question": self.question,
            "cells": {cell.name: _described(cell) for cell in self.cells},
            "comparisons": {
                one.id: {
                    "kind": one.kind,
                    "prompt": one.prompt,
                    "noise_index": one.noise,
                    "repeat_of": one.repeat_of,
                    "images": {image: self.images[image].cell for image in one.images},
                }
                for one in self.comparisons
            },
        }


def _described(cell: PollCell) -> Row:
    if not cell.runs:
        return {}
    of_cell = ("config_hash", "algorithm", "wrapper", "reward", "budget")
    runs = {"runs": [run["run_id"] for run in cell.runs], "seeds": [run["seed"] for run in cell.runs]}
    return {name: cell.runs[0][name] for name in of_cell} | runs


def eval_seed(run: Mapping[str, Any]) -> int:
    """Return the seed of the noise of a run's evaluations; before there was one, the run's own."""
    found = ((run["config"] or {}).get("settings") or {}).get("eval_seed")
    return found if isinstance(found, int) else int(run["seed"])


def _setting(run: Mapping[str, Any], name: str) -> str:
    return str(((run["config"] or {}).get("settings") or {}).get(name))


# -- which cells ------------------------------------------------------------------------------------


def chosen_cells(
    store: Store, names: Sequence[str], where: Mapping[str, Iterable[str]], seeds: Iterable[int] = ()
) -> tuple[PollCell, ...]:
    """Find cells by ``pretrained``, ``ALGORITHM/WRAPPER``, or the id or name of a run, in the order given.

    A cell has the runs of all the seeds that every cell has, or of ``seeds``; one that a run names has that run alone.
    ``where`` narrows the runs that ALGORITHM/WRAPPER may mean, as ``--where`` of a report does.

    Raises:
        UserError: a name means nothing or several cells, or the cells share no prompts and no noise.
    """
    final = final_runs(store.runs())  # those of a tuning have evaluations of their own, and so are other cells
    done = [dict(run) for run in final if run["status"] == "done" and run["algorithm"] not in ("baseline", "external")]
    keys = {CONTEXT_KEYS.get(name, name): set(values) for name, values in where.items()}
    fitting = [run for run in done if all(str(run[name]) in values for name, values in keys.items())]
    found = [_cell(store, name, fitting, set(seeds)) for name in dict.fromkeys(names)]
    several = [name for name in {cell.name for cell in found} if sum(cell.name == name for cell in found) > 1]
    if several or len(found) < 2:
        raise UserError(f"--cells {','.join(names)}: a test compares two cells or more; try pretrained,ddpo/vanilla")
    runs = [run for cell in found for run in cell.runs]
    if not runs:
        raise UserError("--cells names no run; try pretrained,ddpo/vanilla")
    for what in EQUAL:
        if len(values := {str(run[what]) for run in runs}) > 1:
            hint = next((name for name, key in CONTEXT_KEYS.items() if key == what), "prompts")
            raise UserError(
                f"the cells differ in {what} ({', '.join(sorted(map(visible, values)))}), so they share no images; "
                f"try --where {hint}=VALUE"
            )
    sampled = {tuple(_setting(run, name) for name in SAMPLED) for run in runs}
    if len(sampled) > 1 and any(cell.name == PRETRAINED for cell in found):
        shown = "; ".join(", ".join(f"{n} {v}" for n, v in zip(SAMPLED, each, strict=True)) for each in sorted(sampled))
        raise UserError(
            f"the runs sample differently ({visible(shown)}), and {PRETRAINED} would be drawn as one of them does; "
            f"try runs that sample alike, or without {PRETRAINED}"
        )
    if len(noises := {eval_seed(run) for run in runs}) > 1:
        raise UserError(f"the cells were evaluated on different noise (eval_seed {sorted(noises)}); try other runs")
    return _of_shared_seeds(found)


def _cell(store: Store, name: str, runs: Sequence[Row], seeds: set[int]) -> PollCell:
    if name == PRETRAINED:
        return PollCell(PRETRAINED, ())
    algorithm, slash, wrapper = name.partition("/")
    if not slash:
        run = store.find_run(name)
        if run not in runs:
            raise UserError(f"run {name} is not a finished training run that fits --where; try b2bench ls runs")
        return PollCell(run["name"] or run["run_id"], (run,))
    mine = [run for run in runs if (run["algorithm"], run["wrapper"]) == (algorithm, wrapper)]
    if not mine:
        known = sorted({f"{run['algorithm']}/{run['wrapper']}" for run in runs})
        raise UserError(
            f"{store.path} holds no finished run of {visible(name)} that fits.{suggestion(name, known)} "
            f"It holds {', '.join(map(visible, known)) or 'none'}; try one of them, or pretrained"
        )
    of_cell = {run["config_hash"]: run for run in mine}
    if len(of_cell) > 1:
        some = ", ".join(sorted(str(run["run_id"]) for run in of_cell.values())[:4])
        raise UserError(
            f"{visible(name)} is {len(of_cell)} cells in {store.path} (runs {some}); try --where, or name a run"
        )
    of_seed = {run["seed"]: run for run in mine if not seeds or run["seed"] in seeds}
    if missing := sorted(seeds - of_seed.keys()):
        raise UserError(
            f"{visible(name)} has no finished run of seed {', '.join(map(str, missing))}; try other --seeds"
        )
    return PollCell(f"{algorithm} {wrapper}", tuple(of_seed[seed] for seed in sorted(of_seed)))


def _of_shared_seeds(cells: Sequence[PollCell]) -> tuple[PollCell, ...]:
    """Return the runs of seeds that all cells have; where there is none, each keeps its own."""
    shared = set.intersection(*({run["seed"] for run in cell.runs} for cell in cells if cell.runs))
    if not shared:
        return tuple(cells)
    return tuple(PollCell(cell.name, tuple(run for run in cell.runs if run["seed"] in shared)) for cell in cells)


# -- which comparisons ------------------------------------------------------------------------------


def make_poll(
    cells: Sequence[PollCell],
    shown: Sequence[tuple[str, int]],
    *,
    size: int = 2,
    checks: int = 6,
    most: int | None = None,
    seed: int = 0,
    question: str = QUESTION,
) -> Poll:
    """Compare every ``size`` cells on every (prompt, noise) of ``shown``, or ``most`` of these, evenly over the cells.

    ``checks``: so many comparisons of an image with itself, and so many that come again with the places changed. The
    same arguments give the same comparisons; their ids are new each time, because raters could read them.

    Raises:
        UserError: there are fewer cells than images in a comparison.
    """
    if len(cells) < size:
        raise UserError(f"--show needs {size} cells or more, and --cells names {len(cells)}; try --show pairs")
    draws = random.Random(f"{seed}:preference test")
    groups = []
    # by prompt and not by image: with as many noises as runs each run would have noise of its own
    turn = {prompt: i for i, prompt in enumerate(dict.fromkeys(prompt for prompt, _ in shown))}
    for members in itertools.combinations(cells, size):
        shots = [tuple(_shot(cell, turn[each[0]], *each) for cell in members) for each in shown]
        groups.append(draws.sample(shots, len(shots)))
    every = [shots for each in zip(*groups, strict=True) for shots in each][:most]
    ids = _new_ids()
    of_shot: dict[Shot, str] = defaultdict(lambda: next(ids))
    found = [
        Comparison(next(ids), "cells", shots[0].prompt, shots[0].noise, _images(of_shot[shot] for shot in shots))
        for shots in every
    ]
    again = draws.sample(found, min(checks, len(found)))
    repeats = [Comparison(next(ids), "repeat", one.prompt, one.noise, one.images, one.id) for one in again]
    drawn = [draws.choice(shots) for shots in draws.sample(every, min(checks, len(every)))]
    identical = [Comparison(next(ids), "identical", shot.prompt, shot.noise, (of_shot[shot],) * size) for shot in drawn]
    images = {image: shot for shot, image in of_shot.items()}
    return Poll(
        f"poll-{secrets.token_hex(4)}",
        question,
        seed,
        size,
        tuple(cells),
        images,
        tuple(sorted([*found, *repeats, *identical], key=lambda one: one.id)),
    )


def _shot(cell: PollCell, place: int, prompt: str, noise: int) -> Shot:
    """Return the image of a cell: its runs take turns, all cells in the same order."""
    run = cell.runs[place % len(cell.runs)]["run_id"] if cell.runs else ""
    return Shot(cell.name, run, prompt, noise)


def _images(ids: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(ids))  # by chance: they are random


def _new_ids() -> Iterator[str]:
    used: set[str] = set()
    while True:
        found = secrets.token_hex(4)
        if found not in used:
            used.add(found)
            yield found
