"""BERTScore recall against the package bert-score, the authors' own, without idf weights and rescaling.

Run with ``uv run --group reference pytest tests/reference``.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModel, BertConfig, BertModel, DebertaConfig, DebertaModel, PreTrainedModel

from b2bench.pocket.paths import POCKET_WEIGHTS
from b2bench.rewards import bertscore

bert_score = pytest.importorskip(
    "bert_score", reason="bert-score is not installed; it is in the dependency group `reference`"
)

# What a captioner may say of an image, and the prompt. Lengths differ, words repeat, and some are in no vocabulary.
PAIRS = [
    ("a cat riding a bike", "a cat riding a bike"),
    ("the image contains a cat riding a bike", "a cat riding a bike"),
    ("a dog", "a fox playing chess"),
    ("a horse washing dishes and a horse washing dishes and a bee", "a bee"),
    ("a fox is playing chess", "a whale washing dishes"),
    ("chess", "a zebra pondering quasars"),
    ("an extraterrestrial xylophone", "a dog playing chess"),
    ("a whale, a bee and a fox.", "a whale riding a bike"),
]
BERT = POCKET_WEIGHTS / "bert"  # the tokenizer of all models
SMALL: dict[str, Any] = {
    "vocab_size": 168,
    "hidden_size": 24,
    "intermediate_size": 48,
    "num_attention_heads": 3,
    "num_hidden_layers": 5,
    "max_position_embeddings": 32,
    "initializer_range": 0.3,
}


def pocket() -> PreTrainedModel:
    """In float32, as the reward reads it; bert-score would take the file's float16."""
    return AutoModel.from_pretrained(BERT, dtype=torch.float32)


def random_bert() -> PreTrainedModel:
    return BertModel(BertConfig(**SMALL))


def random_deberta() -> PreTrainedModel:
    """The class of the paper's model, DeBERTa xlarge mnli, with its relative positions."""
    relative = {"relative_attention": True, "position_biased_input": False, "pos_att_type": ["c2p", "p2c"]}
    return DebertaModel(DebertaConfig(type_vocab_size=0, **relative, **SMALL))


def ours(layer: int, captions: Sequence[str], prompts: Sequence[str], patch: pytest.MonkeyPatch) -> Tensor:
    """The reward by ./bert, of which only the captioner's answers are given."""
    captioner = str(POCKET_WEIGHTS / "captioner")
    patch.setitem(bertscore._CHECKPOINTS, "tested", (captioner, "", "bert", "", layer))
    reward = bertscore.BERTScore(checkpoint="tested")
    reward.prepare(torch.device("cpu"))
    patch.setattr(reward, "captions", lambda images: list(captions))
    return reward(torch.zeros(len(captions), 3, 8, 8), prompts)


def theirs(layer: int, captions: Sequence[str], prompts: Sequence[str], batch: int) -> Tensor:
    """Recall by ./bert: a longer path might hold "t5", which bert-score reads as the T5 class."""
    _, recall, _ = bert_score.score(
        list(captions),
        [bertscore.REFERENCE.format(prompt) for prompt in prompts],
        model_type="bert",
        num_layers=layer,
        batch_size=batch,
        use_fast_tokenizer=True,
        device="cpu",
    )
    return recall


@pytest.mark.parametrize(
    ("model", "layer"),
    [(pocket, 4), (pocket, 2), (random_bert, 3), (random_deberta, 3)],
    ids=["pocket", "pocket-layer-2", "bert", "deberta"],
)
def test_recall_is_bert_scores(
    model: Callable[[], PreTrainedModel], layer: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(BERT, tmp_path / "bert")
    monkeypatch.chdir(tmp_path)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model().save_pretrained("bert")
    captions, prompts = zip(*PAIRS, strict=True)
    found = ours(layer, captions, prompts, monkeypatch)
    assert len(found.unique()) == len(PAIRS)
    expected = theirs(layer, captions, prompts, batch=1)
    print(f"\nrecall: {float((found - expected).abs().max()):.1e}")
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)
    # Where it pads a batch to one length it gives the padding a cosine of 0, and a token whose best cosine is
    # negative counts 0. The paper's equation 1 has no such floor, and a score would depend on its batch.
    padded = theirs(layer, captions, prompts, batch=64)
    print(f"padded: {float((found - padded).abs().max()):.1e}")
    assert bool((padded >= found - 1e-4).all())
