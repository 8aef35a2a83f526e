"""What is asked of a reward, and what is not its fault."""

import pytest
import torch
from torch import Tensor

from b2bench.errors import RunFailed
from b2bench.evaluation.judges import scored


def brightness(images: Tensor, prompts: list[str]) -> Tensor:
    return images.flatten(1).mean(1)


def test_an_image_that_is_not_finite_is_not_blamed_on_the_reward() -> None:
    images = torch.rand(3, 3, 8, 8)
    assert torch.equal(scored(brightness, images, ["a"] * 3, "mine"), brightness(images, []))
    images[1, 0, 2, 2] = float("nan")
    images[2, 0, 0, 0] = float("inf")
    with pytest.raises(RunFailed, match="2 of 3 images that the backbone drew are not finite, so reward mine was not"):
        scored(brightness, images, ["a"] * 3, "mine")


def test_a_score_that_is_not_finite_is_the_rewards() -> None:
    with pytest.raises(RunFailed, match="reward mine returned 3 scores that are not finite, of 3"):
        scored(lambda images, prompts: brightness(images, prompts) / 0, torch.rand(3, 3, 8, 8), ["a"] * 3, "mine")
