"""The folder in which every bad input is put: a store, an interrupted run, and a good file of each sort.

Made once; each input gets a copy. Nothing of it may be changed by a command that is refused.
"""

from __future__ import annotations

import shutil
from datetime import datetime
from pathlib import Path
from typing import Any

import b2bench
from b2bench.config.resolve import resolve
from b2bench.config.run import cell_hash
from b2bench.pocket.paths import POCKET_WEIGHTS
from b2bench.store.parquet import export_results
from b2bench.store.rows import utc_now
from b2bench.store.store import Store
from b2bench.training.listener import Silent
from bad_inputs.made import TINY

EXAMPLE = Path(__file__).parents[3] / "examples" / "awr.py"
FILES = {
    "plain.py": (
        "from b2bench.registry import reward\n\n\n@reward\nclass Plain:\n"
        "    def __call__(self, images, prompts):\n        return images.flatten(1).mean(1)\n"
    ),
    "prompts.txt": "a cat playing chess\na dog washing dishes\n",
    "notes.txt": "not what you think\n",
    "config.toml": "algo = 'ddpo'\nqueries = 10\nseed = 1\n[set]\nlr = 1e-3\nsteps = 4\n",
    "sweep.toml": "algo = ['ddpo', 'dpok']\nseeds = '0-1'\nqueries = 10\n[set]\nlr = 1e-3\n",
    "preset.toml": (
        "about = 'mine'\nseeds = 2\n[options]\nqueries = { value = 10, source = 'a paper' }\n"
        "[set]\nlr = { value = 1e-3, source = 'open', why = 'it works' }\n"
        "[algorithm.ddpo]\nclip_nats = { value = 1.0, source = 'a paper' }\n"
        "[choices.other.set]\nsteps = { value = 4, source = 'a paper' }\n"
    ),
}


class _Stopped(Silent):
    """Interrupts a run after its second round."""

    def round_done(self, round: int, *_: Any) -> None:
        if round == 2:
            raise KeyboardInterrupt


def make_place(folder: Path) -> None:
    """Fill an empty folder."""
    from b2bench.training import runs

    folder.mkdir()
    for name, content in FILES.items():
        (folder / name).write_text(content, encoding="utf-8")
    shutil.copy(EXAMPLE, folder / "awr.py")
    (folder / "folder").mkdir()
    (folder / "loop").symlink_to("loop")
    (folder / "dangling").symlink_to("nowhere")
    store = Store(folder / "b2bench.duckdb")
    statuses = {"vanilla": "done", "b2": "done", "bs": "failed", "bpt": "interrupted"}
    stored = [
        _stored_run(f"{status}{seed}" if wrapper != "b2" else f"other{seed}", wrapper, status, seed)
        for seed in range(2)
        for wrapper, status in statuses.items()
    ]
    store.insert_runs([*stored, _stored_run("guide", "guidance-2", "done", 0, algorithm="baseline")])
    store.record_profile([_profile_row(tau) for tau in (3, 1)])
    for name, stop in (("half", True), ("whole", False)):
        values = dict(setting.split("=") for setting in TINY)
        config = resolve(
            algorithm="ddpo", wrapper="vanilla", reward="clipscore", backbone="pocket", queries=3, seed=0, values=values
        )
        runs.new_run_id = lambda _, name=name: name
        own = store if stop else Store(folder / "whole.duckdb")
        try:
            runs.start(config, own, folder / "runs", None, _Stopped() if stop else Silent())
        except KeyboardInterrupt:
            continue
        shutil.move(folder / "runs" / name / "pytorch_lora_weights.safetensors", folder / "lora.safetensors")
        shutil.rmtree(folder / "runs" / name)
    export_results(store, folder / "results")
    for rest in (*folder.glob("*.lock"), folder / "whole.duckdb"):
        rest.unlink(missing_ok=True)


