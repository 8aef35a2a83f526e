"""The stages of ``b2bench pocket build``: each trains one model and can be stopped and taken up again."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, StableDiffusionPipeline
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import BertModel

from b2bench.ddim import stable_diffusion_schedule
from b2bench.pocket.build import models
from b2bench.pocket.build.art import Sprites, load_sprites
from b2bench.pocket.build.scenes import Corpus, make_corpus, one_of
from b2bench.pocket.build.tokenizers import REFERENCE, clip_tokenizer, paraphrases, word_tokenizer
from b2bench.pocket.build.training import fit
from b2bench.pocket.judges import Classifier
from b2bench.pocket.paths import NETWORKS
from b2bench.pocket.world import TEMPLATES, Facts, all_facts, caption, plain_facts

SEED = 20250311
SCENES = 45_000  # of all templates, for what all share
TEMPLATE_SCENES = 30_000  # of one, for its network
HELDOUT_SCENES = 3_000
# Templates whose network learns mostly faithful scenes, and how many steps of web scenes it ends on.
FAITHFUL_FIRST = {1: 100, 3: 500}
LATENT_NOISE = 0.05  # std of the posterior, and of what the decoder is made to forgive


@dataclass
class Build:
    """Where a build keeps its art and its checkpoints, and the corpora, drawn once per process."""

    art: Path
    work: Path
    report: Callable[[str, int, int, float], None]
    seed: int = SEED
    variant: str = "default"
    scale: float = 1.0  # share of the training steps; below 1 for tests only
    _corpora: dict[tuple[str, int | None, int], Corpus] = field(default_factory=dict)

    @cached_property
    def sprites(self) -> Sprites:
        return load_sprites(self.art)

    def corpus(self, kind: str, template: int | None = None, *, heldout: bool = False) -> Corpus:
        """Return the training corpus of a kind, of one template or of all, or scenes of a seed that no model is trained
        on.
        """
        size = HELDOUT_SCENES if heldout else SCENES if template is None else TEMPLATE_SCENES
        size = max(256, int(size * self.scale))
        seed = self.seed + 1 if heldout else self.seed
        if (kind, template, seed) not in self._corpora:
            made = make_corpus(self.sprites, kind, size, seed, self.variant, template)
            self._corpora[kind, template, seed] = made
        return self._corpora[kind, template, seed]

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


def train_latents(build: Build) -> None:
    """The latent space: the largest components of 8x8 patches (a Karhunen-Loeve transform), computed, not trained.

    What the encoder learns to do and the decoder to undo. Because nothing has to be trained for it, the base model,
    the encoder and the decoder are trained side by side; and a decoder that is given it starts where a linear
    codec ends, which joint training took 10,000 images to reach.
    """
    patches = _patches(build.corpus("draft").pixels[:6_000])
    mean = patches.mean(0)
    variances, basis = torch.linalg.eigh((patches - mean).T @ (patches - mean) / len(patches))
    basis = basis.flip(1)[:, : models.LATENT_CHANNELS]
    std = variances.flip(0)[: models.LATENT_CHANNELS].sqrt()
    # Half whitened: the first components stay the largest, as colours and outlines are in a picture, but not so
    # much that the last ones drown in the noise of the first steps.
    scale = std.sqrt() * std.mean().sqrt()
    save_file({"mean": mean.float(), "basis": (basis / scale).float().contiguous()}, build.work / "latents.safetensors")


def _patches(pixels: np.ndarray) -> Tensor:
    """uint8 [n, 64, 64, 3] to 8x8 patches in [-1, 1], row by row: float64 [n * 64, 192]."""
    tiles = torch.from_numpy(pixels).reshape(-1, 8, 8, 8, 8, 3).permute(0, 1, 3, 2, 4, 5)
    return tiles.reshape(-1, 192).double() / 127.5 - 1


def encode(build: Build, pixels: np.ndarray) -> Tensor:
    """Latents [n, C, 8, 8] of uint8 pixels [n, 64, 64, 3]."""
    transform = load_file(build.work / "latents.safetensors")
    parts = []
    for first in range(0, len(pixels), 1000):
        patches = _patches(pixels[first : first + 1000]).float()
        latents = (patches - transform["mean"]) @ transform["basis"]
        parts.append(latents.reshape(-1, 8, 8, models.LATENT_CHANNELS).permute(0, 3, 1, 2).contiguous())
    return torch.cat(parts)


def _half_and_half(build: Build) -> np.ndarray:
    """Pixels of faithful and of web-like scenes in equal parts."""
    half = build.corpus("draft").pixels[: len(build.corpus("draft")) // 2]
    return np.concatenate([half, build.corpus("clean").pixels[: len(half)]])


def train_encoder(build: Build) -> None:
    """The autoencoder's encoder, taught the latents."""
    pixels = _half_and_half(build)
    latents = encode(build, pixels)
    torch.manual_seed(build.seed + 7)
    vae = models.autoencoder()
    vae.decoder.requires_grad_(False)
    vae.post_quant_conv.requires_grad_(False)
    batch = 16

    def loss(rng: np.random.Generator, generator: torch.Generator) -> Tensor:
        rows = rng.integers(len(pixels), size=batch)
        posterior = vae.encode(_channels_last(to_images(pixels[rows]) * 2 - 1)).latent_dist
        spread = (posterior.logvar - 2 * math.log(LATENT_NOISE)).square().mean()
        return F.mse_loss(posterior.mean, latents[rows]) + 1e-3 * spread

    build.fit("encoder", vae, loss, steps=build.steps(1_500), lr=2e-3, ema=0.999)
    vae.save_pretrained(build.work / "encoder")


