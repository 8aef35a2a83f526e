"""ImageReward: a BLIP, fitted to how people rank images of a prompt."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

import torch
from annotated_types import Ge
from torch import Tensor

from b2bench.errors import UserError
from b2bench.evaluation.scorers import Batched, clip_pixels
from b2bench.evaluation.weights import PUBLISHED, counted, fill, folder_file, from_hub, hub_file, read_tensors, ready
from b2bench.protocols import ModelSize
from b2bench.quiet import quiet_libraries
from b2bench.registry import reward

if TYPE_CHECKING:  # listing needs no torch
    from b2bench.evaluation.judge_networks import BLIPWithHead

REPOSITORY, FILE, SIZE = "THUDM/ImageReward", "ImageReward.pt", "1.8 GB"
WORDS, WORDS_SIZE = "google-bert/bert-base-uncased", "vocab.txt, 0.2 MB"
MEAN, STD = 0.16717362830052426, 1.0333394966054072
"""Of the head's answers on the authors' images, by which the score is standardised"""
TOKENS = 35
"""Length of a prompt, at which it is cut or to which it is padded"""

# BLIP's names of weights, and transformers' for the same; as in the conversion script of transformers.
_NAMES = (
    (r"^blip\.text_encoder\.", "text."),
    (r"^blip\.visual_encoder\.blocks\.", "vision.encoder.layers."),
    (r"^blip\.visual_encoder\.patch_embed\.proj\.", "vision.embeddings.patch_embedding."),
    (r"^blip\.visual_encoder\.pos_embed$", "vision.embeddings.position_embedding"),
    (r"^blip\.visual_encoder\.cls_token$", "vision.embeddings.class_embedding"),
    (r"^blip\.visual_encoder\.norm\.", "vision.post_layernorm."),
    (r"\.attn\.qkv\.", ".self_attn.qkv."),
    (r"\.attn\.proj\.", ".self_attn.projection."),
    (r"\.norm([12])\.", r".layer_norm\1."),
)


@reward
class ImageReward(Batched):
    """(head(h) - mean) / std, h the first token of the prompt as BLIP reads it beside the image; about -2 to 2.

    BLIP is transformers', with ViT-L/16, and the file's weights under transformers' names. Source: Xu et al. 2023
    (https://arxiv.org/abs/2304.05977), github.com/THUDM/ImageReward, version 1.0.
    """

    properties: ClassVar[Mapping[str, str]] = {
        "range": "about [-2, 2]",
        "pocket": "no meaning",
        "source": "Xu et al. 2023",
    }

    checkpoint: str = PUBLISHED
    """published (ImageReward.pt of THUDM/ImageReward, 1.8 GB), or a folder with that file and BERT's vocab.txt"""
    batch: Annotated[int, Ge(1)] = 32
    """Images scored at a time"""

    def models(self) -> list[ModelSize]:
        """Return the model, as it is published."""
        vision = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24}
        text = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "vocab_size": 30524}
        return [counted("ImageReward", lambda: _network(vision | {"image_size": 224, "patch_size": 16}, text))]

    def prepare(self, device: torch.device) -> None:
        """Load the model before the first query."""
        from transformers import BertTokenizer

        quiet_libraries()
        folder = Path(self.checkpoint).expanduser()
        if self.checkpoint == PUBLISHED:
            file, words = hub_file("imagereward", REPOSITORY, FILE, SIZE), WORDS
        else:
            file = folder_file("imagereward", folder, [FILE])
            words = str(folder_file("imagereward", folder, ["vocab.txt"]).parent)
        self.tokenizer = from_hub(BertTokenizer, "imagereward", words, WORDS_SIZE)
        tensors = {_renamed(name): tensor for name, tensor in read_tensors(file, "imagereward checkpoint").items()}
        try:
            network = _network(*_sizes(tensors))
        except (KeyError, IndexError, ValueError) as error:
            raise UserError(f"imagereward checkpoint {file} is not one of ImageReward: no {error}") from None
        fill(network, tensors, f"imagereward checkpoint {file}")
        self.network, self.device = ready(network, device), device
        self.size = (network.vision.config.image_size, network.vision.config.image_size)

    def _scores(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        pixels = clip_pixels(images.to(self.device).float(), self.size)
        words = self.tokenizer(
            list(prompts), padding="max_length", truncation=True, max_length=TOKENS, return_tensors="pt"
        ).to(self.device)
        answers: Tensor = self.network(pixels, {name: words[name] for name in ("input_ids", "attention_mask")})
        return (answers - MEAN) / STD


def _network(vision: Mapping[str, int], text: Mapping[str, int]) -> BLIPWithHead:
    """Return a BLIP of these sizes; 64 dimensions a head of attention, and BLIP's own epsilon."""
    from transformers import BlipTextConfig, BlipVisionConfig

    from b2bench.evaluation.judge_networks import BLIPWithHead

    return BLIPWithHead(
        BlipVisionConfig(**vision, num_attention_heads=vision["hidden_size"] // 64, layer_norm_eps=1e-6),
        BlipTextConfig(
            **text, num_attention_heads=text["hidden_size"] // 64, encoder_hidden_size=vision["hidden_size"]
        ),
    )


def _renamed(name: str) -> str:
    for pattern, ours in _NAMES:
        name = re.sub(pattern, ours, name)
    return name


def _sizes(tensors: Mapping[str, Tensor]) -> tuple[dict[str, int], dict[str, int]]:
    """Return the sizes of the image tower and of the text tower, as their weights say them."""
    patches, places = tensors["vision.embeddings.patch_embedding.weight"], "vision.embeddings.position_embedding"
    width, patch = patches.shape[0], patches.shape[-1]
    words = tensors["text.embeddings.word_embeddings.weight"]
    vision = {
        "hidden_size": width,
        "intermediate_size": tensors["vision.encoder.layers.0.mlp.fc1.weight"].shape[0],
        "num_hidden_layers": _layers(tensors, r"vision\.encoder\.layers\.(\d+)\."),
        "image_size": patch * round((tensors[places].shape[1] - 1) ** 0.5),
        "patch_size": patch,
    }
    text = {
        "hidden_size": words.shape[1],
        "intermediate_size": tensors["text.encoder.layer.0.intermediate.dense.weight"].shape[0],
        "num_hidden_layers": _layers(tensors, r"text\.encoder\.layer\.(\d+)\."),
        "vocab_size": words.shape[0],
    }
    return vision, text


def _layers(names: Mapping[str, Tensor], pattern: str) -> int:
    return 1 + max(int(found[1]) for name in names if (found := re.match(pattern, name)))
