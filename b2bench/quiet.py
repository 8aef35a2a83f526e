"""One progress display at a time: ours. The libraries' own bars and load reports are switched off."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator


def quiet_libraries() -> None:
    """Switch off the bars and reports of diffusers and transformers; errors still come through."""
    import diffusers
    import transformers

    for library in (diffusers.utils.logging, transformers.utils.logging):
        library.disable_progress_bar()
        library.set_verbosity_error()


@contextlib.contextmanager
def quiet_root() -> Iterator[None]:
    """Silence the root logger while the context is open: open_clip logs each step of loading a model to it.

    Failed downloads, too, which become our own error. Afterwards the logger is as it was: in a notebook it is not ours.
    """
    root = logging.getLogger()
    level, handlers = root.level, list(root.handlers)
    root.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        root.setLevel(level)
        root.handlers[:] = handlers  # logging.info() gives a root logger without handlers one
