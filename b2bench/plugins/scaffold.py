"""Plugin files to start from: each works, and passes ``b2bench check``, as it is written."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from b2bench.errors import UserError
from b2bench.registry import KINDS, Registry
from b2bench.text import suggestion

_TRANSITIONS = '''"""{title}: an algorithm of your own, on the transitions of the sampler."""

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

{key}    pairs: ClassVar[bool] = False
    family: ClassVar[str] = "policy gradient"
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

_PAIRS = '''"""{title}: an algorithm of your own, on pairs of transitions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar

import torch
import torch.nn.functional as F
from annotated_types import Gt
from torch import Tensor

from b2bench import Pair, Policy, algorithm


@algorithm
class {title}:
    """L = -log sigmoid(beta D (d_w - d_l)), d = log_prob - log_prob_old of the best and the worst rollout of a group.

    Differs from dpo: the reference is the policy that sampled the pair. Source: yours.
    """

{key}    pairs: ClassVar[bool] = True
    family: ClassVar[str] = "preference"
    properties: ClassVar[Mapping[str, str]] = {{
        "learns from": "best against worst of a group",
        "importance ratio": "to the behaviour policy",
        "reference model": "none",
        "source": "yours",
    }}

    beta: Annotated[float, Gt(0)] = 0.1
    """Temperature of the preference model; log-probabilities are means over D and are summed here"""

    def loss(self, policy: Policy, batch: Pair) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Mean over pairs; metrics ``log_ratio`` [2B] and ``accuracy`` [B]."""
        change = [
            policy.transition(rows.cond, rows.latents, rows.step).log_prob(rows.next_latents) - rows.log_prob
            for rows in (batch.winner, batch.loser)
        ]
        margin = self.beta * policy.latent_size * (change[0] - change[1])
        return -F.logsigmoid(margin).mean(), {{
            "log_ratio": torch.cat(change).detach(),
            "accuracy": (margin > 0).float(),
        }}
'''

_FINALS = '''"""{title}: an algorithm of your own, on final latents."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from b2bench import Finals, Policy, algorithm


@algorithm
class {title}:
    """L = mean(w A m), m = |e_theta(x_t) - e|^2 / D, w = 1 where A > 0, else negative_weight.

    The harness draws the step and the noise, a loss draws nothing. Differs from awm: no ratio, and bad rollouts count
    less. Source: yours.
    """

{key}    pairs: ClassVar[bool] = False
    finals: ClassVar[bool] = True
    family: ClassVar[str] = "forward process"
    properties: ClassVar[Mapping[str, str]] = {{
        "learns from": "advantage",
        "importance ratio": "none",
        "reference model": "none",
        "source": "yours",
    }}

    negative_weight: float = 0.5
    """Weight of rollouts with a negative advantage"""

    def loss(self, policy: Policy, batch: Finals) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Mean over the rows of the batch; metric ``denoising_error`` [B]."""
        noised = policy.add_noise(batch.latents, batch.noise, batch.step)
        m = (policy.noise(batch.cond, noised, batch.step, guided=False) - batch.noise).square().flatten(1).mean(1)
        weight = torch.where(batch.advantage > 0, 1.0, self.negative_weight)
        return (weight * batch.advantage * m).mean(), {{"denoising_error": m.detach()}}
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

{key}    properties: ClassVar[Mapping[str, str]] = {{
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

{key}    properties: ClassVar[Mapping[str, str]] = {{"range": "[-1, 0]", "pocket": "yes", "source": "yours"}}

    target: float = 0.8
    """The brightness that scores best, from 0 (black) to 1 (white)"""

    def __call__(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        """``images`` [N, 3, h, w] in [0, 1] -> scores [N]."""
        return -(images.flatten(1).mean(1) - self.target).abs()
'''

BATCHES = {"transitions": _TRANSITIONS, "pairs": _PAIRS, "finals": _FINALS}
"""What an algorithm may learn from, and the file that does."""
_TEMPLATES = {"wrapper": _WRAPPER, "reward": _REWARD}


def write_plugin(kind: str, name: str, folder: Path, batch: str | None = None) -> Path:
    """Write a working plugin ``NAME.py`` into ``folder``; its class is the name, each word with a capital letter.

    ``batch`` is what an algorithm learns from, one of :data:`BATCHES`; None: transitions.

    Raises:
        UserError: unknown kind, a name that is no plugin name or is taken, or the file exists.
    """
    if kind not in KINDS:
        raise UserError(f"cannot make a {kind!r}.{suggestion(kind, KINDS)} Kinds: {', '.join(KINDS)}")
    if batch is not None and kind != "algorithm":
        raise UserError(f"a {kind} has no batch; try without --batch")
    if batch is not None and batch not in BATCHES:
        raise UserError(f"no batch is called {batch!r}.{suggestion(batch, BATCHES)} Batches: {', '.join(BATCHES)}")
    if not re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", name):
        raise UserError(
            f"{name!r} cannot be a plugin's name: lower-case letters and digits, a letter first, words joined by _, "
            f"such as {_closest_name(name)}"
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
            title = "".join(word.capitalize() for word in name.split("_"))
            key = f'    key: ClassVar[str] = "{name}"\n' if "_" in name else ""
            template = BATCHES[batch or "transitions"] if kind == "algorithm" else _TEMPLATES[kind]
            file.write(template.format(title=title, key=key))
    except FileExistsError:
        raise UserError(f"{path.name} exists already and stays as it is; choose another name, or move it") from None
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror or error}") from None
    return path


def _closest_name(name: str) -> str:
    kept = re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_").lstrip("0123456789_")
    return kept or "mine"
