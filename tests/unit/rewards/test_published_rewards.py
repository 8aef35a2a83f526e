"""Rewards with published weights: small, randomly initialised models of the same classes, from files as users have."""

import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import open_clip
import pytest
import timm
import torch
import torch.nn.functional as F
from b2bench.rewards.aesthetic import Aesthetic
from b2bench.rewards.hpsv2 import HPSv2
from b2bench.rewards.imagereward import MEAN, STD, ImageReward
from b2bench.rewards.pickscore import PickScore
from huggingface_hub import constants
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torchvision.transforms import Normalize
from transformers import (
    BertConfig,
    BertModel,
    BertTokenizer,
    CLIPConfig,
    CLIPModel,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
)

from b2bench.config.resolve import resolve
from b2bench.errors import UserError
from b2bench.estimate.footprint import judges
from b2bench.evaluation.judge_networks import Head
from b2bench.plugins.check_reward import check_reward
from b2bench.plugins.contract import Checker
from b2bench.registry import reward as marked
from b2bench.training.setup import ready_reward

CPU = torch.device("cpu")
PROMPTS = ["a cat riding a bike", "a dog", "a horse washing dishes", "a dog", "a bee riding a bike"]
NORMALISED = Normalize((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))  # CLIP's
SIZES = {"num_hidden_layers": 2, "num_attention_heads": 2, "hidden_size": 32, "intermediate_size": 48}
Case = tuple[type, Path, Tensor]


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.rand(5, 3, 96, 96, generator=torch.Generator().manual_seed(0))


def pixels(images: Tensor, size: int) -> Tensor:
    """Resized and normalised, in the way of ``ClipScorer``."""
    return NORMALISED(F.interpolate(images, (size, size), mode="bicubic", antialias=True).clamp(0, 1))


