"""Text that others wrote, made fit for a terminal."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Iterable


def visible(text: str) -> str:
    """Write out the control characters of ``text``, which a terminal would obey, as Python does."""
    return "".join(character if character.isprintable() else repr(character)[1:-1] for character in text)


def shortened(text: str, longest: int) -> str:
    """Cut the middle out of ``text`` if it has more than ``longest`` characters."""
    if len(text) <= longest:
        return text
    kept = max(1, (longest - 40) // 2)  # of each end; 40 is room for the words between them
    return f"{text[:kept]} [... {len(text) - 2 * kept:,} characters ...] {text[-kept:]}"


def suggestion(name: str, known: Iterable[str]) -> str:
    """Return ``" Did you mean x?"``, or nothing if no known name is close."""
    names = {text.lower(): text for text in known}
    close = difflib.get_close_matches(name.lower(), list(names), n=1, cutoff=0.6)
    return f" Did you mean {names[close[0]]}?" if close else ""


def described(error: BaseException) -> str:
    """Return ``KeyError: 'a'``; a plugin's error may have no text, or raise when asked for one."""
    try:
        text = str(error)
    except Exception:
        text = ""
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def refused(error: BaseException) -> str | None:
    """Return what a plugin, the system or DuckDB raised and nobody said more of.

    None for any other error, which is a bug.
    """
    registry = sys.modules.get("b2bench.registry")
    if registry is not None and (place := registry.place_in_plugin(error)):
        return f"plugin {place}: {described(error)}. Try correcting it, and run again."
    duckdb = sys.modules.get("duckdb")  # an error of DuckDB's means that it is imported
    if duckdb is not None and isinstance(error, duckdb.Error):
        return "; ".join([*getattr(error, "__notes__", []), str(error).partition("\n")[0]])
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename is not None else ""
        return where + (error.strerror or str(error) or type(error).__name__)
    return None
