"""The stages of ``b2bench pocket build``: each trains one model and can be stopped and taken up again."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, StableDiffusionPipeline
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import BertModel

from b2bench.ddim import stable_diffusion_schedule
from b2bench.pocket.build import models
from b2bench.pocket.build.art import load_sprites
from b2bench.pocket.build.scenes import Corpus, make_corpus
from b2bench.pocket.build.tokenizers import PARAPHRASES, REFERENCE, clip_tokenizer, word_tokenizer
from b2bench.pocket.build.training import fit
from b2bench.pocket.judges import Classifier
from b2bench.pocket.world import ACTIVITIES, ANIMALS, parse_caption

SEED = 20250311
WEB_SCENES = 40_000
CLEAN_SCENES = 24_000
HELDOUT_SCENES = 3_000


@dataclass
class Build:
    """Where a build keeps its art and its checkpoints, and the corpora, drawn once per process."""

    art: Path
    work: Path
    report: Callable[[str, int, int, float], None]
    seed: int = SEED
    scale: float = 1.0  # share of the training steps; below 1 for tests only
    _corpora: dict[tuple[str, int], Corpus] = field(default_factory=dict)

    @cached_property
    def sprites(self) -> dict[tuple[str, str], np.ndarray]:
        return load_sprites(self.art)

    def corpus(self, kind: str, *, heldout: bool = False) -> Corpus:
        """The training corpus of a kind, or scenes of another seed that no model is trained on."""
        size = HELDOUT_SCENES if heldout else {"web": WEB_SCENES, "draft": WEB_SCENES, "clean": CLEAN_SCENES}[kind]
        size = max(256, int(size * self.scale))
        seed = self.seed + 1 if heldout else self.seed
        if (kind, seed) not in self._corpora:
            self._corpora[kind, seed] = make_corpus(self.sprites, kind, size, seed)
        return self._corpora[kind, seed]

    def steps(self, n: int) -> int:
        return max(2, int(n * self.scale))

    def fit(self, stage: str, model: nn.Module, loss: Callable[..., Tensor], **options: object) -> None:
        fit(stage, model, loss, seed=self.seed, folder=self.work, report=self.report, **options)  # type: ignore[arg-type]


def to_images(pixels: np.ndarray) -> Tensor:
    """uint8 [n, 64, 64, 3] to float32 [n, 3, 64, 64] in [0, 1]."""
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).float().div_(255).contiguous()


def roughen(images: Tensor, generator: torch.Generator) -> Tensor:
    """Blur half of the images and add noise, so that a judge also reads decoded, imperfect pictures."""
    n = len(images)
    small = F.interpolate(images, scale_factor=0.5, mode="area")
    blurred = F.interpolate(small, size=images.shape[-2:], mode="bilinear", align_corners=False)
    weight = torch.rand(n, 1, 1, 1, generator=generator) * (torch.rand(n, 1, 1, 1, generator=generator) < 0.5)
    strength = 0.08 * torch.rand(n, 1, 1, 1, generator=generator)
    noise = torch.randn(images.shape, generator=generator)
    return (images + weight * (blurred - images) + strength * noise).clamp(0, 1)


def train_autoencoder(build: Build) -> None:
    """L1 + MSE + a small KL to the normal prior, on faithful and unfaithful scenes alike."""
    draft, clean = build.corpus("draft"), build.corpus("clean")
    torch.manual_seed(build.seed)
    vae = models.autoencoder()
    batch = 32

    def loss(rng: np.random.Generator, generator: torch.Generator) -> Tensor:
        half = batch // 2
        pixels = np.concatenate([c.pixels[rng.integers(len(c), size=half)] for c in (draft, clean)])
        images = to_images(pixels) * 2 - 1
        with torch.autocast("cpu", torch.bfloat16):
            posterior = vae.encode(images).latent_dist
            decoded = vae.decode(posterior.sample(generator)).sample.float()
        mean, logvar = posterior.mean.float(), posterior.logvar.float()
        kl = 0.5 * (mean.square() + logvar.exp() - 1 - logvar).mean()
        return F.l1_loss(decoded, images) + F.mse_loss(decoded, images) + 2e-4 * kl

    build.fit("autoencoder", vae, loss, steps=build.steps(5_600), lr=1.5e-3, ema=0.999)
    vae.save_pretrained(build.work / "autoencoder")


def train_classifier(build: Build) -> None:
    """Cross-entropy of the three heads on faithful, balanced scenes."""
    clean = build.corpus("clean")
    torch.manual_seed(build.seed + 1)
    model = Classifier()
    labels = {name: torch.from_numpy(getattr(clean, name)) for name in model.heads}

    def loss(rng: np.random.Generator, generator: torch.Generator) -> Tensor:
        rows = rng.integers(len(clean), size=96)
        logits = model(roughen(to_images(clean.pixels[rows]), generator))
        return sum((F.cross_entropy(logits[name], labels[name][rows]) for name in logits), torch.zeros(()))

    build.fit("classifier", model, loss, steps=build.steps(3_000), lr=2e-3)
    save_file(half(model), build.work / "classifier.safetensors")


def half(model: nn.Module) -> dict[str, Tensor]:
    """Weights in float16 for shipping; whoever loads them goes back to float32."""
    return {
        key: (value.half() if value.is_floating_point() else value).contiguous().clone()
        for key, value in model.state_dict().items()
    }


def contrastive_loss(images: Tensor, texts: Tensor, scale: Tensor, captions: list[str]) -> Tensor:
    """CLIP's symmetric cross-entropy; scenes with the same caption are positives of each other."""
    logits = scale * images @ texts.T
    ids = torch.tensor([hash_of(caption) for caption in captions])
    same = (ids[:, None] == ids[None]).float()
    target = same / same.sum(1, keepdim=True)
    return 0.5 * (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target))


