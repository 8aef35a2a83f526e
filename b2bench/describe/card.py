"""A finished run as a folder to publish: its LoRA, a model card as model hubs read it, settings and samples.

No torch is needed, and nothing is written but what the store and the run's folder hold. What only its author can say,
such as the licence, is left to fill in, and marked.
"""

from __future__ import annotations

import json
import math
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from b2bench.errors import UserError
from b2bench.files import finite, replaced, write_whole
from b2bench.layout import PICTURE
from b2bench.leaderboard.evaluations import comparable
from b2bench.leaderboard.written import markdown_text
from b2bench.metrics import is_style_share, label
from b2bench.store.store import Store
from b2bench.training.summary import LORA_FILE, Summary, summary

FILL_IN = "FILL IN"
LIMITS = (
    "One training run describes one seed: another seed may end elsewhere. Compare algorithms by several seeds "
    "(`b2bench report`).",
    "The trained reward is what was optimised. Read it beside the held-out score, success and diversity: a reward that "
    "rises while these fall is over-optimisation.",
    "The numbers are of the prompts, the sampler and the guidance that are named here, and of no others.",
    "The weights change the pretrained model and are of no use without it; its licence and its limits stay.",
)


def write_card(store: Store, text: str, runs: Path, out: Path) -> list[str]:
    """Write the run whose id or name is ``text`` as a folder ``out``; return the files' names.

    ``runs`` is the folder of the run folders. Files of the same names are replaced, others stay.

    Raises:
        UserError: there is no such run, it is not finished, its weights are not there, or ``out`` cannot be written.
    """
    run = store.find_run(text)
    folder = runs / run["run_id"]
    if run["status"] != "done":
        raise UserError(
            f"run {run['run_id']} is {run['status']}, and a card is of a run that is done; try b2bench run --resume "
            f"{run['run_id']}"
        )
    if not (folder / LORA_FILE).is_file():
        raise UserError(f"{folder} has no {LORA_FILE}, which a run leaves; try --runs with the folder that holds it")
    seconds = (run["finished"] - run["started"]).total_seconds()
    found = summary(store, run["run_id"], folder, queries=run["budget"], made=run["budget"], seconds=seconds)
    rows = [row for row in comparable(store.evals([run["run_id"]])) if row["split"] == "test"]
    samples = _samples(store, run["run_id"], folder)
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name in (LORA_FILE, *([PICTURE] if found.picture else []), *samples):
            (out / name).parent.mkdir(exist_ok=True)
            with replaced(out / name) as temporary:
                shutil.copyfile(folder / name, temporary)
        config = json.dumps(finite(_portable(run["config"] or {})), indent=2) + "\n"
        write_whole(out / "config.json", config.encode())
        card = f"---\n{front_matter(run, rows)}---\n\n{body(run, found, rows, bool(samples))}"
        write_whole(out / "README.md", card.encode())
    except OSError as error:
        raise UserError(f"--out {out} cannot be written: {error.strerror}") from None
    return ["README.md", LORA_FILE, "config.json", *([PICTURE] if found.picture else []), *samples]


def _samples(store: Store, run_id: str, folder: Path) -> list[str]:
    """Return the sample images of the last evaluation that are still there."""
    query = "SELECT queries, path FROM images WHERE run_id = ? AND path IS NOT NULL ORDER BY length(path), path"
    rows = store.sql(query, [run_id])
    last = max((row["queries"] for row in rows), default=0)
    paths = [row["path"] for row in rows if row["queries"] == last]
    inside = [path for path in paths if (folder / path).resolve().is_relative_to(folder.resolve())]
    return [path for path in inside if (folder / path).is_file()]


