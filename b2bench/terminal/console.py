"""A console that obeys no control character of what it prints: names, errors and prompts may be anybody's."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from b2bench.text import visible

_OBEYED = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]+")


class SafeConsole(Console):
    """Rich's console; no bracket or colon in a text is markup, and control characters are written out.

    Colours and cursor movements are Rich's own and no part of a text.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(highlight=False, markup=False, emoji=False, **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Render as Rich does, and write out what a terminal would obey."""
        for segment in super().render(renderable, options):
            if segment.control is None and _OBEYED.search(segment.text):
                text = _OBEYED.sub(lambda found: visible(found.group()), segment.text)
                yield Segment(text, segment.style)
            else:
                yield segment
