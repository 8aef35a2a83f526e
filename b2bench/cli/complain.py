"""One line for what went wrong."""

from __future__ import annotations

import re
import sys

from rich.text import Text

from b2bench.cli.output import stderr
from b2bench.text import described, shortened, visible

LONGEST_REASON = 1000  # characters of an error; what it quotes may be a whole file


def refused(error: BaseException) -> str | None:
    """What a plugin, the system or DuckDB raised and nobody said more of; None for any other error, which is a bug."""
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


def complain(what: str, reason: object = "") -> None:
    """One line on stderr; of several processes the first says it."""
    from b2bench.training.launch import is_first

    if is_first():
        # a line of several; what else a name is made of is to be seen
        text = shortened(visible(re.sub(r" *\r?\n\s*", " ", str(reason)).strip(" ")), LONGEST_REASON)
        parts = [(f"{what}:", "red"), f" {text}"] if text else [(what, "red")]
        stderr().print(Text.assemble(*parts), soft_wrap=True)
