"""What the harness asks of its parts. Plugins need not inherit anything: the shape is what counts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, ClassVar, Protocol, runtime_checkable

from torch import Tensor, nn

from b2bench.types import Conditioning, Gaussian, Interval, Pair, Trajectories, Transitions


class Policy(Protocol):
    """p(x_{k+1} | x_k, prompt) of a backbone with its adapter, at fixed T, eta and guidance."""

    num_steps: int
    latent_shape: tuple[int, int, int]

    @property
    def latent_size(self) -> int:
        """D, the number of latent dimensions that log-probabilities average over."""

    def encode(self, prompts: Sequence[str]) -> Conditioning:
        """Embed N prompts; equal ones once."""

    def noise(self, cond: Conditioning, latents: Tensor, step: Tensor) -> Tensor:
        """The guided noise prediction at ``step`` [B]: [B, C, H, W], float32."""

    def denoise(self, noise: Tensor, latents: Tensor, step: Tensor) -> Gaussian:
        """The DDIM transition that follows from a noise prediction."""

    def transition(self, cond: Conditioning, latents: Tensor, step: Tensor) -> Gaussian:
        """``denoise(noise(...))``."""

    def decode(self, latents: Tensor) -> Tensor:
        """Final latents [N, C, H, W] to images [N, 3, h, w] in [0, 1]."""

    def reference(self) -> AbstractContextManager[None]:
        """While it is open, and without gradient, the pretrained model: the adapter is switched off."""

    def parameters(self) -> Iterable[nn.Parameter]:
        """The adapter's parameters, the only ones that are trained."""


@runtime_checkable
class Algorithm(Protocol):
    """A loss. A keyword-only dataclass whose fields are its hyperparameters.

    ``pairs`` true: batches are :class:`Pair`, best and worst of a comparison group. Optional:
    ``setup(policy, generator)`` before the first round, ``networks()`` for what else is trained, and
    ``refuses(wrapper) -> str | None``: why it cannot be trained under a wrapper, None where it can.
    """

    pairs: ClassVar[bool]

    def loss(self, policy: Policy, batch: Any) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Mean loss over the rows of the batch, and metrics of the same batch, each a scalar or [B] (pairs: or [2B]).

        ``batch`` is Transitions, or Pair where ``pairs`` is true.
        """


@runtime_checkable
class Wrapper(Protocol):
    """Three small policies: which steps are trained, how many leaves a branch has, what reaches the loss.

    Optional: ``refuses(algorithm) -> str | None``, why an algorithm cannot be trained under it.
    """

    def interval(self, round: int, rounds: int, num_steps: int) -> Interval:
        """The trained steps of a round (0-based) of a run of ``rounds``."""

    def leaves(self, samples: int) -> int:
        """Leaves per branch point, given ``samples`` rollouts per prompt draw; 1 is no branching."""

    def select(self, trajectories: Trajectories) -> Tensor:
        """Which rollouts reach the loss: bool [N]."""


@runtime_checkable
class Reward(Protocol):
    """A score of images for prompts. The harness counts N queries a call on training images."""

    def __call__(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        """``images`` [N, 3, h, w] in [0, 1] -> float scores [N]."""


Batch = Transitions | Pair