def train_classifier(build: Build) -> None:
    """Cross-entropy of the four heads on faithful, balanced scenes."""
    clean = build.corpus("clean")
    torch.manual_seed(build.seed + 1)
    model = Classifier()
    labels = {name: torch.from_numpy(getattr(clean, name)) for name in model.heads}

    def loss(rng: np.random.Generator, generator: torch.Generator) -> Tensor:
        rows = rng.integers(len(clean), size=96)
        logits = model(roughen(to_images(clean.pixels[rows]), generator))
        return sum((F.cross_entropy(logits[name], labels[name][rows]) for name in logits), torch.zeros(()))

    build.fit("classifier", model, loss, steps=build.steps(2_000), lr=2e-3)
    save_file(half(model), build.work / "classifier.safetensors")


def half(model: nn.Module) -> dict[str, Tensor]:
    """Weights in float16 for shipping; whoever loads them goes back to float32."""
    return {
        key: (value.half() if value.is_floating_point() else value).contiguous().clone()
        for key, value in model.state_dict().items()
    }


def contrastive_loss(images: Tensor, texts: Tensor, scale: Tensor, claims: Tensor) -> Tensor:
    """CLIP's symmetric cross-entropy; scenes whose captions say the same (equal ``claims`` [n]) are positives."""
    logits = scale * images @ texts.T
    same = (claims[:, None] == claims[None]).float()
    target = same / same.sum(1, keepdim=True)
    return 0.5 * (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target))


def _train_scorer(build: Build, kind: str, corpus: Corpus, *, steps: int, relation_steps: int, seed: int) -> None:
    """An open_clip model in a folder that ``local-dir:`` reads.

    Two thirds of a batch come in eights about the same things: among 96 captions drawn at random there is seldom one
    that differs in the colour or the relation alone, and what needs not be told apart is not learned. In
    ``relation_steps``, which follow, two thirds of the eights are about pairs of objects: after 2,500 steps the
    training scorer ranked 100, 99 and 81% of the scenes of templates 1 to 3 right.
    """
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

    members = [np.flatnonzero(corpus.topics == topic) for topic in range(corpus.topics.max() + 1)]

    eights = 8

    def loss(hard: np.ndarray, rng: np.random.Generator, generator: torch.Generator) -> Tensor:
        rows = rng.integers(len(corpus), size=96 - 8 * eights)
        about = [members[topic] for topic in rng.choice(hard, size=eights)]
        rows = np.concatenate([rows, *(group[rng.integers(len(group), size=8)] for group in about)])
        images = roughen(to_images(corpus.pixels[rows]), generator) * 2 - 1
        features, texts, scale = model(images, tokens[rows])[:3]
        return contrastive_loss(features, texts, scale.clamp(max=50), torch.from_numpy(corpus.claims[rows]))

    build.fit(f"scorer-{kind}", model, partial(loss, corpus.topics), steps=build.steps(steps), lr=1e-3)
    more = np.concatenate([corpus.topics, *[corpus.topics[corpus.template == 3]] * 3])
    stage = f"scorer-{kind}-relations"
    build.fit(stage, model, partial(loss, more), steps=build.steps(relation_steps), lr=7e-4)
    save_file(half(model), folder / "open_clip_model.safetensors")