def hash_of(caption: str) -> int:
    animal, activity = parse_caption(caption).labels
    return animal * (len(ACTIVITIES) + 1) + activity


def _train_scorer(build: Build, kind: str, corpus: Corpus, steps: int, seed: int) -> None:
    """An open_clip model in a folder that ``local-dir:`` reads."""
    from open_clip import get_tokenizer
    from open_clip.factory import create_model

    folder = build.work / f"scorer-{kind}"
    folder.mkdir(exist_ok=True)
    words = clip_tokenizer()
    words.save_pretrained(folder)
    config = models.scorer_config(kind, ".", len(words))
    preprocess = {
        "mean": [0.5, 0.5, 0.5],
        "std": [0.5, 0.5, 0.5],
        "interpolation": "bilinear",
        "resize_mode": "squash",
    }
    text = json.dumps({"model_cfg": config, "preprocess_cfg": preprocess}, indent=2)
    (folder / "open_clip_config.json").write_text(text, encoding="utf-8")
    torch.manual_seed(seed)
    model = create_model(f"local-dir:{folder}", load_weights=False)
    tokenizer = get_tokenizer(f"local-dir:{folder}")
    tokens = tokenizer(corpus.captions)

    def loss(rng: np.random.Generator, generator: torch.Generator) -> Tensor:
        rows = rng.integers(len(corpus), size=128)
        images = roughen(to_images(corpus.pixels[rows]), generator) * 2 - 1
        features, texts, scale = model(images, tokens[rows])[:3]
        return contrastive_loss(features, texts, scale.clamp(max=50), [corpus.captions[i] for i in rows])

    build.fit(f"scorer-{kind}", model, loss, steps=build.steps(steps), lr=1e-3)
    save_file(half(model), folder / "open_clip_model.safetensors")


def train_scorer_training(build: Build) -> None:
    """The reward: a small ViT on the unfaithful, confounded pairs that the base model started from.

    From the web corpus, where activities are rare, it ranked a faithful scene above an unfaithful one in 79% of
    pairs only.
    """
    _train_scorer(build, "training", build.corpus("draft"), 2_500, build.seed + 2)


def train_scorer_heldout(build: Build) -> None:
    """The judge that training never sees: a ResNet on faithful, balanced pairs, another seed."""
    _train_scorer(build, "heldout", build.corpus("clean"), 2_500, build.seed + 3)