def _stored_run(
    run_id: str, wrapper: str, status: str, seed: int, algorithm: str = "ddpo"
) -> dict[str, list[dict[str, Any]]]:
    """All rows of a run that nobody made: two rounds of three queries, an evaluation before and one after."""
    config = resolve(
        algorithm="ddpo", wrapper="vanilla", reward="clipscore", backbone="pocket", queries=10, seed=seed, values={}
    )
    content = config.as_dict()
    content["wrapper"] = {"name": wrapper}
    now = utc_now()
    row = {
        "run_id": run_id, "name": run_id, "benchmark_version": b2bench.benchmark_version(), "algorithm": algorithm,
        "wrapper": wrapper, "backbone": "pocket", "reward": "clipscore", "prompts": "template1",
        "prompts_hash": config.prompts.content_hash, "seed": seed, "budget": 10, "config": content,
        "config_hash": cell_hash(content), "versions": {"torch": "2"}, "commit": "abc", "device": "cpu", "threads": 1,
        "started": now, "heartbeat": now, "finished": now, "status": status,
        "error": "out of memory" if status == "failed" else None,
    }  # fmt: skip
    own = {"run_id": run_id}
    rounds: list[dict[str, Any]] = []
    queries: list[dict[str, Any]] = []
    evals: list[dict[str, Any]] = []
    images: list[dict[str, Any]] = []
    for number in range(2):
        queries += [
            {
                **own, "query_index": 3 * number + i, "round": number, "prompt": "a cat", "group_id": 0, "leaf": i,
                "reward": 0.1 * i, "scores": {"clipscore": 0.1 * i}, "advantage": 0.0, "kept": True,
            }
            for i in range(3)
        ]  # fmt: skip
        numbers = {
            "interval_start": 0, "interval_stop": 4, "kept": 3, "optimizer_steps": 2, "loss": 0.1, "ratio_mean": 1.0,
            "approx_kl": 0.0, "clip_fraction": 0.0, "grad_norm": 1.0, "denoiser_calls_sampling": 12,
            "denoiser_calls_training": 12, "seconds": 1.0, "peak_mb": 100.0,
        }  # fmt: skip
        rounds.append({**own, "round": number, "queries": 3 * number + 3, **numbers})
    for queries_done in (0, 10):
        metrics = ("clipscore", "clipscore_heldout", "success", "style_entropy", "pairwise_distance", "kl_pretrained")
        evals += [
            {
                **own, "queries": queries_done, "split": split, "metric": metric, "value": 0.5 + 0.01 * queries_done,
                "n": 3, "settings": {"standard_error": 0.1},
            }
            for split in ("test", "train")
            for metric in metrics
        ]  # fmt: skip
        image = {"queries": queries_done, "prompt": "a cat", "noise_index": 0, "score": 0.5, "path": "samples/0.png"}
        images.append({**own, **image})
    return {"runs": [row], "queries": queries, "rounds": rounds, "evals": evals, "images": images}


def _profile_row(tau: int) -> dict[str, Any]:
    return {
        "profile_id": "profile", "started": datetime(2026, 1, 1), "benchmark_version": b2bench.benchmark_version(),
        "backbone": "pocket", "lora": None, "reward": "clipscore", "prompts": "template1", "prompts_hash": "x",
        "split": "test", "seed": 0, "settings": {"steps": 4}, "tau": tau, "metric": "open_share", "value": 0.5,
        "low": 0.4, "high": 0.6, "branches": 2, "leaves": 2, "queries": 8,
    }  # fmt: skip


def copy_place(place: Path, folder: Path, *, with_pipeline: bool) -> None:
    """A copy, to be damaged."""
    shutil.copytree(place, folder, symlinks=True)
    for name in ("sealed.txt", "sealed"):  # made here: a copy of them could not be read
        path = folder / name
        path.write_bytes(b"x") if path.suffix else path.mkdir()
        path.chmod(0)
    if with_pipeline:
        shutil.copytree(POCKET_WEIGHTS / "pipeline", folder / "pipe")