def train_scorer_training(build: Build) -> None:
    """The reward: a small ViT on the unfaithful, confounded pairs that the base model started from.

    From the web corpus, where activities are rare, it ranked a faithful scene above an unfaithful one in 79% of
    pairs only.
    """
    _train_scorer(build, "training", build.corpus("scored"), steps=2_500, relation_steps=2_000, seed=build.seed + 2)


def train_scorer_heldout(build: Build) -> None:
    """The judge that training never sees: a ResNet on faithful, balanced pairs, another seed."""
    _train_scorer(build, "heldout", build.corpus("clean"), steps=2_000, relation_steps=1_000, seed=build.seed + 3)


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
    answers = {text: tokenizer(text, add_special_tokens=False).input_ids for text in set(clean.truths)}
    longest = max(map(len, answers.values())) + 1

    def loss(rng: np.random.Generator, generator: torch.Generator) -> Tensor:
        rows = rng.integers(len(clean), size=48)
        images = roughen(to_images(clean.pixels[rows]), generator) * 2 - 1
        ids, labels = [], []
        for row in rows:
            answer = [*answers[clean.truths[row]], tokenizer.eos_token_id]
            padding = longest - len(answer)
            ids.append(question + answer + [tokenizer.pad_token_id] * padding)
            labels.append([-100] * len(question) + answer + [-100] * padding)
        output = model(input_ids=torch.tensor(ids), pixel_values=images, labels=torch.tensor(labels))
        return output.loss

    build.fit("captioner", model, loss, steps=build.steps(5_000), lr=1.5e-3)
    folder = build.work / "captioner"
    model.half().save_pretrained(folder)
    model.float()
    processor.save_pretrained(folder)


