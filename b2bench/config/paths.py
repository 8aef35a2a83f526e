"""Texts of a configuration that may name files."""

from __future__ import annotations

import os

NO_FILES = ("auto", "paper", "pocket", "pocket-heldout", "published")
"""Names of checkpoints, which say what is meant whatever lies beside them under the same name"""


def absolute(text: str) -> str:
    """Return the absolute path of what lies there; a text that names no file, such as a hub's repository, as it is.

    So a run that is resumed in another folder reads the same files, and two spellings of a path are one cell.
    """
    if not text or text in NO_FILES:
        return text
    path = os.path.expanduser(text)
    return os.path.abspath(path) if os.path.exists(path) else text