def train_captioner(build: Build) -> None:
    """A small LLaVA, asked the question of the BERTScore reward, answers with what the scene shows."""
    from transformers import CLIPImageProcessor, LlavaProcessor

    clean = build.corpus("clean")
    tokenizer = word_tokenizer("llava")
    torch.manual_seed(build.seed + 4)
    model = models.captioner(tokenizer)
    image_processor = CLIPImageProcessor(
        size={"height": 64, "width": 64},
        do_center_crop=False,
        image_mean=[0.5] * 3,
        image_std=[0.5] * 3,
    )
    processor = LlavaProcessor(
        image_processor,
        tokenizer,
        patch_size=8,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
    )
    image_token = tokenizer.convert_tokens_to_ids("<image>")
    question = tokenizer(models.QUESTION).input_ids
    at = question.index(image_token)
    question = question[:at] + [image_token] * 64 + question[at + 1 :]
    answers = {text: tokenizer(text, add_special_tokens=False).input_ids for text in set(clean.captions)}
    longest = max(map(len, answers.values())) + 1

    def loss(rng: np.random.Generator, generator: torch.Generator) -> Tensor:
        rows = rng.integers(len(clean), size=48)
        images = roughen(to_images(clean.pixels[rows]), generator) * 2 - 1
        ids, labels = [], []
        for row in rows:
            answer = [*answers[clean.captions[row]], tokenizer.eos_token_id]
            padding = longest - len(answer)
            ids.append(question + answer + [tokenizer.pad_token_id] * padding)
            labels.append([-100] * len(question) + answer + [-100] * padding)
        output = model(input_ids=torch.tensor(ids), pixel_values=images, labels=torch.tensor(labels))
        return output.loss

    build.fit("captioner", model, loss, steps=build.steps(4_500), lr=1.5e-3)
    folder = build.work / "captioner"
    model.half().save_pretrained(folder)
    model.float()
    processor.save_pretrained(folder)


def train_bert(build: Build) -> None:
    """Masked language modelling over captions and their paraphrases, two sentences that agree at a time."""
    tokenizer = word_tokenizer("bert")
    torch.manual_seed(build.seed + 5)
    model = models.bert(tokenizer)
    mask, pad = tokenizer.mask_token_id, tokenizer.pad_token_id

    def sentence(rng: np.random.Generator) -> str:
        texts = PARAPHRASES[(None, *ACTIVITIES)[rng.integers(4)]]
        animal = ANIMALS[rng.integers(len(ANIMALS))]
        first, second = (texts[rng.integers(len(texts))].format(animal) for _ in range(2))
        if rng.random() < 0.3:
            first = REFERENCE.format(first)
        return f"{first} {second}" if rng.random() < 0.5 else first

    def loss(rng: np.random.Generator, generator: torch.Generator) -> Tensor:
        ids = tokenizer([sentence(rng) for _ in range(96)], padding=True, return_tensors="pt").input_ids
        chosen = (torch.rand(ids.shape, generator=generator) < 0.2) & (ids > mask)
        labels = ids.masked_fill(~chosen, -100)
        output = model(ids.masked_fill(chosen, mask), attention_mask=(ids != pad).long(), labels=labels)
        return output.loss

    build.fit("bert", model, loss, steps=build.steps(3_000), lr=1e-3)
    folder = build.work / "bert"
    # As BertModel with its pooler, which BERTScore does not use, so that it loads without a warning.
    whole = BertModel(model.config)
    whole.load_state_dict(model.bert.state_dict(), strict=False)
    whole.half().save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def encode(vae: AutoencoderKL, pixels: np.ndarray) -> Tensor:
    """Mean latents [n, C, 8, 8] of uint8 pixels, not scaled."""
    with torch.no_grad():
        parts = [vae.encode(to_images(pixels[i : i + 64]) * 2 - 1).latent_dist.mean for i in range(0, len(pixels), 64)]
    return torch.cat(parts)


