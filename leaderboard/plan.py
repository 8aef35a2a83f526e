"""The plan (docs/preregistration.md): which runs are its tuned cells, whose claims are a family of their own.

It is stated here before any of these runs is made. A run is the plan's by what it is, never by its result. Once all
four cells of an algorithm have all of their seeds, they are the plan's cells, and nobody's further runs, seeds or
searches change its claims: those are cells of their own beside it. Before, they are tuned cells like any others.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from b2bench.search import Sampler

TEMPLATE = "template1"


@dataclass
class Plan:
    """What the plan consists of.

    ``prompts`` are those of an algorithm's final runs if they are more than template 1, on which all are tuned, and
    ``queries`` is their budget. ``presets`` are content hashes of the files in leaderboard/tuned, by algorithm and
    wrapper: what its ``search`` chose for each cell. One is added when its search is over, and before its final runs.
    ``tests`` are the claims on one algorithm.
    """

    algorithms: Sequence[str]
    seeds: Sequence[int]
    prompts: Mapping[str, Collection[str]]
    queries: int
    search: Mapping[str, Any]
    presets: Mapping[str, str]
    tests: int

    def holds(self, row: Mapping[str, Any], preset: Mapping[str, Any], others: Collection[str]) -> bool:
        """Tell whether a run is one of the plan's, by its ``row`` in table ``runs``.

        ``preset`` is what the run's configuration says of the preset that it was started with, and ``others`` names
        the settings in which it differs from that, without those that tell no cell from another.
        """
        known = self.presets.get(f"{row['algorithm']}-{row['wrapper']}")
        return (
            known is not None
            and (preset.get("hash"), preset.get("tuned_by")) == (known, self.search)
            and preset.get("tuned_on") == TEMPLATE
            and row["seed"] in self.seeds
            and row["budget"] == self.queries
            and row["algorithm"] in self.algorithms_on(str(row["prompts"]))
            and set(others) <= {"prompts"}
        )

    def algorithms_on(self, prompts: str) -> list[str]:
        """Return the algorithms that it runs on these prompts."""
        return [name for name in self.algorithms if prompts in self.prompts.get(name, (TEMPLATE,))]

    def tests_on(self, prompts: str) -> int:
        """How many claims it makes on these prompts, once all is there."""
        return self.tests * len(self.algorithms_on(prompts))

    def has_all(self, seeds: Collection[int]) -> bool:
        """Tell whether a cell has all of its seeds."""
        return set(seeds) >= set(self.seeds)


PLAN = Plan(
    algorithms=("pg", "ddpo", "dpok", "dpo"),
    seeds=range(5),
    prompts={"ddpo": (TEMPLATE, "pocket-template2", "pocket-template3")},
    queries=2400,
    search={"sampler": Sampler.sobol.described, "configurations": 8, "queries_a_run": 2400},
    presets={
        "dpok-vanilla": "b2e210574e9cf10e",
        "dpok-bpt": "a08da1d804b15bb6",
        "dpok-bs": "0483cbfd51dc82ed",
        "dpok-b2": "953e3e4805908bc6",
    },
    tests=14,
)
