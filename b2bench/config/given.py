"""What a person gives: config files, ``name=value`` and texts."""

from __future__ import annotations

import tomllib
import unicodedata
from pathlib import Path
from typing import Any

from b2bench.errors import UserError
from b2bench.text import shortened

LONGEST_NAME = 200
"""Characters of the name of a run: tables have it in a column"""


def read_config_file(path: Path) -> dict[str, Any]:
    """Read a TOML file of options (algo, wrapper, ...) and a table ``[set]`` of hyperparameters.

    Raises:
        UserError: the file is missing or no TOML; with the line.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))  # some editors begin a file with a mark
    except FileNotFoundError:
        raise UserError(f"config file {path} does not exist; try another path") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"config file {path} is not TOML: {error}") from None
    except RecursionError:
        raise UserError(f"config file {path} is not a TOML file of options: it is nested too deeply") from None
    except OSError as error:
        raise UserError(f"config file {path} cannot be read: {error.strerror}") from None


def check_text(what: str, text: str | None) -> None:
    """Refuse a name that no store and no JSON file can hold, before there are rows to put it into.

    Raises:
        UserError: the text is not UTF-8; file names and arguments may not be.
    """
    try:
        (text or "").encode()
    except UnicodeEncodeError:
        raise UserError(f"{what} {text!r} is not UTF-8 text; try another name") from None


def run_name(text: str | None) -> str | None:
    """Return the name of a run as it is stored: without spaces around it, in the form of Unicode that keyboards give.

    Raises:
        UserError: it is empty, has more than one line, is too long or no UTF-8.
    """
    if text is None:
        return None
    check_text("--name", text)
    name = unicodedata.normalize("NFC", text.strip())
    if not name:
        raise UserError("--name is empty; try a name, or leave --name out")
    if control := [character for character in name if unicodedata.category(character) == "Cc"]:
        raise UserError(f"--name {shortened(repr(name), 80)} has the control character {control[0]!r}; try without it")
    if len(name) > LONGEST_NAME:
        raise UserError(f"--name has {len(name):,} characters; try at most {LONGEST_NAME}")
    return name


def parse_assignments(assignments: list[str]) -> dict[str, str]:
    """Turn ``["lr=1e-3"]`` into ``{"lr": "1e-3"}``.

    Raises:
        UserError: an entry without ``=``, or a name given twice.
    """
    values: dict[str, str] = {}
    for text in assignments:
        name, equals, value = text.partition("=")
        if not equals or not name.strip():
            raise UserError(f"--set {text!r} is not of the form name=value; try --set lr=1e-3")
        if name.strip() in values:
            raise UserError(f"--set {name.strip()} is given twice; try it once")
        values[name.strip()] = value.strip()
    return values


def wrong_type(name: str, value: Any) -> str:
    """Say that the value of an option is of another type than the option; nothing if it is not."""
    wanted = int if name in ("queries", "seed") else str
    fits = isinstance(value, wanted) and not isinstance(value, bool)
    return "" if fits else f"{name} = {value!r} is not of type {wanted.__name__}"
