"""What a run takes before it is started: memory, disk, denoiser calls, hours. ``b2bench estimate``.

Nothing is trained. Memory is counted on torch's meta device (:mod:`b2bench.estimate.memory`) with the policy that runs,
:class:`~b2bench.backbones.stable_diffusion.StableDiffusion`, at one image and at two (training, which is slow to count,
at one), and taken to be affine in them. Calls follow from the configuration by the wrapper's own interval and leaves
and the harness's own rounds and minibatches. Hours are an estimate: calls, weighted by their floating-point operations,
over a throughput.
"""

from __future__ import annotations

import copy
import json
import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import torch
from diffusers import DDIMScheduler
from torch import Tensor, nn

from b2bench.backbones.specs import Backbone, backbones
from b2bench.backbones.stable_diffusion import DECODED_AT_ONCE, StableDiffusion
from b2bench.config.resolve import RunConfig
from b2bench.ddim import stable_diffusion_schedule
from b2bench.errors import UserError
from b2bench.estimate.memory import Cost, Shapes, cost
from b2bench.evaluation.inception import INCEPTION_GIGABYTES
from b2bench.evaluation.samples import chosen
from b2bench.plugins.toy import ToyPolicy, toy_batch
from b2bench.pocket.paths import POCKET_WEIGHTS
from b2bench.protocols import Policy
from b2bench.seeding import generator
from b2bench.text import described
from b2bench.training.checkpoint import KEPT
from b2bench.types import Conditioning
from b2bench.update import trained_steps
from b2bench.wrappers import Branching, Independent

GIB = 2**30
WIDTH = {"fp32": 4, "bf16": 2, "fp16": 2}
"""Bytes of a number, by precision"""
MARGIN = 0.15
"""Share of a GPU's memory that is left free: its context, kernels' workspaces, the allocator's waste. Assumed."""
ENOUGH_ROWS = 8
"""Training rows that are worth doing without checkpointing; below, kernels round differently from larger batches"""
ASSUMED_FLOPS = {"gpu": 20e12, "cpu": 40e9}
"""Operations a second that hours are estimated by where no throughput is given. Of a GPU assumed, measured on none. Of
a CPU, one core at pocket: 19,200 calls of 0.34 GFLOP in the 2 to 3 minutes that docs/profile.md names."""
QUERY_BYTES, IMAGE_BYTES, EMPTY_STORE_BYTES = 154, 33, 798_720
"""Of a row of table ``queries``, of table ``images``, and of a store without rows: measured with duckdb 2.0 by a run of
25,600 queries and 8,000 images"""


