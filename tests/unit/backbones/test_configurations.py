"""Networks that do not fit together, or that need more than a prompt, are refused before they draw."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel
from diffusers.configuration_utils import FrozenDict

from b2bench.backbones.configurations import check_networks
from b2bench.backbones.specs import find_backbone
from b2bench.backbones.stable_diffusion import StableDiffusion, load_pipeline
from b2bench.config.resolve import resolve
from b2bench.errors import UserError
from b2bench.training.setup import pretrained_policy


@pytest.fixture
def networks(pocket_pipeline: Any) -> Callable[..., tuple[Any, Any, Any]]:
    """Pocket's three networks, by their configurations alone, with changes to those of UNet and autoencoder."""

    def make(unet: dict[str, Any] | None = None, vae: dict[str, Any] | None = None, **text: Any) -> Any:
        of_text = SimpleNamespace(**pocket_pipeline.text_encoder.config.to_dict() | text)
        configs = (
            FrozenDict({**pocket_pipeline.unet.config, **(unet or {})}),
            FrozenDict({**pocket_pipeline.vae.config, **(vae or {})}),
            of_text,
        )
        return tuple(SimpleNamespace(config=config) for config in configs)

    return make


@pytest.mark.parametrize(
    ("unet", "reason"),
    [
        ({"in_channels": 33}, r"takes 33 channels \(an inpainting model does\), and the autoencoder's latents have 16"),
        ({"in_channels": 32}, r"takes 32 channels \(a model that edits images does\)"),
        ({"in_channels": 7}, "takes 7 channels, and"),
        ({"out_channels": 32}, r"predicts 32 channels \(a variance too, it seems\) for latents of 16"),
        ({"class_embed_type": "timestep"}, "class labels .class_embed_type = 'timestep'"),
        ({"num_class_embeds": 1000}, "class labels .num_class_embeds = 1000"),
        ({"addition_embed_type": "text_time"}, "addition_embed_type"),
        ({"time_cond_proj_dim": 256}, "guidance scale as an input"),
        ({"encoder_hid_dim_type": "ip_image_proj", "encoder_hid_dim": 96}, "image embeddings"),
        ({"cross_attention_dim": 768}, "reads text 768 wide .* writes it 96 wide"),
        ({"cross_attention_dim": [96, 48]}, "reads text 48, 96 wide"),
        ({"encoder_hid_dim_type": "text_proj", "encoder_hid_dim": 64}, "text 64 wide .encoder_hid_dim"),
        ({"sample_size": [8, 8]}, r"sample_size is \[8, 8\]"),
        ({"sample_size": None}, "sample_size is None"),
        ({"sample_size": 0}, "sample_size is 0"),
    ],
)
def test_a_unet_that_is_not_given_what_it_needs_is_refused(networks: Any, unet: dict[str, Any], reason: str) -> None:
    check_networks(*networks())
    with pytest.raises(UserError, match=reason):
        check_networks(*networks(unet))


@pytest.mark.parametrize(
    ("vae", "reason"),
    [
        ({"latent_channels": 4}, "latents have 4"),
        ({"out_channels": 4}, "images of 4 channels"),
        ({"scaling_factor": 0}, "scaling_factor is 0"),
        ({"scaling_factor": None}, "scaling_factor is None"),
    ],
)
def test_an_autoencoder_of_another_kind_is_refused(networks: Any, vae: dict[str, Any], reason: str) -> None:
    with pytest.raises(UserError, match=reason):
        check_networks(*networks(vae=vae))


def test_a_text_encoder_that_masks_is_refused(networks: Any) -> None:
    with pytest.raises(UserError, match="use_attention_mask"):
        check_networks(*networks(use_attention_mask=True))


def test_one_width_said_for_each_block_is_that_width(networks: Any) -> None:
    check_networks(*networks({"cross_attention_dim": [96, 96]}))


@pytest.mark.parametrize("part", ["unet", "vae"])
def test_a_network_whose_numbers_are_not_finite_is_found_at_the_start(pocket_pipeline: Any, part: str) -> None:
    pipeline = copy.deepcopy(pocket_pipeline)
    policy = StableDiffusion(pipeline, num_steps=2, eta=1.0, guidance=3.0)
    policy.try_once()
    assert policy.calls == 0
    for weights in getattr(pipeline, part).parameters():
        weights.data.fill_(float("nan"))
    with pytest.raises(UserError, match=f"the {'denoiser' if part == 'unet' else 'autoencoder'} gives numbers that"):
        policy.try_once()


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"in_channels": 9}, "takes 9 channels (an inpainting model does)"),
        ({"time_cond_proj_dim": 8}, "time_cond_proj_dim = 8"),  # it ran, and its guidance was not that of its training
        ({"num_class_embeds": 10}, "num_class_embeds = 10"),
    ],
)
def test_a_folder_says_which_configuration_does_not_fit(
    other_pipeline: Path, tmp_path: Path, changes: dict[str, Any], reason: str
) -> None:
    pipeline = load_pipeline(find_backbone(str(other_pipeline)))
    pipeline.unet = UNet2DConditionModel.from_config({**pipeline.unet.config, **changes})
    pipeline.save_pretrained(tmp_path / "p")
    options = {"algorithm": "ddpo", "wrapper": "vanilla", "reward": "clipscore", "prompts": "template1"}
    config = resolve(**options, backbone=str(tmp_path / "p"), queries=10, seed=0, values={})  # type: ignore[arg-type]
    with pytest.raises(UserError) as refused:
        pretrained_policy(config, torch.device("cpu"))
    assert str(refused.value).startswith("backbone p: the UNet")
    assert reason in str(refused.value)


def test_what_nobody_foresaw_is_met_before_a_run_begins(other_pipeline: Path, tmp_path: Path) -> None:
    """An encoder that pools the text to one vector: [0] of its output is another thing."""
    from transformers import CLIPTextModelWithProjection

    pipeline = load_pipeline(find_backbone(str(other_pipeline)))
    pipeline.text_encoder = CLIPTextModelWithProjection(pipeline.text_encoder.config)
    pipeline.save_pretrained(tmp_path / "p")
    index = json.loads((tmp_path / "p" / "model_index.json").read_text())
    assert index["text_encoder"][1] == "CLIPTextModelWithProjection"
    options = {"algorithm": "ddpo", "wrapper": "vanilla", "reward": "clipscore", "prompts": "template1"}
    config = resolve(**options, backbone=str(tmp_path / "p"), queries=10, seed=0, values={})  # type: ignore[arg-type]
    with pytest.raises(UserError, match="backbone p cannot be used as it is configured"):
        pretrained_policy(config, torch.device("cpu"))
