"""What a reward must do: a finite number for each image, the same one each time, and a gradient if it offers one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from b2bench.backbones.specs import find_backbone, own_checkpoint
from b2bench.hyperparameters import assemble, build, hyperparameters
from b2bench.plugins.contract import Checker, Failed, check_hyperparameters, check_process, expect, global_seed
from b2bench.plugins.toy import PROMPTS
from b2bench.protocols import ModelSize
from b2bench.registry import Registry
from b2bench.seeding import generator

TOLERANCE = 1e-4
"""Of scores up to 1; of larger ones, their share"""


def check_reward(cls: type, checker: Checker) -> None:
    checker.run("hyperparameters have defaults and docs", lambda: check_hyperparameters(cls), needed=True)
    check = _Check(cls)
    checker.run("prepares on the CPU", check.prepare, needed=True)
    checker.run("scores are finite, one per image", check.shape, needed=True)
    if checker.run("scores are deterministic", check.deterministic):  # what draws changes a seed, too
        checker.run("the process stays as it is", lambda: check_process(check.score))
    checker.run("images are not mutated", check.mutation)
    checker.run("order of the images does not matter", check.order)
    checker.run("batch size does not matter", check.batches)
    if hasattr(cls, "with_gradient"):
        checker.run("the gradient is of the same scores", check.gradient)
    if hasattr(cls, "refuses"):
        checker.run("refusals are texts", check.refusals)
    if hasattr(cls, "models"):
        checker.run("models have sizes", check.sizes)


class _Check:
    """A reward, with made-up images [N, 3, 64, 64] and prompts to try it on."""

    def __init__(self, cls: type) -> None:
        self.cls, self.prompts = cls, [*PROMPTS, PROMPTS[0], "a bird playing chess"]
        self.n = len(self.prompts)
        coarse = torch.rand(self.n, 3, 4, 4, generator=generator(0, "check images"))
        self.images = nn.functional.interpolate(coarse, size=(64, 64), mode="bilinear").clamp(0, 1)

    def prepare(self) -> None:
        automatic = any(p.name == "checkpoint" and p.default == "auto" for p in hyperparameters(self.cls))
        pocket = find_backbone("pocket")
        reward: Any = build(self.cls, {"checkpoint": own_checkpoint(pocket, self.cls)} if automatic else {})
        assemble(reward, Registry("reward"), pocket)
        expect(callable(reward), "it has no method __call__(self, images, prompts)")
        if hasattr(reward, "prepare"):
            reward.prepare(torch.device("cpu"))
        self.reward = reward

    def score(self, rows: Sequence[int] | None = None) -> Tensor:
        """Score these images, or all."""
        chosen = list(range(self.n) if rows is None else rows)
        scores = self.reward(self.images[chosen], [self.prompts[i] for i in chosen])
        return torch.as_tensor(scores).detach().float().cpu()

    def slack(self) -> float:
        """Rounding in float32: of a score of thousands it is more than of a cosine."""
        return TOLERANCE * max(1.0, float(self.score().abs().max()))

    def shape(self) -> None:
        self._expect_one_each(scores := self.score(), "it")
        bad = int((~torch.isfinite(scores)).sum())
        expect(not bad, f"{bad} of {self.n} scores are not finite")

    def _expect_one_each(self, scores: Tensor, who: str) -> None:
        shape = tuple(scores.shape)
        expect(shape == (self.n,), f"{who} gave shape {shape} for {self.n} images; expected ({self.n},)")

    def deterministic(self) -> None:
        with global_seed(1):
            first = self.score()
        with global_seed(2):
            second = self.score()
        expect(
            torch.equal(first, second), "the same images gave two different scores; a reward draws no random numbers"
        )

    def mutation(self) -> None:
        given, texts = self.images.clone(), list(self.prompts)
        self.reward(given, texts)
        expect(torch.equal(given, self.images), "it changed the images in place; work on a copy")
        expect(texts == self.prompts, "it changed the list of prompts in place; work on a copy")

    def order(self) -> None:
        turned = torch.arange(self.n).roll(2).tolist()
        gap = float((self.score(turned) - self.score()[turned]).abs().max())
        expect(
            gap <= self.slack(), f"another order of the images changed a score by {gap:.3g}; each must stand for itself"
        )

    def batches(self) -> None:
        single = torch.cat([self.score([i]) for i in range(self.n)])
        gap = float((single - self.score()).abs().max())
        expect(gap <= self.slack(), f"images scored one by one differ by {gap:.3g} from the same in one batch")

    def gradient(self) -> None:
        given = self.images.clone().requires_grad_(True)
        scores = torch.as_tensor(self.reward.with_gradient(given, list(self.prompts)))
        self._expect_one_each(scores, "with_gradient")
        gap = float((scores.detach().float().cpu() - self.score()).abs().max())
        expect(gap <= self.slack(), f"with_gradient gives scores that differ by {gap:.3g} from those of a call")
        expect(scores.requires_grad, "what with_gradient gives has no gradient")
        (slope,) = torch.autograd.grad(scores.sum(), given, allow_unused=True)
        if slope is None:
            raise Failed("with_gradient has no gradient by the images")
        expect(bool(torch.isfinite(slope).all()), "the gradient of with_gradient by the images is not finite")
        expect(bool(slope.any()), "the gradient of with_gradient by the images is zero everywhere")

    def refusals(self) -> None:
        for backbone in map(find_backbone, ("pocket", "sd14")):
            said = self.reward.refuses(backbone)
            expect(said is None or isinstance(said, str), f"refuses({backbone.name}) is {said!r}; a text or None")

    def sizes(self) -> None:
        found = list(self.reward.models())
        expect(all(isinstance(size, ModelSize) for size in found), f"models() is {found!r}; each must be a ModelSize")
