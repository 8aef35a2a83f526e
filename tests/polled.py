"""A store of finished runs with sample images that are drawn by hand, for preference tests."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw
from store_rows import run_row

from b2bench.store.store import Store

PROMPTS = [f"a {animal} {doing}" for animal in ("cat", "dog", "fox", "bee") for doing in ("riding a bike", "<b>& more")]
COLOURS = {"pretrained": "#b0b0b0", "vanilla": "#c86428", "b2": "#2864c8"}


def picture(colour: str, place: int) -> Image.Image:
    """64x64 pixels that are another for every colour and place."""
    found = Image.new("RGB", (64, 64), "#f0f0e8")
    pen = ImageDraw.Draw(found)
    pen.ellipse((10 + place, 12, 44 + place, 46), fill=colour, outline="black")
    pen.rectangle((4, 50, 60, 50 + place), fill="#508040")
    return found


def make_runs(
    folder: Path,
    wrappers: tuple[str, ...] = ("vanilla", "b2"),
    seeds: tuple[int, ...] = (0, 1),
    *,
    eval_seed: int = 0,
    suffix: str = "",
    **more: Any,
) -> Store:
    """Finished runs in ``folder / "b2bench.duckdb"``, with their folders in ``folder / "runs"``."""
    store, runs = Store(folder / "b2bench.duckdb"), []
    for wrapper in wrappers:
        for seed in seeds:
            run_id = f"{more.get('algorithm', 'ddpo')}-{wrapper}-s{seed}{suffix}"
            row = {"wrapper": wrapper, "seed": seed, "config_hash": wrapper, "status": "done", "name": run_id}
            times = dict.fromkeys(("started", "finished", "heartbeat"), datetime(2026, 1, 1))
            row = run_row(run_id, **row, **times, config={"settings": {"eval_seed": eval_seed}}) | more
            evals, images = [], []
            samples = folder / "runs" / run_id / "samples"
            samples.mkdir(parents=True)
            for queries, colour in ((0, COLOURS["pretrained"]), (1000, COLOURS.get(wrapper, "#309030"))):
                at = {"run_id": run_id, "queries": queries}
                for place, prompt in enumerate(PROMPTS):
                    picture(colour, place).save(samples / f"{queries}-{place}.png")
                    path = f"samples/{queries}-{place}.png"
                    images.append({**at, "prompt": prompt, "noise_index": 0, "score": 0.5, "path": path})
                evals.append({**at, "split": "test", "metric": "clipscore", "value": 0.5 + queries / 1e4, "n": 8})
            runs.append({"runs": [row], "evals": evals, "images": images})
    store.insert_runs(runs)
    return store
