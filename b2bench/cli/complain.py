"""One line for what went wrong."""

from __future__ import annotations

import re

from rich.text import Text

from b2bench.cli.output import stderr
from b2bench.environment import place
from b2bench.errors import UserError
from b2bench.text import shortened, visible

LONGEST_REASON = 1000  # characters of an error; what it quotes may be a whole file


def complain(what: str, reason: object = "") -> None:
    """Print one line on stderr; of several processes of a run the first says it."""
    try:
        rank, _ = place()
    except UserError:  # this is what there is to say
        rank = 0
    if rank == 0:
        # a line of several; what else a name is made of is to be seen
        text = shortened(visible(re.sub(r" *\r?\n\s*", " ", str(reason)).strip(" ")), LONGEST_REASON)
        parts = [(f"{what}:", "red"), f" {text}"] if text else [(what, "red")]
        stderr().print(Text.assemble(*parts), soft_wrap=True)
