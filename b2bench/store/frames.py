"""Rows as data frames, for whoever has a library for them; b2bench itself needs none."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any, Literal

import duckdb

from b2bench.errors import UserError
from b2bench.text import described, suggestion

Library = Literal["pandas", "arrow"]
PACKAGES: dict[Library, str] = {"pandas": "pandas", "arrow": "pyarrow"}
"""The package that each kind of frame takes"""


def check_library(library: Library) -> None:
    """Refuse a kind of frames that cannot be made here.

    Raises:
        UserError: there is no such kind, or its package is not installed.
    """
    if library not in PACKAGES:
        close = suggestion(str(library), PACKAGES)
        raise UserError(f"unknown data frames {library!r}.{close} Known: {', '.join(PACKAGES)}")
    package = PACKAGES[library]
    try:
        importlib.import_module(package)
    except ModuleNotFoundError as error:
        if error.name != package:
            raise UserError(f"{package} does not import: {described(error)}; install it again") from None
        others = " or ".join(f"{other!r} ({needed})" for other, needed in PACKAGES.items() if other != library)
        raise UserError(
            f"{library} data frames need the package {package}, which is not installed: pip install {package}, "
            f"or ask for {others}"
        ) from None


def fetch(con: duckdb.DuckDBPyConnection, queries: Mapping[str, str], library: Library) -> dict[str, Any]:
    """Return the answer to each query as a frame: a ``pandas.DataFrame`` or a ``pyarrow.Table``."""
    found = {}
    for name, query in queries.items():
        answer = con.sql(query)  # not execute, whose rows would be copied once more
        found[name] = answer.df() if library == "pandas" else answer.to_arrow_table()
    return found
