"""What a run needs before its first round: threads, network, reward, judges and policy."""

from __future__ import annotations

import contextlib
import os
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from b2bench.backbones.shards import Threads
from b2bench.backbones.stable_diffusion import DECODED_AT_ONCE, StableDiffusion, load_parts
from b2bench.config.prompt_sets import PromptSet
from b2bench.config.run import RunConfig
from b2bench.errors import UserError
from b2bench.evaluation.inception import extractors
from b2bench.evaluation.judges import Judges
from b2bench.evaluation.reward_process import RewardProcess
from b2bench.evaluation.weights import PUBLISHED
from b2bench.guard import guarded
from b2bench.hyperparameters import hyperparameters
from b2bench.protocols import Reward
from b2bench.text import described, shortened
from b2bench.types import dtype_of


def load_policy(
    config: RunConfig,
    device: torch.device,
    stage: Callable[[str], None],
    *,
    lora: Path | None = None,
    trained: bool = False,
) -> StableDiffusion:
    """Load the backbone as the settings sample it: as it is, with a LoRA file, or with a fresh adapter to train.

    ``stage`` is told what is loaded.

    Raises:
        UserError: the checkpoint or the LoRA cannot be used, and how to get it; or a prompt cannot be read.
    """
    check_network(config)
    stage(f"loading {config.backbone.name}")
    policy = pretrained_policy(config, device)
    check_prompts(policy, config.prompts)
    if trained:
        policy.add_lora(config.settings.lora_rank, config.seed)
    if lora is not None:
        policy.load_lora(lora)
    return policy


def load(
    config: RunConfig,
    device: torch.device,
    stage: Callable[[str], None],
    *,
    lora: Path | None = None,
    trained: bool = False,
) -> tuple[StableDiffusion, Judges]:
    """Load what images are made with, as :func:`load_policy` does, and what judges them.

    Raises:
        UserError: one of them cannot be used; the message says how to get it.
    """
    policy = load_policy(config, device, stage, lora=lora, trained=trained)
    stage(f"loading {config.reward_name}")
    return policy, make_judges(config, device)


@contextlib.contextmanager
def plugin_errors(what: str) -> Iterator[None]:
    """Guard what a plugin does before the first round, and turn whatever it raises into one line that says where.

    Raises:
        UserError: the plugin raised something.
    """
    try:
        with guarded():
            yield
    except (UserError, KeyboardInterrupt):
        raise
    except BaseException as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        reason = f"{described(error)} ({where.filename}, line {where.lineno})"
        raise UserError(f"{what} cannot be set up: {reason}") from error


def prepare(reward: Reward, name: str, device: torch.device) -> None:
    """Let a reward load what it needs, before anything is stored."""
    with plugin_errors(f"reward {name}"):
        if hasattr(reward, "prepare"):
            reward.prepare(device)


def ready_reward(config: RunConfig, device: torch.device) -> tuple[Reward, torch.device]:
    """Return the reward, loaded, here or in a process of its own, and the device it is on; ``device`` is that of
    training.

    Raises:
        UserError: a checkpoint is missing, or the device does not exist; the message says what to try.
    """
    settings = config.settings
    if settings.reward_device != "auto":
        device = known_device(settings.reward_device)
    reward: Reward = config.reward
    if settings.reward_process:
        values = {p.name: getattr(reward, p.name) for p in hyperparameters(type(reward))}
        reward = RewardProcess(config.reward_name, values, config.plugins)
    prepare(reward, config.reward_name, device)
    return reward, device


def known_device(name: str) -> torch.device:
    """Return the device of this name.

    Raises:
        UserError: this machine has none.
    """
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except Exception as error:  # torch raises RuntimeError, AssertionError, ...
        reason = " ".join(str(error).split())[:120]
        raise UserError(
            f"reward_device = {name}: this machine has no such device ({reason}); try cpu or auto"
        ) from None
    return device


def make_judges(config: RunConfig, device: torch.device) -> Judges:
    """Return the reward, ready, and all that judges images beside it; ``device`` is that of training.

    Raises:
        UserError: a checkpoint of one of them is missing; the message says how to get it.
    """
    settings = config.settings
    reward, device = ready_reward(config, device)
    found = extractors(settings.inception, settings.inception_weights, config.backbone, reward, device)
    return Judges(reward, config.reward_name, config.backbone, device, found, settings.inception_splits)


