"""One round on the true Stable Diffusion v1.4 architecture, randomly initialised, under every algorithm.

    B2BENCH_FULL_SIZE=1 uv run pytest tests/full_size -n0 -s

About 25 GB of disk and memory in all, some minutes a case on two cores: the backbone is one file of 4.3 GB, as its
authors published it, and 512x512 images are drawn and decoded. Peak memory is printed.

A CPU without bf16 arithmetic multiplies bf16 matrices some fifty times slower than fp32 ones, hours a case. There
the bf16 cases draw 64x64 images with the same networks, which one file cannot say and a folder can.
"""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionPipeline
from ldm import ldm_state
from safetensors.torch import load_file, save_file

from b2bench.backbones.single_file import NETWORKS, clip_tokenizer
from b2bench.ddim import stable_diffusion_schedule
from b2bench.store.store import Store

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not os.environ.get("B2BENCH_FULL_SIZE"),
        reason="takes an hour, 25 GB of disk and 16 GB of memory; B2BENCH_FULL_SIZE=1 runs it",
    ),
]

TRAINED = 797_184  # rank 4 on q, k, v and out of 32 attentions
SMALL = {
    "draws": 1,
    "samples": 2,
    "steps": 2,
    "transitions_per_step": 1000,
    "lora_rank": 4,
    "lr": 1e-4,
    "guidance": 5,
    "micro_batch": 1,
    "eval_points": 2,
    "eval_images": 1,
    "eval_train_images": 0,
    "kl_images": 0,
    "checkpoint": "pocket",  # the reward's: a small one, which reads images of any size
}


def random_pipeline() -> StableDiffusionPipeline:
    torch.manual_seed(0)
    pipeline = StableDiffusionPipeline(
        **{name: make() for name, make in NETWORKS.items()},
        tokenizer=clip_tokenizer(),
        scheduler=stable_diffusion_schedule(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    assert sum(p.numel() for p in pipeline.unet.parameters()) == 859_520_964
    return pipeline


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("v1") / "random-v1.safetensors"
    save_file(ldm_state(random_pipeline()), path)
    return path


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("v1") / "random-v1-of-64-pixels"
    pipeline = random_pipeline()
    pipeline.unet.register_to_config(sample_size=8)
    pipeline.save_pretrained(path)
    return path


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("algorithm", ["ddpo", "pg", "dpo", "dpok"])
def test_one_round(algorithm: str, precision: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    whole = precision == "fp32" or torch.ops.mkldnn._is_mkldnn_bf16_supported()
    backbone = request.getfixturevalue("full" if whole else "small")
    options: list[Any] = ["--algo", algorithm, "--backbone", backbone, "--queries", 2]
    options += ["--set", f"precision={precision}"]
    for name, value in SMALL.items():
        options += ["--set", f"{name}={value}"]
    command = [sys.executable, "-m", "b2bench", "run", *map(str, options)]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr

    store = Store(tmp_path / "b2bench.duckdb")
    (run,) = store.runs()
    (round,) = store.rounds(run["run_id"])
    assert run["status"] == "done"
    assert len(store.sql("select * from queries", [])) == 2
    assert round["optimizer_steps"] == 1
    assert 0 < round["grad_norm"] < float("inf")
    if algorithm in ("ddpo", "dpok"):  # what is recomputed is what was stored, in either precision
        assert round["ratio_mean"] == pytest.approx(1, abs=1e-6)
        assert round["approx_kl"] < 1e-9
    weights = load_file(next((tmp_path / "runs").glob("*/pytorch_lora_weights.safetensors")))
    assert sum(weight.numel() for weight in weights.values()) == TRAINED
    assert all(weight.isfinite().all() and weight.dtype == torch.float32 for weight in weights.values())
    # In the middle of 64x64 pixels one token attends to itself, whatever its query and key: they have no gradient.
    middle = "mid_block.attentions.0.transformer_blocks.0.attn1.to_"
    still = () if whole else (f"{middle}q.", f"{middle}k.")
    moved = [
        weight.abs().max()
        for name, weight in weights.items()
        if ("lora_B" in name or "lora.up" in name) and not any(part in name for part in still)
    ]
    assert len(moved) == 128 - len(still)
    assert all(0.9e-4 < largest < 1.1e-4 for largest in moved)  # Adam's first step from zero is lr long
    print(
        f"\n{algorithm} {precision}, {512 if whole else 64} pixels: peak {round['peak_mb'] / 1024:.1f} GiB, "
        f"{round['seconds']:.0f} s for the round, "
        f"gradient norm {round['grad_norm']:.2e}, ratio - 1 = {round['ratio_mean'] - 1:.1e}"
    )
