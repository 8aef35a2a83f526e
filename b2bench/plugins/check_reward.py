"""What a reward must do: a finite number for each image, the same one each time, and a gradient if it offers one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from b2bench.backbones.specs import find_backbone, own_checkpoint
from b2bench.hyperparameters import assemble, build, hyperparameters
from b2bench.plugins.contract import Checker, check_hyperparameters, check_process, expect, global_seed
from b2bench.plugins.toy import PROMPTS
from b2bench.protocols import ModelSize
from b2bench.registry import Registry
from b2bench.seeding import generator

TOLERANCE = 1e-4
"""Of scores up to 1; of larger ones, their share"""


def check_reward(cls: type, checker: Checker) -> None:
    checker.run("hyperparameters have defaults and docs", lambda: check_hyperparameters(cls), needed=True)
    automatic = any(p.name == "checkpoint" and p.default == "auto" for p in hyperparameters(cls))
    made: list[Any] = []

    def prepare() -> None:
        pocket = find_backbone("pocket")
        reward = build(cls, {"checkpoint": own_checkpoint(pocket, cls)} if automatic else {})
        assemble(reward, Registry("reward"), pocket)
        expect(callable(reward), "it has no method __call__(self, images, prompts)")
        if hasattr(reward, "prepare"):
            reward.prepare(torch.device("cpu"))
        made.append(reward)

    checker.run("prepares on the CPU", prepare, needed=True)
    prompts = [*PROMPTS, PROMPTS[0], "a bird playing chess"]
    n = len(prompts)
    coarse = torch.rand(n, 3, 4, 4, generator=generator(0, "check images"))
    images = nn.functional.interpolate(coarse, size=(64, 64), mode="bilinear").clamp(0, 1)

    def score(images: Tensor, prompts: Sequence[str]) -> Tensor:
        return torch.as_tensor(made[0](images.clone(), list(prompts))).detach().float().cpu()

    def shape() -> None:
        scores = score(images, prompts)
        expect(scores.shape == (n,), f"it gave shape {tuple(scores.shape)} for {n} images; expected ({n},)")
        bad = int((~torch.isfinite(scores)).sum())
        expect(not bad, f"{bad} of {n} scores are not finite")

    def deterministic() -> None:
        with global_seed(1):
            first = score(images, prompts)
        with global_seed(2):
            second = score(images, prompts)
        expect(
            torch.equal(first, second), "the same images gave two different scores; a reward draws no random numbers"
        )

    def mutation() -> None:
        given, texts = images.clone(), list(prompts)
        made[0](given, texts)
        expect(torch.equal(given, images), "it changed the images in place; work on a copy")
        expect(texts == prompts, "it changed the list of prompts in place; work on a copy")

    def order() -> None:
        turned = torch.arange(n).roll(2)
        gap = float((score(images[turned], [prompts[i] for i in turned]) - score(images, prompts)[turned]).abs().max())
        expect(gap <= slack(), f"another order of the images changed a score by {gap:.3g}; each must stand for itself")

    def batches() -> None:
        single = torch.cat([score(images[i : i + 1], prompts[i : i + 1]) for i in range(n)])
        gap = float((single - score(images, prompts)).abs().max())
        expect(gap <= slack(), f"images scored one by one differ by {gap:.3g} from the same in one batch")

    def slack() -> float:
        """Rounding in float32: of a score of thousands it is more than of a cosine."""
        return TOLERANCE * max(1.0, float(score(images, prompts).abs().max()))

    def gradient() -> None:
        given = images.clone().requires_grad_(True)
        scores = torch.as_tensor(made[0].with_gradient(given, list(prompts)))
        expect(scores.shape == (n,), f"with_gradient gave shape {tuple(scores.shape)} for {n} images; expected ({n},)")
        gap = float((scores.detach().float().cpu() - score(images, prompts)).abs().max())
        expect(gap <= slack(), f"with_gradient gives scores that differ by {gap:.3g} from those of a call")
        expect(scores.requires_grad, "what with_gradient gives has no gradient")
        scores.sum().backward()
        slope = given.grad
        expect(slope is not None, "with_gradient has no gradient by the images")
        assert slope is not None
        expect(bool(torch.isfinite(slope).all()), "the gradient of with_gradient by the images is not finite")
        expect(bool(slope.any()), "the gradient of with_gradient by the images is zero everywhere")

    def refusal() -> None:
        for backbone in map(find_backbone, ("pocket", "sd14")):
            said = made[0].refuses(backbone)
            expect(said is None or isinstance(said, str), f"refuses({backbone.name}) is {said!r}; a text or None")

    def sizes() -> None:
        found = list(made[0].models())
        expect(all(isinstance(size, ModelSize) for size in found), f"models() is {found!r}; each must be a ModelSize")

    checker.run("scores are finite, one per image", shape, needed=True)
    if checker.run("scores are deterministic", deterministic):  # what draws changes a seed, too
        checker.run("the process stays as it is", lambda: check_process(lambda: score(images, prompts)))
    checker.run("images are not mutated", mutation)
    checker.run("order of the images does not matter", order)
    checker.run("batch size does not matter", batches)
    if hasattr(cls, "with_gradient"):
        checker.run("the gradient is of the same scores", gradient)
    if hasattr(cls, "refuses"):
        checker.run("refusals are texts", refusal)
    if hasattr(cls, "models"):
        checker.run("models have sizes", sizes)
