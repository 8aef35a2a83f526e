"""The plan (docs/preregistration.md): which runs are its tuned cells, whose claims are a family of their own.

It is stated here before any of these runs is made. A run is the plan's by what it is, never by its result. So nobody's
further runs, seeds or searches change the plan's claims: they are cells of their own beside it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass
class Plan:
    """What the plan consists of.

    ``prompts`` are those of an algorithm's final runs if they are more than template 1, on which all are tuned.
    ``presets`` are content hashes of the files in leaderboard/tuned, by algorithm and wrapper: what the plan's search
    (8 configurations, 2,400 reward queries a run) chose for each cell. One is added when its search is over, and before
    its final runs. ``tests`` are the claims on all of its cells.
    """

    algorithms: Sequence[str]
    seeds: Sequence[int]
    prompts: Mapping[str, Collection[str]]
    presets: Mapping[str, str]
    tests: int

    def holds(
        self, algorithm: str, wrapper: str, seed: int, prompts: str, preset: Mapping[str, Any], others: Sequence[str]
    ) -> bool:
        """Tell whether a run is one of the plan's.

        ``preset`` is what the run's configuration says of the preset that it was started with, and ``others`` names
        the settings in which it differs from that, without those that tell no cell from another.
        """
        known = self.presets.get(f"{algorithm}-{wrapper}")
        return (
            known is not None
            and preset.get("hash") == known
            and seed in self.seeds
            and prompts in self.prompts.get(algorithm, ("template1",))
            and set(others) <= {"prompts"}
        )

    def has_all(self, seeds: Collection[int]) -> bool:
        """Tell whether a cell has all of its seeds."""
        return set(seeds) >= set(self.seeds)


PLAN = Plan(
    algorithms=("pg", "ddpo", "dpok", "dpo"),
    seeds=range(5),
    prompts={"ddpo": ("template1", "pocket-template2", "pocket-template3")},
    presets={
        "dpok-vanilla": "b2e210574e9cf10e",
        "dpok-bs": "0483cbfd51dc82ed",
        "dpok-b2": "953e3e4805908bc6",
    },
    tests=56,
)
