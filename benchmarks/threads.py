"""What threads bring on a CPU: one, torch's own inside each operation, or shards side by side.

``python benchmarks/threads.py``: pocket's denoiser with classifier-free guidance, forward and forward with
backward, as ratios to one thread, in one process, the ways interleaved.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections import defaultdict

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
from rich import box
from rich.console import Console
from rich.table import Table

from b2bench.backbones import shards as parallel
from b2bench.backbones.shards import Threads, shard_count
from b2bench.backbones.specs import find_backbone
from b2bench.backbones.stable_diffusion import StableDiffusion, load_pipeline

WAYS = ("one thread", "torch's own", "shards")


def seconds(policy: StableDiffusion, rows: int, backward: bool) -> float:
    """The best of three evaluations of ``rows`` rows."""
    cond = policy.encode(["a cat riding a bike"] * rows)
    latents = torch.randn(rows, *policy.latent_shape)
    step = torch.randint(policy.num_steps, (rows,))
    found = []
    for _ in range(3):
        start = time.perf_counter()
        with torch.set_grad_enabled(backward):
            noise = policy.noise(cond, latents, step)
        if backward:
            noise.square().mean().backward()
        found.append(time.perf_counter() - start)
    return min(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--repetitions", type=int, default=5)
    options = parser.parse_args()
    spec = find_backbone("pocket")
    policy = StableDiffusion(load_pipeline(spec), num_steps=20, eta=1.0, guidance=spec.guidance)
    policy.add_lora(8, 0)
    pool, alone = Threads(options.threads), Threads()
    found: dict[tuple[int, bool, str], list[float]] = defaultdict(list)
    for repetition in range(options.repetitions):
        for rows in (24, 48):
            for backward in (False, True):
                for way in WAYS if repetition % 2 else WAYS[::-1]:
                    torch.set_num_threads(options.threads if way == "torch's own" else 1)
                    policy.threads = pool if way == "shards" else alone
                    parallel.shard_count = shard_count if way == "shards" else lambda rows: 1
                    found[rows, backward, way].append(seconds(policy, rows, backward))
    table = Table("rows", "", "ms a row, one thread", *WAYS[1:], box=box.SIMPLE)
    for rows in (24, 48):
        for backward in (False, True):
            one, *others = (statistics.median(found[rows, backward, way]) for way in WAYS)
            ratios = [f"{one / other:.2f} times" for other in others]
            work = "forward and backward" if backward else "forward"
            table.add_row(str(rows), work, f"{1000 * one / rows:.1f}", *ratios)
    Console().print(table)


if __name__ == "__main__":
    main()
