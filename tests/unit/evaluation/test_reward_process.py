"""A reward in a process of its own answers as it would here, and what goes wrong there is said here."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import constants

from b2bench.config.resolve import resolve
from b2bench.errors import RunFailed, UserError
from b2bench.evaluation.judges import Judges
from b2bench.evaluation.reward_process import RewardProcess
from b2bench.training.setup import make_judges, ready_reward

PROMPTS = ["a cat riding a bike", "a dog playing chess", "a fox playing chess"]
CPU = torch.device("cpu")
PLUGIN = '''
import torch
from b2bench.registry import reward

@reward
class Red:
    """Mean of the red channel; raises at the prompt "a bee", and prints a lot."""

    scale: float = 1.0
    """Factor"""

    def prepare(self, device):
        if self.scale < 0:
            raise ValueError("scale below 0")
        print("hello " * 1000)

    def __call__(self, images, prompts):
        print("asked")
        if "a bee" in prompts:
            raise KeyError("no bees")
        return self.scale * images[:, 0].mean((1, 2))
'''

LOOSE = '''
import torch
from huggingface_hub import constants
from b2bench.registry import reward

@reward
class Loose:
    """1 where the hub is not asked and the process is as it was; leaves it otherwise."""

    def prepare(self, device):
        torch.set_default_dtype(torch.float64)

    def __call__(self, images, prompts):
        usual = torch.get_default_dtype() is torch.float32 and torch.are_deterministic_algorithms_enabled() is False
        torch.set_default_dtype(torch.float64)
        return torch.full((len(images),), float(constants.HF_HUB_OFFLINE and usual))
'''


@pytest.fixture
def images() -> torch.Tensor:
    return torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def plugin(tmp_path: Path) -> str:
    path = tmp_path / "red.py"
    path.write_text(PLUGIN)
    return str(path)


def run_config(**values: Any) -> Any:
    return resolve(
        algorithm="ddpo", wrapper="vanilla", reward="clipscore", backbone="pocket", queries=10, seed=0, values=values
    )


@pytest.fixture(scope="module")
def judges() -> Iterator[Judges]:
    """Those of a run whose CLIPScore is in a process of its own, which takes seconds to start."""
    found = make_judges(run_config(reward_process=True, reward_device="cpu", inception="clip"), CPU)
    yield found
    found.reward.close()  # type: ignore[attr-defined]


@pytest.mark.slow
def test_the_same_scores_to_the_last_bit(images: torch.Tensor, judges: Judges) -> None:
    here, _ = ready_reward(run_config(), CPU)
    there = judges.reward
    assert isinstance(there, RewardProcess)
    for _ in range(2):
        assert torch.equal(there(images, PROMPTS), here(images, PROMPTS))
    assert there.clip == here.scorer.name
    expected = here.scorer.raw_features(images).softmax(1)
    assert torch.equal(there.probabilities(images), expected)


@pytest.mark.slow
def test_the_inception_score_of_the_rewards_own_clip_needs_no_second_one(images: torch.Tensor, judges: Judges) -> None:
    (extractor,) = judges.inception
    assert extractor.probabilities == judges.reward.probabilities
    assert extractor.probabilities(images).sum(1) == pytest.approx(1)


@pytest.mark.slow
def test_a_plugin_with_hyperparameters_that_prints(plugin: str, images: torch.Tensor) -> None:
    reward = RewardProcess("red", {"scale": 2.0}, [plugin])
    reward.prepare(CPU)
    torch.testing.assert_close(reward(images, PROMPTS), 2 * images[:, 0].mean((1, 2)))
    with pytest.raises(RunFailed, match=r"KeyError: 'no bees' \(.*red.py, line \d+\)"):
        reward(images, ["a bee"] * 3)
    assert reward(images, PROMPTS).shape == (3,)  # it goes on
    reward.close()


@pytest.mark.slow
def test_what_cannot_be_set_up(plugin: str) -> None:
    reward = RewardProcess("red", {"scale": -1.0}, [plugin])
    with pytest.raises(RunFailed, match="ValueError: scale below 0"):
        reward.prepare(CPU)
    reward.close()
    reward = RewardProcess("clipscore", {"checkpoint": "paper"}, [])
    with pytest.raises(UserError, match="hf download"):
        reward.prepare(CPU)
    reward.close()


@pytest.mark.slow
def test_it_is_guarded_and_offline_as_a_reward_of_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "loose.py"
    path.write_text(LOOSE)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    reward = RewardProcess("loose", {}, [str(path)])
    reward.prepare(CPU)
    answers = [reward(torch.zeros(1, 3, 2, 2), ["a cat"]).tolist() for _ in range(2)]
    reward.close()
    assert answers == [[1.0], [1.0]]  # offline; and in float32 and with gradients, whatever an earlier call did


@pytest.mark.slow
def test_a_process_that_is_killed(plugin: str, images: torch.Tensor) -> None:
    reward = RewardProcess("red", {}, [plugin])
    with pytest.raises(RunFailed, match="not running"):
        reward(images, PROMPTS)
    reward.prepare(CPU)
    assert reward._process is not None
    os.kill(reward._process.pid, signal.SIGKILL)
    with pytest.raises(RunFailed, match="signal 9"):
        reward(images, PROMPTS)


def test_a_device_that_is_not_there() -> None:
    with pytest.raises(UserError, match="reward_device = cuda:9"):
        ready_reward(run_config(reward_device="cuda:9"), CPU)
    with pytest.raises(UserError, match="reward_device = nonsense"):
        ready_reward(run_config(reward_device="nonsense"), CPU)


def test_neither_is_part_of_a_cells_identity() -> None:
    plain, moved = run_config(), run_config(reward_process=True, reward_device="cuda:1")
    assert plain.cell_hash() == moved.cell_hash()
