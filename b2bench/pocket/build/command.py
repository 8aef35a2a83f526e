"""``b2bench pocket build``: the stages in order, what is done already left alone."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path

from rich.console import Console

from b2bench.errors import UserError
from b2bench.registry import suggestion

# name -> what it leaves behind in the work folder; in an order that satisfies every need.
STAGES = {
    "autoencoder": "autoencoder/config.json",
    "classifier": "classifier.safetensors",
    "scorer_training": "scorer-training/open_clip_model.safetensors",
    "scorer_heldout": "scorer-heldout/open_clip_model.safetensors",
    "captioner": "captioner/model.safetensors",
    "bert": "bert/model.safetensors",
    "decoder": "decoder/config.json",
    "base_draft": "base-draft/model_index.json",
    "base_model": "base-model/model_index.json",
    "pipeline": "pipeline/model_index.json",
}
NEEDS = {
    "decoder": ["autoencoder"],
    "base_draft": ["autoencoder"],
    "base_model": ["base_draft"],
    "pipeline": ["decoder", "base_model"],
}
SHIPPED = ("pipeline", "scorer-training", "scorer-heldout", "captioner", "bert", "classifier.safetensors")


def build_weights(
    art: Path | None, work: Path, stages: list[str], install: Path | None, threads: int, console: Console
) -> None:
    """Run the stages that are not done, each from its last checkpoint.

    Stages are independent but for those in ``NEEDS``. With two processes on one ``--work``, build
    autoencoder and base_model in one, and the judges and decoder in the other (``--stage``).

    Raises:
        UserError: the extra is missing, a stage is unknown, or the art cannot be had.
    """
    try:
        import resvg_py  # noqa: F401
    except ImportError:
        raise UserError("pocket build needs the extra 'pocket': pip install 'b2bench[pocket]'") from None
    import torch

    from b2bench.pocket.build import stages as training
    from b2bench.pocket.build.art import fetch_art, load_sprites

    for name in stages:
        if name not in STAGES:
            raise UserError(f"unknown stage {name!r}.{suggestion(name, STAGES)} Stages: {', '.join(STAGES)}")
    if art is not None and not art.is_dir():
        raise UserError(f"--art {art} is no folder; leave it out to fetch the art with npm")
    torch.set_num_threads(threads)
    work.mkdir(parents=True, exist_ok=True)
    folder = art or work / "art"
    try:
        if art is None:
            console.print("art: npm pack, four packages", highlight=False)
            fetch_art(folder)
        load_sprites(folder)
    except RuntimeError as error:
        raise UserError(str(error)) from None
    started = time.monotonic()

    def report(stage: str, step: int, steps: int, loss: float) -> None:
        if step % 200 == 0 or step == steps:
            elapsed = time.monotonic() - started
            console.print(f"{stage:<16} step {step:>5}/{steps}  loss {loss:.4f}  {elapsed:.0f} s", highlight=False)

    build = training.Build(folder, work, report)
    for name in stages or STAGES:
        if (work / STAGES[name]).exists():
            console.print(f"{name}: done already", highlight=False)
            continue
        missing = [need for need in NEEDS.get(name, []) if not (work / STAGES[need]).exists()]
        if missing:
            raise UserError(f"stage {name} needs {', '.join(missing)}, which is not built yet; run it first")
        started = time.monotonic()
        getattr(training, f"train_{name}")(build)
        console.print(f"{name}: {time.monotonic() - started:.0f} s", highlight=False)
    if install is not None:
        install_weights(work, install)
        console.print(f"weights copied to {install}; measure them with python -m b2bench.pocket.build.verify")


def install_weights(work: Path, target: Path) -> None:
    """Copy the finished weights into ``target``.

    Raises:
        UserError: a stage is not done.
    """
    for name, product in STAGES.items():
        if not (work / product).exists():
            raise UserError(f"stage {name} is not done: {work / product} is missing")
    target.mkdir(parents=True, exist_ok=True)
    for name in SHIPPED:
        if (work / name).is_dir():
            shutil.copytree(work / name, target / name, dirs_exist_ok=True)
        else:
            shutil.copyfile(work / name, target / name)
    for path in target.rglob("*.json"):
        content = json.loads(path.read_text(encoding="utf-8"))
        # where this machine read a part from: nobody else's business
        if isinstance(content, dict) and content.pop("_name_or_path", None) is not None:
            path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
