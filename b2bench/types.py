"""The vocabulary of the harness, and its conventions, stated once.

Step k = 0..T-1 counts in denoising order: 0 is the noisiest. ``timestep`` is the scheduler's own
integer. A trained interval is ``[start, stop)`` in steps. A log-probability is the mean over the
latent dimensions, in nats. Letters in shapes: N rollouts, T steps, K leaves of a branch, G groups,
P prompts, C, H, W latent channels, height and width, D = C*H*W the latent size, L and E tokens and
width of a text embedding, B the rows of a minibatch.
"""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

PRECISIONS = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}
"""Setting ``precision``, of the frozen networks, and what torch calls it"""


def dtype_of(precision: str) -> torch.dtype:
    """Return torch's type of a precision."""
    dtype: torch.dtype = getattr(torch, PRECISIONS[precision])
    return dtype


@dataclass(frozen=True)
class Interval:
    """The trained steps ``[start, stop)``."""

    start: int
    stop: int

    def __post_init__(self) -> None:
        if not 0 <= self.start < self.stop:
            raise ValueError(f"interval [{self.start}, {self.stop}) holds no step")

    def __len__(self) -> int:
        return self.stop - self.start


@dataclass(frozen=True)
class Gaussian:
    """An isotropic normal distribution per row: ``mean`` [B, ...], ``std`` [B], above zero."""

    mean: Tensor
    std: Tensor

    def _std(self) -> Tensor:
        return self.std.reshape(-1, *[1] * (self.mean.ndim - 1))

    def log_prob(self, x: Tensor) -> Tensor:
        """Return the log-density of ``x`` [B, ...], averaged over dimensions: [B], nats per dimension.

        All public code of the DDPO family averages; a sum was unstable in reports on two of them.
        """
        std = self._std()
        density = -((x - self.mean) ** 2) / (2 * std**2) - torch.log(std) - 0.5 * math.log(2 * math.pi)
        return density.flatten(1).mean(1)

    def kl(self, other: Gaussian) -> Tensor:
        """Return KL(self || other), averaged over dimensions: [B], nats per dimension.

        With equal standard deviations this is ``|mean - other.mean|^2 / (2 std^2)``.
        """
        ours, theirs = self._std(), other._std()
        squared = (self.mean - other.mean) ** 2
        value = torch.log(theirs / ours) + (ours**2 + squared) / (2 * theirs**2) - 0.5
        return value.flatten(1).mean(1)

    def sample(self, noise: Tensor) -> Tensor:
        """Return ``mean + std * noise`` [B, ...]; the caller draws the noise."""
        return self.mean + self._std() * noise


@dataclass(frozen=True)
class Conditioning:
    """Text embeddings of N rows: ``table`` [P, L, E] of distinct prompts, ``empty`` [1, L, E], ``index`` [N]."""

    table: Tensor
    empty: Tensor
    index: Tensor

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, rows: Tensor | slice) -> Conditioning:
        return Conditioning(self.table, self.empty, self.index[rows])

    def embeddings(self) -> Tensor:
        """Return the embedding of each row: [N, L, E]."""
        return self.table[self.index]


@dataclass
class Trajectories:
    """The rollouts of one round.

    ``latents`` [N, S+1, C, H, W] holds only the S trained steps of ``interval`` (and where the last one
    led), ``log_prob`` [N, S] their log-probabilities under the behaviour policy. ``group`` [N] numbers
    the prompt draw, or the branch, that a rollout belongs to; ``leaf`` [N] its place in it. ``images``
    [N, 3, h, w] in [0, 1] are decoded from ``final`` [N, C, H, W], clean latents. ``reward`` and ``advantage`` [N]
    are filled by the harness. ``edge`` [N, S], if rollouts share trained steps, is the first rollout that shares the
    step; what shares it has the same latents there. ``calls`` counts denoiser calls: network evaluations in rows, and
    the two rows of guidance count once.

    If several processes share a round, each knows ``prompts``, ``group``, ``leaf``, ``edge``, ``reward`` and
    ``advantage`` of all N rollouts, and holds ``cond``, ``latents``, ``final``, ``log_prob`` and ``images`` of its
    own, from row ``first`` on.
    """

    prompts: list[str]
    cond: Conditioning
    latents: Tensor
    log_prob: Tensor
    group: Tensor
    leaf: Tensor
    interval: Interval
    images: Tensor
    calls: int
    reward: Tensor | None = None
    advantage: Tensor | None = None
    first: int = 0
    final: Tensor | None = None
    edge: Tensor | None = None

    def __len__(self) -> int:
        return len(self.prompts)

    def holds(self, rows: Tensor) -> Tensor:
        """Tell which of ``rows`` [B] are held here: bool [B]."""
        return (rows >= self.first) & (rows < self.first + len(self.latents))


