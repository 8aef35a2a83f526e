"""Prompt sets: the built-in ones of the top-level folder ``prompts``, plugins' and a file of one's own.

A prompt set is a folder ``NAME/`` with ``train.txt`` and ``test.txt``, UTF-8, one prompt a line; blank
lines and lines that start with ``#`` are ignored. An optional ``card.toml`` gives the other fields of
:class:`PromptSet`. A plugin registers an entry point of group ``b2bench.prompts`` whose value is such
a folder (a package that holds the files, or a path) or a callable that returns a PromptSet.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import os.path
import tomllib
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

from b2bench.errors import UserError
from b2bench.installed import entry_points
from b2bench.layout import plugin_path

GROUP = "b2bench.prompts"
FOLDER = Path(__file__).parents[1] / "prompts"
MAX_LENGTH = 1000  # characters; CLIP's text encoder reads 77 tokens, so a longer line is a mistake


@dataclass(frozen=True)
class PromptSet:
    """Prompts to train on and prompts to test on.

    ``depicted_by`` names the backbones that can draw them; empty: not stated. ``template`` is the
    sentence that the prompts fill in, if there is one. ``files`` are those that the prompts were read from.
    Raises ValueError where a split is empty or repeats a prompt.
    """

    name: str
    version: str
    train: tuple[str, ...]
    test: tuple[str, ...]
    source: str = ""
    licence: str = ""
    description: str = ""
    template: str = ""
    depicted_by: tuple[str, ...] = ()
    files: tuple[Path, ...] = field(default=(), compare=False, repr=False)

    def __post_init__(self) -> None:
        for split in ("train", "test"):
            prompts = getattr(self, split)
            if not prompts:
                raise ValueError(f"the {split} split holds no prompt")
            if len(set(prompts)) < len(prompts):
                raise ValueError(f"the {split} split repeats a prompt")

    @cached_property
    def content_hash(self) -> str:
        """SHA-256 of the two splits, in order, as compact JSON: the same prompts have the same hash."""
        content = {"train": self.train, "test": self.test}
        canonical = json.dumps(content, ensure_ascii=False, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()

    def place(self, prompt: str) -> str:
        """Say where a prompt stands: file and line, or which of the set it is if it came from no file."""
        for file in self.files:
            for number, found in _prompt_lines(_decode(file)):
                if found == prompt:
                    return f"{file}, line {number}"
        split, prompts = ("train", self.train) if prompt in self.train else ("test", self.test)
        return f"prompts {self.name}, number {prompts.index(prompt) + 1} of the {split} split"


def prompt_set_names() -> list[str]:
    """Return the names of the registered prompt sets, built-in ones first, without loading any.

    Raises UserError if two origins claim one name.
    """
    return list(_origins())


def load_prompts(name_or_path: str | Path) -> PromptSet:
    """Load the prompt set of a registered name, of a text file or of a folder like the built-in ones.

    A name goes before a path; write ``./NAME`` for a file that is called like a set. A text file is
    train and test at once (``train == test``), so its test numbers say nothing about unseen prompts;
    a folder with ``train.txt`` and ``test.txt`` keeps them apart.
    Raises UserError, one line, for whatever cannot be used.
    """
    origins = _origins()
    if name_or_path in origins:
        origin = origins[str(name_or_path)]
        return _load_folder(origin) if isinstance(origin, Path) else _load_entry_point(origin)
    # os.path rather than Path: "" and a name that is too long for a file are then not a path, and raise nothing.
    path = os.path.expanduser(name_or_path)
    if os.path.isdir(path):
        return _load_folder(Path(path))
    if os.path.exists(path):
        prompts = _read(Path(path))
        return _prompt_set(
            Path(path), name=Path(path).name, train=prompts, test=prompts, source=str(path), files=(Path(path),)
        )
    close = difflib.get_close_matches(str(name_or_path), origins, n=1)
    guess = f" Did you mean '{close[0]}'?" if close else ""
    raise UserError(
        f"unknown prompts '{name_or_path}': no registered set has this name, and it is not a file.{guess}"
        f" Registered: {', '.join(origins)}; or try the path of a text file with one prompt a line."
    )


def _origins() -> dict[str, Path | EntryPoint]:
    """Return where each registered set comes from."""
    origins: dict[str, Path | EntryPoint] = {}
    for parent in plugin_path([str(FOLDER)], GROUP):
        for card in sorted(Path(parent).glob("*/card.toml")):
            origins[card.parent.name] = card.parent
    for entry in sorted(entry_points(group=GROUP), key=lambda entry: entry.name):
        if entry.name in origins:
            first, second = (_describe(origin) for origin in (origins[entry.name], entry))
            raise UserError(
                f"prompts '{entry.name}' are registered twice: by {first} and by {second}; try removing one."
            )
        origins[entry.name] = entry
    return origins


def _describe(origin: Path | EntryPoint) -> str:
    if isinstance(origin, Path):
        return f"the built-in folder {origin}"
    package = f" of package {origin.dist.name}" if origin.dist else ""
    return f"entry point '{origin.value}'{package}"


def _load_entry_point(entry: EntryPoint) -> PromptSet:
    where = f"prompts '{entry.name}' ({_describe(entry)})"
    try:
        loaded = entry.load()
        if callable(loaded):
            loaded = loaded()
    except UserError:
        raise
    except Exception as error:  # a plugin may raise anything
        raise UserError(f"{where} cannot be loaded: {type(error).__name__}: {error}") from error
    if isinstance(loaded, PromptSet):
        _check_prompts(where, loaded.train, loaded.test)
        return replace(loaded, name=entry.name)
    folder = next(iter(getattr(loaded, "__path__", [])), loaded)
    if not isinstance(folder, str | Path):
        raise UserError(
            f"{where} gives a {type(loaded).__name__}; try a folder, or a callable that returns a PromptSet."
        )
    return _load_folder(Path(folder), name=entry.name)


def _load_folder(folder: Path, name: str | None = None) -> PromptSet:
    files = [folder / "train.txt", folder / "test.txt"]
    if missing := [file.name for file in files if not file.is_file()]:
        raise UserError(f"{folder} has no {missing[0]}; a folder of prompts needs train.txt and test.txt.")
    train, test = map(_read, files)
    _check_unseen(str(folder), train, test, ("train.txt", "test.txt"))
    card = _read_card(folder / "card.toml")
    name = name or card.pop("name", folder.resolve().name)
    content = {"name": name, "train": train, "test": test, "files": tuple(files)}
    return _prompt_set(folder, **{"source": str(folder), **card, **content})


def _check_unseen(where: str, train: Sequence[str], test: Sequence[str], names: tuple[str, str]) -> None:
    known = {_as_read(prompt) for prompt in train}
    if both := [prompt for prompt in test if _as_read(prompt) in known]:
        raise UserError(
            f"{where}: '{both[0]}' is in {names[0]} and in {names[1]}, and a test prompt must be unseen;"
            " try removing it from one of them."
        )


def _check_prompts(where: str, train: Sequence[str], test: Sequence[str]) -> None:
    """Ask of a set that code made what is asked of a file: texts, each once, and no test prompt that is trained on."""
    for split, prompts in (("train", train), ("test", test)):
        if strange := [prompt for prompt in prompts if not isinstance(prompt, str) or not prompt.strip()]:
            raise UserError(f"{where}: {strange[0]!r} in {split} is not a prompt; try a text.")
        seen: set[str] = set()
        for prompt in prompts:
            if _as_read(prompt) in seen:
                raise UserError(f"{where}: '{prompt}' is in {split} twice (case and spaces aside); try removing one.")
            seen.add(_as_read(prompt))
    _check_unseen(where, train, test, ("train", "test"))


def _prompt_set(where: Path, **content: Any) -> PromptSet:
    """Return a PromptSet; without a stated version its content is its version."""
    content["name"] = unicodedata.normalize("NFC", content["name"])  # of a file, as systems differ in it
    try:
        prompts = PromptSet(**{"version": "", **content})
    except ValueError as error:
        raise UserError(f"{where}: {error}") from error
    return prompts if prompts.version else PromptSet(**{**content, "version": prompts.content_hash[:12]})


def _read_card(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    try:
        card = tomllib.loads(_decode(path))
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"{path} is not TOML: {error}") from error
    except RecursionError:
        raise UserError(f"{path} is not a card: it is nested too deeply.") from None
    known = {field.name for field in fields(PromptSet)} - {"train", "test", "files"}
    for key, value in card.items():
        if key not in known:
            raise UserError(f"{path}: unknown key '{key}'; known: {', '.join(sorted(known))}.")
        if key == "depicted_by" and isinstance(value, list) and all(isinstance(item, str) for item in value):
            card[key] = tuple(value)
        elif key == "depicted_by" or not isinstance(value, str):
            wanted = "a list of texts" if key == "depicted_by" else "a text in quotes"
            raise UserError(f"{path}: '{key}' must be {wanted}.")
    return card


def _read(path: Path) -> tuple[str, ...]:
    """Return the prompts of a text file, as they stand in it but for white space at their ends."""
    seen: dict[str, int] = {}
    prompts: list[str] = []
    for number, prompt in _prompt_lines(_decode(path)):
        if len(prompt) > MAX_LENGTH:
            raise UserError(
                f"{path}, line {number}: {len(prompt)} characters, but a prompt has at most {MAX_LENGTH};"
                " try one prompt a line."
            )
        if control := [character for character in prompt if unicodedata.category(character) == "Cc"]:
            raise UserError(f"{path}, line {number}: it holds the control character {control[0]!r}; try removing it.")
        if (first := seen.setdefault(_as_read(prompt), number)) != number:
            raise UserError(
                f"{path}, line {number}: '{prompt}' is on line {first} already (case and spaces aside, which CLIP does "
                "not read); try removing one of them."
            )
        prompts.append(prompt)
    if not prompts:
        raise UserError(f"{path} holds no prompt; try one prompt a line (lines that start with # are comments).")
    return tuple(prompts)


def _as_read(prompt: str) -> str:
    """Return what two prompts have in common that are one to CLIP's tokenizer: words, not their case or spaces."""
    return " ".join(unicodedata.normalize("NFC", prompt).lower().split())


def _prompt_lines(text: str) -> Iterable[tuple[int, str]]:
    # Not splitlines(), which also splits at U+2028 and the like, where editors count no new line.
    for number, line in enumerate(text.split("\n"), start=1):
        prompt = line.strip()
        if prompt and not prompt.startswith("#"):
            yield number, prompt


def _decode(path: Path) -> str:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}.") from error
    try:
        return content.decode("utf-8").removeprefix("\ufeff")  # some editors begin a file with this mark
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise UserError(
            f"{path} is not UTF-8: byte {error.start} (line {line}) is 0x{content[error.start]:02x};"
            " try saving the file with the encoding UTF-8."
        ) from error
