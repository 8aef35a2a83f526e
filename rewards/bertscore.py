"""BERTScore of what a captioner says about the image (DDPO's prompt-image alignment reward)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Annotated, ClassVar

import torch
import torch.nn.functional as F
from annotated_types import Ge
from torch import Tensor

from b2bench.errors import UserError
from b2bench.evaluation.weights import from_hub, network_from_hub
from b2bench.files import stored_parameters
from b2bench.pocket.paths import POCKET_WEIGHTS
from b2bench.protocols import ModelSize
from b2bench.quiet import quiet_libraries
from b2bench.registry import reward

QUESTION = "USER: <image>\nAnswer concisely: what is going on in this image? ASSISTANT:"
REFERENCE = "The image contains {}"

# checkpoint -> captioner source, its size, BERT source, its size, hidden layer that is compared
_CHECKPOINTS: dict[str, tuple[str, str, str, str, int]] = {
    "pocket": (str(POCKET_WEIGHTS / "captioner"), "", str(POCKET_WEIGHTS / "bert"), "", 4),
    # bert_score's table names layer 40 of DeBERTa xlarge mnli as the one that agrees best with people.
    "paper": ("llava-hf/llava-1.5-7b-hf", "14 GB", "microsoft/deberta-xlarge-mnli", "3 GB", 40),
}


@cache
def _paper_sizes() -> tuple[ModelSize, ...]:
    """LLaVA v1.5 7B, in fp16 as on a GPU, and DeBERTa xlarge, by their published configurations."""
    from transformers import DebertaConfig, DebertaModel, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

    bert = DebertaConfig(
        vocab_size=50265,
        hidden_size=1024,
        num_hidden_layers=48,
        num_attention_heads=16,
        intermediate_size=4096,
        type_vocab_size=0,
        relative_attention=True,
        pos_att_type=["c2p", "p2c"],
        position_biased_input=False,
    )
    captioner = LlavaConfig(text_config=LlamaConfig(vocab_size=32064), tie_word_embeddings=False)
    with torch.device("meta"):
        networks = (LlavaForConditionalGeneration(captioner), DebertaModel(bert))
    heard, compared = (sum(p.numel() for p in network.parameters()) for network in networks)
    return ModelSize("LLaVA v1.5 7B (fp16)", heard, 2 * heard), ModelSize("DeBERTa xlarge", compared, 4 * compared)


def greedy_recall(candidate: Tensor, reference: Tensor, scored: Tensor) -> float:
    """BERTScore recall (Zhang et al. 2020, equation 1), without idf weights.

    ``candidate`` [m, E] and ``reference`` [n, E] are token embeddings, special tokens included; ``scored``
    [n] is false for the reference's special tokens. Each scored reference token is matched with the
    most similar candidate token; the mean of these cosines, in [-1, 1].
    """
    similarity = F.normalize(reference, dim=-1) @ F.normalize(candidate, dim=-1).T
    return float(similarity.max(1).values[scored].mean())


@reward
class BERTScore:
    """A captioner answers "what is going on in this image?"; recall of the prompt in its answer.

    Reference text "The image contains {prompt}". The paper's models are LLaVA v1.5 7B (fp16) and DeBERTa
    xlarge mnli; pocket has a small LLaVA and a small BERT of the same classes, and runs the same code.
    """

    properties: ClassVar[Mapping[str, str]] = {
        "range": "[-1, 1]",
        "pocket": "yes",
        "source": "Black et al. 2023",
    }

    checkpoint: str = "auto"
    """pocket, or paper (LLaVA v1.5 7B, 14 GB, and DeBERTa xlarge mnli, 3 GB); auto is the backbone's"""
    batch: Annotated[int, Ge(1)] = 32
    """Images captioned, and texts embedded, at a time"""
    max_new_tokens: Annotated[int, Ge(1)] = 24
    """Length at which an answer is cut"""

    def models(self) -> list[ModelSize]:
        """Return captioner and BERT."""
        if self.checkpoint != "paper":
            files = {name: POCKET_WEIGHTS / name / "model.safetensors" for name in ("captioner", "bert")}
            sizes = {name: stored_parameters(file) for name, file in files.items()}
            return [ModelSize(name, parameters, 4 * parameters) for name, parameters in sizes.items()]
        cache = ModelSize("the captioner's attention cache, which grows with the reward's batch", 0, None)
        return [*_paper_sizes(), cache]

    def prepare(self, device: torch.device) -> None:
        """Load captioner and BERT before the first query, so that a missing one does not stop a run halfway."""
        from transformers import AutoModel, AutoProcessor, AutoTokenizer, LlavaForConditionalGeneration

        if self.checkpoint not in _CHECKPOINTS:
            raise UserError(f"bertscore has no checkpoint {self.checkpoint!r}; known: {', '.join(_CHECKPOINTS)}")
        captioner, captioner_size, bert, bert_size, self.layer = _CHECKPOINTS[self.checkpoint]
        quiet_libraries()
        dtype = torch.float16 if device.type == "cuda" else torch.float32
        self.device = device
        self.processor = from_hub(AutoProcessor, "BERTScore", captioner, captioner_size)
        self.captioner = network_from_hub(
            LlavaForConditionalGeneration, "BERTScore", captioner, captioner_size, dtype=dtype
        )
        self.captioner.to(device).eval().requires_grad_(False)
        self.tokenizer = from_hub(AutoTokenizer, "BERTScore", bert, bert_size)
        self.bert = network_from_hub(AutoModel, "BERTScore", bert, bert_size, dtype=torch.float32)
        self.bert.to(device).eval().requires_grad_(False)
        # Of prompts alone: there are few, and captions without end.
        self.references: dict[str, tuple[Tensor, Tensor]] = {}

    def captions(self, images: Tensor) -> list[str]:
        """Return the captioner's greedy answers to images [N, 3, h, w] in [0, 1]."""
        answers: list[str] = []
        for part in images.split(self.batch):
            pixels = (part.cpu() * 255).round().to(torch.uint8)
            inputs = self.processor(images=list(pixels), text=[QUESTION] * len(part), return_tensors="pt")
            inputs = inputs.to(self.device, self.captioner.dtype)
            output = self.captioner.generate(**inputs, max_new_tokens=self.max_new_tokens, do_sample=False)
            new = output[:, inputs["input_ids"].shape[1] :]
            answers += [text.strip() for text in self.processor.batch_decode(new, skip_special_tokens=True)]
        return answers

    def embed(self, texts: Sequence[str]) -> list[tuple[Tensor, Tensor]]:
        """Of every text its token embeddings [n, E] of the compared layer, and which tokens are not special [n]."""
        found = []
        for first in range(0, len(texts), self.batch):
            part = list(texts[first : first + self.batch])
            inputs = self.tokenizer(
                part, padding=True, truncation=True, return_tensors="pt", return_special_tokens_mask=True
            )
            special, lengths = inputs.pop("special_tokens_mask").bool(), inputs["attention_mask"].sum(1)
            states = self.bert(**inputs.to(self.device), output_hidden_states=True).hidden_states[self.layer]
            # Padding is on the right, and no longer there in what is compared.
            found += [(states[i, :n].float().cpu(), ~special[i, :n]) for i, n in enumerate(lengths.tolist())]
        return found

    def __call__(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        """``images`` [N, 3, h, w] in [0, 1] -> recalls [N]."""
        with torch.no_grad():
            return self._recalls(images, prompts)

    def _recalls(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        new = [prompt for prompt in dict.fromkeys(prompts) if prompt not in self.references]
        self.references.update(zip(new, self.embed([REFERENCE.format(prompt) for prompt in new]), strict=True))
        captions = [caption or "." for caption in self.captions(images)]
        distinct = list(dict.fromkeys(captions))
        candidates = dict(zip(distinct, self.embed(distinct), strict=True))
        scores = []
        for caption, prompt in zip(captions, prompts, strict=True):
            reference, scored = self.references[prompt]
            scores.append(greedy_recall(candidates[caption][0], reference, scored))
        return torch.tensor(scores)
