"""Python's search for garbage, while a command makes a million objects of which none is."""

from __future__ import annotations

import atexit
import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def unsearched() -> Iterator[None]:
    """Search for no garbage while the context is open, nor ever among the objects that are there at its end.

    Each thousand of new objects starts a search, and each tenth of those goes through more of what is there: an eighth
    of the time in which torch and diffusers are imported, or the rows of a large store read.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        atexit.register(gc.unfreeze)  # or DuckDB takes what Python never lets go of for leaks, and says so
        gc.enable()
