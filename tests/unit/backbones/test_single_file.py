"""Checkpoints in one file, as the authors of Stable Diffusion v1 published it."""

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
from ldm import ldm_state
from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModel

from b2bench.backbones.architectures import (
    stable_diffusion_autoencoder,
    stable_diffusion_text_encoder,
    stable_diffusion_unet,
)
from b2bench.backbones.single_file import clip_tokenizer, load_single_file
from b2bench.backbones.specs import find_backbone
from b2bench.backbones.stable_diffusion import load_pipeline
from b2bench.ddim import DDIM, stable_diffusion_schedule
from b2bench.errors import UserError


def narrow_unet() -> UNet2DConditionModel:
    """Stable Diffusion v1's blocks, each of a few channels."""
    config = dict(stable_diffusion_unet_config(), block_out_channels=(8, 16, 16, 16), cross_attention_dim=24)
    return UNet2DConditionModel(**config | {"norm_num_groups": 4, "attention_head_dim": 2, "sample_size": 8})


def stable_diffusion_unet_config() -> dict[str, Any]:
    with torch.device("meta"):
        return {k: v for k, v in stable_diffusion_unet().config.items() if not k.startswith("_")}


def narrow_vae() -> AutoencoderKL:
    with torch.device("meta"):
        config = {k: v for k, v in stable_diffusion_autoencoder().config.items() if not k.startswith("_")}
    return AutoencoderKL(**config | {"block_out_channels": (4, 8, 8, 8), "norm_num_groups": 4, "sample_size": 64})


def narrow_text_encoder() -> CLIPTextModel:
    config = {"hidden_size": 24, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    return CLIPTextModel(CLIPTextConfig(vocab_size=49408, max_position_embeddings=77, projection_dim=24, **config))


NARROW = {"unet": narrow_unet, "vae": narrow_vae, "text_encoder": narrow_text_encoder}


@pytest.fixture(scope="module")
def narrow() -> StableDiffusionPipeline:
    torch.manual_seed(5)
    pipeline = StableDiffusionPipeline(
        **{name: make() for name, make in NARROW.items()},
        tokenizer=clip_tokenizer(),
        scheduler=stable_diffusion_schedule(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.fixture(scope="module")
def file(narrow: StableDiffusionPipeline, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("file") / "v1.safetensors"
    save_file(ldm_state(narrow), path)
    return path


@pytest.mark.slow
def test_every_weight_comes_out_as_it_went_in(narrow: Any, file: Path) -> None:
    found = load_single_file(file, networks=NARROW)
    for name in NARROW:
        expected, loaded = (getattr(p, name).state_dict() for p in (narrow, found))
        assert expected.keys() == loaded.keys()
        assert all(torch.equal(expected[key], loaded[key]) for key in expected), name
    assert found.safety_checker is None
    half = load_single_file(file, torch.bfloat16, NARROW)
    assert {half.unet.dtype, half.vae.dtype, half.text_encoder.dtype} == {torch.bfloat16}


@pytest.mark.slow
def test_it_draws_the_same_picture(narrow: Any, file: Path) -> None:
    found = load_single_file(file, networks=NARROW)
    found.set_progress_bar_config(disable=True)
    # The file maps weights to any address; some CPUs' kernels then sum in another order, 1e-6 off. Copies are aligned.
    for network in (found.unet, found.vae, found.text_encoder):
        for parameter in network.parameters():
            parameter.data = parameter.data.clone()
    latents = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    options = {"latents": latents, "num_inference_steps": 2, "output_type": "pt"}
    images = [pipeline("a cat riding a bike", **options).images for pipeline in (narrow, found)]
    assert torch.equal(*images)


def test_the_tokenizer_is_clips() -> None:
    from open_clip.tokenizer import SimpleTokenizer

    ours, theirs = clip_tokenizer(), SimpleTokenizer()
    for text in ("a cat riding a bike", "an ocelot's café, 1998!", ""):
        assert ours(text).input_ids == [49406, *theirs.encode(text), 49407]
    assert (ours.pad_token_id, ours.model_max_length, len(ours)) == (49407, 77, 49408)


def test_stable_diffusion_v1s_own_shapes_are_asked_for(file: Path) -> None:
    backbone = find_backbone(str(file))
    assert (backbone.name, backbone.source, backbone.is_pocket) == ("v1", str(file), False)
    with pytest.raises(UserError, match="24 wide, Stable Diffusion v1 768"):
        load_pipeline(backbone)


def test_what_is_no_checkpoint_is_refused(narrow: Any, file: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="pickle"):
        find_backbone(str(tmp_path / "v1.ckpt"))
    with pytest.raises(UserError, match="does not exist"):
        find_backbone(str(tmp_path / "none.safetensors"))
    path = tmp_path / "other.safetensors"
    path.write_bytes(b"no weights")
    with pytest.raises(UserError, match="cannot be read"):
        load_pipeline(find_backbone(str(path)))
    save_file({"a": torch.zeros(1)}, path)
    with pytest.raises(UserError, match="not a Stable Diffusion checkpoint"):
        load_pipeline(find_backbone(str(path)))
    state = {k: w for k, w in ldm_state(narrow).items() if not k.startswith("cond_stage_model")}
    save_file(state, path)
    with pytest.raises(UserError, match="not a whole Stable Diffusion v1 checkpoint"):
        load_single_file(path, networks=NARROW)


def test_a_file_may_be_named_as_a_backbone_is(tmp_path: Path) -> None:
    (tmp_path / "pocket.safetensors").write_bytes(b"")
    assert find_backbone(str(tmp_path / "pocket.safetensors")).name == "pocket (file)"


def test_the_text_encoder_has_clips_shape() -> None:
    with torch.device("meta"):
        assert stable_diffusion_text_encoder().config.vocab_size == len(clip_tokenizer())


@pytest.mark.parametrize(
    ("keys", "header", "prediction", "zero_snr"),
    [
        ((), {}, "epsilon", False),
        (("v_pred",), {}, "v_prediction", False),
        (("v_pred", "ztsnr"), {}, "v_prediction", True),
        ((), {"modelspec.prediction_type": "v"}, "v_prediction", False),
        ((), {"modelspec.prediction_type": "epsilon"}, "epsilon", False),
    ],
)
def test_a_file_says_what_its_network_predicts(
    keys: Any, header: dict[str, str], prediction: str, zero_snr: bool, narrow: Any, tmp_path: Path
) -> None:
    """Invoke and A1111 read such files as others, and drew noise."""
    path = tmp_path / "v1.safetensors"
    save_file(ldm_state(narrow) | {key: torch.zeros(0) for key in keys}, path, header)
    scheduler = load_single_file(path, networks=NARROW).scheduler
    assert (scheduler.config.prediction_type, scheduler.config.rescale_betas_zero_snr) == (prediction, zero_snr)
    assert DDIM(scheduler, 4, 1.0).predicts_velocity == (prediction == "v_prediction")
    assert int(DDIM(scheduler, 4, 1.0).timesteps[0]) == (999 if zero_snr else 751)
