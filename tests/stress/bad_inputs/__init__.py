"""Bad inputs by number: the same seed and number give the same input, in a folder of files that are good.

A maker takes a generator and a copy of the place (:mod:`bad_inputs.place`), damages or adds one thing there, and
returns the command that reads it.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

from bad_inputs.arguments import arguments
from bad_inputs.checkpoints import checkpoints
from bad_inputs.environments import environments
from bad_inputs.made import Input
from bad_inputs.place import copy_place
from bad_inputs.plugins import plugins
from bad_inputs.side_effects import side_effects
from bad_inputs.stores import parquet, stores
from bad_inputs.texts import configs, presets, prompts, sweeps
from bad_inputs.weights import backbones, loras

Maker = Callable[[random.Random, Path], Input]

# kind -> (of a hundred, its maker); those that load weights take a second each
KINDS: dict[str, tuple[int, Maker]] = {
    "arguments": (26, arguments),
    "config file": (9, configs),
    "preset": (5, presets),
    "sweep file": (5, sweeps),
    "prompts": (9, prompts),
    "plugin": (11, plugins),
    "side effects": (3, side_effects),
    "environment": (4, environments),
    "store": (16, stores),
    "Parquet": (4, parquet),
    "checkpoint": (3, checkpoints),
    "LoRA": (3, loras),
    "backbone": (2, backbones),
}


def make(seed: int, number: int, place: Path, folder: Path) -> Input:
    """Input ``number`` of a seed, in a new ``folder``, which is where its command belongs."""
    drawn = random.Random(f"{seed}-{number}")
    kind = drawn.choices([*KINDS], [share for share, _ in KINDS.values()])[0]
    copy_place(place, folder, with_pipeline=kind == "backbone")
    made = KINDS[kind][1](drawn, folder)
    made.kind = kind
    return made