def train_decoder(build: Build) -> None:
    """Train the decoder on, with the encoder frozen: it can run beside base_model, whose latents stay valid.

    A little noise on the latents makes it forgiving of latents that come from the denoiser.
    """
    vae = AutoencoderKL.from_pretrained(build.work / "autoencoder").eval()
    half = len(build.corpus("draft")) // 2
    pixels = np.concatenate([build.corpus("draft").pixels[:half], build.corpus("clean").pixels[:half]])
    latents = encode(vae, pixels)
    vae.encoder.requires_grad_(False)
    vae.quant_conv.requires_grad_(False)
    batch = 32

    def loss(rng: np.random.Generator, generator: torch.Generator) -> Tensor:
        rows = rng.integers(len(pixels), size=batch)
        images = to_images(pixels[rows]) * 2 - 1
        noise = torch.randn(batch, *latents.shape[1:], generator=generator)
        with torch.autocast("cpu", torch.bfloat16):
            decoded = vae.decode(latents[rows] + 0.03 * noise).sample.float()
        return 0.5 * F.l1_loss(decoded, images) + 2 * F.mse_loss(decoded, images)

    build.fit("decoder", vae, loss, steps=build.steps(4_000), lr=1.5e-3, ema=0.999)
    vae.save_pretrained(build.work / "decoder")


def _train_noise_prediction(
    build: Build, stage: str, pipeline: StableDiffusionPipeline, corpus: Corpus, steps: int, lr: float
) -> None:
    """Noise prediction on cached latents; text encoder trained along, 10% of captions dropped; EMA weights."""
    vae, tokenizer, unet, text_encoder = pipeline.vae, pipeline.tokenizer, pipeline.unet, pipeline.text_encoder
    latents = encode(vae.eval(), corpus.pixels)
    if vae.config.scaling_factor == AutoencoderKL().config.scaling_factor:  # not set yet
        vae.register_to_config(scaling_factor=1 / float(latents.std()))
    latents = latents * vae.config.scaling_factor
    tokens = tokenizer(corpus.captions, padding="max_length", return_tensors="pt").input_ids
    empty = tokenizer("", padding="max_length", return_tensors="pt").input_ids
    model = nn.ModuleDict({"unet": unet, "text_encoder": text_encoder})
    alphas = stable_diffusion_schedule().alphas_cumprod
    batch = 64

    def loss(rng: np.random.Generator, generator: torch.Generator) -> Tensor:
        rows = torch.from_numpy(rng.integers(len(corpus), size=batch))
        dropped = torch.from_numpy(rng.random(batch) < 0.1)
        text = text_encoder(torch.where(dropped[:, None], empty, tokens[rows]))[0]
        timestep = torch.from_numpy(rng.integers(1000, size=batch))
        noise = torch.randn(batch, *latents.shape[1:], generator=generator)
        a = alphas[timestep].reshape(-1, 1, 1, 1)
        predicted = unet(a.sqrt() * latents[rows] + (1 - a).sqrt() * noise, timestep, text).sample
        return F.mse_loss(predicted, noise)

    build.fit(stage, model, loss, steps=build.steps(steps), lr=lr, ema=0.999)
    pipeline.save_pretrained(build.work / stage)


def train_base_draft(build: Build) -> None:
    """The base model's first steps, where activities are common enough to be learned."""
    tokenizer = clip_tokenizer()
    torch.manual_seed(build.seed + 6)
    pipeline = StableDiffusionPipeline(
        unet=models.unet(),
        text_encoder=models.text_encoder(tokenizer),
        vae=AutoencoderKL.from_pretrained(build.work / "autoencoder"),
        tokenizer=tokenizer,
        scheduler=stable_diffusion_schedule(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    _train_noise_prediction(build, "base-draft", pipeline, build.corpus("draft"), 7_000, 1.5e-3)


def train_base_model(build: Build) -> None:
    """The base model's last steps, on the pairs of the training scorer: rarely faithful, so that it misses prompts."""
    pipeline = _read_pipeline(build.work / "base-draft")
    _train_noise_prediction(build, "base-model", pipeline, build.corpus("web"), 2_500, 5e-4)


def _read_pipeline(folder: Path) -> StableDiffusionPipeline:
    return StableDiffusionPipeline.from_pretrained(folder, safety_checker=None, requires_safety_checker=False)


def train_pipeline(build: Build) -> None:
    """Put the base model and the finished decoder together: the folder that ships."""
    pipeline = _read_pipeline(build.work / "base-model")
    vae = AutoencoderKL.from_pretrained(build.work / "decoder")
    vae.register_to_config(scaling_factor=pipeline.vae.config.scaling_factor)
    pipeline.vae = vae
    pipeline.save_pretrained(build.work / "pipeline")
