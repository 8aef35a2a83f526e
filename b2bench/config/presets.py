"""Named sets of options and hyperparameters, each value with the place it was read in, or ``open``.

A preset is a TOML file in the folder ``b2bench/presets``, or any file by its path::

    about = "one sentence"
    [options]                        # what the command line calls --backbone, --queries, ...
    queries = { value = 25600, source = "paper, table 1" }
    [set]                            # the harness's settings
    steps = { value = 20, source = "paper, section 4.1" }
    [algorithm.ddpo]                 # taken where this algorithm runs; the same for [wrapper.X], [reward.X]
    clip_nats = { value = 1.64, source = "open", why = "what no source says, and what was chosen instead" }
    [choices.100x256.set]            # another named choice, taken by --preset NAME:100x256
    draws = { value = 64, source = "open", why = "..." }
    [tuning]                         # written by b2bench tune: how the values were found, and with which seeds
    seeds = [1000, 1001, 1002]

What a preset gives is what stands behind the command line: ``--set`` and options overrule it, and a run records
each value in which it then differs.
"""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from b2bench.config.given import wrong_type
from b2bench.errors import UserError
from b2bench.registry import Kind
from b2bench.text import suggestion

FOLDER = Path(__file__).parents[1] / "presets"
TUNED = "tuned"
"""The preset that is another for each cell: what ``b2bench tune`` wrote for it."""
TUNED_FOLDER = Path("leaderboard") / TUNED
"""Where ``b2bench tune`` writes, and where the preset is looked for first."""
OPTIONS = ("algo", "wrapper", "backbone", "reward", "prompts", "queries")
PARTS = ("algorithm", "wrapper", "reward")
OPEN = "open"


@dataclass(frozen=True)
class Value:
    """One value of a preset. ``source`` says where it was read; ``open``: nowhere, and then ``why`` says the choice."""

    section: str  # options, set, algorithm.ddpo, ...
    name: str
    value: Any
    source: str
    why: str = ""


@dataclass(frozen=True)
class Preset:
    """A preset with one of its choices taken. ``seeds``: how many the source ran; ``tuning``: how values were found."""

    name: str
    about: str
    values: tuple[Value, ...]
    choices: tuple[str, ...]
    notes: tuple[str, ...]
    seeds: int | None
    content_hash: str
    tuning: Mapping[str, Any] | None = None

    @property
    def options(self) -> dict[str, Any]:
        """What stands behind --backbone, --queries and so on."""
        return {value.name: value.value for value in self.values if value.section == "options"}

    def hyperparameters(self, chosen: Mapping[Kind, str]) -> dict[str, Any]:
        """Values under ``run.name`` or ``part.name``, for :func:`b2bench.config.resolve.resolve`.

        ``chosen`` maps algorithm, wrapper and reward to the names that run.
        """
        owners = {"set": "run"} | {f"{part}.{name}": part for part, name in chosen.items()}
        return {
            f"{owners[value.section]}.{value.name}": value.value for value in self.values if value.section in owners
        }


def preset_names() -> list[str]:
    """Return the names of the presets that come with b2bench, sorted."""
    return sorted(path.stem for path in FOLDER.glob("*.toml"))


def tuned_path(algorithm: str, wrapper: str) -> Path:
    """Return the preset file that ``b2bench tune`` wrote for a cell: here, or else what b2bench comes with.

    Raises:
        UserError: the cell was not tuned; the message names the command that does it.
    """
    name = f"{algorithm}-{wrapper}.toml"
    # in a checkout the leaderboard is beside the package, once installed inside it
    root = FOLDER.parents[1] if (FOLDER.parents[1] / "pyproject.toml").exists() else FOLDER.parent
    for folder in (TUNED_FOLDER, root / TUNED_FOLDER):
        if (folder / name).is_file():
            return folder / name
    raise UserError(
        f"{algorithm} {wrapper} has no tuned settings: {TUNED_FOLDER / name} does not exist. "
        f"Try b2bench tune --algo {algorithm} --wrapper {wrapper}, or a preset file by its path"
    )