def _portable(config: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out where the files of one machine lay; of a path its last part stays."""
    return {name: _nameless(value) for name, value in config.items() if name != "found"}


def _nameless(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _nameless(part) for name, part in value.items()}
    if isinstance(value, list):
        return [_nameless(part) for part in value]
    if isinstance(value, str) and any(kind(value).is_absolute() for kind in (PurePosixPath, PureWindowsPath)):
        return PureWindowsPath(value).name
    return value


def front_matter(run: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the YAML head of the card: what a hub lists the model by, and its results as a model-index."""
    from huggingface_hub import EvalResult, ModelCardData

    last = max((row["queries"] for row in rows), default=0)
    results = [
        EvalResult(
            task_type="text-to-image",
            task_name="Text-to-image generation",
            dataset_type=f"b2bench/{run['prompts']}",
            dataset_name=f"{run['prompts']}, test prompts",
            dataset_revision=run["prompts_hash"],
            dataset_split="test",
            metric_type=row["metric"],
            metric_name=label(row["metric"]),
            metric_value=row["value"],
            metric_config=f"{row['n']} images, benchmark version {run['benchmark_version']}",
        )
        for row in rows
        if row["queries"] == last and _is_number(row["value"]) and not is_style_share(row["metric"])
    ]
    data = ModelCardData(
        base_model=_hub_id(run),
        library_name="diffusers",
        pipeline_tag="text-to-image",
        tags=["b2bench", "lora", "reinforcement-learning", run["algorithm"], run["wrapper"]],
        license="other",
        license_name=FILL_IN,
        license_link=FILL_IN,
        model_name=run["name"] or run["run_id"],
        eval_results=results or None,
    )
    return f"{data.to_yaml()}\n"


def _hub_id(run: Mapping[str, Any]) -> str | None:
    """Return the base model's id on a hub; None of one that is on no hub, as pocket is."""
    backbone = (run["config"] or {}).get("backbone") or {}
    source = str(backbone.get("source", run["backbone"]))
    return source if re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", source) else None


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def body(run: Mapping[str, Any], found: Summary, rows: Sequence[Mapping[str, Any]], samples: bool) -> str:
    """Return the text of the card, as Markdown. Whatever the store holds arrives as text."""
    config = _portable(run["config"] or {})
    name, cell = markdown_text(str(run["name"] or run["run_id"])), f"{run['algorithm']} under {run['wrapper']}"
    settings = {
        "backbone": run["backbone"],
        "algorithm": run["algorithm"],
        "wrapper": run["wrapper"],
        "trained reward": run["reward"],
        "prompts": f"{run['prompts']} ({str(run['prompts_hash'] or '')[:12]})",
        "reward queries": run["budget"],
        "training seed": run["seed"],
        **{f"{part}.{key}": value for part in ("settings", "algorithm", "wrapper", "reward")
           for key, value in (config.get(part) or {}).items() if key not in ("name", "code")},
        "benchmark version": run["benchmark_version"],
        "commit": run["commit"],
        "device": run["device"],
        **{f"version of {key}": value for key, value in (run["versions"] or {}).items()},
    }  # fmt: skip
    images = {row["metric"]: row["n"] for row in rows}
    trained = {found.reward: f"{label(found.reward)} (trained)"}
    numbers = [
        (trained.get(metric, label(metric)), before, found.after[metric], images[metric])
        for metric, before in found.before.items()
        if metric in found.after and not is_style_share(metric)
    ]
    parts = [
        f"# {name}",
        f"A LoRA for {markdown_text(run['backbone'])}, trained by {markdown_text(cell)} for {run['budget']:,} queries "
        f"of the reward {markdown_text(found.reward)}, with b2bench.",
        *([f"![the same prompts and noise, before and after]({PICTURE})"] if found.picture else []),
        "## Numbers",
        f"{markdown_text(found.verdict)}. Test prompts, the same noise before and after.",
        _table(("metric", "pretrained", "after", "change", "images"), [
            (what, f"{before:.4f}", f"{after:.4f}", f"{after - before:+.4f}", str(n))
            for what, before, after, n in numbers if math.isfinite(before) and math.isfinite(after)
        ]),
        *(f"- Conspicuous: {markdown_text(finding)}." for finding in found.findings),
        "## Limits",
        "\n".join(f"- {limit}" for limit in LIMITS),
        "## How to load it",
        "```python\nfrom diffusers import StableDiffusionPipeline\n\n"
        f'pipeline = StableDiffusionPipeline.from_pretrained("{_hub_id(run) or "FOLDER OF THE BASE MODEL"}")\n'
        'pipeline.load_lora_weights(".")\n```',
        "## Settings",
        _table(("setting", "value"), [(key, "-" if value is None else str(value)) for key, value in settings.items()]),
        "`config.json` holds all of them, as b2bench resolved them." + (" `samples/` are test images." * samples),
        "## Licence, data and contact",
        _table(("what", "to fill in"), [
            ("licence of these weights", FILL_IN), ("licence of the base model", FILL_IN),
            ("rights to the training prompts", FILL_IN), ("intended use", FILL_IN), ("contact", FILL_IN),
        ]),
    ]  # fmt: skip
    return "\n\n".join(parts) + "\n"


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    return "\n".join(lines + ["| " + " | ".join(markdown_text(text) for text in row) + " |" for row in rows])
