"""``b2bench pocket build``: the stages in order, what is done already left alone."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.table import Table

from b2bench.backbones.specs import VARIANT_FILE
from b2bench.environment import python
from b2bench.errors import RunFailed, UserError
from b2bench.pocket.build.art import load_art
from b2bench.pocket.paths import NETWORKS
from b2bench.pocket.world import TEMPLATES, WORLD
from b2bench.text import suggestion

# In an order that satisfies every need, the longest chain first: with several jobs, that is also the order in
# which stages are handed out. A number at the end is that of a template.
STAGES = (
    "latents",
    "base_1",
    "base_2",
    "base_3",
    "noise_1",
    "noise_2",
    "noise_3",
    "decoder",
    "encoder",
    "scorer_training",
    "classifier",
    "scorer_heldout",
    "captioner",
    "bert",
    "pipeline_1",
    "pipeline_2",
    "pipeline_3",
)
NEEDS = {
    **{f"base_{t}": ["latents"] for t in TEMPLATES},
    **{f"noise_{t}": [f"base_{t}"] for t in TEMPLATES},
    "decoder": ["latents"],
    "encoder": ["latents"],
    **{f"pipeline_{t}": ["encoder", "decoder", f"noise_{t}"] for t in TEMPLATES},
}
SHIPPED = (*NETWORKS, "scorer-training", "scorer-heldout", "captioner", "bert", "classifier.safetensors")
# What depends on the style gap; the other judges learn from clean scenes, which are the same in every variant.
VARIANT_STAGES = tuple(s for s in STAGES if s not in ("scorer_heldout", "captioner", "classifier", "bert"))
VARIANT_SHIPPED = (*NETWORKS, "scorer-training")


def build_weights(
    art: Path | None,
    work: Path,
    stages: list[str],
    install: Path | None,
    threads: int,
    jobs: int,
    console: Console,
    variant: str = "default",
) -> None:
    """Run the stages that are not done, each from its last checkpoint, ``jobs`` of them at a time.

    Raises:
        UserError: the extra is missing, a stage or variant is unknown, a stage lacks one before it, ``work`` holds
            another variant, or the art cannot be had.
        RunFailed: a stage that ran in a process of its own failed.
    """
    known = stages_of(variant)
    for name in stages:
        if name not in known:
            raise UserError(f"unknown stage {name!r}.{suggestion(name, known)} Stages: {', '.join(known)}")
    work.mkdir(parents=True, exist_ok=True)
    claim_folder(work, variant)
    load_art(art, work / "art", partial(console.print, highlight=False))
    folder = art or work / "art"
    wanted = [name for name in known if name in (stages or known)]
    done = [name for name in wanted if record(work, name).exists()]
    if done:
        console.print(f"done already: {', '.join(done)}", highlight=False)
    left = [name for name in wanted if name not in done]
    for name in left:
        missing = [need for need in NEEDS.get(name, []) if need not in left and not record(work, need).exists()]
        if missing:
            raise UserError(f"stage {name} needs {', '.join(missing)}, which is not built yet; run it first")
    started = time.monotonic()
    if jobs == 1 or len(left) < 2:
        for name in left:
            run_stage(name, folder, work, threads, console, variant)
    else:

        def start(name: str) -> subprocess.Popen[bytes]:
            options = ["--stage", name, "--work", str(work), "--art", str(folder), "--threads", str(threads)]
            options += ["--variant", variant]
            return subprocess.Popen([*python("b2bench"), "pocket", "build", "--jobs", "1", *options])

        run_side_by_side(left, jobs, start)
    if len(left) > 1:
        console.print(time_table(work, time.monotonic() - started))
    if install is not None:
        install_weights(work, install, variant)
        if variant == "default":
            console.print(f"weights copied to {install}; measure them with b2bench pocket verify")
        else:
            console.print(f"weights copied to {install}; use them with b2bench run --backbone {install}")


def stages_of(variant: str) -> tuple[str, ...]:
    """Return the stages that make a variant of the world.

    Raises:
        UserError: there is no such variant.
    """
    from b2bench.pocket.build.scenes import VARIANTS

    if variant not in VARIANTS:
        raise UserError(f"unknown variant {variant!r}.{suggestion(variant, VARIANTS)} Variants: {', '.join(VARIANTS)}")
    return STAGES if variant == "default" else VARIANT_STAGES


def claim_folder(work: Path, variant: str) -> None:
    """Keep two variants from sharing a folder, where one would go on from the other's checkpoints.

    Raises:
        UserError: ``work`` holds another variant.
    """
    path = work / VARIANT_FILE
    if not path.exists():
        if any(work.glob("*.state")) or any(work.glob("*.done.json")):
            raise UserError(f"--work {work} holds a build of an older version; name another folder, or empty it")
        path.write_text(json.dumps({"variant": variant, "world": WORLD}) + "\n", encoding="utf-8")
    found = json.loads(path.read_text(encoding="utf-8"))
    if found != {"variant": variant, "world": WORLD}:
        raise UserError(
            f"--work {work} holds a build of variant {found['variant']}, world {found['world']}; name another folder "
            f"for variant {variant}, world {WORLD}"
        )


def record(work: Path, name: str) -> Path:
    """Written when a stage has ended, so that one killed while it saved its model is not taken for done."""
    return work / f"{name}.done.json"


def run_stage(name: str, art: Path, work: Path, threads: int, console: Console, variant: str = "default") -> None:
    """Run one stage in this process; its wall-clock and CPU seconds go to its :func:`record`."""
    import torch

    from b2bench.pocket.build import stages as training

    torch.set_num_threads(threads)
    resumed = (work / f"{name.replace('_', '-')}.state").exists()
    wall, cpu = time.monotonic(), time.process_time()

    def report(stage: str, step: int, steps: int, loss: float) -> None:
        if step % 200 == 0 or step == steps:
            elapsed = time.monotonic() - wall
            console.print(f"{stage:<16} step {step:>5}/{steps}  loss {loss:.4f}  {elapsed:.0f} s", highlight=False)

    model, _, template = name.rpartition("_") if name[-1].isdigit() else (name, "", "")
    train = getattr(training, f"train_{model}")
    train(training.Build(art, work, report, variant=variant), *([int(template)] if template else []))
    seconds = {"wall": time.monotonic() - wall, "cpu": time.process_time() - cpu, "resumed": resumed}
    record(work, name).write_text(json.dumps(seconds), encoding="utf-8")
    console.print(f"{name}: {seconds['wall']:.0f} s, {seconds['cpu']:.0f} s of CPU", highlight=False)


def run_side_by_side(stages: list[str], jobs: int, start: Callable[[str], subprocess.Popen[bytes]]) -> None:
    """Hand out the stages whose needs are met, in their order, to at most ``jobs`` processes.

    Raises:
        RunFailed: a stage failed; the others are stopped, and their checkpoints stay.
    """
    waiting, running = list(stages), dict[str, "subprocess.Popen[bytes]"]()
    try:
        while waiting or running:
            for name in list(waiting):
                unmet = [need for need in NEEDS.get(name, []) if need in waiting or need in running]
                if len(running) < jobs and not unmet:
                    waiting.remove(name)
                    running[name] = start(name)
            for name, process in list(running.items()):
                code = process.poll()
                if code is not None:
                    del running[name]
                if code:
                    raise RunFailed(f"stage {name} failed (exit code {code}); the same command goes on from there")
            time.sleep(0.05)
    finally:
        for process in running.values():
            process.terminate()
        for process in running.values():
            process.wait()


def time_table(work: Path, wall: float) -> Table:
    """Return what each stage that has ended took, and this command as a whole (``wall`` seconds)."""
    table = Table("stage", "minutes", "CPU minutes", "", title=f"this build: {wall / 60:.0f} minutes")
    total = 0.0
    for name in STAGES:
        if record(work, name).exists():
            seconds = json.loads(record(work, name).read_text(encoding="utf-8"))
            total += seconds["cpu"]
            note = "since its last checkpoint" if seconds["resumed"] else ""
            table.add_row(name, f"{seconds['wall'] / 60:.1f}", f"{seconds['cpu'] / 60:.1f}", note)
    table.add_row("all", "", f"{total / 60:.1f}", "")
    return table


def install_weights(work: Path, target: Path, variant: str = "default") -> None:
    """Copy the finished weights into ``target``.

    Raises:
        UserError: a stage is not done.
    """
    for name in stages_of(variant):
        if not record(work, name).exists():
            raise UserError(f"stage {name} is not done: {record(work, name)} is missing")
    target.mkdir(parents=True, exist_ok=True)
    for name in SHIPPED if variant == "default" else VARIANT_SHIPPED:
        if (work / name).is_dir():
            shutil.copytree(work / name, target / name, dirs_exist_ok=True)
        else:
            shutil.copyfile(work / name, target / name)
    if variant != "default":
        shutil.copyfile(work / VARIANT_FILE, target / VARIANT_FILE)
    for path in target.rglob("*.json"):
        content = json.loads(path.read_text(encoding="utf-8"))
        # where this machine read a part from: nobody else's business
        if isinstance(content, dict) and content.pop("_name_or_path", None) is not None:
            path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
