"""What a sweep is to do: lists of choices, and the runs of their product."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from b2bench.config.run import RunConfig
from b2bench.errors import UserError
from b2bench.text import suggestion

OPTIONS = ("algo", "wrapper", "prompts", "reward", "backbone", "queries", "seed")


def parse_list(
    option: str, text: str | Sequence[str], sets: Mapping[str, Callable[[], Sequence[str]]] | None = None
) -> list[str]:
    """``"ddpo,dpok"`` to its parts in order, each once; what ``sets`` names, as ``all``, stands for what it gives.

    A file or folder that is there is one name, whatever commas it has; and a list has its parts already.

    Raises:
        UserError: it is empty.
    """
    if isinstance(text, str):
        is_file = os.path.exists(os.path.expanduser(text))
        text = [text] if is_file else text.split(",")
    parts = [part.strip() for part in text if part.strip()]
    sets = sets or {}
    parts = [name for part in parts for name in (sets[part]() if part in sets else [part])]
    if not parts:
        also = f", or {' or '.join(sets)}" if sets else ""
        raise UserError(f"--{option} {text!r} names nothing; try NAME or NAME,NAME{also}")
    return list(dict.fromkeys(parts))


def parse_seeds(text: str) -> list[int]:
    """``"0-4,7"`` to [0, 1, 2, 3, 4, 7].

    Raises:
        UserError: it is not a list of numbers and ranges, or it has more than 10,000.
    """
    found: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()) or len(first) > 10 or len(last) > 10:
            raise UserError(f"--seeds {text!r} is not a list of numbers and ranges; try 0-4 or 0,1,7")
        numbers = range(int(first), int(last or first) + 1)
        if not numbers or len(found) + len(numbers) > 10_000:
            raise UserError(f"--seeds {text!r}: {part.strip()} holds no seed, or more than 10,000")
        found += numbers
    return list(dict.fromkeys(found))


@dataclass(frozen=True)
class Job:
    """A run of the plan: what it is, its cell's hash, and what ``b2bench run`` is given for it.

    ``varied`` are the hyperparameters that the plan varies, as ``name=value``; ``note`` tells it from others of the
    same names.
    """

    config: RunConfig
    cell: str
    arguments: tuple[str, ...]
    varied: tuple[str, ...] = ()
    note: str = ""

    @property
    def key(self) -> tuple[str, int]:
        return self.cell, self.config.seed

    @property
    def label(self) -> str:
        config = self.config
        names = (config.algorithm_name, config.wrapper_name, config.prompts.name, *self.varied, f"s{config.seed}")
        return " ".join((*names, self.note) if self.note else names)

    def command(self, db: Path, out: Path) -> list[str]:
        """Return the command that makes this run, as people would type it."""
        return ["b2bench", "run", *self.arguments, "--db", str(db), "--out", str(out)]


def plan(
    choices: Mapping[str, Sequence[Any]],
    shared: Sequence[str],
    resolve: Callable[[dict[str, Any]], RunConfig | None],
    varied: Mapping[str, Sequence[Any]] | None = None,
) -> list[Job]:
    """Every combination of ``choices``; seeds change slowest, so that a sweep cut short has whole tables of few seeds.

    ``shared`` are arguments of all runs, ``resolve`` makes a run of options by name, None where algorithm and wrapper
    refuse each other: such combinations are left out. ``varied`` are values of hyperparameters by name, combined as
    the choices are; ``resolve`` finds one of each in its options, as ``values``.

    Raises:
        UserError: an unknown choice, one that cannot be, or the same run twice.
    """
    unknown = [name for name in choices if name not in OPTIONS]
    if unknown:
        raise UserError(f"unknown option {unknown[0]!r} of a sweep.{suggestion(unknown[0], OPTIONS)}")
    names = [name for name in ("seed", *(name for name in choices if name != "seed")) if name in choices]
    jobs = []
    resolved: dict[tuple[Any, ...], tuple[RunConfig, str] | None] = {}
    highest = max(choices.get("seed", [0]))  # if it is allowed, all are
    combined = [dict(zip(varied or {}, values, strict=True)) for values in itertools.product(*(varied or {}).values())]
    for *values, own in itertools.product(*(choices[name] for name in names), combined):
        options = dict(zip(names, values, strict=True))
        seed = options.get("seed", 0)
        texts = tuple(f"{name}={value}" for name, value in own.items())
        choice = (*(options[name] for name in names if name != "seed"), texts)
        if choice not in resolved:  # once for all seeds: a quarter of a second each would be an hour of 10,000 runs
            made = resolve(options | {"seed": highest} | ({"values": own} if own else {}))
            resolved[choice] = None if made is None else (made, made.cell_hash())
        if (found := resolved[choice]) is None:
            continue
        config, cell = found
        flags = [part for name in OPTIONS if name in options for part in (f"--{name}", str(options[name]))]
        flags += [part for text in texts for part in ("--set", text)]
        jobs.append(Job(replace(config, seed=seed), cell, (*flags, *shared), texts))
    if len({job.key for job in jobs}) < len(jobs):
        keys = [job.key for job in jobs]
        twice = next(job for i, job in enumerate(jobs) if keys.index(job.key) < i)
        raise UserError(f"the sweep holds the same run twice: {twice.label}")
    return jobs


def at_look(jobs: Sequence[Job], looks: int, ended: Collection[tuple[str, int]]) -> tuple[list[Job], int]:
    """Return the jobs of the look that is due, and its number.

    The first of two looks has the first half of the seeds. The second has all, once every run of the first has ended.

    Raises:
        UserError: looks are not 1 or 2, or the seeds cannot be halved.
    """
    if looks not in (1, 2):
        raise UserError(f"--looks {looks} is not 1 or 2; try 2 for a look at half of the seeds and one at all")
    if looks == 1:
        return list(jobs), 1
    seeds = list(dict.fromkeys(job.config.seed for job in jobs))
    if len(seeds) < 2 or len(seeds) % 2:
        raise UserError(f"--looks 2 halves the seeds, of which there are {len(seeds)}; try --seeds 0-9")
    first = [job for job in jobs if job.config.seed in seeds[: len(seeds) // 2]]
    return (list(jobs), 2) if all(job.key in ended for job in first) else (first, 1)
