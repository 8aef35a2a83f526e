"""The rewards of full-size models: small, randomly initialised models of the same classes."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from b2bench.rewards.bertscore import REFERENCE, BERTScore
from b2bench.rewards.clipscore import CLIPScore
from transformers import (
    CLIPImageProcessor,
    CLIPVisionConfig,
    DebertaConfig,
    DebertaModel,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)

from b2bench.pocket.paths import POCKET_WEIGHTS
from b2bench.rewards import bertscore

PROMPTS = ["a cat riding a bike", "a dog", "a horse washing dishes", "a dog", "a bee riding a bike"]


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return torch.rand(5, 3, 96, 96, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An open_clip ViT with CLIP's own tokenizer and text tower, as ViT-H-14 is one."""
    import open_clip
    from safetensors.torch import save_file

    folder = tmp_path_factory.mktemp("clip")
    config = {
        "embed_dim": 24,
        "vision_cfg": {"image_size": 28, "layers": 2, "width": 32, "head_width": 16, "patch_size": 14},
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
    }
    path = folder / "open_clip_config.json"
    path.write_text(json.dumps({"model_cfg": config, "preprocess_cfg": {}}))
    torch.manual_seed(1)
    model = open_clip.create_model(f"local-dir:{folder}", load_weights=False)
    save_file(
        {name: weight.contiguous() for name, weight in model.state_dict().items()},
        folder / "open_clip_model.safetensors",
    )
    return folder


def test_clip_score_in_batches(clip: Path, images: torch.Tensor) -> None:
    import open_clip

    found = []
    for batch in (2, 64):
        reward = CLIPScore(checkpoint=str(clip), batch=batch)
        reward.prepare(torch.device("cpu"))
        found.append(reward(images, PROMPTS))
    torch.testing.assert_close(*found, rtol=0, atol=1e-6)
    model, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{clip}")
    small = F.interpolate(images, (28, 28), mode="bicubic", antialias=True).clamp(0, 1)
    with torch.no_grad():
        seen = model.eval().encode_image(preprocess.transforms[-1](small), normalize=True)
        read = model.encode_text(open_clip.get_tokenizer(f"local-dir:{clip}")(PROMPTS), normalize=True)
    torch.testing.assert_close(found[0], (seen * read).sum(1), rtol=0, atol=1e-5)
    assert found[0].std() > 1e-3


@pytest.fixture(scope="module")
def paper(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """Folders of a LLaVA and of a DeBERTa with relative positions, as the paper's are, with pocket's tokenizers."""
    captioner, bert = (tmp_path_factory.mktemp(name) for name in ("llava", "deberta"))
    words = PreTrainedTokenizerFast.from_pretrained(POCKET_WEIGHTS / "captioner")
    torch.manual_seed(2)
    vision = {"image_size": 28, "patch_size": 14, "hidden_size": 32, "intermediate_size": 48}
    text = {"vocab_size": len(words), "hidden_size": 32, "intermediate_size": 48, "initializer_range": 0.5}
    depth = {"num_hidden_layers": 2, "num_attention_heads": 2}
    token = words.convert_tokens_to_ids("<image>")
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(**vision, **depth),
        text_config=LlamaConfig(**text, **depth),
        image_token_index=token,
    )
    LlavaForConditionalGeneration(config).save_pretrained(captioner)
    pixels = CLIPImageProcessor(size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28})
    LlavaProcessor(
        pixels, words, patch_size=14, vision_feature_select_strategy="default", num_additional_image_tokens=1
    ).save_pretrained(captioner)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(POCKET_WEIGHTS / "bert")
    tokenizer.save_pretrained(bert)
    DebertaModel(
        DebertaConfig(
            vocab_size=len(tokenizer), hidden_size=24, intermediate_size=48, num_attention_heads=3, num_hidden_layers=5,
            max_position_embeddings=64, initializer_range=0.3, type_vocab_size=0, relative_attention=True,
            position_biased_input=False, pos_att_type=["c2p", "p2c"],
        )
    ).save_pretrained(bert)  # fmt: skip
    return str(captioner), str(bert)


@pytest.fixture
def make_reward(paper: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    def make(batch: int) -> Any:
        monkeypatch.setitem(bertscore._CHECKPOINTS, "paper", (paper[0], "14 GB", paper[1], "3 GB", 4))
        reward = BERTScore(checkpoint="paper", batch=batch)
        reward.prepare(torch.device("cpu"))
        return reward

    return make


@pytest.mark.slow
def test_captions_and_recalls_in_batches(make_reward: Callable[..., Any], images: torch.Tensor) -> None:
    one, many = make_reward(1), make_reward(3)
    captions = many.captions(images)
    assert captions == one.captions(images)
    assert len(set(captions)) > 1
    torch.testing.assert_close(many(images, PROMPTS), one(images, PROMPTS), rtol=0, atol=1e-5)
    assert many(images, PROMPTS).std() > 1e-3


def test_padding_is_no_token(make_reward: Callable[..., Any]) -> None:
    reward = make_reward(8)
    texts = ["a dog", REFERENCE.format("a horse washing dishes"), "a cat riding a bike"]
    for text, (states, scored) in zip(texts, reward.embed(texts), strict=True):
        alone = reward.tokenizer(text, return_tensors="pt", return_special_tokens_mask=True)
        special = alone.pop("special_tokens_mask")[0].bool()
        with torch.no_grad():
            expected = reward.bert(**alone, output_hidden_states=True).hidden_states[4][0]
        torch.testing.assert_close(states, expected, rtol=0, atol=1e-5)
        assert torch.equal(scored, ~special)


def test_captions_are_not_hoarded(make_reward: Callable[..., Any], images: torch.Tensor) -> None:
    reward = make_reward(8)
    for _ in range(3):
        reward(torch.rand_like(images), PROMPTS)
    assert set(reward.references) == set(PROMPTS)