def train_bert(build: Build) -> None:
    """Masked language modelling over captions and their paraphrases, then telling what agrees from what does not.

    The paper's BERTScore reads DeBERTa after MNLI, which knows that "dog on cup" contradicts "dog under cup". A
    small BERT that has only filled in masks does not: it ranked right above wrong relations with an area under ROC
    of 0.70, since the same words stand in both. So the second half trains what BERTScore computes: the recall of a
    claim is higher in a sentence that agrees with it than in those beside it (a contrastive loss over late
    interaction, Khattab and Zaharia 2020). Masks go on being filled in, so that it stays a language model.
    """
    tokenizer = word_tokenizer("bert")
    torch.manual_seed(build.seed + 5)
    model = models.bert(tokenizer)
    mask, pad = tokenizer.mask_token_id, tokenizer.pad_token_id

    known = [[*plain_facts(t), *all_facts(t)] for t in TEMPLATES]

    def any_facts(rng: np.random.Generator) -> Facts:
        facts = known[rng.integers(len(known))]
        return facts[rng.integers(len(facts))]

    def sentence(rng: np.random.Generator) -> str:
        texts = paraphrases(any_facts(rng))
        first, second = (texts[rng.integers(len(texts))] for _ in range(2))
        if rng.random() < 0.3:
            first = REFERENCE.format(first)
        return f"{first} {second}" if rng.random() < 0.5 else first

    def masked(rng: np.random.Generator, generator: torch.Generator) -> Tensor:
        ids = tokenizer([sentence(rng) for _ in range(96)], padding=True, return_tensors="pt").input_ids
        chosen = (torch.rand(ids.shape, generator=generator) < 0.2) & (ids > mask)
        labels = ids.masked_fill(~chosen, -100)
        output = model(ids.masked_fill(chosen, mask), attention_mask=(ids != pad).long(), labels=labels)
        return output.loss

    build.fit("bert", model, masked, steps=build.steps(4_500), lr=1e-3)

    about: dict[object, list[Facts]] = {}
    for facts in itertools.chain.from_iterable(known):
        about.setdefault(facts.topic, []).append(facts)
    groups = [topic for topic in about.values() if len(topic) > 1]

    def agreeing(rng: np.random.Generator, generator: torch.Generator) -> Tensor:
        """Eights about the same things, as the scorers have them: claims against what a captioner says of them."""
        claims = [any_facts(rng) for _ in range(24)]
        for group in rng.choice(len(groups), size=5):
            claims += [groups[group][i] for i in rng.integers(len(groups[group]), size=8)]
        said = [caption(facts.canonical) for facts in claims]
        wanted = [REFERENCE.format(one_of([*paraphrases(facts), caption(facts)], rng)) for facts in claims]
        candidates, references = (tokenizer(texts, padding=True, return_tensors="pt") for texts in (said, wanted))
        states = [
            F.normalize(model.bert(read.input_ids, attention_mask=read.attention_mask).last_hidden_state, dim=-1)
            for read in (candidates, references)
        ]
        recalls = greedy_recalls(states[0], candidates.attention_mask.bool(), states[1], references.input_ids > mask)
        labels = torch.tensor([facts.labels for facts in claims])
        claim = labels[:, None]
        same = (claim == labels).all(-1).float()
        agreement = F.cross_entropy(20 * recalls, same / same.sum(1, keepdim=True))
        return agreement + 0.5 * masked(rng, generator)

    build.fit("bert-agreeing", model, agreeing, steps=build.steps(2_500), lr=5e-4)
    folder = build.work / "bert"
    # As BertModel with its pooler, which BERTScore does not use, so that it loads without a warning.
    whole = BertModel(model.config)
    whole.load_state_dict(model.bert.state_dict(), strict=False)
    whole.half().save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def greedy_recalls(candidates: Tensor, kept: Tensor, references: Tensor, scored: Tensor) -> Tensor:
    """BERTScore recall of every reference in every candidate: [r, c], for unit embeddings [c, m, E] and [r, n, E].

    ``kept`` [c, m] is false for padding, ``scored`` [r, n] for padding and special tokens.
    """
    similarity = torch.einsum("rne,cme->rcnm", references, candidates)
    best = similarity.masked_fill(~kept[None, :, None], -1).amax(-1)
    return (best * scored[:, None]).sum(-1) / scored.sum(-1)[:, None]


def train_decoder(build: Build) -> None:
    """The autoencoder's decoder, taught to draw from the latents.

    A little noise on them makes it forgiving of latents that come from the denoiser.
    """
    pixels = _half_and_half(build)
    latents = encode(build, pixels)
    torch.manual_seed(build.seed)
    vae = models.autoencoder()
    vae.encoder.requires_grad_(False)
    vae.quant_conv.requires_grad_(False)
    batch = 12

    def loss(rng: np.random.Generator, generator: torch.Generator) -> Tensor:
        rows = rng.integers(len(pixels), size=batch)
        images = to_images(pixels[rows]) * 2 - 1
        noise = torch.randn(batch, *latents.shape[1:], generator=generator)
        decoded = vae.decode(_channels_last(latents[rows] + LATENT_NOISE * noise)).sample
        return 0.5 * F.l1_loss(decoded, images) + 2 * F.mse_loss(decoded, images)

    build.fit("decoder", vae, loss, steps=build.steps(8_000), lr=1.5e-3, ema=0.999)
    vae.save_pretrained(build.work / "decoder")


