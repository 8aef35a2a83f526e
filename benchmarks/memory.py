"""How much memory does Stable Diffusion v1 take, by micro-batch? ``python benchmarks/memory.py [ROWS ...]``.

Counted on torch's meta device, where nothing is computed: the sum of tensors alive at the worst moment, parameters
apart, with attention as a fused kernel. No allocator's waste and no kernel's workspace is in it, so a GPU takes more.
Guidance makes two rows of one image. In bf16 activations take half.
"""

from __future__ import annotations

import argparse

import torch
from rich import box
from rich.console import Console
from rich.table import Column, Table

from b2bench.estimate.memory import Shapes, bytes_of, with_lora


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rows", nargs="*", type=int, default=[1, 2, 4, 8], help="rows of a forward pass")
    parser.add_argument("--rank", type=int, default=4, help="rank of the adapter")
    options = parser.parse_args()
    console = Console()
    shapes = Shapes.stable_diffusion()
    for name, module in vars(shapes).items():
        sizes = ", ".join(
            f"{bytes_of(module, dtype) / 2**20:,.0f} MiB in {dtype}" for dtype in (torch.float32, torch.bfloat16)
        )
        console.print(f"{name}: {sum(p.numel() for p in module.parameters()):,} parameters, {sizes}")
    console.print(f"adapter of rank {options.rank}: {with_lora(shapes.unet, options.rank):,} parameters")
    headings = ("rows", "sampling", "training", "with checkpointing", "decoding")
    table = Table(
        *(Column(heading, justify="right") for heading in headings),
        box=box.SIMPLE,
        title="MiB in fp32, parameters apart",
    )
    for rows in options.rows:
        peaks = [
            shapes.sampling_bytes(rows),
            shapes.training_bytes(rows),
            shapes.training_bytes(rows, checkpointing=True),
        ]
        peaks.append(shapes.decoding_bytes(rows))
        table.add_row(str(rows), *(f"{peak / 2**20:,.0f}" for peak in peaks))
    console.print(table)


if __name__ == "__main__":
    main()
