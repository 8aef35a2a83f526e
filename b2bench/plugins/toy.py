"""A policy small enough to try a plugin on in seconds, and the task that ``b2bench check`` sets it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from b2bench.advantage import PromptAdvantage
from b2bench.ddim import DDIM, stable_diffusion_schedule
from b2bench.protocols import Batch
from b2bench.rollout import Noise, rollout, round_noise
from b2bench.seeding import generator, normal
from b2bench.types import Conditioning, Gaussian, Interval, Trajectories, exchanged
from b2bench.update import Drawn, Units

PROMPTS = ("a cat riding a bike", "a dog playing chess", "a horse washing dishes", "a fox riding a bike")
SAMPLES = 5


class ToyPolicy:
    """A policy of a few thousand weights that behaves like a backbone.

    e = sqrt(1 - a_k) x + c_k (W h + B A h), h = tanh(U x + V text + time_k); U, V, W and time are frozen, A
    and B the adapter, B zero at first like a LoRA's. The first term alone keeps N(0, I) at every step, and
    c_k is such that a unit of the second moves the mean of any step by one standard deviation: the task
    asks whether a loss learns, not whether it copes with bad scaling. Images are sigmoid(latents).
    """

    num_steps = 4
    latent_shape = (3, 2, 2)

    def __init__(self, seed: int, width: int = 32, rank: int = 4) -> None:
        scheduler = stable_diffusion_schedule()
        self.ddim = DDIM(scheduler, self.num_steps, eta=1.0)
        self.scale = (1 - scheduler.alphas_cumprod[self.ddim.timesteps]).sqrt().float()
        self.gain = self.ddim.sigma / self.ddim.noise_weight.abs()
        self.seed = seed

        def weights(name: str, *shape: int, scale: float) -> nn.Parameter:
            return nn.Parameter(scale * torch.randn(shape, generator=generator(seed, f"toy {name}")))

        size = self.latent_size
        self.frozen = {
            "U": weights("U", width, size, scale=0.5 * size**-0.5),
            "V": weights("V", width, 4, scale=0.5),
            "W": weights("W", size, width, scale=0.1 * width**-0.5),
            "time": weights("time", self.num_steps, width, scale=0.5),
        }
        for parameter in self.frozen.values():
            parameter.requires_grad_(False)
        self.down = weights("A", rank, width, scale=width**-0.5)
        self.up = nn.Parameter(torch.zeros(size, rank))
        self.enabled = True
        self.remember()

    @property
    def latent_size(self) -> int:
        channels, height, width = self.latent_shape
        return channels * height * width

    def parameters(self) -> list[nn.Parameter]:
        return [self.down, self.up]

    def encode(self, prompts: Sequence[str]) -> Conditioning:
        distinct = list(dict.fromkeys(prompts))
        table = torch.cat([normal((2, 4), self.seed, f"toy text {text}", [()]) for text in ["", *distinct]])
        return Conditioning(table[1:], table[:1], torch.tensor([distinct.index(prompt) for prompt in prompts]))

    def noise(self, cond: Conditioning, latents: Tensor, step: Tensor, *, guided: bool = True) -> Tensor:
        frozen, x = self.frozen, latents.flatten(1)
        hidden = torch.tanh(x @ frozen["U"].T + cond.embeddings().mean(1) @ frozen["V"].T + frozen["time"][step])
        shift = hidden @ frozen["W"].T
        if self.enabled:
            shift = shift + hidden @ self.down.T @ self.up.T
        return (self.scale[step][:, None] * x + self.gain[step][:, None] * shift).unflatten(1, self.latent_shape)

    def add_noise(self, latents: Tensor, noise: Tensor, step: Tensor) -> Tensor:
        return self.ddim.add_noise(latents, noise, step)

    def denoise(self, noise: Tensor, latents: Tensor, step: Tensor) -> Gaussian:
        return self.ddim.transition(noise, latents, step)

    def transition(self, cond: Conditioning, latents: Tensor, step: Tensor) -> Gaussian:
        return self.denoise(self.noise(cond, latents, step), latents, step)

    def decode(self, latents: Tensor) -> Tensor:
        return latents.sigmoid()

    @contextlib.contextmanager
    def reference(self) -> Iterator[None]:
        self.enabled = False
        try:
            with torch.no_grad():
                yield
        finally:
            self.enabled = True

    def remember(self) -> None:
        """Keep the adapter as it is for :meth:`behaviour`."""
        self.sampled = [weight.detach().clone() for weight in self.parameters()]

    @contextlib.contextmanager
    def behaviour(self) -> Iterator[None]:
        with torch.no_grad(), exchanged(self.parameters(), self.sampled):
            yield

    @torch.no_grad()
    def move(self, scale: float, stream: str) -> None:
        """Take a random step with the adapter: a behaviour policy that is not the pretrained model."""
        self.up.add_(scale * torch.randn(self.up.shape, generator=generator(self.seed, f"toy {stream}")))


def toy_reward(seed: int) -> Callable[[Tensor, Sequence[str]], Tensor]:
    """-mean((image - target)^2) with a random target image of each prompt: [N]."""
    shape = ToyPolicy.latent_shape
    targets = {text: torch.randint(2, shape, generator=generator(seed, f"toy target {text}")) for text in PROMPTS}

    def reward(images: Tensor, prompts: Sequence[str]) -> Tensor:
        return -(images - torch.stack([targets[text] for text in prompts])).square().flatten(1).mean(1)

    return reward


def toy_rollout(policy: ToyPolicy, noise: Noise, prompts: Sequence[str]) -> Trajectories:
    interval = Interval(0, policy.num_steps)
    policy.remember()
    return rollout(policy, prompts, samples=SAMPLES, leaves=1, interval=interval, noise=noise)


def toy_noise(policy: ToyPolicy, round: int) -> Drawn:
    """Return the noise of finals of a round."""

    def draw(places: Sequence[tuple[int, int]]) -> Tensor:
        return normal(policy.latent_shape, policy.seed, "finals", [(round, *place) for place in places])

    return draw


def toy_batch(policy: ToyPolicy, algorithm: Any) -> Batch:
    """Return every step of what an algorithm learns from in a round, shuffled: rollouts, pairs or whole groups."""
    found = toy_rollout(policy, round_noise(policy, policy.seed, 0), PROMPTS)
    found.reward = toy_reward(policy.seed)(found.images, found.prompts)
    found.advantage = PromptAdvantage(0, 5.0)(found.reward, found.prompts)
    everything = torch.ones(len(found), dtype=torch.bool)
    units = Units(algorithm, found, everything, toy_noise(policy, 0), judge=toy_reward(policy.seed))
    items = torch.randperm(len(units) * units.steps, generator=generator(policy.seed, "toy batch"))
    return units.batch(items // units.steps, items % units.steps, torch.device("cpu"))