# -- memory ------------------------------------------------------------------------------------------------


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
        """The most rows that take at most ``space``; 0 where not one does."""
        return max(0, int((space - self.fixed) // self.each))


@dataclass(frozen=True)
class Footprint:
    """What a backbone takes with its adapter. Bytes of activations are in fp32; rows are images, guidance included.

    ``parameters`` maps UNet, text encoder and autoencoder to numbers of parameters. ``training`` is of one graph, alive
    until backward; ``checkpointed`` with gradient checkpointing. ``decoding`` is of the autoencoder; finished
    images leave the device at once. ``call_flops`` are of one denoiser call, ``training_flops``
    and ``checkpointed_flops`` of one with its backward pass, ``decoding_flops`` of one image.
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
    call_flops: float
    training_flops: float
    checkpointed_flops: float
    decoding_flops: float

    @property
    def latent_size(self) -> int:
        return math.prod(self.latent_shape)

    def weights(self, precision: str) -> int:
        """Of the three frozen networks."""
        return WIDTH[precision] * sum(self.parameters.values())

    def backward_calls(self, checkpointing: bool) -> float:
        """As how many calls of sampling one with its backward pass counts, by its operations."""
        return (self.checkpointed_flops if checkpointing else self.training_flops) / self.call_flops

    def adapter_bytes(self) -> int:
        """Of the adapter, its gradient and AdamW's two moments: fp32, whatever the precision of the network."""
        return 4 * 4 * self.adapter


def find_shapes(backbone: Backbone) -> tuple[Shapes, Any, str]:
    """Shapes of a backbone, its noise schedule, and where they come from.

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
        return Shapes.of_folder(folder), DDIMScheduler.from_config(schedule), f"configurations of {backbone.name}"
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
    parameters = {name: _parameters(part) for name, part in parts.items()}
    latents_wide = shapes.unet.config.sample_size
    scale = 2 ** (len(shapes.autoencoder.config.block_out_channels) - 1)
    picture = (int(shapes.autoencoder.config.out_channels), latents_wide * scale, latents_wide * scale)

    pipeline = SimpleNamespace(
        unet=shapes.unet, vae=shapes.autoencoder, text_encoder=shapes.text_encoder, scheduler=schedule
    )
    policy = StableDiffusion(cast(Any, pipeline), num_steps=steps, eta=1.0, guidance=guidance, device="meta")
    text = (int(shapes.text_encoder.config.max_position_embeddings), int(shapes.unet.config.cross_attention_dim))

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
        call_flops=call.flops,
        training_flops=plain.flops,
        checkpointed_flops=checkpointed.flops,
        decoding_flops=decoded[0].flops,
    )


@dataclass(frozen=True)
class Judge:
    """A network that judges images, on the device beside the policy. ``bytes`` are as it is loaded there."""

    name: str
    parameters: int
    bytes: int


def judges(config: RunConfig) -> tuple[list[Judge], list[str]]:
    """The networks of the reward and of the evaluation's metrics, and what could not be counted.

    A GPU is meant: there a captioner is loaded in fp16; all others are in fp32 everywhere.
    """
    found: list[Judge] = []
    unknown: list[str] = []

    def add(name: str, parameters: int, width: int = 4) -> None:
        if all(judge.name != name for judge in found):
            found.append(Judge(name, parameters, width * parameters))

    def scorer(checkpoint: str) -> None:
        names = {"pocket": "scorer-training", "pocket-heldout": "scorer-heldout"}
        folder = POCKET_WEIGHTS / names[checkpoint] if checkpoint in names else Path(checkpoint)
        if checkpoint == "paper":
            add("CLIP ViT-H-14", _clip_parameters())
        elif (file := folder / "open_clip_model.safetensors").is_file():
            add(f"CLIP scorer {folder.name}", _stored_parameters(file))
        else:
            unknown.append(f"CLIP scorer {checkpoint}, which is not there")

    reward, pocket = config.reward, config.backbone.is_pocket
    classifier = POCKET_WEIGHTS / "classifier.safetensors"
    if config.reward_name == "clipscore":
        scorer(reward.checkpoint)
    elif config.reward_name == "bertscore" and reward.checkpoint == "paper":
        for name, (parameters, width) in _paper_bertscore().items():
            add(name, parameters, width)
        unknown.append("the captioner's attention cache, which grows with the reward's batch")
    elif config.reward_name == "bertscore":
        for name in ("captioner", "bert"):
            add(name, _stored_parameters(POCKET_WEIGHTS / name / "model.safetensors"))
    elif config.reward_name == "success":
        add("classifier", _stored_parameters(classifier))
    else:
        unknown.append(f"reward {config.reward_name}, a plugin")
    inception = config.settings.inception
    if inception in ("clip", "both"):
        scorer(
            getattr(reward, "checkpoint", "")
            if config.reward_name == "clipscore"
            else config.backbone.scorer or "paper"
        )
    if inception in ("inception", "both"):
        add("Inception v3", int(INCEPTION_GIGABYTES * 1e9 / 4))
    if pocket:
        scorer(config.backbone.scorer)
        scorer("pocket-heldout")
        add("classifier", _stored_parameters(classifier))
    return found, unknown


def _stored_parameters(file: Path) -> int:
    """Numbers in a safetensors file, by its head alone."""
    with file.open("rb") as stream:
        (size,) = struct.unpack("<Q", stream.read(8))
        head = json.loads(stream.read(size))
    return sum(math.prod(entry["shape"]) for name, entry in head.items() if name != "__metadata__")


def _parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@cache
def _clip_parameters() -> int:
    import open_clip

    from b2bench.evaluation.scorers import PAPER_MODEL

    with torch.device("meta"):
        return _parameters(open_clip.CLIP(**open_clip.get_model_config(PAPER_MODEL)))


@cache
def _paper_bertscore() -> dict[str, tuple[int, int]]:
    """{name: (parameters, bytes of each)} of LLaVA v1.5 7B and DeBERTa xlarge, by their published configurations."""
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
        return {
            "LLaVA v1.5 7B (fp16)": (_parameters(LlavaForConditionalGeneration(captioner)), 2),
            "DeBERTa xlarge": (_parameters(DebertaModel(bert)), 4),
        }


# -- the loss: its calls, its graphs, its networks ---------------------------------------------------------


class _CountingPolicy(ToyPolicy):
    """Counts noise predictions, with and without a gradient."""

    with_gradient = 0
    without = 0

    def noise(self, cond: Conditioning, latents: Tensor, step: Tensor) -> Tensor:
        if torch.is_grad_enabled():
            self.with_gradient += len(latents)
        else:
            self.without += len(latents)
        return super().noise(cond, latents, step)


@dataclass(frozen=True)
class LossCost:
    """Denoiser calls of a loss for a row of its batch, a transition or a pair: with a gradient, and without."""

    with_gradient: int
    without: int

    @property
    def calls(self) -> int:
        return self.with_gradient + self.without


def loss_cost(algorithm: Any) -> LossCost:
    """Count the calls of an algorithm's loss, by running it once on the toy policy.

    Raises:
        UserError: the loss does not run; ``b2bench check`` says more.
    """
    policy, algorithm = _CountingPolicy(0), copy.deepcopy(algorithm)
    name = type(algorithm).__name__.lower()
    try:
        if hasattr(algorithm, "setup"):
            algorithm.setup(policy, generator(0, "algorithm"))
        batch = toy_batch(policy, algorithm.pairs)
        policy.with_gradient = policy.without = 0  # the batch was sampled by calls too
        algorithm.loss(policy, batch)
    except Exception as error:  # somebody else's code may raise anything
        raise UserError(
            f"the loss of {name} does not run on the toy policy ({type(error).__name__}: {error}); "
            "b2bench check says more"
        ) from None
    rows = len(batch)
    return LossCost(-(-policy.with_gradient // rows), -(-policy.without // rows))


def network_parameters(config: RunConfig, footprint: Footprint) -> int:
    """Parameters that an algorithm trains beside the adapter, as DPOK's value network does."""
    algorithm = copy.deepcopy(config.algorithm)
    if not (hasattr(algorithm, "setup") and hasattr(algorithm, "networks")):
        return 0
    text = torch.empty(1, *footprint.text_shape)
    policy = SimpleNamespace(
        latent_shape=footprint.latent_shape,
        latent_size=footprint.latent_size,
        num_steps=config.settings.steps,
        encode=lambda prompts: Conditioning(text, text, torch.zeros(len(prompts), dtype=torch.long)),
    )
    try:
        algorithm.setup(cast(Policy, policy), generator(config.seed, "algorithm"))
    except Exception as error:
        raise UserError(
            f"algorithm {config.algorithm_name} cannot be set up ({type(error).__name__}: {error}); "
            "b2bench check says more"
        ) from None
    return sum(p.numel() for network, _ in algorithm.networks() for p in network.parameters())


# -- micro-batches that fit --------------------------------------------------------------------------------


@dataclass(frozen=True)
class MicroBatches:
    """Rows (images, or transitions; pairs for an algorithm on pairs) of a forward pass of each kind."""

    sampling: int
    training: int
    decoding: int
    checkpointing: bool


def resident_bytes(config: RunConfig, footprint: Footprint, precision: str) -> int:
    """What stays on the device all the time: weights, adapter with its optimizer, networks of the loss, judges."""
    trained = footprint.adapter_bytes() + 4 * 4 * network_parameters(config, footprint)
    return footprint.weights(precision) + trained + sum(judge.bytes for judge in judges(config)[0])


def phase_bytes(config: RunConfig, footprint: Footprint, batches: MicroBatches, precision: str) -> dict[str, float]:
    """Bytes of each phase at its micro-batch, beyond :func:`resident_bytes`. Phases do not overlap."""
    narrow = WIDTH[precision] / 4
    line = footprint.checkpointed if batches.checkpointing else footprint.training
    return {
        "sampling": narrow * footprint.sampling.at(batches.sampling),
        "training": narrow * line.at(loss_cost(config.algorithm).with_gradient * batches.training),
        "decoding": narrow * footprint.decoding.at(batches.decoding),
    }


def most_images(config: RunConfig) -> int:
    """Images that are decoded in one go at most: those of a round, or of an evaluation."""
    return max(config.draws(0) * config.settings.samples, *config.images_at(0).splits.values())


def fitting(
    vram_bytes: float,
    config: RunConfig,
    footprint: Footprint,
    *,
    precision: str | None = None,
    checkpointing: bool | None = None,
    margin: float = MARGIN,
) -> MicroBatches:
    """The largest micro-batches that leave ``margin`` of ``vram_bytes`` free, and no larger than a round can use.

    ``precision`` None takes the run's. ``checkpointing`` None takes it only where without it fewer than
    ``ENOUGH_ROWS`` training rows fit: it costs another forward pass.

    Raises:
        UserError: not even one row of some phase fits; with how much is missing, and what would help.
    """
    precision = precision or config.settings.precision
    resident = resident_bytes(config, footprint, precision)
    space = vram_bytes * (1 - margin) - resident
    narrow, graphs = WIDTH[precision] / 4, loss_cost(config.algorithm).with_gradient
    rollouts = config.draws(0) * config.settings.samples
    items = kept_rows(config, 0)[1] * trained_steps(config.settings.steps, config.settings.timestep_fraction)

    def most(line: Line, left: float, useful: int, graphs: int = 1) -> int:
        return min(useful, line.largest(left / narrow) // graphs)

    minibatch = max(1, -(-items // config.settings.optimizer_steps))
    if checkpointing is None:
        plain = most(footprint.training, space, minibatch, graphs)
        checkpointing = plain < min(ENOUGH_ROWS, minibatch)
    images = most_images(config)
    found = MicroBatches(
        sampling=most(footprint.sampling, space, max(rollouts, images)),
        training=most(footprint.checkpointed if checkpointing else footprint.training, space, minibatch, graphs),
        decoding=most(footprint.decoding, space, images),
        checkpointing=checkpointing,
    )
    short = [name for name in ("sampling", "training", "decoding") if getattr(found, name) < 1]
    if short:
        one = MicroBatches(1, 1, 1, checkpointing)
        phases = phase_bytes(config, footprint, one, precision)
        needed = (resident + max(phases[name] for name in short)) / (1 - margin)
        raise UserError(
            f"{vram_bytes / GIB:g} GiB are too little for {config.backbone.name} in {precision}: {' and '.join(short)} "
            f"of one row needs {needed / GIB:.1f} GiB with a margin of {margin:.0%}. Take a larger GPU, another "
            "precision, or a reward with smaller models" + ("" if checkpointing else ", or gradient checkpointing")
        )
    return found


def own_micro_batches(config: RunConfig) -> MicroBatches:
    """Those of the run as it is configured."""
    settings = config.settings
    return MicroBatches(
        sampling=settings.micro_batch,
        training=settings.train_micro_batch or settings.micro_batch,
        decoding=settings.decode_micro_batch or min(settings.micro_batch, DECODED_AT_ONCE),
        checkpointing=settings.gradient_checkpointing,
    )


def within(config: RunConfig, vram: float) -> RunConfig:
    """The run with the micro-batches, and gradient checkpointing where it must be, that fit into ``vram`` GiB.

    Raises:
        UserError: as :func:`fitting` does.
    """
    found = fitting(vram * GIB, config, measure(config))
    settings = replace(
        config.settings,
        micro_batch=found.sampling,
        train_micro_batch=found.training,
        decode_micro_batch=found.decoding,
        gradient_checkpointing=found.checkpointing,
    )
    return replace(config, settings=settings)


# -- host memory and disk ----------------------------------------------------------------------------------


def host_bytes(config: RunConfig, footprint: Footprint) -> dict[str, int]:
    """Main memory that a round and an evaluation hold, fp32: states of the trained steps, and images.

    While states are put together they are there twice.
    """
    settings, longest = config.settings, 0
    for round in range(config.rounds):
        interval = config.wrapper.interval(round, config.rounds, settings.steps)
        # a rollout records from the branch point to the end, and a state more than steps
        states = config.draws(round) * settings.samples * (settings.steps - interval.start + 1)
        longest = max(longest, states)
    return {
        "trajectories of a round": 4 * footprint.latent_size * longest,
        "images of a round or an evaluation": most_images(config) * footprint.image_bytes,
    }


def disk_bytes(config: RunConfig, footprint: Footprint) -> dict[str, int]:
    """What a run leaves: checkpoints (with one more while it is written), LoRA weights, rows of the store."""
    trained = footprint.adapter + network_parameters(config, footprint)
    evaluated = sum(config.images_at(queries).test for queries in config.evaluations())
    return {
        f"checkpoints ({KEPT} kept, and one that is being written)": (KEPT + 1) * 3 * 4 * trained,
        "LoRA weights": 4 * footprint.adapter,
        f"store: {config.queries:,} rows of queries, {config.rounds:,} of rounds, {evaluated:,} of images": (
            EMPTY_STORE_BYTES + QUERY_BYTES * config.queries + IMAGE_BYTES * evaluated
        ),
        "image files (none are kept)": 0,
    }


# -- denoiser calls ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Calls:
    """Denoiser calls of a run, as table ``rounds`` counts them: network evaluations in images, guidance once.

    ``training`` is the least and the most: what a wrapper keeps of a round depends on the rewards. ``gradient`` is the
    share of training calls that has a backward pass; the others are of the reference. ``decoded`` counts images.
    ``saved`` are calls of evaluations, and ``saved_images``, that a run takes over from the store where another has
    measured the pretrained model: all of its first evaluation but the sample images.
    """

    sampling: int
    training: tuple[int, int]
    evaluation: int
    gradient: float
    decoded: int
    saved: int
    saved_images: int

    @property
    def later(self) -> Calls:
        """Those of a run that takes its first evaluation over."""
        return replace(self, evaluation=self.evaluation - self.saved, decoded=self.decoded - self.saved_images)

    @property
    def exact(self) -> bool:
        return self.training[0] == self.training[1]


def kept_rows(config: RunConfig, round: int) -> tuple[int, int]:
    """The fewest and the most rows of a round that a loss may see: rollouts, or pairs of an algorithm on pairs."""
    settings = config.settings
    n = config.draws(round) * settings.samples
    leaves = config.wrapper.leaves(settings.samples)
    groups = n // (leaves if leaves > 1 else settings.samples)
    if config.algorithm.pairs:  # one of each group, unless all its rewards are equal
        return 0, groups if settings.samples > 1 else 0
    if isinstance(config.wrapper, Branching) and config.wrapper.keep == "extremes":
        return 0, min(2, settings.samples) * groups
    if isinstance(config.wrapper, Independent | Branching):
        return n, n
    return 0, n


def minibatch_rows(items: int, count: int) -> int:
    """Rows that :func:`b2bench.update.minibatches` deals for ``items`` in all: fewer than ``count`` are dealt again."""
    return items * -(-count // items) if 0 < items < count else items


def count_calls(config: RunConfig) -> Calls:
    """Every denoiser call of a run, from its configuration alone.

    Raises:
        UserError: a plugin's wrapper answers with what no run could use.
    """
    try:
        return _counted(config)
    except UserError:
        raise
    except Exception as error:
        if not config.code:
            raise
        raise UserError(
            f"calls of algorithm {config.algorithm_name} under wrapper {config.wrapper_name} cannot be counted: "
            f"{described(error)}; b2bench check tests a plugin"
        ) from error


def _counted(config: RunConfig) -> Calls:
    settings, cost = config.settings, loss_cost(config.algorithm)
    sampling, least, most = 0, 0, 0
    for round in range(config.rounds):
        interval = config.wrapper.interval(round, config.rounds, settings.steps)
        n = config.draws(round) * settings.samples
        # the steps before the trained ones are sampled once per branch
        roots = n // config.wrapper.leaves(settings.samples)
        sampling += roots * interval.start + n * (settings.steps - interval.start)
        low, high = kept_rows(config, round)
        # a few rows are dealt several times, so that the most rows need not be of the most that is kept
        few = range(low, min(high, settings.optimizer_steps) + 1)
        steps = trained_steps(len(interval), settings.timestep_fraction)
        rows = [minibatch_rows(kept * steps, settings.optimizer_steps) for kept in {low, high, *few}]
        least, most = least + cost.calls * min(rows), most + cost.calls * max(rows)
    images = [config.images_at(queries) for queries in config.evaluations()]
    start = images[0]
    samples = len(chosen(len(config.prompts.test), start.test, settings.sample_images))
    return Calls(
        sampling=sampling,
        training=(least, most),
        evaluation=sum(each.samplings for each in images) * settings.steps,
        gradient=cost.with_gradient / cost.calls if cost.calls else 0.0,
        decoded=config.queries + sum(each.test + each.train for each in images),
        saved=(start.samplings - samples) * settings.steps,
        saved_images=start.test + start.train - samples,
    )


# -- hours -------------------------------------------------------------------------------------------------


def assumed_throughput(config: RunConfig, footprint: Footprint) -> float:
    """Denoiser calls a second that are assumed where none is given: :data:`ASSUMED_FLOPS` over those of a call."""
    return ASSUMED_FLOPS["cpu" if config.backbone.is_pocket else "gpu"] / footprint.call_flops


def hours(calls: Calls, footprint: Footprint, throughput: float, *, checkpointing: bool = False) -> tuple[float, float]:
    """The least and the most hours of a run at ``throughput`` denoiser calls a second, in sampling.

    A call with a backward pass, and an image that is decoded, count as many calls as their floating-point operations
    are. The reward, the optimizer and the store are left out.
    """
    backward = footprint.backward_calls(checkpointing)
    decoding = calls.decoded * footprint.decoding_flops / footprint.call_flops

    def total(training: int) -> float:
        weighed = training * (calls.gradient * backward + 1 - calls.gradient)
        return (calls.sampling + calls.evaluation + weighed + decoding) / throughput / 3600

    least, most = calls.training
    return total(least), total(most)


# -- everything --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Fit:
    """Micro-batches for algorithms that need alike, in one precision; ``refused`` says why there are none."""

    precision: str
    algorithms: tuple[str, ...]
    batches: MicroBatches | None
    refused: str = ""


@dataclass(frozen=True)
class Cell:
    """An algorithm under a wrapper; ``later`` are hours where the first evaluation is taken over."""

    algorithm: str
    wrapper: str
    calls: Calls
    hours: tuple[float, float]
    later: tuple[float, float]


@dataclass(frozen=True)
class Estimate:
    """All that ``b2bench estimate`` prints. ``warnings`` name what will not run as it is configured."""

    config: RunConfig
    footprint: Footprint
    judges: list[Judge]
    fits: list[Fit]
    host: dict[str, int]
    disk: dict[str, int]
    cells: list[Cell]
    seeds: int
    vram: float | None
    margin: float
    throughput: float
    assumed: bool
    checkpointing: bool
    warnings: list[str]
    uncounted: list[str]

    @property
    def grid_hours(self) -> tuple[float, float]:
        """Of all cells and seeds, one after the other: the first run measures the pretrained model for all."""

        def total(i: int) -> float:
            first = self.cells[0]
            return self.seeds * sum(cell.later[i] for cell in self.cells) + first.hours[i] - first.later[i]

        return total(0), total(1)

    def as_dict(self) -> dict[str, Any]:
        """Plain values; bytes in bytes, activations in fp32."""
        footprint = self.footprint
        lines = ("sampling", "training", "checkpointed", "decoding")
        cells = [
            {
                "algorithm": cell.algorithm,
                "wrapper": cell.wrapper,
                "denoiser_calls_sampling": cell.calls.sampling,
                "denoiser_calls_training": list(cell.calls.training),
                "denoiser_calls_evaluation": cell.calls.evaluation,
                "denoiser_calls_evaluation_later": cell.calls.later.evaluation,
                "hours": list(cell.hours),
                "hours_later": list(cell.later),
            }
            for cell in self.cells
        ]
        return {
            "backbone": self.config.backbone.name,
            "measured_on": footprint.source,
            "queries": self.config.queries,
            "rounds": self.config.rounds,
            "seeds": self.seeds,
            "parameters": {**footprint.parameters, "adapter": footprint.adapter},
            "weight_bytes": {name: footprint.weights(name) for name in WIDTH},
            "adapter_and_optimizer_bytes": footprint.adapter_bytes(),
            "judges": [vars(judge) for judge in self.judges],
            "activation_bytes": {name: vars(getattr(footprint, name)) for name in lines},
            "vram_bytes": self.vram,
            "margin": self.margin,
            "micro_batches": [
                {
                    "precision": fit.precision,
                    "algorithms": list(fit.algorithms),
                    "refused": fit.refused,
                    **(vars(fit.batches) if fit.batches else {}),
                }
                for fit in self.fits
            ],
            "host_bytes": self.host,
            "disk_bytes": self.disk,
            "cells": cells,
            "throughput": self.throughput,
            "throughput_is_assumed": self.assumed,
            "checkpointing": self.checkpointing,
            "grid_hours": list(self.grid_hours),
            "warnings": self.warnings,
            "uncounted": self.uncounted,
        }


def _fit(members: Sequence[RunConfig], footprint: Footprint, vram: float, precision: str, margin: float) -> Fit:
    names = tuple(member.algorithm_name for member in members)
    try:
        return Fit(precision, names, fitting(vram, members[0], footprint, precision=precision, margin=margin))
    except UserError as error:
        return Fit(precision, names, None, str(error))


def _warnings(configs: Sequence[RunConfig], footprint: Footprint, own: MicroBatches, space: float) -> list[str]:
    """What the runs would need beyond ``space`` bytes, as they are configured."""
    found = []
    for config in configs:
        precision = config.settings.precision
        resident = resident_bytes(config, footprint, precision)
        phases = phase_bytes(config, footprint, own, precision)
        short = [
            f"{name} of {getattr(own, name)} rows {(resident + taken) / GIB:.1f} GiB"
            for name, taken in phases.items()
            if resident + taken > space
        ]
        if short:
            found.append(
                f"{config.algorithm_name} as it is configured, in {precision}, needs more than the "
                f"{space / GIB:.1f} GiB that the margin leaves: {', '.join(short)}"
            )
    return found


def estimate(
    configs: Sequence[RunConfig],
    *,
    vram: float | None = None,
    throughput: float | None = None,
    margin: float = MARGIN,
    seeds: int = 1,
) -> Estimate:
    """What ``configs`` take, which differ in algorithm and wrapper alone. ``vram`` in bytes.

    Raises:
        UserError: the backbone's configurations cannot be read, or an argument is out of its range.
    """
    if vram is not None and not 0 < vram < math.inf:
        raise UserError(f"--vram {vram / GIB:g} is no memory: GiB above 0")
    if throughput is not None and not 0 < throughput < math.inf:
        raise UserError(f"--throughput {throughput:g} is no throughput: denoiser calls a second above 0")
    if not 0 <= margin < 1:
        raise UserError(f"--margin {margin:g} is no share: from 0 to below 1")
    config = configs[0]
    footprint = measure(config)
    own = own_micro_batches(config)
    found, uncounted = judges(config)
    alike: dict[tuple[int, int], list[RunConfig]] = {}
    for one in {config.algorithm_name: config for config in configs}.values():
        key = loss_cost(one.algorithm).with_gradient, network_parameters(one, footprint)
        alike.setdefault(key, []).append(one)
    fits: list[Fit] = []
    warnings: list[str] = []
    if vram is not None:
        for precision in ("fp32", "bf16"):
            fits += [_fit(members, footprint, vram, precision, margin) for members in alike.values()]
        warnings = _warnings([members[0] for members in alike.values()], footprint, own, vram * (1 - margin))
    precision = config.settings.precision
    needed = [fit.batches.checkpointing for fit in fits if fit.batches and fit.precision == precision]
    checkpointing = any(needed) or own.checkpointing
    speed = throughput or assumed_throughput(config, footprint)
    cells = []
    for one in configs:
        calls = count_calls(one)
        taken, later = (hours(each, footprint, speed, checkpointing=checkpointing) for each in (calls, calls.later))
        cells.append(Cell(one.algorithm_name, one.wrapper_name, calls, taken, later))
    largest = max(configs, key=lambda one: sum(host_bytes(one, footprint).values()))
    return Estimate(
        config=config,
        footprint=footprint,
        judges=found,
        fits=fits,
        host=host_bytes(largest, footprint),
        disk=disk_bytes(max(configs, key=lambda one: sum(disk_bytes(one, footprint).values())), footprint),
        cells=cells,
        seeds=seeds,
        vram=vram,
        margin=margin,
        throughput=speed,
        assumed=throughput is None,
        checkpointing=checkpointing,
        warnings=warnings,
        uncounted=uncounted,
    )