def drawn(network: nn.Module, seed: int) -> nn.Module:
    """The network with weights so large that images and prompts differ."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in network.parameters():
        with torch.no_grad():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.2)
    return network.eval()


def words() -> Tensor:
    return open_clip.get_tokenizer("ViT-H-14")(PROMPTS)


@pytest.fixture(scope="module")
def aesthetic(tmp_path_factory: pytest.TempPathFactory, images: Tensor) -> Case:
    folder = tmp_path_factory.mktemp("aesthetic")
    config = CLIPVisionConfig(**SIZES, image_size=28, patch_size=14, projection_dim=24)
    clip = drawn(CLIPVisionModelWithProjection(config), 1)
    clip.save_pretrained(folder)
    layers = drawn(Head(24), 2).state_dict()
    assert list(layers) == [
        f"layers.{i}.{part}" for i in (0, 2, 4, 6, 7) for part in ("weight", "bias")
    ]  # as published
    torch.save(layers, folder / "sac+logos+ava1-l14-linearMSE.pth")
    with torch.no_grad():
        found = clip(pixel_values=pixels(images, 28)).image_embeds
        found = found / found.norm(dim=-1, keepdim=True)
        for i in (0, 2, 4, 6, 7):
            found = found @ layers[f"layers.{i}.weight"].T + layers[f"layers.{i}.bias"]
    return Aesthetic, folder, found[:, 0]


@pytest.fixture(scope="module")
def pickscore(tmp_path_factory: pytest.TempPathFactory, images: Tensor) -> Case:
    folder = tmp_path_factory.mktemp("pickscore")
    vision = {**SIZES, "image_size": 28, "patch_size": 14}
    # 2 is what the published configuration has: then the pooled token is that of the largest number
    text = {**SIZES, "eos_token_id": 2}
    clip: Any = drawn(CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=24)), 3)
    clip.logit_scale.data.fill_(4.6)
    clip.save_pretrained(folder)
    with torch.no_grad():
        logits = clip(input_ids=words(), pixel_values=pixels(images, 28)).logits_per_image
    return PickScore, folder, logits.diagonal()


@pytest.fixture(scope="module")
def hpsv2(tmp_path_factory: pytest.TempPathFactory, images: Tensor) -> Case:
    folder = tmp_path_factory.mktemp("hpsv2")
    config = {
        "embed_dim": 24,
        "vision_cfg": {"image_size": 28, "layers": 2, "width": 32, "head_width": 16, "patch_size": 14},
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
    }
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config}))
    clip: Any = drawn(open_clip.CLIP(**config), 4)
    torch.save({"epoch": 1, "state_dict": clip.state_dict()}, folder / "HPS_v2.1_compressed.pt")
    with torch.no_grad():
        seen, read, _ = clip(pixels(images, 28), words())
    return HPSv2, folder, (seen @ read.T).diagonal()


@pytest.fixture(scope="module")
def imagereward(tmp_path_factory: pytest.TempPathFactory, images: Tensor) -> Case:
    """BLIP's image tower is timm's ViT, its text tower BERT's decoder: those have the names of the published file."""
    folder = tmp_path_factory.mktemp("imagereward")
    vision = drawn(
        timm.create_model(
            "vit_base_patch16_224", img_size=32, embed_dim=128, depth=2, num_heads=2, num_classes=0, global_pool=""
        ),
        5,
    )
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", *dict.fromkeys(" ".join(PROMPTS).split())]
    vocabulary = list(dict.fromkeys(vocabulary))
    (folder / "vocab.txt").write_text("\n".join(vocabulary))
    config = BertConfig(
        vocab_size=len(vocabulary) + 2, hidden_size=128, intermediate_size=96, num_hidden_layers=2,
        num_attention_heads=2, is_decoder=True, add_cross_attention=True,
    )  # fmt: skip
    text = drawn(BertModel(config, add_pooling_layer=False), 6)
    text.embeddings.token_type_embeddings.weight.data.zero_()  # which BLIP does not have
    head = drawn(Head(128), 7)
    state = {f"blip.visual_encoder.{name}": value for name, value in vision.state_dict().items()}
    state |= {f"blip.text_encoder.{name}": value for name, value in text.state_dict().items()}
    state |= {f"mlp.{name}": value for name, value in head.state_dict().items()}
    state |= {"blip.vision_proj.weight": torch.zeros(2, 128), "blip.text_proj.weight": torch.zeros(2, 128)}  # unused
    torch.save(state, folder / "ImageReward.pt")
    text.config.is_decoder = False  # it reads to both sides: BLIP's text encoder has no causal mask
    tokens = BertTokenizer.from_pretrained(folder)(PROMPTS, padding="max_length", max_length=35, return_tensors="pt")
    with torch.no_grad():
        seen = vision(pixels(images, 32))
        visible = torch.where(tokens["attention_mask"].bool(), 0.0, -torch.inf)[:, None, None]
        states = text.embeddings(tokens["input_ids"])
        for layer in text.encoder.layer:
            states = layer(states, attention_mask=visible, encoder_hidden_states=seen)
            states = states[0] if isinstance(states, tuple) else states
        answers = head(states[:, 0])
    return ImageReward, folder, (answers - MEAN) / STD


CASES = ("aesthetic", "pickscore", "hpsv2", "imagereward")
FILES = {
    "aesthetic": "sac+logos+ava1-l14-linearMSE.pth",
    "pickscore": "model.safetensors",
    "hpsv2": "HPS_v2.1_compressed.pt",
    "imagereward": "ImageReward.pt",
}


@pytest.fixture(scope="module", params=CASES)
def case(request: pytest.FixtureRequest) -> Case:
    found: Case = request.getfixturevalue(request.param)
    return found


def run_config(name: str, **values: Any) -> Any:
    return resolve(
        algorithm="ddpo", wrapper="vanilla", reward=name, backbone="pocket", queries=10, seed=0, values=values
    )


def ready(case: Case, **values: Any) -> Any:
    """The reward, as a run makes it."""
    cls, folder, _ = case
    return ready_reward(run_config(cls.__name__.lower(), checkpoint=str(folder), **values), CPU)[0]


@pytest.mark.slow
def test_scores_are_the_formula_in_batches_of_any_size(case: Case, images: Tensor) -> None:
    expected = case[2]
    assert expected.std() > 2e-3 * expected.abs().mean()  # images and prompts differ by far more than is allowed below
    for batch in (2, 64):
        torch.testing.assert_close(ready(case, batch=batch)(images, PROMPTS), expected, rtol=2e-5, atol=1e-5)


