"""Small tokenizers over the words of the pocket world, in the formats that the libraries read."""

from __future__ import annotations

import json

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from transformers import CLIPTokenizer, PreTrainedTokenizerFast

from b2bench.pocket.build.models import MAX_TOKENS, QUESTION
from b2bench.pocket.world import ANIMALS, vocabulary

# How else a caption can be put; BERT is trained on these so that paraphrases lie close together.
PARAPHRASES: dict[str | None, tuple[str, ...]] = {
    None: ("a {0}", "a picture of a {0}", "a {0} alone", "there is a {0}"),
    "riding a bike": (
        "a {0} riding a bike",
        "a {0} on a bike",
        "a {0} rides a bicycle",
        "a picture of a {0} riding a bike",
    ),
    "playing chess": (
        "a {0} playing chess",
        "a {0} with a chess pawn",
        "a {0} plays a game of chess",
        "a picture of a {0} playing chess",
    ),
    "washing dishes": (
        "a {0} washing dishes",
        "a {0} with a plate and bubbles",
        "a {0} washes the dishes",
        "a picture of a {0} washing dishes",
    ),
}
REFERENCE = "The image contains {0}"


def clip_tokenizer() -> CLIPTokenizer:
    """Byte-pair encoding in which every word of the world is one token; EOS has the largest id, as in CLIP."""
    trained = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    trained.pre_tokenizer = pre_tokenizers.Whitespace()
    trainer = trainers.BpeTrainer(vocab_size=100_000, end_of_word_suffix="</w>", show_progress=False)
    trained.train_from_iterator([" ".join(vocabulary())], trainer)
    model = json.loads(trained.to_str())["model"]
    vocab = {token: i for i, token in enumerate(model["vocab"])}
    for special in ("<|startoftext|>", "<|endoftext|>"):
        vocab[special] = len(vocab)
    merges = [tuple(pair) for pair in model["merges"]]
    return CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=MAX_TOKENS)


def word_tokenizer(kind: str) -> PreTrainedTokenizerFast:
    """Word-level, lower-cased. ``kind``: "bert" ([CLS] text [SEP]) or "llava" (<s> text, with <image>)."""
    bert = kind == "bert"
    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"] if bert else ["<pad>", "<unk>", "<s>", "</s>", "<image>"]
    tokenizer = Tokenizer(models.WordLevel(unk_token=specials[1]))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    texts = [text.format(animal) for animal in ANIMALS for texts in PARAPHRASES.values() for text in texts]
    texts += [REFERENCE.format("a"), QUESTION.replace("<image>", " ")]
    trainer = trainers.WordLevelTrainer(special_tokens=specials, show_progress=False)
    tokenizer.train_from_iterator(sorted(set(texts)), trainer)
    first, last = (2, 3)
    if bert:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]", special_tokens=[("[CLS]", first), ("[SEP]", last)]
        )
    else:
        tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", first)])
    names = (
        {
            "pad_token": "[PAD]",
            "unk_token": "[UNK]",
            "cls_token": "[CLS]",
            "sep_token": "[SEP]",
            "mask_token": "[MASK]",
        }
        if bert
        else {"pad_token": "<pad>", "unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}
    )
    extra = [] if bert else ["<image>"]
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=32 if bert else 128,
        additional_special_tokens=extra,
        **names,
    )