def load_preset(text: str) -> Preset:
    """Load ``NAME``, ``NAME:CHOICE``, or the same with the path of a TOML file for the name.

    Raises:
        UserError: the preset or choice does not exist, or the file is not a preset. The message says what and where.
    """
    if text == TUNED:
        raise UserError(
            f"preset {TUNED} is one for each algorithm and wrapper; try {TUNED_FOLDER}/ALGORITHM-WRAPPER.toml"
        )
    path, choice = Path(text), ""
    if not path.is_file():
        given, _, choice = text.rpartition(":") if ":" in text else (text, "", "")
        path = Path(given)
        if not path.is_file() and not ("/" in given or "\\" in given):  # the name of one that is built in
            path = FOLDER / f"{given}.toml"
        if not path.is_file():
            raise UserError(
                f"unknown preset {given!r}.{suggestion(given, preset_names())} Presets: {', '.join(preset_names())}; "
                "or try a TOML file by its path"
            )
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"preset {path} is not TOML: {error}") from None
    except RecursionError:
        raise UserError(f"preset {path} is not a preset: it is nested too deeply") from None
    except OSError as error:
        raise UserError(f"preset {path} cannot be read: {error.strerror}") from None
    choices = _table(content, "choices", path)
    if not choice and text.endswith(":") and not Path(text).is_file():
        known = f"one of {', '.join(choices)}, or " if choices else ""
        raise UserError(f"preset {text!r} names no choice after its colon; try {known}{path.stem} alone")
    for one in choices:
        for key in _table(choices, one, path):
            if key not in (of_choice := {"options", "set", *PARTS}):
                raise UserError(f"preset {path}: unknown key {key!r} in choice {one}.{suggestion(key, of_choice)}")
    if choice and choice not in choices:
        known = f"Choices: {', '.join(choices)}" if choices else "It has no choices"
        raise UserError(f"preset {path.stem} has no choice {choice!r}.{suggestion(choice, choices)} {known}")
    found = {(value.section, value.name): value for value in _values(content, path)}
    if choice:
        found |= {(value.section, value.name): value for value in _values(_table(choices, choice, path), path)}
    about, notes, seeds = content.get("about", ""), content.get("notes", []), content.get("seeds")
    texts = isinstance(about, str) and isinstance(notes, list) and all(isinstance(note, str) for note in notes)
    if not texts or not (seeds is None or (type(seeds) is int and seeds > 0)):
        raise UserError(f"preset {path}: about must be a text, notes a list of texts, and seeds a whole number above 0")
    known_keys = {"about", "notes", "seeds", "choices", "options", "set", "tuning", *PARTS}
    for key in content:
        if key not in known_keys:
            raise UserError(f"preset {path}: unknown key {key!r}.{suggestion(key, known_keys)}")
    tuning = _table(content, "tuning", path) if "tuning" in content else None
    if tuning is not None and not (
        isinstance(seeds_of := tuning.get("seeds"), list) and all(type(seed) is int for seed in seeds_of)
    ):
        raise UserError(f"preset {path}: [tuning] must have seeds, the list of seeds that the values were chosen with")
    values = tuple(found.values())
    hashed = json.dumps([[v.section, v.name, v.value] for v in values], sort_keys=True, default=str)
    return Preset(
        name=f"{path.stem}:{choice}" if choice else path.stem,
        about=" ".join(about.split()),
        values=values,
        choices=tuple(choices),
        notes=tuple(" ".join(str(note).split()) for note in notes),
        seeds=seeds,
        content_hash=hashlib.sha256(hashed.encode()).hexdigest()[:16],
        tuning=tuning,
    )


def _table(content: Mapping[str, Any], name: str, path: Path) -> dict[str, Any]:
    found = content.get(name, {})
    if not isinstance(found, dict):
        raise UserError(f"preset {path}: {name} must be a table")
    return found


def _values(content: Mapping[str, Any], path: Path) -> Iterator[Value]:
    sections = {"options": _table(content, "options", path), "set": _table(content, "set", path)}
    for part in PARTS:
        owners = _table(content, part, path)
        sections |= {f"{part}.{owner}": _table(owners, owner, path) for owner in owners}
    for section, entries in sections.items():
        for name, entry in entries.items():
            where = f"preset {path}: [{section}] {name}"
            if not isinstance(entry, dict) or "value" not in entry or not _text_of(entry.get("source")):
                raise UserError(
                    f'{where} must be {{ value = ..., source = "..." }}; try source "open" if no source says'
                )
            if unknown := entry.keys() - {"value", "source", "why"}:
                raise UserError(f"{where}: unknown key {sorted(unknown)[0]!r}; it has value, source and why")
            if not isinstance(entry.get("why", ""), str):
                raise UserError(f"{where}: why must be text")
            if entry["source"] == OPEN and not _text_of(entry.get("why")):
                raise UserError(f"{where} is open; try adding why, which says what was chosen and for what reason")
            if section == "options" and name not in OPTIONS:
                raise UserError(f"{where}: unknown option.{suggestion(name, OPTIONS)} Options: {', '.join(OPTIONS)}")
            if section == "options" and (wrong := wrong_type(name, entry["value"])):
                raise UserError(f"{where}: {wrong}")
            yield Value(section, name, entry["value"], " ".join(entry["source"].split()), entry.get("why", ""))


def _text_of(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def deviations(own: Mapping[str, Any], preset: Mapping[str, Any]) -> list[dict[str, Any]]:
    """In what a run differs from its preset: ``[{"name", "preset", "value"}]``.

    Both are configurations as of ``RunConfig.as_dict``. A seed is not a deviation, and where one
    is of another algorithm, wrapper or reward, that is the deviation, not each of its hyperparameters.
    """
    found = []
    for part in (*PARTS, "backbone", "prompts", "settings"):
        names = own[part].keys() | preset[part].keys()
        if part != "settings" and own[part]["name"] != preset[part]["name"]:
            names = {"name"}
        for name in sorted(names):
            value, asked = own[part].get(name), preset[part].get(name)
            if value != asked:
                label = part if name == "name" else f"{'run' if part == 'settings' else part}.{name}"
                found.append({"name": label, "preset": asked, "value": value})
    if own["queries"] != preset["queries"]:
        found.append({"name": "queries", "preset": preset["queries"], "value": own["queries"]})
    return found
