"""``b2bench pocket build``: the stages in order, what is done already left alone."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.table import Table

from b2bench.errors import RunFailed, UserError
from b2bench.registry import suggestion

# In an order that satisfies every need, the longest chain first: with several jobs, that is also the order in
# which stages are handed out.
STAGES = (
    "autoencoder",
    "base_draft",
    "base_model",
    "decoder",
    "captioner",
    "scorer_heldout",
    "scorer_training",
    "classifier",
    "bert",
    "pipeline",
)
NEEDS = {
    "base_draft": ["autoencoder"],
    "base_model": ["base_draft"],
    "decoder": ["autoencoder"],
    "pipeline": ["decoder", "base_model"],
}
SHIPPED = ("pipeline", "scorer-training", "scorer-heldout", "captioner", "bert", "classifier.safetensors")


def build_weights(
    art: Path | None, work: Path, stages: list[str], install: Path | None, threads: int, jobs: int, console: Console
) -> None:
    """Run the stages that are not done, each from its last checkpoint, ``jobs`` of them at a time.

    Raises:
        UserError: the extra is missing, a stage is unknown or lacks one before it, or the art cannot be had.
        RunFailed: a stage that ran in a process of its own failed.
    """
    try:
        import resvg_py  # noqa: F401
    except ImportError:
        raise UserError("pocket build needs the extra 'pocket': pip install 'b2bench[pocket]'") from None
    from b2bench.pocket.build.art import fetch_art, load_sprites

    for name in stages:
        if name not in STAGES:
            raise UserError(f"unknown stage {name!r}.{suggestion(name, STAGES)} Stages: {', '.join(STAGES)}")
    if art is not None and not art.is_dir():
        raise UserError(f"--art {art} is no folder; leave it out to fetch the art with npm")
    work.mkdir(parents=True, exist_ok=True)
    folder = art or work / "art"
    try:
        if art is None:
            console.print("art: npm pack, four packages", highlight=False)
            fetch_art(folder)
        load_sprites(folder)
    except RuntimeError as error:
        raise UserError(str(error)) from None
    wanted = [name for name in STAGES if name in (stages or STAGES)]
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
            run_stage(name, folder, work, threads, console)
    else:

        def start(name: str) -> subprocess.Popen[bytes]:
            options = ["--stage", name, "--work", str(work), "--art", str(folder), "--threads", str(threads)]
            return subprocess.Popen([sys.executable, "-m", "b2bench", "pocket", "build", "--jobs", "1", *options])

        run_side_by_side(left, jobs, start)
    if len(left) > 1:
        console.print(time_table(work, time.monotonic() - started))
    if install is not None:
        install_weights(work, install)
        console.print(f"weights copied to {install}; measure them with python -m b2bench.pocket.build.verify")


def record(work: Path, name: str) -> Path:
    """Written when a stage has ended, so that one killed while it saved its model is not taken for done."""
    return work / f"{name}.done.json"


def run_stage(name: str, art: Path, work: Path, threads: int, console: Console) -> None:
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

    getattr(training, f"train_{name}")(training.Build(art, work, report))
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
    """What each stage that has ended took, and this command as a whole (``wall`` seconds)."""
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


def install_weights(work: Path, target: Path) -> None:
    """Copy the finished weights into ``target``.

    Raises:
        UserError: a stage is not done.
    """
    for name in STAGES:
        if not record(work, name).exists():
            raise UserError(f"stage {name} is not done: {record(work, name)} is missing")
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
