"""Size as a JPEG file, against Pillow; and weighted sums of rewards, against their parts."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from b2bench.rewards.jpeg import JPEG
from b2bench.rewards.mix import Mix
from PIL import Image

from b2bench.config.resolve import from_dict, resolve
from b2bench.errors import Refused, UserError
from b2bench.estimate.footprint import judges
from b2bench.evaluation.reward_process import RewardProcess
from b2bench.evaluation.scorers import ClipScorer
from b2bench.training.setup import check_network, ready_reward
from b2bench.training.start import start_key

CPU = torch.device("cpu")
PROMPTS = ["a cat riding a bike", "a dog playing chess", "a fox playing chess"]
RED = '''
from b2bench.registry import reward

@reward
class Red:
    """Mean of the red channel."""

    scale: float = 1.0
    """Factor"""

    def __call__(self, images, prompts):
        return self.scale * images[:, 0].mean((1, 2))
'''


@pytest.fixture
def images() -> torch.Tensor:
    noise = torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    return torch.stack([torch.full((3, 64, 64), 0.5), 0.5 + 0.1 * (noise[1] - 0.5), noise[2]])


@pytest.fixture
def plugin(tmp_path: Path) -> Path:
    path = tmp_path / "red.py"
    path.write_text(RED)
    return path


def mixed(formula: str, *plugins: Path, algorithm: str = "ddpo", **values: Any) -> Any:
    return resolve(
        algorithm=algorithm, wrapper="vanilla", reward="mix", backbone=values.pop("backbone", "pocket"), queries=10,
        seed=0, values={"rewards": formula, **values}, plugins=plugins,
    )  # fmt: skip


def test_sizes_are_those_of_pillows_files(images: torch.Tensor, tmp_path: Path) -> None:
    sizes = []
    for i, image in enumerate(images):
        pixels = np.round(image.numpy() * 255).astype(np.uint8).transpose(1, 2, 0)
        Image.fromarray(pixels).save(tmp_path / f"{i}.jpg", quality=95)
        sizes.append((tmp_path / f"{i}.jpg").stat().st_size / 1000)
    assert sizes == sorted(sizes)
    assert sizes[2] > 2 * sizes[0]
    assert JPEG(goal="incompressibility")(images, PROMPTS).tolist() == pytest.approx(sizes)
    assert JPEG()(images, PROMPTS).tolist() == pytest.approx([-size for size in sizes])
    # the file is a picture of the image
    file = io.BytesIO((tmp_path / "0.jpg").read_bytes())
    assert np.asarray(Image.open(file)).mean() == pytest.approx(127.5, abs=1)


def test_a_mix_is_the_weighted_sum(images: torch.Tensor, plugin: Path) -> None:
    config = mixed("0.5 * clipscore - jpeg(goal='incompressibility') * 0.01 + red(scale=-3)", plugin)
    reward, _ = ready_reward(config, CPU)
    clip = ClipScorer("pocket")(images, PROMPTS)
    size = JPEG(goal="incompressibility")(images, PROMPTS)
    expected = 0.5 * clip - 0.01 * size - 3 * images[:, 0].mean((1, 2))
    torch.testing.assert_close(reward(images, PROMPTS), expected)
    assert config.reward.rewards == (
        "0.5 * clipscore(checkpoint='pocket') - 0.01 * jpeg(goal='incompressibility') + red(scale=-3)"
    )


@pytest.mark.parametrize(
    ("formula", "weights"),
    [
        ("jpeg", [1]),
        ("-jpeg", [-1]),
        ("2*jpeg - (success - 3 * jpeg)", [2, -1, 3]),
        ("-0.5 * jpeg + success * -1e-3", [-0.5, -0.001]),
    ],
)
def test_weights_of_a_formula(formula: str, weights: list[float]) -> None:
    reward = mixed(formula).reward
    assert [term.weight for term in reward.terms] == weights
    assert [term.weight for term in Mix(rewards=reward.rewards).terms] == weights  # as it is stored


@pytest.mark.parametrize(
    ("formula", "part"),
    [
        ("", "cannot be read"),
        ("clipscore +", "cannot be read: invalid syntax"),
        ("clipscore * jpeg", "is not a number times a reward"),
        ("0 * jpeg", "is 0 or not finite"),
        ("1e999 * jpeg", "is 0 or not finite"),
        ("2 * 3", "3 is not a reward"),
        ("clipscore + 1", "1 is not a reward"),
        ("jpeg / 2", "jpeg / 2 is not a reward"),
        ("jpeg(95)", "is not a reward"),
        ("jpeg(**{})", "is not a reward"),
        ("jpeg(goal='x', goal='incompressibility')", "says goal twice"),
        ("__import__('os').getcwd()", "is not a reward"),
        ("jpeg(goal=open('x'))", "is not a number, a text in quotes"),
        ("jpeg(goal='small')", "is not one of compressibility"),
        ("jpeg(size=3)", "jpeg has no hyperparameter 'size'"),
        ("clipscor + jpeg", "Did you mean clipscore?"),
        ("mix + jpeg", "mix is made of other rewards"),
        ("(" * 5000, "cannot be read"),
        ("-" * 5000 + "jpeg", "cannot be read"),
    ],
)
def test_a_formula_that_is_none(formula: str, part: str) -> None:
    with pytest.raises(UserError) as refused:
        mixed(formula)
    assert part in str(refused.value)
    assert "\n" not in str(refused.value)


def test_what_its_rewards_refuse_it_refuses(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="reward mix does not go with the backbone sd14: success: it reads pocket"):
        mixed("clipscore + success", backbone="sd14")
    with pytest.raises(Refused, match="mix has none"):  # no gradient
        mixed("clipscore + jpeg", algorithm="draft1")


def test_the_gradient_of_a_mix(images: torch.Tensor) -> None:
    reward, _ = ready_reward(mixed("clipscore - 0.25 * clipscore", algorithm="draft1"), CPU)
    moved = images.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(reward.with_gradient(moved, PROMPTS).sum(), moved)
    alone = ClipScorer("pocket")
    (expected,) = torch.autograd.grad(0.75 * alone.with_gradient(moved, PROMPTS).sum(), moved)
    torch.testing.assert_close(gradient, expected, rtol=1e-3, atol=1e-6)


def test_a_run_with_a_plugins_reward_in_its_mix_is_another_after_a_change(plugin: Path) -> None:
    config = mixed("red + 0.1 * jpeg", plugin)
    content = config.as_dict()
    assert from_dict(content).as_dict() == content
    assert from_dict(content).reward.rewards == "red + 0.1 * jpeg"
    assert "code" not in mixed("jpeg").as_dict()["reward"]
    plugin.write_text(RED.replace("[:, 0]", "[:, 1]"))
    assert mixed("red + 0.1 * jpeg", plugin).cell_hash() != config.cell_hash()
    with pytest.raises(UserError, match="the file of reward mix has changed"):
        from_dict(content)


def test_the_start_of_a_run_depends_on_the_files_of_the_parts(tmp_path: Path) -> None:
    formula = f"clipscore(checkpoint={str(tmp_path)!r}) + 0.1 * jpeg"
    before = start_key(mixed(formula), CPU, 1)
    (tmp_path / "weights").write_bytes(b"1")
    assert start_key(mixed(formula), CPU, 1) != before


def test_models_of_a_mix_are_those_of_its_parts(plugin: Path) -> None:
    found, unknown = judges(mixed("clipscore + red + jpeg", plugin))
    assert "CLIP scorer scorer-training" in {model.name for model in found}
    assert unknown == ["reward red, a plugin"]
    assert judges(mixed("jpeg"))[1] == []


def test_a_hub_that_is_out_of_reach_is_found_out_once(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    for formula, offline in (("jpeg", False), ("jpeg + 0.1 * pickscore", True)):
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
        check_network(mixed(formula))
        assert constants.HF_HUB_OFFLINE is offline


@pytest.mark.slow
def test_a_mix_in_a_process_of_its_own(images: torch.Tensor, plugin: Path) -> None:
    formula = "clipscore + 0.1 * jpeg + red"
    here, _ = ready_reward(mixed(formula, plugin), CPU)
    there, _ = ready_reward(mixed(formula, plugin, reward_process=True, reward_device="cpu"), CPU)
    assert isinstance(there, RewardProcess)
    try:
        assert torch.equal(there(images, PROMPTS), here(images, PROMPTS))
        assert there.clip == here.scorer.name
    finally:
        there.close()
