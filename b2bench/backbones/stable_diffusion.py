"""Stable Diffusion as a policy: the embedded pocket model and any other ``StableDiffusionPipeline``."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from diffusers.loaders import StableDiffusionLoraLoaderMixin
from huggingface_hub import try_to_load_from_cache
from peft import LoraConfig
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils import get_peft_model_state_dict, set_peft_model_state_dict
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from b2bench.backbones.architectures import LORA_TARGETS
from b2bench.backbones.attention import merge_attention
from b2bench.backbones.configurations import check_networks
from b2bench.backbones.half import ease_half
from b2bench.backbones.lora_files import attach_lora, read_lora
from b2bench.backbones.shards import Threads, predict
from b2bench.backbones.specs import Backbone
from b2bench.backbones.variants import pickled, variant_of, what_is_there
from b2bench.ddim import DDIM, check_process
from b2bench.errors import UserError
from b2bench.hub import download_command
from b2bench.quiet import quiet_libraries
from b2bench.seeding import derive, normal
from b2bench.types import Conditioning, Gaussian, concatenate, exchanged, micro_batches

if TYPE_CHECKING:  # it imports image processors and torchvision, and pocket is read without
    from diffusers import StableDiffusionPipeline

DECODED_AT_ONCE = 32  # images: a decoder of 512x512 pixels takes more memory a row than the denoiser


@dataclass(frozen=True)
class Parts:
    """What of a ``StableDiffusionPipeline`` a policy needs, under its names there."""

    unet: Any
    vae: Any
    text_encoder: Any
    tokenizer: Any
    scheduler: Any


def load_parts(backbone: Backbone, dtype: torch.dtype = torch.float32) -> Parts | StableDiffusionPipeline:
    """Read what a policy is made of: pocket's parts one by one, any other backbone by :func:`load_pipeline`.

    Raises:
        UserError: as :func:`load_pipeline` does.
    """
    if backbone.is_pocket:
        with contextlib.suppress(Exception):  # whatever it is, load_pipeline meets it and says what to do
            return _pocket_parts(backbone.source, dtype)
    return load_pipeline(backbone, dtype)


def _pocket_parts(folder: str, dtype: torch.dtype) -> Parts:
    from transformers import CLIPTokenizer

    quiet_libraries()
    parts = Parts(
        unet=UNet2DConditionModel.from_pretrained(f"{folder}/unet", dtype=dtype, use_safetensors=True),
        vae=AutoencoderKL.from_pretrained(f"{folder}/vae", dtype=dtype, use_safetensors=True),
        text_encoder=_pocket_text_encoder(Path(folder) / "text_encoder", dtype),
        tokenizer=CLIPTokenizer.from_pretrained(folder, subfolder="tokenizer"),
        scheduler=DDIMScheduler.from_pretrained(folder, subfolder="scheduler"),
    )
    _check_length(parts)
    _check_whole(parts)
    return parts


def _pocket_text_encoder(folder: Path, dtype: torch.dtype) -> Any:
    """Read the text encoder by its weights: from_pretrained draws it on the meta device first, which imports sympy."""
    from transformers import CLIPTextConfig, CLIPTextModel

    with torch.random.fork_rng(devices=[]):
        encoder = CLIPTextModel(CLIPTextConfig.from_pretrained(folder))
    stored = load_file(folder / "model.safetensors")
    own = {name.removeprefix("text_model."): name for name in encoder.state_dict()}
    encoder.load_state_dict({own[name.removeprefix("text_model.")]: weight for name, weight in stored.items()})
    encoder.name_or_path = encoder.config._name_or_path = str(folder)
    return encoder.to(dtype).eval()


def load_pipeline(backbone: Backbone, dtype: torch.dtype = torch.float32) -> StableDiffusionPipeline:
    """Read a pipeline from its folder, its file or the hub, safetensors only, safety checker off.

    Raises:
        UserError: it cannot be read; the message says which checkpoint, how large and how to get it.
    """
    folder = Path(backbone.source)
    if folder.is_dir():
        try:
            index = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise UserError(f"backbone folder {folder}: model_index.json cannot be read: {error}") from None
        kind = index.get("_class_name") if isinstance(index, dict) else None
        if kind != "StableDiffusionPipeline":
            raise UserError(
                f"backbone folder {folder} holds a {kind!r}; try a StableDiffusionPipeline (Stable Diffusion v1 and v2)"
            )
    elif backbone.name == "pocket":
        raise UserError(
            f"the pocket weights are missing from {folder}; try reinstalling b2bench, or b2bench pocket build"
        )
    if closed := next((file for file in sorted(folder.glob("*/*")) if _is_closed(file)), None):
        raise UserError(
            f"backbone folder {folder} cannot be read: {closed.relative_to(folder)} is no file that this user may "
            "read; try chmod -R u+rX on the folder, or copying it again"
        )
    if folder.is_dir() and not any(all((folder / "tokenizer" / name).is_file() for name in way) for way in VOCABULARY):
        raise UserError(
            f"backbone folder {folder} cannot be read: its tokenizer has no vocabulary, neither tokenizer.json nor "
            "vocab.json and merges.txt; try copying it again"
        )
    if parts := pickled(folder):  # before diffusers says in its own words that something else is missing
        raise UserError(
            f"backbone folder {folder} cannot be read: its weights of {' and '.join(parts)} are .bin files, which are "
            "pickles and can run code; try saving it again with save_pretrained(safe_serialization=True)"
        )
    quiet_libraries()
    if folder.is_file():
        from b2bench.backbones.single_file import load_single_file

        return load_single_file(folder, dtype)
    _check_scheduler(backbone)
    try:
        pipeline = _from_pretrained(backbone.source, dtype)
    except Exception as error:  # diffusers, transformers and safetensors raise many kinds
        reason = " ".join(str(error).split())[:200]
        if folder.is_dir():
            raise UserError(f"backbone folder {folder} cannot be read: {reason}{what_is_there(folder)}") from None
        raise UserError(
            f"checkpoint {backbone.source} ({backbone.download}) is not on this machine and could not be fetched. "
            f"Try: {download_command(backbone.source)} --local-dir DIR, then --backbone DIR. ({reason})"
        ) from None
    try:
        _check_length(pipeline)
        _check_whole(pipeline)
    except Exception as error:
        what = f"backbone folder {folder}" if folder.is_dir() else f"checkpoint {backbone.source}"
        raise UserError(f"{what} cannot be read: {' '.join(str(error).split())[:400]}") from None
    if not folder.is_dir():  # fetched only now
        _check_scheduler(backbone)
    return pipeline


VOCABULARY = (("tokenizer.json",), ("vocab.json", "merges.txt"))
"""Files of a tokenizer that hold its words. Without any, transformers makes one that cuts every word into letters."""


def _is_closed(file: Path) -> bool:
    """Whether a library would take a file for one that is not there, and make do: words would have other tokens."""
    return not os.access(file, os.R_OK) or (file.is_dir() and file.suffix in (".json", ".txt", ".safetensors"))


def _from_pretrained(source: str, dtype: torch.dtype) -> StableDiffusionPipeline:
    """Read a pipeline by its usual files, or else by a variant of them, such as fp16."""

    from diffusers import StableDiffusionPipeline

    def read(variant: str | None) -> StableDiffusionPipeline:
        return StableDiffusionPipeline.from_pretrained(
            source,
            safety_checker=None,
            requires_safety_checker=False,
            feature_extractor=None,  # the safety checker's
            use_safetensors=True,
            dtype=dtype,
            variant=variant,
        )

    # of a folder it is known beforehand; of a hub id not, of which the cache may have a variant and the hub the files
    variant = variant_of(Path(source))
    try:
        return read(variant)
    except Exception:
        if variant is not None or (variant := variant_of(_folder_of(source))) is None:
            raise
    return read(variant)


def _folder_of(source: str) -> Path:
    """Return the folder of a pipeline: of a hub id the one in the cache, if it is there."""
    if not Path(source).is_dir():
        index = try_to_load_from_cache(source, "model_index.json")
        if isinstance(index, str):
            return Path(index).parent
    return Path(source)


def _check_scheduler(backbone: Backbone) -> None:
    """Refuse a configuration of another scheduler than the index names: diffusers would fill it up with defaults.

    Raises:
        UserError: it is one of another process.
    """
    try:
        file = _folder_of(backbone.source) / "scheduler" / "scheduler_config.json"
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return  # not here yet, or damaged, which is said when it is read
    kind = content.get("_class_name") if isinstance(content, dict) else None
    if isinstance(kind, str):
        try:
            check_process(kind, content)
        except UserError as error:
            raise UserError(f"backbone {backbone.name}: {error}") from None


def _check_length(pipeline: Parts | StableDiffusionPipeline) -> None:
    """Refuse a tokenizer that pads to more tokens than its text encoder reads, which may be more than memory holds.

    Raises:
        ValueError: it does.
    """
    given, read = pipeline.tokenizer.model_max_length, pipeline.text_encoder.config.max_position_embeddings
    if not 0 < given <= read:
        raise ValueError(f"its tokenizer pads to model_max_length = {given}, its text encoder reads {read} tokens")


def _check_whole(pipeline: Parts | StableDiffusionPipeline) -> None:
    """Refuse networks of whose weights some were not in their files.

    diffusers leaves those without numbers, and transformers draws them at random, at every start others.

    Raises:
        ValueError: the first of them.
    """
    for part in ("unet", "vae"):
        for name, weight in getattr(pipeline, part).named_parameters():
            if weight.is_meta:
                raise ValueError(f"the weights of its {part} lack {name}")
    encoder = pipeline.text_encoder
    files = sorted(Path(encoder.name_or_path).glob("*.safetensors"))
    if not files or not type(encoder).__name__.startswith("CLIPText"):  # others have other names in their files
        return
    stored: set[str] = set()
    for file in files:
        with safe_open(file, "pt") as content:
            stored |= {name.removeprefix("text_model.") for name in content.keys()}  # noqa: SIM118
    for name in encoder.state_dict():
        if name.removeprefix("text_model.") not in stored:
            raise ValueError(f"the weights of its text_encoder lack {name}")


def lora_file(source: Path) -> Path:
    """Return the one safetensors file that ``source`` is or holds.

    Raises:
        UserError: there is none, or several.
    """
    if source.is_dir():
        files = sorted(source.glob("*.safetensors"))
        if len(files) != 1:
            raise UserError(f"{source} holds {len(files)} safetensors files; try naming the LoRA file itself")
        source = files[0]
    if source.suffix != ".safetensors" or not source.is_file():
        raise UserError(f"{source} is not a .safetensors file; LoRA weights load from that format only")
    return source


class StableDiffusion:
    """A text-to-image latent diffusion model with a LoRA adapter, seen as a policy over denoising steps.

    Latents, noise predictions and log-probabilities are float32 whatever the precision of the network:
    a latent rounded after its log-probability was taken shifts it by more than a clip range. So are the adapter's
    weights, which steps of 1e-5 would not move in half precision; they are rounded where they are used (autocast).

    ``split``: the two rows of guidance one after the other. ``decoded_at_once``: images.

    Raises:
        UserError: the networks do not fit together, or the scheduler gives no log-probability.
    """

    def __init__(
        self,
        pipeline: Parts | StableDiffusionPipeline,
        *,
        num_steps: int,
        eta: float,
        guidance: float,
        device: torch.device | str = "cpu",
        stochastic: bool = True,
        threads: Threads | None = None,
        split: bool = False,
        decoded_at_once: int = DECODED_AT_ONCE,
    ) -> None:
        check_networks(pipeline.unet, pipeline.vae, pipeline.text_encoder)
        self.pipeline = pipeline
        self.device = torch.device(device)
        self.unet = pipeline.unet.to(self.device).requires_grad_(False).eval()
        self.vae = pipeline.vae.to(self.device).requires_grad_(False).eval()
        self.text_encoder = pipeline.text_encoder.to(self.device).requires_grad_(False).eval()
        self.network: nn.Module = self.unet  # what is called
        self.dtype: torch.dtype = self.unet.dtype  # of the frozen weights and of what is computed with them
        self.split, self.decoded_at_once = split, decoded_at_once
        self._layers: list[BaseTunerLayer] = []
        self._adapter: list[nn.Parameter] | None = None
        self._autocast = False
        self.threads = threads or Threads()
        self.calls = 0  # network evaluations so far, in rows; guidance counts once
        self.gradient_calls = 0  # those of them that a backward pass can follow
        self.watch: Callable[[int, bool], None] | None = None  # is told of each: rows, and whether one can follow
        self.ddim = DDIM(pipeline.scheduler, num_steps, eta, stochastic=stochastic)
        self.timesteps = self.ddim.timesteps.to(self.device)
        self.num_steps = num_steps
        self.guidance = guidance
        size = self.unet.config.sample_size
        self.latent_shape = (int(self.unet.config.in_channels), size, size)
        # On a CPU convolutions need no reordering then, and tokens are a view of an image: a tenth of the time.
        self.layout = torch.channels_last if self.device.type == "cpu" else torch.contiguous_format
        self.unet.to(memory_format=self.layout)
        if self.dtype != torch.float32:  # in fp32 it would change the rounding of results that are published
            self.vae.to(memory_format=self.layout)
        self._fuse()

    @property
    def latent_size(self) -> int:
        """Return D, the number of latent dimensions that log-probabilities average over."""
        channels, height, width = self.latent_shape
        return channels * height * width

    def add_lora(self, rank: int, seed: int) -> None:
        """Add a fresh LoRA adapter on attention q, k, v and out; A drawn from ``seed``, B zero.

        alpha equals the rank, so that the adapter's scale is 1 and does not depend on the rank.
        """
        config = LoraConfig(r=rank, lora_alpha=rank, init_lora_weights="gaussian", target_modules=list(LORA_TARGETS))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive(seed, "lora"))
            self.unet.add_adapter(config)
        self._adapter = None
        for parameter in self.parameters():
            parameter.data = parameter.data.float()
        self._fuse()

    def _fuse(self) -> None:
        """Choose how the network is computed; call it after its adapters changed."""
        self._adapter = None
        if self.dtype == torch.float32:
            merge_attention(self.unet)
            self._autocast = False
        else:
            self._autocast = self.device.type != "cpu" or not ease_half(self.unet)

    def save_memory(self, *, checkpointing: bool = False, sliced: bool = False) -> None:
        """Trade time for memory: compute activations twice, and attention head by head.

        ``checkpointing`` puts the UNet into training mode, in which alone diffusers does it. Nothing of the UNet
        behaves otherwise there: it has no batch normalisation, and dropout is refused.

        Raises:
            UserError: the UNet has dropout.
        """
        if sliced:
            self.unet.set_attention_slice("auto")
            self._autocast = self.dtype != torch.float32
        if checkpointing:
            if any(isinstance(module, nn.Dropout) and module.p > 0 for module in self.unet.modules()):
                raise UserError("this UNet has dropout, which gradient checkpointing would switch on; try without it")
            self.unet.enable_gradient_checkpointing()
            self.unet.train()

    def load_lora(self, source: Path) -> None:
        """Read a LoRA file or folder of any layout that :mod:`b2bench.backbones.lora_files` lists, safetensors only.

        Raises:
            UserError: the LoRA does not exist, or some of its weights fit another network.
        """
        source = lora_file(source)
        models = {"unet": self.unet, "text_encoder": self.text_encoder}
        try:
            found = read_lora(source, models)
            if not found["unet"]:
                raise UserError(f"{source} holds no LoRA weights for the UNet of this backbone")
            for part, layers in found.items():
                weights = [weight for layer in layers.values() for weight in layer.weights.values()]
                if not all(bool(weight.isfinite().all()) for weight in weights):
                    raise UserError(
                        f"{source} holds LoRA weights that are not finite, so nothing can be drawn with them"
                    )
                if layers:
                    attach_lora(models[part], layers, self.device)
        except UserError:
            raise
        except Exception as error:  # safetensors, peft and torch raise many kinds for a file of nonsense
            reason = " ".join(str(error).split())[:400]
            raise UserError(f"{source} is not a LoRA for this backbone: {reason}") from None
        self._layers.clear()
        self._fuse()

    def save_lora(self, folder: Path) -> None:
        """Write ``pytorch_lora_weights.safetensors``, which diffusers' ``load_lora_weights`` reads."""
        StableDiffusionLoraLoaderMixin.save_lora_weights(folder, unet_lora_layers=self.adapter_state())

    def adapter_state(self) -> dict[str, Tensor]:
        """Return the adapter's weights by name."""
        return dict(get_peft_model_state_dict(self.unet))

    def set_adapter_state(self, state: dict[str, Tensor]) -> None:
        set_peft_model_state_dict(self.unet, state)

    def parameters(self) -> list[nn.Parameter]:
        """Return the adapter's parameters, the only ones that are trained."""
        if self._adapter is None:  # each call of the network asks for them, and the walk takes milliseconds
            self._adapter = [p for name, p in self.unet.named_parameters() if "lora_" in name]
        return list(self._adapter)

    def unreadable(self, prompts: Sequence[str]) -> dict[str, str]:
        """Return the prompts that the text encoder cannot read whole, each with the reason."""
        tokenizer, known = self.pipeline.tokenizer, self.text_encoder.config.vocab_size
        limit = tokenizer.model_max_length
        found: dict[str, str] = {}
        for prompt, tokens in zip(prompts, tokenizer(list(prompts)).input_ids, strict=True):
            if len(tokens) > limit:
                found[prompt] = f"has {len(tokens)} tokens, and the backbone reads {limit}; try a shorter one"
            elif max(tokens, default=0) >= known:
                word = tokenizer.convert_ids_to_tokens(max(tokens))
                found[prompt] = f"has the token {word!r}, which the text encoder has no embedding of; try another word"
        return found

    @torch.no_grad()
    def encode(self, prompts: Sequence[str]) -> Conditioning:
        """Embed N prompts; equal prompts are embedded once.

        Raises:
            UserError: a prompt is longer than the text encoder reads (it would be cut silently).
        """
        distinct = list(dict.fromkeys(prompts))
        for prompt, reason in self.unreadable(distinct).items():
            raise UserError(f"prompt {prompt!r} {reason}")
        tokenizer = self.pipeline.tokenizer
        limit = tokenizer.model_max_length
        padded = tokenizer(["", *distinct], padding="max_length", max_length=limit, return_tensors="pt")
        embeddings = self.text_encoder(padded.input_ids.to(self.device))[0].float()
        place = {prompt: i for i, prompt in enumerate(distinct)}
        index = torch.tensor([place[prompt] for prompt in prompts], device=self.device)
        return Conditioning(embeddings[1:], embeddings[:1], index)

    def noise(self, cond: Conditioning, latents: Tensor, step: Tensor, *, guided: bool = True) -> Tensor:
        """Return the noise prediction at ``step`` [B]: [B, C, H, W], float32.

        Guidance w: e = e_empty + w (e_prompt - e_empty), both rows in one batch; w = 1, or ``guided`` false, skips
        the first.
        """
        self.calls += len(latents)
        self.gradient_calls += len(latents) if torch.is_grad_enabled() else 0
        if self.watch is not None:
            self.watch(len(latents), torch.is_grad_enabled())
        timestep = self.timesteps[step.to(self.device)]
        text = cond.embeddings()
        if self.guidance == 1 or not guided:
            predicted = self._predict(latents, timestep, text)
            return self.ddim.noise(predicted, latents, step, for_transition=guided)
        nothing = cond.empty.expand_as(text)
        if self.split:
            empty, prompted = (self._predict(latents, timestep, part) for part in (nothing, text))
        else:
            both = self._predict(
                torch.cat([latents, latents]), torch.cat([timestep, timestep]), torch.cat([nothing, text])
            )
            empty, prompted = both.chunk(2)
        return self.ddim.noise(empty + self.guidance * (prompted - empty), latents, step)

    def _predict(self, latents: Tensor, timestep: Tensor, text: Tensor) -> Tensor:
        # A GPU wants the batch whole; and shards pass no gradient on to the latents.
        if self.device.type != "cpu" or latents.requires_grad or text.requires_grad:
            return self._call(latents, timestep, text).sample.float()
        return predict(self._call, self.threads, self.parameters(), latents, timestep, text).float()

    def _call(self, latents: Tensor, timestep: Tensor, text: Tensor) -> Any:
        latents = latents.to(memory_format=self.layout)
        latents, text = latents.to(self.dtype), text.to(self.dtype)
        if not self._autocast:
            return self.network(latents, timestep, text)
        with torch.autocast(self.device.type, self.dtype):  # here, because it holds for one thread
            return self.network(latents, timestep, text)

    def add_noise(self, latents: Tensor, noise: Tensor, step: Tensor) -> Tensor:
        """Noise clean ``latents`` to ``step`` [B]: sqrt(a_t) x_0 + sqrt(1 - a_t) e, [B, C, H, W]."""
        return self.ddim.add_noise(latents, noise, step)

    def denoise(self, noise: Tensor, latents: Tensor, step: Tensor) -> Gaussian:
        """Return the DDIM transition that follows from a noise prediction."""
        return self.ddim.transition(noise, latents, step)

    def transition(self, cond: Conditioning, latents: Tensor, step: Tensor) -> Gaussian:
        """Return p(x_{k+1} | x_k, prompt) at ``step`` [B]."""
        return self.denoise(self.noise(cond, latents, step), latents, step)

    def try_once(self) -> None:
        """Take the first step of an empty prompt and decode it, to meet now what every image would meet.

        Raises:
            UserError: the step or the image is not finite.
        """
        with torch.no_grad():
            latents = normal(self.latent_shape, 0, "try-once", [(0,)]).to(self.device)
            step = torch.zeros(1, dtype=torch.long, device=self.device)
            mean = self.transition(self.encode([""]), latents, step).mean
            image = self.decode(mean)
        self.calls = 0
        if image.shape[1] != 3:
            raise UserError(f"the autoencoder gives images of shape {tuple(image.shape[1:])}")
        for what, found in (("the denoiser", mean), ("the autoencoder", image)):
            if not bool(found.isfinite().all()):
                raise UserError(
                    f"{what} gives numbers that are not finite at the first step of {self.num_steps}, with "
                    f"{str(self.dtype).removeprefix('torch.')}; try precision=fp32, or another checkpoint"
                )

    def decode(self, latents: Tensor) -> Tensor:
        """Turn final latents [N, C, H, W] into images [N, 3, h, w] in [0, 1], float32, CPU, ``decoded_at_once``.

        If the latents have a gradient, so have the images.
        """
        follow = torch.is_grad_enabled() and latents.requires_grad
        scaled = latents.to(self.device) / self.vae.config.scaling_factor

        def run(part: Tensor) -> Tensor:
            with torch.set_grad_enabled(follow):  # here, because it holds for one thread
                images = self.vae.decode(part.to(self.vae.dtype)).sample.float()
                return (images / 2 + 0.5).clamp(0, 1).cpu()  # at once: a round of 512x512 images is 4 GiB

        return concatenate(
            self.threads.map(run, [scaled[part] for part in micro_batches(len(scaled), self.decoded_at_once)])
        )

    @contextlib.contextmanager
    def reference(self) -> Iterator[None]:
        """Switch the adapter off while the context is open: the pretrained model, without gradient."""
        # Not diffusers' disable_adapters(): it looks up peft's version and walks the whole network each time,
        # which was an eighth of DPOK's update on pocket.
        layers = self._lora_layers()
        for layer in layers:
            layer.enable_adapters(False)
        try:
            with torch.no_grad():
                yield
        finally:
            for layer in layers:
                layer.enable_adapters(True)

    def remember(self) -> None:
        """Keep the adapter as it is now: the behaviour policy of what is sampled next."""
        self._sampled = [parameter.detach().clone() for parameter in self.parameters()]

    @contextlib.contextmanager
    def behaviour(self) -> Iterator[None]:
        """Put the adapter of :meth:`remember` in place while the context is open, without gradient."""
        with torch.no_grad(), exchanged(self.parameters(), self._sampled):
            yield

    def _lora_layers(self) -> list[BaseTunerLayer]:
        if not self._layers:
            modules = (*self.unet.modules(), *self.text_encoder.modules())  # somebody's LoRA may be of both
            self._layers = [module for module in modules if isinstance(module, BaseTunerLayer)]
        return self._layers
