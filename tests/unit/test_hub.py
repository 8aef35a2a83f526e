"""What to fetch of a repository that holds the same weights several times."""

import shlex

import pytest
from huggingface_hub.utils import filter_repo_objects

from b2bench.describe.doctor import CHECKPOINTS, Hub
from b2bench.hub import NEEDED, download_command

# As the repository lists them, but for its README and the fp16 copies of the safety checker.
_STABLE_DIFFUSION = (
    *("model_index.json", "sd-v1-4.ckpt", "sd-v1-4-full-ema.ckpt", "scheduler/scheduler_config.json"),
    *("feature_extractor/preprocessor_config.json", "safety_checker/config.json", "safety_checker/model.safetensors"),
    *("safety_checker/pytorch_model.bin", "text_encoder/config.json", "text_encoder/model.safetensors"),
    *("text_encoder/model.fp16.safetensors", "text_encoder/pytorch_model.bin", "tokenizer/merges.txt"),
    *("tokenizer/special_tokens_map.json", "tokenizer/tokenizer_config.json", "tokenizer/vocab.json"),
    *(
        f"{network}/{file}"
        for network in ("unet", "vae")
        for file in (
            *("config.json", "diffusion_pytorch_model.bin", "diffusion_pytorch_model.safetensors"),
            *("diffusion_pytorch_model.fp16.safetensors", "diffusion_pytorch_model.non_ema.safetensors"),
        )
    ),
)


def test_of_stable_diffusion_each_network_is_fetched_once() -> None:
    program, verb, repository, *patterns = shlex.split(download_command("CompVis/stable-diffusion-v1-4"))
    assert (program, verb, repository) == ("hf", "download", "CompVis/stable-diffusion-v1-4")
    fetched = set(filter_repo_objects(_STABLE_DIFFUSION, allow_patterns=patterns))
    weights = {name for name in fetched if not name.endswith((".json", ".txt"))}
    assert weights == {
        "text_encoder/model.safetensors",
        "unet/diffusion_pytorch_model.safetensors",
        "vae/diffusion_pytorch_model.safetensors",
    }
    small = {name for name in _STABLE_DIFFUSION if name.endswith((".json", ".txt"))}
    assert fetched - weights == small


@pytest.mark.parametrize("checkpoint", CHECKPOINTS, ids=lambda hub: hub.repository)
def test_what_doctor_looks_for_is_what_its_command_fetches(checkpoint: Hub) -> None:
    patterns = shlex.split(download_command(checkpoint.repository))[3:]
    if checkpoint.repository not in NEEDED:
        assert patterns == []
        return
    assert list(filter_repo_objects(checkpoint.files, allow_patterns=patterns))


def test_one_file_is_asked_for_by_its_name_and_an_unknown_repository_whole() -> None:
    assert download_command("a/b", "c.safetensors") == "hf download a/b c.safetensors"
    assert download_command("a/b") == "hf download a/b"
