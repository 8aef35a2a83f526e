"""One line for what went wrong."""

from __future__ import annotations

import re

from rich.text import Text

from b2bench.cli.output import stderr
from b2bench.text import shortened, visible

LONGEST_REASON = 1000  # characters of an error; what it quotes may be a whole file


def complain(what: str, reason: object = "") -> None:
    """One line on stderr; of several processes the first says it."""
    from b2bench.training.launch import is_first

    if is_first():
        # a line of several; what else a name is made of is to be seen
        text = shortened(visible(re.sub(r" *\r?\n\s*", " ", str(reason)).strip(" ")), LONGEST_REASON)
        parts = [(f"{what}:", "red"), f" {text}"] if text else [(what, "red")]
        stderr().print(Text.assemble(*parts), soft_wrap=True)
