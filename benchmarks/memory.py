"""How much memory does Stable Diffusion v1 take, by micro-batch? ``python benchmarks/memory.py [IMAGES ...]``.

Counted on torch's meta device, where nothing is computed: the sum of tensors alive at the worst moment, parameters
apart, with attention as a fused kernel. No allocator's waste and no kernel's workspace is in it, so a GPU takes more.
An image is two rows, for guidance; training is of one graph. In bf16 activations take half.
"""

from __future__ import annotations

import argparse

from rich import box
from rich.console import Console
from rich.table import Column, Table

from b2bench.config.resolve import resolve
from b2bench.estimate.footprint import WIDTH, measure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rows", nargs="*", type=int, default=[1, 2, 4, 8], help="images of a micro-batch")
    parser.add_argument("--rank", type=int, default=4, help="rank of the adapter")
    options = parser.parse_args()
    console = Console()
    config = resolve(
        algorithm="ddpo", wrapper="vanilla", reward="clipscore", backbone="sd14", queries=2400, seed=0,
        values={"lora_rank": options.rank},
    )  # fmt: skip
    found = measure(config)
    for name, parameters in found.parameters.items():
        sizes = ", ".join(f"{parameters * WIDTH[kind] / 2**20:,.0f} MiB in {kind}" for kind in ("fp32", "bf16"))
        console.print(f"{name}: {parameters:,} parameters, {sizes}")
    console.print(f"adapter of rank {options.rank}: {found.adapter:,} parameters")
    lines = {
        "sampling": found.sampling,
        "training": found.training,
        "with checkpointing": found.checkpointed,
        "decoding": found.decoding,
    }
    table = Table(
        *(Column(heading, justify="right") for heading in ("images", *lines)),
        box=box.SIMPLE,
        title="MiB in fp32, parameters apart",
    )
    for rows in options.rows:
        table.add_row(str(rows), *(f"{line.at(rows) / 2**20:,.0f}" for line in lines.values()))
    console.print(table)


if __name__ == "__main__":
    main()