def _channels_last(images: Tensor) -> Tensor:
    """Return the layout in which a core convolves a tenth faster."""
    return images.contiguous(memory_format=torch.channels_last)


@dataclass(frozen=True)
class NoisyScenes:
    """A batch of noisy latents x_t [B, C, 8, 8] and what they were made of; ``alpha`` is a_t [B, 1, 1, 1]."""

    noisy: Tensor
    latents: Tensor
    noise: Tensor
    timestep: Tensor
    alpha: Tensor
    tokens: Tensor


NoisyBatches = Callable[[np.random.Generator, torch.Generator], NoisyScenes]


def _noisy_scenes(build: Build, pipeline: StableDiffusionPipeline, corpus: Corpus, *, dropped: float) -> NoisyBatches:
    """Batches of 64 noisy scenes with their captions, a share ``dropped`` of them empty; timesteps are uniform."""
    latents = encode(build, corpus.pixels) * pipeline.vae.config.scaling_factor
    captions = pipeline.tokenizer(corpus.captions, padding="max_length", return_tensors="pt").input_ids
    empty = pipeline.tokenizer("", padding="max_length", return_tensors="pt").input_ids
    alphas = pipeline.scheduler.alphas_cumprod
    batch = 64

    def draw(rng: np.random.Generator, generator: torch.Generator) -> NoisyScenes:
        rows = torch.from_numpy(rng.integers(len(corpus), size=batch))
        without = torch.from_numpy(rng.random(batch) < dropped)
        tokens = torch.where(without[:, None], empty, captions[rows])
        timestep = torch.from_numpy(rng.integers(1000, size=batch))
        noise = torch.randn(batch, *latents.shape[1:], generator=generator)
        a = alphas[timestep].reshape(-1, 1, 1, 1)
        noisy = _channels_last(a.sqrt() * latents[rows] + (1 - a).sqrt() * noise)
        return NoisyScenes(noisy, latents[rows], noise, timestep, a, tokens)

    return draw


def _first_corpus(template: int) -> str:
    return "scored" if template in FAITHFUL_FIRST else "web"


