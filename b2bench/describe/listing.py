"""What there is, by kind, as rows: ``b2bench ls``."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from b2bench.backbones.specs import Backbone, backbones
from b2bench.config.presets import OPEN, Preset, load_preset, preset_names
from b2bench.config.prompt_sets import load_prompts, prompt_set_names
from b2bench.errors import UserError
from b2bench.files import finite
from b2bench.hyperparameters import declared, hyperparameters
from b2bench.registry import KINDS, Registry, key_of, load_registries
from b2bench.store.store import Store
from b2bench.text import suggestion
from b2bench.training.health import is_stale

Row = dict[str, Any]
LISTS = ("algorithms", "wrappers", "rewards", "prompts", "backbones", "presets", "runs")


def listing(what: str, db: Path, plugins: list[Path]) -> list[Row]:
    """Return one row of plain values for each algorithm, wrapper, reward, prompt set, backbone or run.

    Raises:
        UserError: the list does not exist, a plugin does not import, or ``db`` is not a store.
    """
    if what not in LISTS:
        raise UserError(f"cannot list {what!r}.{suggestion(what, LISTS)} Lists: {', '.join(LISTS)}")
    if what == "runs":
        return _runs(Store(db))
    if what == "prompts":
        return [_prompts_row(name) for name in prompt_set_names()]
    if what == "backbones":
        return [_backbone_row(backbone) for backbone in backbones().values()]
    if what == "presets":
        return [_preset_row(load_preset(name)) for name in preset_names()]
    registry = load_registries(plugins)[next(kind for kind in KINDS if what == f"{kind}s")]
    return [_plugin_row(registry, name) for name in registry.names()]


def _plugin_row(registry: Registry, name: str) -> Row:
    origin = registry.origins[name]
    try:
        cls = registry.get(name)
        settings = {p.name: p.default for p in hyperparameters(cls)}
        row = {"name": name, "summary": _summary(cls), **properties_of(cls)}
        own = {"settings": declared(cls)} if registry.kind == "algorithm" else {}
    except Exception as error:  # one broken plugin hides no other
        return {"name": name, "summary": f"does not load: {_one_line(error)}", "from": origin.where}
    return {**row, "hyperparameters": settings, **own, "from": origin.where}


def properties_of(cls: type) -> dict[str, str]:
    """Return the properties that a plugin names, and what follows from its class.

    Of an algorithm that is its family, the kind of its batches and the reward queries for each image that it trains on,
    K the rollouts of a comparison group; of a wrapper, what it is a control of.
    """
    pairs, finals = getattr(cls, "pairs", False), getattr(cls, "finals", False)
    found = {}
    if hasattr(cls, "pairs"):
        last = getattr(cls, "reward_gradient", False)
        kind = "finals" if finals else "last steps" if last else "transitions"
        found["family"] = getattr(cls, "family", "")
        found["batch"] = f"pairs of {kind}" if pairs else kind
        if getattr(cls, "whole_groups", False):
            found["batch"] += ", by group"
        found["queries an image"] = getattr(cls, "queries", "K / 2" if pairs else "1")
    own = getattr(cls, "properties", {})
    if not isinstance(own, Mapping) or not all(isinstance(text, str) for pair in own.items() for text in pair):
        raise UserError(f"{key_of(cls)}: properties = {own!r} is not a mapping of texts to texts; try correcting it")
    found |= own
    if reference := getattr(cls, "upper_reference", ""):
        found["outside the ranking"] = f"upper reference: {reference}"
    if control := getattr(cls, "control", ""):
        found["control of"] = control
    if getattr(cls, "pairs", False):
        found["selection"] = "ignored: pairs of every group"
    return found


def _prompts_row(name: str) -> Row:
    try:
        prompts = load_prompts(name)
    except UserError as error:
        return {"name": name, "summary": f"does not load: {_one_line(error)}"}
    return {
        "name": name,
        "summary": prompts.description,
        "train": len(prompts.train),
        "test": len(prompts.test),
        "version": prompts.version,
        "hash": prompts.content_hash[:12],
        "depicted by": ", ".join(prompts.depicted_by),
    }


def _backbone_row(backbone: Backbone) -> Row:
    return {
        "name": backbone.name,
        "summary": backbone.description,
        "guidance": backbone.guidance,
        "prompts": backbone.prompts,
        "download": backbone.download or "none",
    }


def _preset_row(preset: Preset) -> Row:
    return {
        "name": preset.name,
        "summary": preset.about,
        "choices": ", ".join(preset.choices) or "-",
        "values": len(preset.values),
        "open": sum(value.source == OPEN for value in preset.values),
    }


def _runs(store: Store) -> list[Row]:
    done = store.sql("SELECT run_id, count(*) AS n FROM queries GROUP BY run_id")
    counts = {row["run_id"]: row["n"] for row in done}
    columns = ("status", "algorithm", "wrapper", "reward", "backbone", "prompts", "seed")
    return [
        {
            "run": run["run_id"],
            "name": run["name"],
            **{column: run[column] for column in columns},
            **({"status": "stale"} if is_stale(run, utc_now()) else {}),
            "queries": counts.get(run["run_id"], 0),
            "budget": run["budget"],
            "started": plain(run["started"]),
            "error": run["error"],
        }
        for run in store.runs()
    ]


def docstring(cls: type) -> str:
    text = inspect.cleandoc(cls.__doc__ or "")
    # A dataclass without a docstring is given its signature as one.
    return "" if text.startswith(f"{cls.__name__}(") else text


def _summary(cls: type) -> str:
    return docstring(cls).partition("\n")[0]


def utc_now() -> datetime:
    return datetime.now(UTC).replace(tzinfo=None)


def plain(value: Any) -> Any:
    """``value`` for JSON: times as text, and null for what is not finite."""

    def time(value: Any) -> Any:
        return value.isoformat(sep=" ", timespec="seconds") if isinstance(value, datetime) else value

    return finite(value, time)


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text if isinstance(error, UserError) else f"{type(error).__name__}: {text}"
