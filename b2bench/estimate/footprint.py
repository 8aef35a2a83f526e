"""What the networks of a run take: parameters, and bytes by rows, measured on torch's meta device."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import diffusers
import torch
from torch import Tensor, nn

from b2bench.backbones.specs import Backbone, backbones
from b2bench.backbones.stable_diffusion import StableDiffusion
from b2bench.config.run import RunConfig
from b2bench.ddim import stable_diffusion_schedule
from b2bench.errors import UserError
from b2bench.estimate.memory import Cost, Shapes, cost
from b2bench.evaluation.inception import INCEPTION_GIGABYTES
from b2bench.evaluation.scorers import scorer_size
from b2bench.protocols import ModelSize
from b2bench.training.setup import plugin_errors
from b2bench.types import Conditioning

GIB = 2**30
WIDTH = {"fp32": 4, "bf16": 2, "fp16": 2}
"""Bytes of a number, by precision"""


@dataclass(frozen=True)
class Line:
    """Bytes that are affine in a number of rows: ``fixed + each * rows``."""

    fixed: float
    each: float

    @classmethod
    def through(cls, one: float, two: float) -> Line:
        """Through the measurements at one row and at two."""
        return cls(2 * one - two, two - one)

    def at(self, rows: int) -> float:
        return self.fixed + self.each * rows

    def largest(self, space: float) -> int:
        """Return the most rows that take at most ``space``; 0 where not one does."""
        return max(0, int((space - self.fixed) // self.each))


@dataclass(frozen=True)
class Footprint:
    """What a backbone takes with its adapter. Bytes of activations are in fp32; rows are images, guidance included.

    ``parameters`` maps UNet, text encoder and autoencoder to numbers of parameters. ``training`` is of one graph, alive
    until backward; ``checkpointed`` with gradient checkpointing. ``decoding`` is of the autoencoder; finished
    images leave the device at once; ``decoding_kept`` is of one whose gradient follows. ``call_flops`` are of one
    denoiser call, ``training_flops`` and ``checkpointed_flops`` of one with its backward pass; ``decoding_flops`` are
    of one image, ``decoding_kept_flops`` of one with its backward pass.
    """

    source: str
    parameters: Mapping[str, int]
    adapter: int
    latent_shape: tuple[int, int, int]
    text_shape: tuple[int, int]
    image_bytes: int
    sampling: Line
    training: Line
    checkpointed: Line
    decoding: Line
    decoding_kept: Line
    call_flops: float
    training_flops: float
    checkpointed_flops: float
    decoding_flops: float
    decoding_kept_flops: float

    @property
    def latent_size(self) -> int:
        return math.prod(self.latent_shape)

    def weights(self, precision: str) -> int:
        """Return the bytes of the three frozen networks."""
        return WIDTH[precision] * sum(self.parameters.values())

    def backward_calls(self, checkpointing: bool) -> float:
        """As how many calls of sampling one with its backward pass counts, by its operations."""
        return (self.checkpointed_flops if checkpointing else self.training_flops) / self.call_flops

    def adapter_bytes(self) -> int:
        """Of the adapter, its gradient and AdamW's two moments: fp32, whatever the precision of the network."""
        return 4 * 4 * self.adapter


def find_shapes(backbone: Backbone) -> tuple[Shapes, Any, str]:
    """Return shapes of a backbone, its noise schedule, and where they come from.

    A folder, or a checkpoint in the hub's cache, is read; for any other hub id Stable Diffusion v1 is assumed.

    Raises:
        UserError: the folder's configurations cannot be read.
    """
    folder = Path(backbone.source)
    if not folder.is_dir():
        from huggingface_hub import try_to_load_from_cache

        found = try_to_load_from_cache(backbone.source, "unet/config.json")
        if not isinstance(found, str):
            assumed = "" if backbone == backbones().get("sd14") else f", assumed for {backbone.name}"
            return Shapes.stable_diffusion(), stable_diffusion_schedule(), f"shapes of Stable Diffusion v1{assumed}"
        folder = Path(found).parents[1]
    try:
        schedule = json.loads((folder / "scheduler" / "scheduler_config.json").read_text(encoding="utf-8"))
        kind = getattr(diffusers, schedule.get("_class_name") or "DDIMScheduler")
        return Shapes.of_folder(folder), kind.from_config(schedule), f"configurations of {backbone.name}"
    except Exception as error:  # diffusers and transformers raise many kinds
        reason = " ".join(str(error).split())[:160]
        raise UserError(
            f"backbone {backbone.name}: the configurations in {folder} cannot be read ({reason}); it needs unet, vae, "
            "text_encoder and scheduler, as StableDiffusionPipeline.save_pretrained leaves them"
        ) from None