@dataclass(frozen=True)
class Transitions:
    """What a loss sees: B single denoising steps.

    ``latents`` and ``next_latents`` [B, C, H, W], float32; ``step`` [B], int64; ``log_prob`` [B] under
    the behaviour policy; ``advantage`` and ``reward`` [B] of the whole rollout; ``group`` [B], int64, numbers its
    comparison group. A micro-batch need not hold a whole group, unless the algorithm says ``whole_groups``.
    """

    cond: Conditioning
    latents: Tensor
    next_latents: Tensor
    step: Tensor
    log_prob: Tensor
    advantage: Tensor
    reward: Tensor
    group: Tensor

    def __len__(self) -> int:
        return len(self.step)

    def __getitem__(self, rows: Tensor | slice) -> Transitions:
        return Transitions(**{field.name: getattr(self, field.name)[rows] for field in fields(self)})


Judge = Callable[[Tensor, Sequence[str]], Tensor]
"""A reward with a gradient by the images: images [N, 3, h, w] in [0, 1] and N prompts -> scores [N]."""


@dataclass(frozen=True)
class LastSteps(Transitions):
    """What a loss of the reward's gradient sees: the last denoising steps of B rollouts, and the reward to follow.

    ``next_latents`` are the clean latents that were decoded; ``judge`` scores images for ``prompts``, B texts.
    """

    prompts: tuple[str, ...]
    judge: Judge

    def __getitem__(self, rows: Tensor | slice) -> LastSteps:
        kept = torch.arange(len(self))[rows.cpu() if isinstance(rows, Tensor) else rows].tolist()
        cut = {field.name: getattr(self, field.name)[rows] for field in fields(Transitions)}
        return LastSteps(**cut, prompts=tuple(self.prompts[i] for i in kept), judge=self.judge)


@dataclass(frozen=True)
class Finals:
    """What a loss of the forward process sees: B final latents, each to be noised anew to a step.

    ``latents`` and ``noise`` [B, C, H, W], float32: clean x_0 of a rollout, and the noise that the harness drew, the
    same for all rollouts of a comparison group at a step. ``step`` [B], int64, is one of the trained ones. ``group``
    [B] numbers the comparison group; ``advantage`` and ``reward`` [B] are of the whole rollout.
    """

    cond: Conditioning
    latents: Tensor
    noise: Tensor
    step: Tensor
    group: Tensor
    advantage: Tensor
    reward: Tensor

    def __len__(self) -> int:
        return len(self.step)

    def __getitem__(self, rows: Tensor | slice) -> Finals:
        return Finals(**{field.name: getattr(self, field.name)[rows] for field in fields(self)})


@dataclass(frozen=True)
class Pair:
    """Best and worst rollout of a comparison group at the same step, row by row."""

    winner: Transitions
    loser: Transitions

    def __len__(self) -> int:
        return len(self.winner)

    def __getitem__(self, rows: Tensor | slice) -> Pair:
        return Pair(self.winner[rows], self.loser[rows])


@dataclass(frozen=True)
class FinalPair:
    """Final latents of the best and the worst rollout of a comparison group, with the same step and noise."""

    winner: Finals
    loser: Finals

    def __len__(self) -> int:
        return len(self.winner)

    def __getitem__(self, rows: Tensor | slice) -> FinalPair:
        return FinalPair(self.winner[rows], self.loser[rows])


def micro_batches(rows: int, size: int) -> list[slice]:
    """Split ``rows`` into slices of at most ``size``, as even as possible.

    Even, because kernels round differently for a handful of rows: on a CPU a network's output is the
    same to the bit at any batch of eight or more, and off in the last place below.
    """
    if not rows:
        return []
    count = -(-rows // size)
    bounds = [rows * i // count for i in range(count + 1)]
    return [slice(start, stop) for start, stop in itertools.pairwise(bounds)]


def concatenate(parts: Sequence[Tensor], dim: int = 0) -> Tensor:
    """Join several tensors into one, without a copy if there is only one."""
    return parts[0] if len(parts) == 1 else torch.cat(list(parts), dim)


@contextlib.contextmanager
def exchanged(parameters: Sequence[Tensor], values: Sequence[Tensor]) -> Iterator[None]:
    """Let ``parameters`` hold ``values`` while the context is open; what they held is in place again afterwards."""
    held = [parameter.data for parameter in parameters]
    try:
        for parameter, value in zip(parameters, values, strict=True):
            parameter.data = value
        yield
    finally:
        for parameter, value in zip(parameters, held, strict=True):
            parameter.data = value
