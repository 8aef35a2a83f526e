"""An estimate as tables on a terminal."""

from __future__ import annotations

from rich import box
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from b2bench.estimate.estimate import Estimate
from b2bench.estimate.fit import ENOUGH_ROWS, MicroBatches
from b2bench.estimate.footprint import GIB, WIDTH

MIB = 2**20
ROWS = (1, 2, 4, 8, 16, 32)


def _size(size: float) -> str:
    return f"{size / GIB:,.2f} GiB" if size >= GIB else f"{size / MIB:,.1f} MiB"


def _table(title: str, *headings: str, words: int = 1) -> Table:
    """Make a table whose first ``words`` columns hold words and the others numbers."""
    columns = [Column(text, justify="left" if i < words else "right") for i, text in enumerate(headings)]
    return Table(*columns, title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))


def _up_to(low: float, high: float, form: str) -> str:
    return format(high, form) if low == high else f"up to {format(high, form)}"


def _most(low: float, high: float, form: str) -> str:
    return format(high, form) if low == high else f"≤ {format(high, form)}"


def render(found: Estimate, console: Console) -> None:
    """Memory, micro-batches, disk, calls, hours, and what all of it assumes."""
    settings = found.config.settings
    console.print(
        f"{found.config.backbone.name}, {found.config.prompts.name}, {found.config.reward_name}: "
        f"{found.config.queries:,} reward queries in {found.config.rounds} rounds, {settings.steps} steps, "
        f"guidance {settings.guidance:g}\nmeasured on the {found.footprint.source}, on torch's meta device",
        soft_wrap=True,
    )
    console.print(weights_table(found))
    console.print(activations_table(found))
    if found.fits:
        console.print(fits_table(found))
    console.print(room_table(found))
    console.print(calls_table(found))
    least, most = found.grid_hours
    runs = f"{found.seeds} seed{'s' if found.seeds > 1 else ''}"
    runs = f"{len(found.cells)} cells x {runs}" if len(found.cells) > 1 else runs
    console.print(f"{runs}: {_up_to(least, most, ',.1f')} hours, an estimate\n", soft_wrap=True)
    for warning in found.warnings:
        console.print(Text.assemble(("warning: ", "yellow"), warning), soft_wrap=True)
    for line in assumptions(found):
        console.print(Text(line, "dim"), soft_wrap=True)


def weights_table(found: Estimate) -> Table:
    """Return what is on the device all the time."""
    footprint = found.footprint
    table = _table("On the device all the time", "", "parameters", "fp32", "bf16, fp16")
    for name, parameters in footprint.parameters.items():
        sizes = (_size(WIDTH[precision] * parameters) for precision in ("fp32", "bf16"))
        table.add_row(name, f"{parameters:,}", *sizes)
    trained = _size(footprint.adapter_bytes())
    table.add_row(f"LoRA, rank {found.config.settings.lora_rank}, its gradient and AdamW's moments",
                  f"{footprint.adapter:,}", trained, trained)  # fmt: skip
    for judge in found.judges:
        table.add_row(judge.name, f"{judge.parameters:,}", _size(judge.bytes or 0), _size(judge.bytes or 0))
    judges = sum(judge.bytes or 0 for judge in found.judges)
    totals = (footprint.weights(precision) + footprint.adapter_bytes() + judges for precision in ("fp32", "bf16"))
    table.add_row("together", "", *map(_size, totals), style="bold")
    return table


def activations_table(found: Estimate) -> Table:
    """By micro-batch, in fp32."""
    footprint = found.footprint
    title = "Activations by micro-batch, in fp32 (half of it in bf16 or fp16); rows are images, with guidance"
    table = _table(title, "rows", "sampling", "training", "training, checkpointed", "decoding", words=0)
    for rows in ROWS:
        lines = (footprint.sampling, footprint.training, footprint.checkpointed, footprint.decoding)
        table.add_row(str(rows), *(_size(line.at(rows)) for line in lines))
    return table


def fits_table(found: Estimate) -> Table:
    """Return the largest micro-batches."""
    assert found.vram is not None
    title = f"Largest micro-batches in {found.vram / GIB:g} GiB, of which {found.margin:.0%} stay free"
    table = _table(title, "precision", "algorithms", "checkpointing", "sampling", "training", "decoding", words=3)
    for fit in found.fits:
        names = {"fp32": "fp32", "bf16": "bf16, fp16"}
        batches = fit.batches
        cells = _batches(batches) if batches else (f"none: {fit.refused}", "", "", "")
        table.add_row(names[fit.precision], ", ".join(fit.algorithms), *cells)
    return table


def _batches(batches: MicroBatches) -> tuple[str, str, str, str]:
    numbers = (f"{n:,}" for n in (batches.sampling, batches.training, batches.decoding))
    return "yes" if batches.checkpointing else "no", *numbers  # type: ignore[return-value]


def room_table(found: Estimate) -> Table:
    """Main memory and disk of one run."""
    table = _table("Main memory and disk of a run, the largest of these cells", "", "", words=1)
    for where, sizes in (("memory", found.host), ("disk", found.disk)):
        for name, size in sizes.items():
            table.add_row(f"{where}: {name}", _size(size))
    return table


def calls_table(found: Estimate) -> Table:
    """Denoiser calls, forward-equivalents and hours of each cell."""
    headings = ("algorithm", "wrapper", "sampling", "training", "as forwards", "evaluation", "optimizer steps", "hours")
    table = _table("Denoiser calls of a run, and hours by the throughput below", *headings, words=2)
    for cell in found.cells:
        calls = cell.calls
        counts = (
            f"{calls.sampling:,}",
            _most(*calls.training, ","),
            _most(*calls.equivalents, ","),
            f"{calls.evaluation:,}",
            _most(*calls.optimizer_steps, ","),
        )
        table.add_row(cell.algorithm, cell.wrapper, *counts, _most(*cell.hours, ",.2f"))
    return table


def assumptions(found: Estimate) -> list[str]:
    """Return what the numbers rest on, a line each."""
    footprint = found.footprint
    flops = found.throughput * footprint.call_flops
    given = "as given"
    if found.assumed:
        of = "for one CPU core" if found.config.backbone.is_pocket else "measured on no GPU"
        given = f"an assumption, {of}; give yours with --throughput"
    backward = footprint.backward_calls(found.checkpointing)
    how = "backward pass and checkpointing" if found.checkpointing else "backward pass"
    lines = [
        f"throughput: {found.throughput:,.1f} denoiser calls a second in sampling, {flops / 1e12:.3g} TFLOP/s: {given}",
        "as forwards: sampling and training in forward passes, of which a call with a backward pass counts as three",
        f"hours: by floating-point operations a call with {how} counts {backward:.2f} calls, an image decoded "
        f"{footprint.decoding_flops / footprint.call_flops:.2f}; reward, optimizer and store are left out",
        "evaluation: of several runs in one store the first measures the pretrained model, and the others take that "
        f"over: {found.cells[0].calls.saved:,} calls less for each",
        "≤, up to: how many rollouts bs and b2 keep depends on the rewards; pairs are fewer by those that tie",
        "memory: sums of live tensors, with attention as a fused kernel; the allocator's waste and kernels' workspaces "
        "are what the margin is for; in bf16 and fp16 the three networks' weights and activations are taken to be half",
        f"micro-batches: checkpointing only where fewer than {ENOUGH_ROWS} training rows fit without; rows of an "
        "algorithm on pairs are pairs",
        "main memory: while trajectories are put together they are there twice",
    ]
    if found.uncounted:
        lines.append(f"not counted: {'; '.join(found.uncounted)}")
    return lines
