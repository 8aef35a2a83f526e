"""The images of a preference test: what runs kept of their evaluations, or drawn again from their weights."""

from __future__ import annotations

import base64
import io
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from b2bench.errors import UserError
from b2bench.leaderboard.grids import sample_file
from b2bench.store.store import Store
from b2bench.studies.poll import Poll, PollCell, Shot, eval_seed

Row = dict[str, Any]
LORA_FILE = "pytorch_lora_weights.safetensors"
LARGEST_PNG = 128  # pixels; above it a photograph is a JPEG of a fifth of the size


def spread(items: Sequence[Any], wanted: int) -> list[Any]:
    """``wanted`` of the items, evenly over all."""
    count = min(wanted, len(items))
    return [items[i * len(items) // count] for i in range(count)]


# -- kept -------------------------------------------------------------------------------------------


class Kept:
    """Sample images in run folders: of each run's last evaluation, and of its first for the pretrained model."""

    def __init__(self, store: Store, cells: Sequence[PollCell], runs: Path) -> None:
        self.runs, self.cells = runs, cells
        wanted = {run["run_id"] for cell in cells for run in cell.runs}
        rows: dict[str, list[Row]] = defaultdict(list)
        for row in store.samples():
            if row["run_id"] in wanted:
                rows[row["run_id"]].append(row)
        self.files: dict[Shot, tuple[str, str]] = {}
        for cell in cells:
            for run in [run["run_id"] for run in cell.runs] or sorted(wanted):
                last = max((row["queries"] for row in rows[run]), default=0)
                for row in rows[run]:
                    if row["queries"] == (last if cell.runs else 0) and (last or not cell.runs):
                        shot = Shot(cell.name, run if cell.runs else "", row["prompt"], row["noise_index"])
                        self.files.setdefault(shot, (run, row["path"]))

    def shown(self, number: int, noises: int) -> list[tuple[str, int]]:
        """(prompt, noise) of which every run of every cell has an image.

        Raises:
            UserError: there is none.
        """
        sets = [
            {(shot.prompt, shot.noise) for shot in self.files if (shot.cell, shot.run_id) == (cell.name, run)}
            for cell in self.cells
            for run in [run["run_id"] for run in cell.runs] or [""]
        ]
        ordered = dict.fromkeys((shot.prompt, shot.noise) for shot in self.files)
        shared = [each for each in ordered if all(each in found for found in sets)]
        if not shared:
            raise UserError("the runs kept no sample images of the same prompt and noise; try without --kept")
        prompts = spread(list(dict.fromkeys(prompt for prompt, _ in shared)), number)
        return [each for prompt in prompts for each in [each for each in shared if each[0] == prompt][:noises]]

    def read(self, poll: Poll) -> dict[str, Image.Image]:
        """Images of the test by their id.

        Raises:
            UserError: a file is not there, or not an image.
        """
        found = {}
        for image, shot in poll.images.items():
            run, name = self.files[shot]
            content = sample_file(self.runs, run, name)
            try:
                found[image] = Image.open(io.BytesIO(content)).convert("RGB")
            except (OSError, ValueError, Image.DecompressionBombError):
                raise UserError(
                    f"the sample image {name} of run {run} is not in {self.runs}; try --runs with the folder of the "
                    "run folders, or without --kept"
                ) from None
        return found


# -- drawn ------------------------------------------------------------------------------------------


def check_weights(cells: Sequence[PollCell], runs: Path) -> None:
    """See that every run has its weights, before anything is loaded.

    Raises:
        UserError: one has not.
    """
    for run in (run for cell in cells for run in cell.runs):
        if not (file := runs / run["run_id"] / LORA_FILE).is_file():
            raise UserError(f"run {run['run_id']} has no weights {file}; try --runs with the folder of the run folders")


def to_draw(cells: Sequence[PollCell], number: int, noises: int) -> list[tuple[str, int]]:
    """(prompt, noise) of test prompts, spread evenly over all of them.

    Raises:
        UserError: the prompts cannot be read again.
    """
    prompts = spread(_config(next(run for cell in cells for run in cell.runs)).prompts.test, number)
    return [(prompt, noise) for prompt in prompts for noise in range(noises)]


def draw(poll: Poll, runs: Path, progress: Callable[[str], None]) -> dict[str, Image.Image]:
    """Draw the images of a test as an evaluation does: the same prompt and noise give the same image.

    Raises:
        UserError: a backbone or weights cannot be used.
    """
    from b2bench.engine import accelerator
    from b2bench.evaluation.evaluate import eval_noise
    from b2bench.rollout import sample
    from b2bench.training.setup import load_policy

    rows = {run["run_id"]: run for cell in poll.cells for run in cell.runs}
    wanted: dict[str, list[tuple[str, Shot]]] = defaultdict(list)
    for image, shot in poll.images.items():
        wanted[shot.run_id].append((image, shot))
    found: dict[str, Image.Image] = {}
    device = accelerator().device
    for run_id, members in wanted.items():
        run = rows[run_id] if run_id else next(iter(rows.values()))
        config = _config(run)
        lora = runs / run_id / LORA_FILE if run_id else None
        policy = load_policy(config, device, progress, lora=lora)
        place = {prompt: i for i, prompt in enumerate(config.prompts.test)}
        pairs = [(place[shot.prompt], shot.noise) for _, shot in members]
        progress(f"drawing {len(pairs)} images of {run_id or 'the pretrained model'}")
        noise = eval_noise(policy, eval_seed(run), "test", pairs)
        images = sample(policy, [shot.prompt for _, shot in members], noise, config.settings.micro_batch)
        pixels = (images * 255).round().clamp(0, 255).byte().permute(0, 2, 3, 1).cpu().numpy()
        found |= {image: Image.fromarray(each) for (image, _), each in zip(members, pixels, strict=True)}
    return found


def _config(run: Row) -> Any:
    from b2bench.config.resolve import from_dict

    return from_dict(run["config"])


# -- written ----------------------------------------------------------------------------------------


def data_urls(images: Mapping[str, Image.Image], largest: int) -> dict[str, str]:
    """Each image as a data URL, with its pixels alone: what a file says beside them may name its run."""
    return {image: _data_url(picture, largest) for image, picture in images.items()}


def _data_url(picture: Image.Image, largest: int) -> str:
    bare = Image.frombytes("RGB", picture.size, picture.convert("RGB").tobytes())
    bare.thumbnail((largest, largest))
    small = max(bare.size) <= LARGEST_PNG
    out = io.BytesIO()
    if small:
        bare.save(out, format="PNG", optimize=True)
    else:
        bare.save(out, format="JPEG", quality=95)
    return f"data:image/{'png' if small else 'jpeg'};base64,{base64.b64encode(out.getvalue()).decode()}"
