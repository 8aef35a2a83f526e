"""b2bench: which reinforcement-learning algorithm fine-tunes a diffusion model best per reward query?

What others import stands here, and docs/api.md describes it: what a plugin is written with, and :func:`run`,
:func:`load_results` and :func:`report` for notebooks. A name is imported when it is first asked for, so that
``import b2bench`` needs neither torch nor DuckDB. Nothing within b2bench imports this module: it stands above all.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from b2bench.version import BENCHMARK_VERSION as BENCHMARK_VERSION
from b2bench.version import __version__ as __version__
from b2bench.version import benchmark_version as benchmark_version
from b2bench.version import both_versions as both_versions

__all__ = [
    "BENCHMARK_VERSION",
    "Algorithm",
    "Backbone",
    "BackwardProgressive",
    "Branching",
    "Conditioning",
    "FinalPair",
    "Finals",
    "FullInterval",
    "Gaussian",
    "Independent",
    "Interval",
    "LastSteps",
    "Pair",
    "Policy",
    "PromptSet",
    "Results",
    "Reward",
    "RunFailed",
    "Search",
    "Store",
    "Summary",
    "Tables",
    "Trajectories",
    "Transitions",
    "UserError",
    "Wrapper",
    "__version__",
    "algorithm",
    "benchmark_version",
    "both_versions",
    "load_results",
    "report",
    "reward",
    "run",
    "wrapper",
]

if TYPE_CHECKING:  # the same names as in _HOMES; tests/unit/test_door.py compares the two
    from b2bench.backbones.specs import Backbone as Backbone
    from b2bench.config.prompt_sets import PromptSet as PromptSet
    from b2bench.errors import RunFailed as RunFailed
    from b2bench.errors import UserError as UserError
    from b2bench.leaderboard.rows import Tables as Tables
    from b2bench.notebook import Results as Results
    from b2bench.notebook import load_results as load_results
    from b2bench.notebook import report as report
    from b2bench.notebook import run as run
    from b2bench.protocols import Algorithm as Algorithm
    from b2bench.protocols import Policy as Policy
    from b2bench.protocols import Reward as Reward
    from b2bench.protocols import Wrapper as Wrapper
    from b2bench.registry import algorithm as algorithm
    from b2bench.registry import reward as reward
    from b2bench.registry import wrapper as wrapper
    from b2bench.search import Search as Search
    from b2bench.store.store import Store as Store
    from b2bench.training.summary import Summary as Summary
    from b2bench.types import Conditioning as Conditioning
    from b2bench.types import FinalPair as FinalPair
    from b2bench.types import Finals as Finals
    from b2bench.types import Gaussian as Gaussian
    from b2bench.types import Interval as Interval
    from b2bench.types import LastSteps as LastSteps
    from b2bench.types import Pair as Pair
    from b2bench.types import Trajectories as Trajectories
    from b2bench.types import Transitions as Transitions
    from b2bench.wrappers import BackwardProgressive as BackwardProgressive
    from b2bench.wrappers import Branching as Branching
    from b2bench.wrappers import FullInterval as FullInterval
    from b2bench.wrappers import Independent as Independent
else:  # hidden from type checkers, which would take any name for one that __getattr__ may have
    _NAMES_OF = {
        "backbones.specs": ("Backbone",),
        "config.prompt_sets": ("PromptSet",),
        "errors": ("RunFailed", "UserError"),
        "leaderboard.rows": ("Tables",),
        "notebook": ("Results", "load_results", "report", "run"),
        "protocols": ("Algorithm", "Policy", "Reward", "Wrapper"),
        "registry": ("algorithm", "reward", "wrapper"),
        "search": ("Search",),
        "store.store": ("Store",),
        "training.summary": ("Summary",),
        "types": (
            "Conditioning",
            "FinalPair",
            "Finals",
            "Gaussian",
            "Interval",
            "LastSteps",
            "Pair",
            "Trajectories",
            "Transitions",
        ),
        "wrappers": ("BackwardProgressive", "Branching", "FullInterval", "Independent"),
    }
    _HOMES = {name: f"b2bench.{module}" for module, names in _NAMES_OF.items() for name in names}

    def __getattr__(name):
        if name not in _HOMES:
            raise AttributeError(f"module 'b2bench' has no attribute {name!r}")
        found = globals()[name] = getattr(import_module(_HOMES[name]), name)
        return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