def pretrained_policy(config: RunConfig, device: torch.device) -> StableDiffusion:
    """Return the backbone as the settings sample it, without an adapter; it takes the process's threads, so make one.

    Raises:
        UserError: the checkpoint cannot be read, or the device cannot compute in this precision.
    """
    settings = config.settings
    check_precision(settings.precision, device)
    if settings.precision == "fp32" and device.type == "cuda":
        # torch's default for convolutions is TF32, of 10 bits of mantissa instead of 23
        torch.backends.cudnn.allow_tf32 = False
    pipeline = load_parts(config.backbone, dtype_of(settings.precision))
    try:
        policy = StableDiffusion(
            pipeline,
            num_steps=settings.steps,
            eta=settings.eta,
            guidance=float(settings.guidance or config.backbone.guidance),
            device=device,
            threads=Threads.of_device(device),
            split=settings.guidance_split,
            decoded_at_once=settings.decode_micro_batch or min(settings.micro_batch, DECODED_AT_ONCE),
        )
        policy.save_memory(checkpointing=settings.gradient_checkpointing, sliced=settings.attention == "sliced")
        if not config.backbone.is_pocket:  # of which it is known
            policy.try_once()
    except UserError as error:
        raise UserError(f"backbone {config.backbone.name}: {error}") from None
    except Exception as error:  # diffusers and torch raise many kinds for a configuration of nonsense
        if config.backbone.name == "pocket":
            raise
        reason = " ".join(described(error).split())[:200]
        raise UserError(f"backbone {config.backbone.name} cannot be used as it is configured: {reason}") from None
    return policy


def check_prompts(policy: StableDiffusion, prompts: PromptSet) -> None:
    """Refuse a prompt that the text encoder cannot read whole, now and not in the round that first draws it.

    Raises:
        UserError: where the first of them stands, its number of tokens, and how many there are.
    """
    found = policy.unreadable(list(dict.fromkeys([*prompts.train, *prompts.test])))
    for prompt, reason in found.items():
        more = f" ({len(found)} prompts of this set cannot be read whole)" if len(found) > 1 else ""
        raise UserError(f"{prompts.place(prompt)}: the prompt {shortened(prompt, 80)!r} {reason}{more}")


def check_precision(precision: str, device: torch.device) -> None:
    """Refuse a precision that the device has no arithmetic for.

    Raises:
        UserError: it has none.
    """
    if precision == "fp16" and device.type == "cpu":
        raise UserError("precision = fp16 needs a GPU, and this machine has none; try bf16 or fp32")
    # by emulation earlier GPUs have it too, at a fraction of the speed of fp32
    if precision == "bf16" and device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        raise UserError("precision = bf16: this GPU has no bf16 arithmetic (that needs Ampere or later); try fp16")


def check_network(config: RunConfig) -> None:
    """If a checkpoint is to come from the hub and the hub is out of reach, make its client use the cache alone.

    It would try every file for half a minute, minutes in all, before it says that it is not there.
    """
    rewards = (config.reward, *getattr(config.reward, "parts", ()))
    fetched = any(getattr(reward, "checkpoint", "") in ("paper", PUBLISHED) for reward in rewards)
    if Path(config.backbone.source).exists() and not fetched:
        return
    from huggingface_hub import constants, get_session

    try:
        get_session().head(constants.ENDPOINT, timeout=5)
    except Exception:  # no name, no route, a proxy that refuses, or offline by the user's choice
        constants.HF_HUB_OFFLINE = True


@contextlib.contextmanager
def process_kept() -> Iterator[None]:
    """Put back what a policy sets for the whole process, which may be a notebook: its threads, and TF32."""
    threads, tf32 = torch.get_num_threads(), None
    with contextlib.suppress(RuntimeError):  # it cannot be asked by this name once it was set by torch's newer ones
        tf32 = torch.backends.cudnn.allow_tf32
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        if tf32 is not None:
            torch.backends.cudnn.allow_tf32 = tf32


def limit_threads(threads: int | None) -> None:
    """Set the number of threads of what follows; None keeps torch's choice, the cores or OMP_NUM_THREADS."""
    if threads is not None:
        torch.set_num_threads(max(1, min(threads, os.cpu_count() or 1)))
