"""Variables of the environment that launchers, schedulers and shells leave behind, and that cannot be meant."""

from __future__ import annotations

import random
from pathlib import Path

from bad_inputs.made import Input, tiny

NUMBERS = (
    "", " ", "two", "-1", "0", "1.5", "1e1", "0x2", "\u0662x", "2 2", "nan", "9" * 5000, "1\n2", "\x1b[31m", "1;2",
)  # fmt: skip
TRUE = ("true", "True", "1")
OF_ONE_OF_SEVERAL: tuple[dict[str, str], ...] = (
    {"WORLD_SIZE": "2"},
    {"WORLD_SIZE": "2", "RANK": "2"},
    {"WORLD_SIZE": "2", "RANK": "-1"},
    {"WORLD_SIZE": "0", "RANK": "0"},
    {"RANK": "1"},
    {"LOCAL_RANK": "0"},
    {"LOCAL_RANK": "0", "WORLD_SIZE": "1"},
    {"PMI_SIZE": "4"},
    {"OMPI_COMM_WORLD_SIZE": "2"},
    {"MV2_COMM_WORLD_SIZE": "3"},
)
SHARDERS = ("DEEPSPEED", "FSDP", "MEGATRON_LM", "PARALLELISM_CONFIG")
RUN = ["run", "--algo", "ddpo", "--queries", "2", *tiny()]
COMMANDS = (
    RUN,
    ["run", "--algo", "ddpo", "--queries", "40", "--processes", "2"],
    ["report"],
    ["ls", "runs"],
    ["show", "settings"],
    ["sweep", "--config", "sweep.toml", "--dry-run"],
    ["doctor"],
)


def environments(drawn: random.Random, folder: Path) -> Input:
    way = drawn.random()
    if way < 0.4:
        name = drawn.choice(("WORLD_SIZE", "RANK", "LOCAL_RANK", "OMP_NUM_THREADS", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE"))
        variables = {name: drawn.choice(NUMBERS)}
    elif way < 0.75:
        variables = dict(drawn.choice(OF_ONE_OF_SEVERAL))
    else:
        variables = {f"ACCELERATE_USE_{drawn.choice(SHARDERS)}": drawn.choice(TRUE)}
    command = list(drawn.choice(COMMANDS))
    what = ", ".join(f"{name}={value[:20]!a}" for name, value in variables.items())
    return Input(command, [*variables], what, environment=variables)