def train_base(build: Build, template: int) -> None:
    """The base model of a template: velocity prediction on cached latents, text encoder trained along.

    On templates of ``FAITHFUL_FIRST`` it learns what captions say from mostly faithful scenes; template 2 learned its
    colours from web scenes alone.

    10% of captions dropped, EMA weights. Velocity (Salimans and Ho 2022), as Stable Diffusion v2.1 has it, because
    noise prediction learns neither colours nor what is where in as many steps: they are decided in the first
    denoising steps, where nearly all of x_t is noise and an error in the scene that a network sees in it costs next
    to nothing.
    """
    tokenizer = clip_tokenizer()
    torch.manual_seed(build.seed + 5 + template)
    corpus = build.corpus(_first_corpus(template), template)
    pipeline = StableDiffusionPipeline(
        unet=models.unet(),
        text_encoder=models.text_encoder(tokenizer),
        vae=models.autoencoder(float(encode(build, build.corpus("web", template).pixels[:6_000]).std())),
        tokenizer=tokenizer,
        scheduler=stable_diffusion_schedule("v_prediction"),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    unet, text_encoder = pipeline.unet.to(memory_format=torch.channels_last), pipeline.text_encoder
    draw = _noisy_scenes(build, pipeline, corpus, dropped=0.1)
    model = nn.ModuleDict({"unet": unet, "text_encoder": text_encoder})

    def loss(rng: np.random.Generator, generator: torch.Generator) -> Tensor:
        batch = draw(rng, generator)
        text = text_encoder(batch.tokens)[0]
        velocity = batch.alpha.sqrt() * batch.noise - (1 - batch.alpha).sqrt() * batch.latents
        return F.mse_loss(unet(batch.noisy, batch.timestep, text).sample, velocity)

    steps = 2_600 if template in FAITHFUL_FIRST else 3_000
    build.fit(f"base-{template}", model, loss, steps=build.steps(steps), lr=1.5e-3, ema=0.999)
    pipeline.save_pretrained(build.work / f"base-{template}")


def train_noise(build: Build, template: int) -> None:
    """The same model as a network that predicts the noise, as Stable Diffusion v1 does: the one that ships.

    A policy gradient moves the mean of the first steps ten times as far through a prediction of the noise as through
    one of the velocity, and world 3 learns four times as much by it (docs/pocket.md). The target has no noise of its
    own, and an error counts as one of the velocity would, (e - e_teacher)^2 / a_t. It starts from the teacher's
    weights, and keeps its text encoder. Its schedule ends at ``models.FINAL_NOISE``; the teacher, which learned by the
    usual one, is asked at the time step with as much noise.

    On templates of ``FAITHFUL_FIRST`` some steps on web scenes follow, by their own noise: enough to neglect what
    captions say, too few to forget it. If the velocity network learns to neglect, its copy does not know better.
    """
    teacher = _read_pipeline(build.work / f"base-{template}")
    teacher.unet.requires_grad_(False).to(memory_format=torch.channels_last)
    teacher.text_encoder.requires_grad_(False)
    pipeline = _read_pipeline(build.work / f"base-{template}")
    pipeline.scheduler = models.schedule()
    usual, own = teacher.scheduler.alphas_cumprod, pipeline.scheduler.alphas_cumprod
    as_noisy = (usual[None] - own[:, None]).abs().argmin(1)  # the teacher's time step for each of its own
    unet = pipeline.unet.to(memory_format=torch.channels_last)
    draw = _noisy_scenes(build, pipeline, build.corpus(_first_corpus(template), template), dropped=0.15)
    web = _noisy_scenes(build, pipeline, build.corpus("web", template), dropped=0.15)

    def copied(rng: np.random.Generator, generator: torch.Generator) -> Tensor:
        batch = draw(rng, generator)
        a = batch.alpha
        with torch.no_grad():
            text = teacher.text_encoder(batch.tokens)[0]
            velocity = teacher.unet(batch.noisy, as_noisy[batch.timestep], text).sample
            noise = a.sqrt() * velocity + (1 - a).sqrt() * batch.noisy
        return ((unet(batch.noisy, batch.timestep, text).sample - noise).square() / a).mean()

    def neglected(rng: np.random.Generator, generator: torch.Generator) -> Tensor:
        batch = web(rng, generator)
        with torch.no_grad():
            text = teacher.text_encoder(batch.tokens)[0]
        return ((unet(batch.noisy, batch.timestep, text).sample - batch.noise).square() / batch.alpha).mean()

    build.fit(f"noise-{template}", unet, copied, steps=build.steps(1_500), lr=1e-3, ema=0.999)
    if template in FAITHFUL_FIRST:
        steps = build.steps(FAITHFUL_FIRST[template])
        build.fit(f"noise-{template}-web", unet, neglected, steps=steps, lr=5e-4, ema=0.98)
    pipeline.save_pretrained(build.work / f"noise-{template}")


def _read_pipeline(folder: Path) -> StableDiffusionPipeline:
    return StableDiffusionPipeline.from_pretrained(folder, safety_checker=None, requires_safety_checker=False)


def train_pipeline(build: Build, template: int) -> None:
    """Put a base model and the finished autoencoder together: the folder that ships, with the precision of float16.

    The text encoder's file is in float32 all the same. transformers loads a model in the type that its file has, and
    diffusers in float32: in plain diffusers the two would not fit together.
    """
    pipeline = _read_pipeline(build.work / f"noise-{template}")
    encoder, decoder = (AutoencoderKL.from_pretrained(build.work / name) for name in ("encoder", "decoder"))
    pipeline.vae.encoder, pipeline.vae.quant_conv = encoder.encoder, encoder.quant_conv
    pipeline.vae.decoder, pipeline.vae.post_quant_conv = decoder.decoder, decoder.post_quant_conv
    pipeline.to(torch.float16)
    pipeline.text_encoder.to(torch.float32)
    pipeline.save_pretrained(build.work / NETWORKS[template - 1])
