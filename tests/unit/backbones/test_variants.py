"""Folders that have weights under other names than the usual ones."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from b2bench.backbones.specs import find_backbone
from b2bench.backbones.stable_diffusion import load_pipeline
from b2bench.backbones.variants import variant_of
from b2bench.errors import UserError


@pytest.fixture
def renamed(other_pipeline: Path, tmp_path: Path) -> Callable[..., Path]:
    """A pipeline folder whose networks have these variants; "" is the usual name."""

    def make(**variants: str) -> Path:
        shutil.copytree(other_pipeline, tmp_path / "p")
        for part, variant in variants.items():
            for file in (tmp_path / "p" / part).glob("*.safetensors"):
                file.rename(file.with_name(f"{file.stem}.{variant}.safetensors"))
        return tmp_path / "p"

    return make


@pytest.mark.parametrize(
    "variants",
    [
        {"unet": "fp16", "vae": "fp16", "text_encoder": "fp16"},
        {"unet": "fp16"},
        {"unet": "non_ema"},
    ],
)
def test_a_variant_that_is_there_is_read(
    variants: dict[str, str], renamed: Callable[..., Path], other_pipeline: Path
) -> None:
    plain = load_pipeline(find_backbone(str(other_pipeline)))
    found = load_pipeline(find_backbone(str(renamed(**variants))))
    for part in ("unet", "vae", "text_encoder"):
        expected, read = getattr(plain, part).state_dict(), getattr(found, part).state_dict()
        assert expected.keys() == read.keys()
        assert all(torch.equal(expected[name], read[name]) for name in expected)


def test_networks_of_different_variants_are_said(renamed: Callable[..., Path]) -> None:
    folder = renamed(unet="non_ema", vae="fp16")
    with pytest.raises(UserError, match="unet as non_ema, vae as fp16, text_encoder as usual"):
        load_pipeline(find_backbone(str(folder)))


@pytest.mark.parametrize("parts", [("unet", "vae", "text_encoder"), ("text_encoder",)])
def test_pickles_are_said(parts: tuple[str, ...], other_pipeline: Path, tmp_path: Path, capfd: Any) -> None:
    shutil.copytree(other_pipeline, tmp_path / "p")
    for part in parts:
        for file in (tmp_path / "p" / part).glob("*.safetensors"):
            file.rename(file.with_suffix(".bin"))
    with pytest.raises(UserError, match=rf"its weights of {' and '.join(parts)} are \.bin files, which are pickles"):
        load_pipeline(find_backbone(str(tmp_path / "p")))
    assert capfd.readouterr().err == ""  # diffusers has words of its own for it


def test_the_safety_checkers_parts_are_not_needed(other_pipeline: Path, tmp_path: Path) -> None:
    """Many fine-tunes name a feature_extractor that they do not have (CompVis/stable-diffusion#545)."""
    shutil.copytree(other_pipeline, tmp_path / "p")
    index = tmp_path / "p" / "model_index.json"
    named = {"feature_extractor": ["transformers", "CLIPImageProcessor"], "safety_checker": ["x", "Y"]}
    index.write_text(json.dumps(json.loads(index.read_text(encoding="utf-8")) | named), encoding="utf-8")
    assert load_pipeline(find_backbone(str(tmp_path / "p"))).feature_extractor is None


@pytest.mark.parametrize(
    ("files", "variant"),
    [
        (("model.safetensors",), None),
        (("model.safetensors", "model.fp16.safetensors"), None),
        (("model.fp16.safetensors", "model.bf16.safetensors"), "fp16"),
        (("diffusion_pytorch_model.fp16-00001-of-00002.safetensors",), "fp16"),
        (("diffusion_pytorch_model-00001-of-00002.fp16.safetensors",), "fp16"),
        (("diffusion_pytorch_model-00001-of-00002.safetensors",), None),
        (("lora.safetensors",), None),
        ((), None),
    ],
)
def test_a_variant_is_known_by_its_name(files: tuple[str, ...], variant: str | None, tmp_path: Path) -> None:
    for part in ("unet", "vae", "text_encoder"):
        (tmp_path / part).mkdir()
        for file in files:
            (tmp_path / part / file).touch()
    assert variant_of(tmp_path) == variant


def test_a_tokenizer_that_is_gone_or_a_folder_is_refused(other_pipeline: Path, tmp_path: Path) -> None:
    """transformers takes it for one that is not there, and cuts words into letters instead."""
    folder = shutil.copytree(other_pipeline, tmp_path / "closed")
    (folder / "tokenizer" / "tokenizer.json").unlink()
    with pytest.raises(UserError, match=r"its tokenizer has no vocabulary, neither tokenizer\.json nor"):
        load_pipeline(find_backbone(str(folder)))
    (folder / "tokenizer" / "tokenizer.json").mkdir()
    with pytest.raises(UserError, match=r"closed cannot be read: tokenizer/tokenizer\.json is no file"):
        load_pipeline(find_backbone(str(folder)))
