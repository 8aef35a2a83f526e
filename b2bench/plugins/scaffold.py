"""Plugin files to start from: each works, and passes ``b2bench check``, as it is written."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from b2bench.errors import UserError
from b2bench.registry import KINDS, Registry
from b2bench.text import suggestion

_ALGORITHM = '''"""{title}: an algorithm of your own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from b2bench import Policy, Transitions, algorithm


@algorithm
class {title}:
    """L = -mean(w A log_prob), w = 1 where A > 0, else negative_weight: REINFORCE that pulls more than it pushes.

    Differs from pg: bad rollouts count less. Source: yours.
    """

    pairs: ClassVar[bool] = False  # True: loss receives a Pair, best and worst of a group
    properties: ClassVar[Mapping[str, str]] = {{
        "learns from": "advantage",
        "importance ratio": "none",
        "reference model": "none",
        "source": "yours",
    }}

    # If it needs another learning rate than the default: defaults: ClassVar[Mapping[str, float]] = {{"lr": 3e-4}}
    # A hyperparameter is a field with a default and one line of text: b2bench run --set negative_weight=0.2
    negative_weight: float = 0.5
    """Weight of rollouts with a negative advantage"""

    def loss(self, policy: Policy, batch: Transitions) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Mean over the rows of the batch; metric ``log_ratio`` [B], from which the harness logs the ratio."""
        log_prob = policy.transition(batch.cond, batch.latents, batch.step).log_prob(batch.next_latents)
        weight = torch.where(batch.advantage > 0, 1.0, self.negative_weight)
        return -(weight * batch.advantage * log_prob).mean(), {{"log_ratio": (log_prob - batch.log_prob).detach()}}
'''

_WRAPPER = '''"""{title}: a wrapper of your own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar

from annotated_types import Gt, Le

from b2bench import Independent, Interval, wrapper


@wrapper
class {title}(Independent):
    """Train the same last steps in every round.

    Independent gives the other two policies: ``leaves`` (no branching) and ``select`` (all rollouts).
    Branching, its sibling, copies a trajectory into leaves and trains on their extremes.
    """

    properties: ClassVar[Mapping[str, str]] = {{
        "steps": "last part of T",
        "leaves": "1",
        "trained on": "all rollouts",
    }}

    share: Annotated[float, Gt(0), Le(1)] = 0.5
    """Share of the T denoising steps that is trained, counted from the last one"""

    def interval(self, round: int, rounds: int, num_steps: int) -> Interval:
        """``[T - share T, T)``, at least one step."""
        return Interval(num_steps - max(1, int(self.share * num_steps)), num_steps)
'''

_REWARD = '''"""{title}: a reward of your own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

from torch import Tensor

from b2bench import reward


@reward
class {title}:
    """-abs(mean brightness - target): how close an image is to a brightness; the prompt plays no part.

    A reward with a model loads it in ``prepare(self, device)``, which runs before the first query.
    """

    properties: ClassVar[Mapping[str, str]] = {{"range": "[-1, 0]", "pocket": "yes", "source": "yours"}}

    target: float = 0.8
    """The brightness that scores best, from 0 (black) to 1 (white)"""

    def __call__(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        """``images`` [N, 3, h, w] in [0, 1] -> scores [N]."""
        return -(images.flatten(1).mean(1) - self.target).abs()
'''

_TEMPLATES = {"algorithm": _ALGORITHM, "wrapper": _WRAPPER, "reward": _REWARD}


def write_plugin(kind: str, name: str, folder: Path) -> Path:
    """Write a working plugin ``NAME.py`` into ``folder``; its class is the name with a capital letter.

    Raises:
        UserError: unknown kind, a name that is no plugin name or is taken, or the file exists.
    """
    if kind not in _TEMPLATES:
        raise UserError(f"cannot make a {kind!r}.{suggestion(kind, KINDS)} Kinds: {', '.join(KINDS)}")
    if not re.fullmatch(r"[a-z][a-z0-9]*", name):
        raise UserError(
            f"{name!r} cannot be a plugin's name: lower-case letters and digits, a letter first, such as "
            f"{_closest_name(name)}. It is the class name in lower case."
        )
    registry = Registry(next(known for known in KINDS if known == kind))
    if name in registry.origins:
        raise UserError(
            f"{kind} {name!r} exists already ({registry.origins[name].where}); choose another name. "
            f"b2bench show {name} describes it."
        )
    if name in sys.stdlib_module_names:
        raise UserError(f"{name}.py would hide Python's own module {name!r} in this folder; choose another name")
    path = folder / f"{name}.py"
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(_TEMPLATES[kind].format(title=name.capitalize()))
    except FileExistsError:
        raise UserError(f"{path.name} exists already and stays as it is; choose another name, or move it") from None
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror or error}") from None
    return path


def _closest_name(name: str) -> str:
    kept = re.sub(r"[^a-z0-9]", "", name.lower()).lstrip("0123456789")
    return kept or "mine"
