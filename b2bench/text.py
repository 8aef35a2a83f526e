"""Text that others wrote, made fit for a terminal."""

from __future__ import annotations


def visible(text: str) -> str:
    """``text`` without control characters, which a terminal would obey: they are written out, as in Python."""
    return "".join(character if character.isprintable() else repr(character)[1:-1] for character in text)


def shortened(text: str, longest: int) -> str:
    """``text``, without its middle where it has more than ``longest`` characters."""
    if len(text) <= longest:
        return text
    kept = max(1, (longest - 40) // 2)  # of each end; 40 is room for the words between them
    return f"{text[:kept]} [... {len(text) - 2 * kept:,} characters ...] {text[-kept:]}"
