"""Fixtures that several tests share: policies of the pocket backbone, trajectories, a backbone that is not pocket."""

from __future__ import annotations

import copy
import json
import os
import shutil
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # a test that reached for the network would not be one
os.environ.setdefault("OMP_NUM_THREADS", "1")  # as below, for the processes that tests start
# Where byte code is not kept, each of them compiles torch, diffusers and transformers anew: twenty seconds of work.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# What imports torch is imported where it is used: xdist loads this file, too, before it starts what runs the tests.
import pytest

from b2bench.backbones.specs import find_backbone
from b2bench.cli.interrupts import ANNOUNCED, SIGNALS
from b2bench.config.settings import Settings
from b2bench.registry import Registry
from b2bench.store import database

if TYPE_CHECKING:
    from torch import Tensor

    from b2bench.backbones.stable_diffusion import StableDiffusion
    from b2bench.types import Trajectories

PROMPTS = [
    "a cat riding a bike",
    "a dog playing chess",
    "a horse washing dishes",
    "a fox playing chess",
    "a bee riding a bike",
    "a whale washing dishes",
]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the tests first that share a rollout of nine seconds, so that one process has them all.

    At the start xdist gives each process a row of tests, later many small ones: those of a file fall to several.
    """
    items.sort(key=lambda item: item.path.name != "test_rollout.py")


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """More threads than cores make small networks slower, and would let the machine choose the kernels."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def no_rest() -> Iterator[float]:
    """Nobody else waits for a test's store, so no call of this process makes room for others; gives the usual value.

    Processes that tests start have that one, and so have the tests of the store.
    """
    usual = database.REST
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(database, "REST", 0.0)
        yield usual


@pytest.fixture(scope="session", autouse=True)
def copied_drafts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[Path], None]]:
    """An empty store is made once and copied: its schema takes longer than what most tests write. Gives what makes it.

    Processes that tests start make their own, and so do the tests of the store.
    """
    usual, made = database._draft, tmp_path_factory.mktemp("draft") / "draft.duckdb"
    usual(made)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(database, "_draft", lambda path: shutil.copyfile(made, path))
        yield usual


@pytest.fixture(autouse=True)
def signals_as_found() -> Iterator[None]:
    """A command that ends in this process ignores signals from then on, and processes that it starts inherit that."""
    found = {number: signal.getsignal(number) for number in (*SIGNALS, *ANNOUNCED)}
    yield
    if threading.current_thread() is threading.main_thread():
        for number, handler in found.items():
            if handler is not None and signal.getsignal(number) is not handler:
                signal.signal(number, handler)


@pytest.fixture
def accelerate_state() -> Iterator[None]:
    """Let a test choose a precision: accelerate allows one per process."""
    from accelerate.state import AcceleratorState

    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture(scope="session")
def pocket_pipeline() -> Any:
    """The embedded pipeline; copy it before changing anything."""
    from b2bench.backbones.stable_diffusion import load_pipeline

    return load_pipeline(find_backbone("pocket"))


@pytest.fixture(scope="session")
def make_policy(pocket_pipeline: Any) -> Callable[..., StableDiffusion]:
    """A fresh policy on pocket by the defaults of a run. ``moved``: standard deviation of the LoRA's B.

    A fresh adapter has B = 0 and changes nothing; 0.02 or so stands for one that has been trained.
    """
    import torch

    from b2bench.backbones.stable_diffusion import StableDiffusion

    def make(
        num_steps: int | None = None, rank: int | None = None, seed: int = 0, moved: float = 0.02, **options: Any
    ) -> StableDiffusion:
        settings = Settings()
        policy = StableDiffusion(
            copy.deepcopy(pocket_pipeline),
            num_steps=num_steps or settings.steps,
            eta=options.pop("eta", settings.eta),
            guidance=options.pop("guidance", find_backbone("pocket").guidance),
            **options,
        )
        policy.add_lora(rank or settings.lora_rank, seed)
        draws = torch.Generator().manual_seed(seed)
        for name, weights in policy.unet.named_parameters():
            if "lora_B" in name:
                weights.data.copy_(moved * torch.randn(weights.shape, generator=draws))
        return policy

    return make