def measure(config: RunConfig) -> Footprint:
    """Count what the backbone of ``config`` takes, at its guidance and rank, on the meta device.

    Raises:
        UserError: the backbone's configurations cannot be read, or its schedule has no log-probability.
    """
    settings = config.settings
    return _measure(
        config.backbone, settings.lora_rank, float(settings.guidance or config.backbone.guidance), settings.steps
    )


@cache
def _measure(backbone: Backbone, rank: int, guidance: float, steps: int) -> Footprint:
    shapes, schedule, source = find_shapes(backbone)
    parts = {"UNet": shapes.unet, "text encoder": shapes.text_encoder, "autoencoder": shapes.autoencoder}
    pipeline = SimpleNamespace(
        unet=shapes.unet, vae=shapes.autoencoder, text_encoder=shapes.text_encoder, scheduler=schedule
    )
    try:
        policy = StableDiffusion(cast(Any, pipeline), num_steps=steps, eta=1.0, guidance=guidance, device="meta")
    except UserError as error:
        raise UserError(f"backbone {backbone.name}: {error}") from None
    parameters = {name: _parameters(part) for name, part in parts.items()}
    latents_wide = shapes.unet.config.sample_size
    scale = 2 ** (len(shapes.autoencoder.config.block_out_channels) - 1)
    picture = (int(shapes.autoencoder.config.out_channels), latents_wide * scale, latents_wide * scale)
    text = (int(shapes.text_encoder.config.max_position_embeddings), int(shapes.text_encoder.config.hidden_size))

    def latents(rows: int) -> Tensor:
        return torch.empty(rows, *policy.latent_shape, device="meta")

    def transition(rows: int) -> Tensor:
        index = torch.zeros(rows, dtype=torch.long, device="meta")
        cond = Conditioning(torch.empty(1, *text, device="meta"), torch.empty(1, *text, device="meta"), index)
        # Steps are numbers that the schedule looks up: on the CPU, where there are some.
        gaussian = policy.transition(cond, latents(rows), torch.zeros(rows, dtype=torch.long))
        return gaussian.log_prob(latents(rows))

    def sample(rows: int) -> Cost:
        with torch.no_grad():
            return cost(lambda: transition(rows))

    def train() -> Cost:
        try:
            return cost(lambda: transition(1).sum().backward())
        finally:
            policy.unet.zero_grad(set_to_none=True)

    call, two = sample(1), sample(2)
    decoded = [shapes.decoding(images) for images in (1, 2)]
    shapes.autoencoder.requires_grad_(False)
    kept = shapes.decoding(1, gradient=True)
    policy.add_lora(rank, 0)
    adapter = sum(p.numel() for p in policy.parameters())
    policy.unet.train()
    plain = train()
    policy.unet.enable_gradient_checkpointing()
    checkpointed = train()
    policy.unet.disable_gradient_checkpointing()
    return Footprint(
        source=source,
        parameters=parameters,
        adapter=adapter,
        latent_shape=policy.latent_shape,
        text_shape=text,
        image_bytes=4 * math.prod(picture),
        sampling=Line.through(call.bytes, two.bytes),
        # Proportional: the peak is where backward begins, and there no gradient is yet.
        training=Line(0, plain.bytes),
        checkpointed=Line(0, checkpointed.bytes),
        decoding=Line.through(decoded[0].bytes, decoded[1].bytes),
        decoding_kept=Line(0, kept.bytes),
        call_flops=call.flops,
        training_flops=plain.flops,
        checkpointed_flops=checkpointed.flops,
        decoding_flops=decoded[0].flops,
        decoding_kept_flops=kept.flops,
    )


def judges(config: RunConfig) -> tuple[list[ModelSize], list[str]]:
    """Return the networks of the reward and of the evaluation's metrics, and what could not be counted.

    A GPU is meant: there a captioner is loaded in fp16; all others are in fp32 everywhere.

    Raises:
        UserError: the reward's ``models`` is broken.
    """
    models = getattr(config.reward, "models", None)
    if models is None:
        wanted = [ModelSize(f"reward {config.reward_name}, a plugin", 0, None)]
    else:
        with plugin_errors(f"reward {config.reward_name}"):
            wanted = list(models())
    inception = config.settings.inception
    if inception in ("clip", "both") and not any(model.name.startswith("CLIP") for model in wanted):
        wanted.append(scorer_size(config.backbone.scorer or "paper"))  # the reward's own serves for it if it has one
    if inception in ("inception", "both"):
        size = int(INCEPTION_GIGABYTES * 1e9)
        wanted.append(ModelSize("Inception v3", size // 4, size))
    if config.backbone.is_pocket:
        from b2bench.pocket.judges import classifier_size

        wanted += [scorer_size(config.backbone.scorer), scorer_size("pocket-heldout"), classifier_size()]
    found = {model.name: model for model in wanted}
    unknown = [name for name, model in found.items() if model.bytes is None]
    return [model for model in found.values() if model.bytes is not None], unknown


def _parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())
