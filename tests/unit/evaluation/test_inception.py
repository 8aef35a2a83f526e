"""Inception scores of full-size images, against torch-fidelity's own path and a loop in numpy."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch_fidelity
from huggingface_hub import constants
from safetensors.torch import save_file
from torch.utils.data import TensorDataset
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

from b2bench.backbones.specs import find_backbone
from b2bench.config.resolve import resolve
from b2bench.errors import UserError
from b2bench.evaluation.inception import InceptionV3, extractors
from b2bench.evaluation.judges import Judges
from b2bench.evaluation.scorers import ClipScorer, clip_probabilities, scorer_size
from b2bench.evaluation.statistics import inception_score
from b2bench.pocket.paths import POCKET_WEIGHTS


def images(n: int, size: int) -> torch.Tensor:
    return torch.rand(n, 3, size, size, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Inception v3 of random weights: the true network."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("inception") / "random.pth"
    load = FeatureExtractorInceptionV3.load_state_dict
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "load", lambda *args, **options: {})
        patch.setattr(FeatureExtractorInceptionV3, "load_state_dict", lambda *args: None)
        network = FeatureExtractorInceptionV3("random", ["logits_unbiased"], feature_extractor_weights_path="x")
    assert FeatureExtractorInceptionV3.load_state_dict is load
    for module in network.modules():  # so that the logits differ between images
        if isinstance(module, torch.nn.Conv2d | torch.nn.Linear):
            torch.nn.init.kaiming_normal_(module.weight)
    torch.save(network.state_dict(), path)
    return path


@pytest.mark.slow
def test_inception_v3_is_torch_fidelitys_score(weights: Path) -> None:
    pictures = images(12, 40)
    ours = inception_score(InceptionV3(str(weights), batch=5)(pictures), splits=1)
    as_bytes = (pictures * 255).round().to(torch.uint8)

    class Set(TensorDataset):
        def __getitem__(self, index: Any) -> torch.Tensor:
            return as_bytes[index]

    theirs = torch_fidelity.calculate_metrics(
        input1=Set(as_bytes), isc=True, isc_splits=1, cuda=False, verbose=False, cache=False, batch_size=4,
        feature_extractor_weights_path=str(weights),
    )  # fmt: skip
    assert ours > 1.0001
    assert ours == pytest.approx(theirs["inception_score_mean"], rel=1e-4)


@pytest.mark.slow
def test_weights_may_be_safetensors(weights: Path, tmp_path: Path) -> None:
    state = torch.load(weights, weights_only=True)
    save_file({key: value.contiguous() for key, value in state.items()}, tmp_path / "w.safetensors")
    pictures = images(2, 32)
    found = [InceptionV3(str(path))(pictures) for path in (weights, tmp_path / "w.safetensors")]
    assert torch.equal(*found)
    assert found[0].shape == (2, 1008)


def test_weights_that_are_none_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        InceptionV3(str(tmp_path / "none.pth"))
    (tmp_path / "text.pth").write_text("no weights")
    with pytest.raises(UserError, match="no state dict"):
        InceptionV3(str(tmp_path / "text.pth"))
    torch.save({"a": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(UserError, match="no weights of Inception v3"):
        InceptionV3(str(tmp_path / "other.pth"))


def test_a_pickle_runs_nothing(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "ran",))

    torch.save({"a": Evil()}, tmp_path / "evil.pth")
    with pytest.raises(UserError, match="no state dict"):
        InceptionV3(str(tmp_path / "evil.pth"))
    assert not (tmp_path / "ran").exists()


def test_is_clip_is_a_loop_over_the_raw_embedding() -> None:
    scorer, pictures = ClipScorer("pocket"), images(6, 64)
    raw = scorer.raw_features(pictures).double().numpy()
    p = np.exp(raw) / np.exp(raw).sum(1, keepdims=True)
    marginal = p.mean(0)
    expected = np.exp(np.mean([sum(row * (np.log(row) - np.log(marginal))) for row in p]))
    assert inception_score(clip_probabilities(scorer)(pictures)) == pytest.approx(expected, rel=1e-4)


def test_an_evaluation_says_extractor_images_and_splits() -> None:
    config = resolve(
        algorithm="ddpo", wrapper="b2", reward="clipscore", backbone="pocket", queries=10, seed=0, values={}
    )
    config.reward.prepare(torch.device("cpu"))
    found = extractors("clip", "", config.backbone, config.reward, torch.device("cpu"))
    judges = Judges(config.reward, "clipscore", config.backbone, torch.device("cpu"), found, splits=2)
    value, settings = judges.statistics(judges.look(images(8, 64), ["a dog washing dishes"] * 8)[1], [0] * 8)["is_clip"]
    assert value >= 1
    assert settings["splits"] == 2
    assert "CLIP" in settings["extractor"]


def test_auto_takes_the_rewards_own_network() -> None:
    pocket, other = find_backbone("pocket"), find_backbone("sd14")
    config = resolve(
        algorithm="ddpo", wrapper="b2", reward="clipscore", backbone="pocket", queries=10, seed=0, values={}
    )
    config.reward.prepare(torch.device("cpu"))
    assert extractors("auto", "", pocket, config.reward, torch.device("cpu")) == []
    assert [e.metric for e in extractors("auto", "", other, config.reward, torch.device("cpu"))] == ["is_clip"]
    assert extractors("auto", "", other, object(), torch.device("cpu")) == []


def test_a_clip_that_is_not_here_is_not_the_rewards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`--set checkpoint` would be another setting: the reward's."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(UserError, match=r"hf download .* HF_HOME .* --set inception=none") as caught:
        extractors("clip", "", find_backbone("sd14"), object(), torch.device("cpu"))
    assert "checkpoint" not in str(caught.value)
    with pytest.raises(UserError, match="--set checkpoint=DIR"):
        ClipScorer("paper")


def test_a_folder_of_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "clip").symlink_to(POCKET_WEIGHTS / "scorer-training")
    assert scorer_size("~/clip").parameters == scorer_size("pocket").parameters
    assert ClipScorer("~/clip").size == ClipScorer("pocket").size


def test_loading_a_scorer_leaves_the_root_logger_as_it_is(capfd: pytest.CaptureFixture[str]) -> None:
    root = logging.getLogger()
    before = root.level, list(root.handlers)
    ClipScorer("pocket")
    assert (root.level, list(root.handlers)) == before
    assert capfd.readouterr().err == ""