@pytest.fixture(scope="session")
def roll() -> Callable[..., Trajectories]:
    """Roll out on ``PROMPTS`` and score: rewards are random, advantages their z-scores over the round."""
    import torch

    from b2bench.rollout import rollout, round_noise
    from b2bench.types import Interval

    def make(
        policy: StableDiffusion,
        draws: int = 4,
        samples: int = 2,
        leaves: int = 1,
        start: int = 0,
        micro_batch: int = 48,
        reward: Sequence[float] | None = None,
    ) -> Trajectories:
        trajectories = rollout(
            policy,
            [PROMPTS[i % len(PROMPTS)] for i in range(draws)],
            samples=samples,
            leaves=leaves,
            interval=Interval(start, policy.num_steps),
            noise=round_noise(policy, 0, 0),
            micro_batch=micro_batch,
        )
        drawn = torch.randn(len(trajectories), generator=torch.Generator().manual_seed(1))
        scores = drawn if reward is None else torch.tensor(reward)
        trajectories.reward = scores
        trajectories.advantage = (scores - scores.mean()) / (scores.std(correction=0) + 1e-8)
        return trajectories

    return make


@pytest.fixture(scope="session")
def scored() -> Callable[..., Trajectories]:
    """Trajectories of which only rewards, advantages and groups mean anything."""
    import torch

    from b2bench.types import Conditioning, Interval, Trajectories

    def make(
        reward: Sequence[float], group: Sequence[int], advantage: Sequence[float] | None = None, steps: int = 3
    ) -> Trajectories:
        n = len(reward)
        index = torch.zeros(n, dtype=torch.long)
        return Trajectories(
            prompts=["a cat"] * n,
            cond=Conditioning(torch.zeros(1, 2, 3), torch.zeros(1, 2, 3), index),
            latents=torch.zeros(n, steps + 1, 1, 2, 2),
            log_prob=torch.zeros(n, steps),
            group=torch.tensor(group),
            leaf=index,
            interval=Interval(0, steps),
            images=torch.zeros(n, 3, 2, 2),
            calls=0,
            reward=torch.tensor(reward),
            advantage=torch.tensor(reward if advantage is None else advantage),
        )

    return make


@pytest.fixture(scope="session")
def adapter_vector() -> Callable[[StableDiffusion], Tensor]:
    """All weights of a policy's adapter, as one vector of its own."""
    import torch

    def flatten(policy: StableDiffusion) -> Tensor:
        return torch.cat([p.detach().flatten() for p in policy.parameters()]).clone()

    return flatten


@pytest.fixture(scope="session")
def other_pipeline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small random ``StableDiffusionPipeline`` that is not pocket, laid out as Stable Diffusion v1.4.

    In particular its scheduler is v1.4's: a PNDMScheduler, which diffusers' DDIMScheduler can be made from.
    """
    import torch
    from diffusers import AutoencoderKL, PNDMScheduler, StableDiffusionPipeline, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    tokenizer = CLIPTokenizer.from_pretrained(Path(find_backbone("pocket").source) / "tokenizer")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        pipeline = StableDiffusionPipeline(
            vae=AutoencoderKL(block_out_channels=(8, 16), norm_num_groups=4, latent_channels=4, sample_size=16,
                              down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2),
            text_encoder=CLIPTextModel(CLIPTextConfig(
                vocab_size=len(tokenizer), hidden_size=16, intermediate_size=32, num_hidden_layers=1,
                num_attention_heads=2, max_position_embeddings=tokenizer.model_max_length,
                bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
            )),
            tokenizer=tokenizer,
            unet=UNet2DConditionModel(
                sample_size=8, block_out_channels=(16, 32), layers_per_block=1, norm_num_groups=4,
                cross_attention_dim=16, attention_head_dim=2,
                down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
                up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
            ),
            scheduler=PNDMScheduler(
                beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", skip_prk_steps=True,
                set_alpha_to_one=False, steps_offset=1,
            ),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )  # fmt: skip
    folder = tmp_path_factory.mktemp("other-pipeline")
    pipeline.save_pretrained(folder)
    # v1.4's file says this too, although PNDM does not know it.
    config = folder / "scheduler" / "scheduler_config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "clip_sample": False}))
    return folder


@pytest.fixture(scope="session")
def algorithm() -> Callable[..., Any]:
    """A built-in algorithm by its name, with hyperparameters."""
    registry = Registry("algorithm")

    def make(name: str, **hyperparameters: Any) -> Any:
        return registry.get(name)(**hyperparameters)

    return make
