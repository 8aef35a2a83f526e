"""What the variables of the environment say of this process: of how many it is one, and how many threads it has.

Launchers, schedulers and shells set them, and some leave them behind. What cannot be meant is an error in one line.
"""

from __future__ import annotations

import os
import sys

from b2bench.errors import UserError
from b2bench.text import shortened

LAUNCHERS = "torchrun, accelerate launch or --processes"
OF_LAUNCHERS = ("WORLD_SIZE", "RANK", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_RANK")
"""What the launchers tell each process; accelerate reads the first four"""
OF_MPI = ("PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")
"""What MPI's launchers tell in place of WORLD_SIZE; accelerate reads these, too"""
SHARDERS = ("DEEPSPEED", "FSDP", "MEGATRON_LM", "PARALLELISM_CONFIG")
"""Ways to split a model between processes that accelerate knows, by its variables ACCELERATE_USE_..."""
LONGEST = 9
"""Digits of a rank or of a number of processes; Python refuses to read thousands of them"""


def _number(name: str, least: int) -> int | None:
    """Return the whole number that a variable holds; None if it is not set.

    Raises:
        UserError: it holds something else, or less than ``least``.
    """
    text = os.environ.get(name)
    if text is None:
        return None
    if not text.strip().isdecimal() or len(text.strip()) > LONGEST or int(text) < least:
        raise UserError(
            f"{name} is set to {shortened(repr(text), 80)}, which is not a whole number of at least {least}. "
            f"Launchers set it; if none started this process, try: unset {' '.join(OF_LAUNCHERS)}"
        )
    return int(text)


def place() -> tuple[int, int]:
    """Return this process's rank, and how many processes form its run; (0, 1) if it is alone.

    Raises:
        UserError: the variables that say so cannot be read, or contradict each other.
    """
    world, rank, local = _number("WORLD_SIZE", 1), _number("RANK", 0), _number("LOCAL_RANK", 0)
    unset = f"if none of {LAUNCHERS} started this process, try: unset {' '.join(OF_LAUNCHERS)}"
    if world is None and (rank or local is not None):
        name, value = ("RANK", rank) if rank else ("LOCAL_RANK", local)
        raise UserError(f"{name} is set to {value}, and WORLD_SIZE is not set; {unset}")
    if world is not None and (world > 1 or local is not None) and rank is None:
        raise UserError(f"WORLD_SIZE is set to {world}, and RANK is not set; {unset}")
    world, rank = world or 1, rank or 0
    if rank >= world:
        raise UserError(f"RANK = {rank} is not below WORLD_SIZE = {world}; {unset}")
    return rank, world


def check_launcher() -> None:
    """Refuse what a launcher asks for and a run does not do.

    Raises:
        UserError: what.
    """
    _, world = place()
    for name in SHARDERS:
        if os.environ.get(f"ACCELERATE_USE_{name}", "").lower() in ("true", "1"):
            raise UserError(
                f"ACCELERATE_USE_{name} is set, and a run does not split its model: each process holds all of it. "
                f"Try torchrun or --processes, or: unset ACCELERATE_USE_{name}"
            )
    for name in OF_MPI:
        if world == 1 and (_number(name, 0) or 1) > 1:
            raise UserError(f"{name} says that MPI started several processes; try {LAUNCHERS}, or: unset {name}")


def python(module: str) -> list[str]:
    """Return the command that runs a module of ours by this Python, which arguments may follow.

    Python would look for every module in the working folder first, and a plugin there may be called ``random.py``: -P
    leaves that out, unless b2bench itself is there and not installed.
    """
    return [sys.executable, *([] if is_here() else ["-P"]), "-m", module]


def is_here() -> bool:
    """Tell whether the working folder is a checkout of b2bench."""
    return os.path.isfile(os.path.join("b2bench", "__main__.py"))


def forget_launcher() -> None:
    """Make this process one of its own, whatever a launcher or a shell left in its environment."""
    for name in (*OF_LAUNCHERS, *OF_MPI):
        os.environ.pop(name, None)


def threads() -> int | None:
    """Return the number of threads that OMP_NUM_THREADS asks for; None if it does not.

    ``4,2`` are the threads of nested parallel regions, as OpenMP reads it: the outer one has four.

    Raises:
        UserError: it is set to something else.
    """
    text = os.environ.get("OMP_NUM_THREADS", "").strip()
    first = text.partition(",")[0].strip()
    if text and (not first.isdecimal() or len(first) > LONGEST):
        raise UserError(
            f"OMP_NUM_THREADS is set to {shortened(repr(text), 80)}, which is not a number of threads; "
            "try 4, or unset it"
        )
    return int(first or 0) or None