@pytest.mark.slow
def test_the_gradient_is_that_of_the_scores(case: Case, images: Tensor) -> None:
    reward = ready(case)
    moved = images.clone().requires_grad_()
    scores = reward.with_gradient(moved, PROMPTS)
    torch.testing.assert_close(scores.detach(), reward(images, PROMPTS), rtol=1e-5, atol=1e-5)  # kernels differ
    (gradient,) = torch.autograd.grad(scores.sum(), moved)
    assert (gradient.flatten(1).norm(dim=1) > 0).all()
    direction = gradient / gradient.norm()
    step = 1e-2
    change = (reward(images + step * direction, PROMPTS) - reward(images - step * direction, PROMPTS)).sum() / 2 / step
    assert float(change) == pytest.approx(float(gradient.norm()), rel=0.1)


@pytest.mark.slow
def test_it_keeps_the_contract_of_a_reward(case: Case) -> None:
    cls, folder, _ = case

    @marked
    class Small(cls):  # type: ignore[misc, valid-type]
        checkpoint: str = str(folder)
        """Of the small model"""

    checker = Checker(Small)
    check_reward(Small, checker)
    assert [result.reason for result in checker.results if not result.passed] == []
    assert len(checker.results) > 5


@pytest.mark.parametrize("name", CASES)
def test_weights_that_are_not_here(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)  # as on a machine without network that never fetched them
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    with pytest.raises(UserError, match=rf"^{name} needs .*\(.* [GM]B\), .*hf download \w+.*HF_HOME"):
        ready_reward(run_config(name), CPU)
    with pytest.raises(UserError, match=rf"^{name} .*nowhere"):
        ready_reward(run_config(name, checkpoint="nowhere"), CPU)
    with pytest.raises(UserError, match=f"^{name} checkpoint.*{tmp_path}"):
        ready_reward(run_config(name, checkpoint=str(tmp_path)), CPU)


class Bomb:
    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.folder / "opened"),)


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_a_file_of_something_else(
    name: str, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other weights, a damaged file, and a pickle that would run something: none is taken, and nothing runs."""
    cls, folder, expected = request.getfixturevalue(name)
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    wrong: list[Callable[[Path], Any]] = [
        lambda path: path.write_bytes(path.read_bytes()[:100]),
        lambda path: path.write_bytes(pickle.dumps({"state_dict": Bomb(tmp_path)}, protocol=2)),
        lambda path: torch.save({"weight": torch.zeros(2)}, path),
    ]
    for write in wrong:
        write(tmp_path / FILES[name])
        with pytest.raises(UserError, match=rf"{name}.*{tmp_path}"):
            ready((cls, tmp_path, expected))
    assert not (tmp_path / "opened").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "millions"), [("aesthetic", 304.2), ("pickscore", 986.1), ("hpsv2", 986.1), ("imagereward", 446.2)]
)
def test_the_published_sizes_for_an_estimate(name: str, millions: float) -> None:
    """Of CLIP ViT-L/14's image tower with a head of 0.9 million, twice a CLIP ViT-H-14, and a BLIP whose published file
    has 1.79 GB.
    """
    found, unknown = judges(run_config(name))
    own = [model for model in found if name in model.name.lower()]
    assert sum(model.parameters for model in own) / 1e6 == pytest.approx(millions, rel=0.01)
    assert all(model.bytes == 4 * model.parameters for model in own)
    assert unknown == []


@pytest.mark.slow
@pytest.mark.parametrize("name", ["aesthetic", "pickscore"])
def test_a_network_that_was_saved_in_part_is_refused(name: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    """transformers fills the rest with random numbers and warns."""
    cls, folder, expected = request.getfixturevalue(name)
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    weights = load_file(folder / "model.safetensors")
    lost = next(name for name in sorted(weights) if name.endswith("layer_norm1.weight"))
    save_file(
        {name: value for name, value in weights.items() if name != lost},
        tmp_path / "model.safetensors",
        {"format": "pt"},
    )
    with pytest.raises(UserError, match=rf"{name} checkpoint {tmp_path} has no .*layer_norm1\.weight: .*in part"):
        ready((cls, tmp_path, expected))
