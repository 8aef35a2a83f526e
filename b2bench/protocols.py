"""What the harness asks of its parts. Plugins need not inherit anything: the shape is what counts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, runtime_checkable

from torch import Tensor, nn

from b2bench.types import Conditioning, FinalPair, Finals, Gaussian, Interval, Pair, Trajectories, Transitions


class Policy(Protocol):
    """p(x_{k+1} | x_k, prompt) of a backbone with its adapter, at fixed T, eta and guidance."""

    num_steps: int
    latent_shape: tuple[int, int, int]

    @property
    def latent_size(self) -> int:
        """Return D, the number of latent dimensions that log-probabilities average over."""

    def encode(self, prompts: Sequence[str]) -> Conditioning:
        """Embed N prompts; equal prompts are embedded once."""

    def noise(self, cond: Conditioning, latents: Tensor, step: Tensor, *, guided: bool = True) -> Tensor:
        """Return the noise prediction at ``step`` [B]: [B, C, H, W], float32.

        ``guided`` false: that for the prompt alone, as a diffusion model is trained, without guidance.
        """

    def add_noise(self, latents: Tensor, noise: Tensor, step: Tensor) -> Tensor:
        """Noise clean ``latents`` to ``step`` [B]: sqrt(a) x_0 + sqrt(1 - a) e, [B, C, H, W]."""

    def denoise(self, noise: Tensor, latents: Tensor, step: Tensor) -> Gaussian:
        """Return the DDIM transition that follows from a noise prediction."""

    def transition(self, cond: Conditioning, latents: Tensor, step: Tensor) -> Gaussian:
        """Return ``denoise(noise(...))``."""

    def decode(self, latents: Tensor) -> Tensor:
        """Turn final latents [N, C, H, W] into images [N, 3, h, w] in [0, 1], which have a gradient if they have."""

    def reference(self) -> AbstractContextManager[None]:
        """Switch the adapter off while the context is open: the pretrained model, without gradient."""

    def remember(self) -> None:
        """Keep the adapter as it is now for :meth:`behaviour`; the harness does so before it samples."""

    def behaviour(self) -> AbstractContextManager[None]:
        """Put the adapter that sampled the batch in place while the context is open, without gradient."""

    def parameters(self) -> Iterable[nn.Parameter]:
        """Return the adapter's parameters, the only ones that are trained."""


@dataclass(frozen=True)
class ModelSize:
    """A network beside the policy, which judges images: how many parameters it has, and its bytes once it is loaded.

    ``bytes`` None: it takes memory, and nobody knows how much.
    """

    name: str
    parameters: int
    bytes: int | None


@runtime_checkable
class Algorithm(Protocol):
    """A loss. A keyword-only dataclass whose fields are its hyperparameters.

    ``pairs`` true: batches are :class:`Pair`, best and worst of a comparison group. Optional: class attributes
    ``finals`` true: batches are :class:`Finals`, or :class:`FinalPair`; ``whole_groups`` true: what is kept of a
    comparison group at a step comes in one batch; ``reward_gradient`` true: batches are :class:`LastSteps`, with the
    reward to follow; ``upper_reference``, a text: why reports leave it out of the ranking; and
    ``setup(policy, generator)`` before the first round, ``networks()`` for what else is trained,
    ``refuses(wrapper) -> str | None``: why it cannot be trained under a wrapper, or None if it can; and a class
    attribute ``defaults``, its own defaults of the settings ``lr`` and ``updates_per_round``, as ``{"lr": 3e-4}``;
    ``row_calls``, how many denoiser calls the loss makes for a row, with a gradient and without: what counts them then
    needs not run it (``b2bench check`` compares).
    """

    pairs: ClassVar[bool]

    def loss(self, policy: Policy, batch: Any) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Return the mean loss over the rows of the batch, and its metrics, each a scalar or [B] (pairs: or [2B]).

        ``batch`` is Transitions, or what ``finals`` and ``pairs`` say.
        """


@runtime_checkable
class Wrapper(Protocol):
    """Three small policies: which steps are trained, how many leaves a branch has, what reaches the loss.

    Optional: ``refuses(algorithm) -> str | None``, why an algorithm cannot be trained under it; a second argument
    ``generator`` of ``select``, if it draws: a CPU generator of (seed, round); ``notice(rounds, num_steps) -> str |
    None``, what whoever starts a run of so many rounds should be told; ``step_weights(std) -> Tensor``, by how much
    the advantages of each of the T steps count, given the steps' noise; ``edges(samples, interval) -> Tensor``, where
    a prompt draw is a tree: for each rollout of it and each of the S trained steps the first rollout that shares the
    step, [samples, S], and those that have parted stay apart; and a class attribute ``control``, a text, which says
    what the wrapper is a control of: ``b2bench show`` prints it, and ``--wrapper all`` leaves it out. With
    ``step_weights`` or ``edges`` an algorithm on pairs is refused: it has no advantages.
    """

    def interval(self, round: int, rounds: int, num_steps: int) -> Interval:
        """Return the trained steps of a round (0-based) of a run of ``rounds``."""

    def leaves(self, samples: int) -> int:
        """Return the leaves per branch point, for ``samples`` rollouts per prompt draw; 1 means no branching."""

    def select(self, trajectories: Trajectories) -> Tensor:
        """Choose the rollouts that reach the loss: bool [N]."""


@runtime_checkable
class Reward(Protocol):
    """A score of images for prompts. The harness counts N queries a call on training images.

    Optional: ``prepare(device)``, which loads its models before the first query; ``with_gradient(images, prompts)``,
    the same scores, differentiable by the images, which an algorithm of the reward's gradient needs;
    ``refuses(backbone) -> str | None``, why it cannot judge what a backbone draws; ``models() -> list[ModelSize]``,
    what it loads, for ``b2bench estimate``; and, if it has a field ``checkpoint`` whose default is "auto", a class
    method ``own_checkpoint(backbone) -> str``, which says what that stands for (else "pocket" for the embedded
    backbones and "paper" for all others). A reward that is made of others has ``assemble(rewards, backbone)``, which
    gets the registry of rewards and the backbone, or None where its settings are those of a run already, right after it
    is built; from then on ``parts`` are its rewards, in a list.
    """

    def __call__(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        """Score ``images`` [N, 3, h, w] in [0, 1]: floats [N]."""


Batch = Transitions | Finals | Pair | FinalPair
