"""Small tokenizers over the words of the pocket world, in the formats that the libraries read."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from transformers import CLIPTokenizer, PreTrainedTokenizerFast

from b2bench.pocket.build.models import MAX_TOKENS, QUESTION
from b2bench.pocket.world import TEMPLATES, Facts, all_facts, plain_facts, vocabulary

# How else a scene can be put; BERT is trained on these so that paraphrases lie close together. {0} is the subject,
# {1} a colour, {2} the other object.
PLAIN: dict[int, tuple[str, ...]] = {
    1: ("a {0}", "a picture of a {0}", "a {0} alone", "there is a {0}"),
    2: ("{0}", "a picture of {0}", "there is {0}"),
    3: ("{0}", "a picture of {0}", "there is {0}"),
}
COLOURED = ("{1} {0}", "a picture of {1} {0}", "there is {1} {0}", "{0} that is {1}")
PARAPHRASES: dict[str, tuple[str, ...]] = {
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
    "on": ("{0} on {2}", "{2} under {0}", "{0} on top of {2}", "{2} below {0}"),
    "on the left of": (
        "{0} on the left of {2}",
        "{2} on the right of {0}",
        "{0} to the left of {2}",
        "{2} to the right of {0}",
    ),
    "in the front of": (
        "{0} in the front of {2}",
        "{2} behind {0}",
        "{0} before {2}",
        "{2} at the back of {0}",
    ),
}
REFERENCE = "The image contains {0}"


def paraphrases(facts: Facts) -> list[str]:
    """Return every way to say what is claimed."""
    facts = facts.canonical
    if facts.detail is None:
        texts = PLAIN[facts.template]
    else:
        texts = COLOURED if facts.template == 2 else PARAPHRASES[facts.detail]
    return [text.format(facts.subject, facts.detail, facts.second) for text in texts]


def clip_tokenizer() -> CLIPTokenizer:
    """Byte-pair encoding in which every word of the world is one token; EOS has the largest id, as in CLIP."""
    words = [word for word in vocabulary() if word.isalpha()]
    merges = merge_order(words)
    letters = sorted({letter for word in words for letter in word})
    tokens = [*letters, *(f"{letter}{END}" for letter in letters), *("".join(pair) for pair in merges)]
    vocab = {token: i for i, token in enumerate(dict.fromkeys(tokens))}
    for special in ("<|startoftext|>", "<|endoftext|>"):
        vocab[special] = len(vocab)
    return CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=MAX_TOKENS)


END = "</w>"  # at the end of a word, in CLIP's vocabulary


def merge_order(words: Sequence[str]) -> list[tuple[str, str]]:
    """Return the merges of byte-pair encoding until each word is one token: the most frequent pair first, ties by name.

    By the trainer of ``tokenizers`` ties fall as its hash maps lie, otherwise in every process: a stage that was
    taken up again read its captions as other token ids than before.
    """
    pieces = [[*word[:-1], word[-1] + END] for word in words]
    found = []
    while counts := Counter(pair for piece in pieces for pair in itertools.pairwise(piece)):
        best = min(counts, key=lambda pair: (-counts[pair], pair))
        found.append(best)
        pieces = [_merged(piece, best) for piece in pieces]
    return found


def _merged(piece: list[str], pair: tuple[str, str]) -> list[str]:
    found: list[str] = []
    for token in piece:
        if found and (found[-1], token) == pair:
            found[-1] += token
        else:
            found.append(token)
    return found


def word_tokenizer(kind: str) -> PreTrainedTokenizerFast:
    """Word-level, lower-cased. ``kind``: "bert" ([CLS] text [SEP]) or "llava" (<s> text, with <image>)."""
    bert = kind == "bert"
    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"] if bert else ["<pad>", "<unk>", "<s>", "</s>", "<image>"]
    tokenizer = Tokenizer(models.WordLevel(unk_token=specials[1]))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    known = [facts for t in TEMPLATES for facts in (*plain_facts(t), *all_facts(t))]
    texts = [text for facts in known for text in paraphrases(facts)]
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
