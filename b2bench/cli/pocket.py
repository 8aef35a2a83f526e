"""``b2bench pocket``: the embedded model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from b2bench.cli.output import stderr, stdout


def build(
    art: Annotated[Path | None, typer.Option(help="Folder with the art archives  [fetched by npm pack]")] = None,
    work: Annotated[Path, typer.Option(help="Folder for art, checkpoints and results")] = Path("pocket-build"),
    stage: Annotated[list[str] | None, typer.Option(help="Run only these stages")] = None,
    install: Annotated[Path | None, typer.Option(help="Copy the finished weights into this folder")] = None,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads of a stage")] = 1,
    jobs: Annotated[int, typer.Option(min=1, help="Stages to run at once, each in its own process")] = 2,
    variant: Annotated[str, typer.Option(help="Gap between the styles: default, none or wide")] = "default",
) -> None:
    """Rebuild the pocket weights from the art.

    It goes by stages, which can be resumed. It needs the extra 'pocket'.
    """
    from b2bench.pocket.build.command import build_weights

    build_weights(art, work, stage or [], install, threads, jobs, stderr(), variant)


def verify(
    art: Annotated[Path | None, typer.Option(help="Folder with the art archives  [fetched by npm pack]")] = None,
    work: Annotated[Path | None, typer.Option(help="Folder of a build, whose times are then bars too")] = None,
    db: Annotated[
        Path | None, typer.Option(help="Store with runs, to measure what they learn, and collapse, too")
    ] = None,
    clock: Annotated[
        Path | None, typer.Option(help="Store with default runs that had the machine to themselves, to measure time")
    ] = None,
    card: Annotated[Path | None, typer.Option(help="Model card to write the tables into")] = None,
    out: Annotated[Path | None, typer.Option(help="JSON file to write the figures into")] = None,
    images: Annotated[int, typer.Option(min=1, help="Images per template for the base model's figures")] = 1080,
    sweep_images: Annotated[int, typer.Option(min=1, help="Images per template and guidance")] = 180,
) -> None:
    """Measure every bar of the pocket weights. The exit code is 1 if one falls short (needs the extra 'pocket')."""
    from b2bench.pocket.build.verify import verify as measure

    measure(art, work, db, clock, card, out, images, sweep_images, stderr(), stdout())


def gallery(
    out: Annotated[Path, typer.Option(help="PNG file to write")],
    prompts: Annotated[
        str | None, typer.Option(help="Prompt sets, comma-separated  [one of each template; with --lora template1]")
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Images per prompt")] = 8,
    rows: Annotated[int, typer.Option(min=1, help="Prompts of each set, spread over its test split")] = 4,
    guidance: Annotated[float | None, typer.Option(help="Guidance scale  [the backbone's default]")] = None,
    lora: Annotated[Path | None, typer.Option(help="Draw with this LoRA, too, beside the pretrained model")] = None,
    seed: Annotated[int, typer.Option(help="Seed of the noise")] = 0,
) -> None:
    """Draw prompts by seeds into a PNG."""
    from b2bench.studies.gallery import draw_gallery

    usual = "template1" if lora is not None else "template1,pocket-template2,pocket-template3"
    draw_gallery(out, (prompts or usual).split(","), seeds, rows, guidance, lora, seed)
    stdout().print(f"wrote {out}", soft_wrap=True)
