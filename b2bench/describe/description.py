"""What ``b2bench ls`` and ``b2bench show`` say: everything is read from the classes and the store.

Nothing here is written twice: a summary is the first line of a docstring, a property comes from the
class's ``properties``, a hyperparameter from its field. Runs, prompts and backbones need no torch.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from b2bench.backbones.specs import Backbone, backbones, own_checkpoint
from b2bench.config.presets import Preset, load_preset, preset_names
from b2bench.config.prompt_sets import PromptSet, load_prompts, prompt_set_names
from b2bench.config.settings import Settings
from b2bench.describe.listing import LISTS, Row, docstring, plain, properties_of, utc_now
from b2bench.errors import UserError
from b2bench.hyperparameters import DECLARABLE, declared, hyperparameters, searched_settings
from b2bench.leaderboard.evaluations import comparable
from b2bench.metrics import HELDOUT, equivalents_of
from b2bench.pocket.world import ACTIVITIES, ANIMALS, COLOURS, FOODS, PAIRS, RELATIONS, caption, known_sayings
from b2bench.registry import KINDS, Kind, Registry, load_registries
from b2bench.store.store import Store
from b2bench.text import suggestion
from b2bench.training.health import equal_rewards, findings

PRESET = "preset:"  # some presets go by the name of an algorithm or a backbone
RUN = "run:"  # and runs by any name


def description(name: str, db: Path, plugins: list[Path]) -> Row:
    """All about the algorithm, wrapper, reward, prompt set, backbone, preset or run of that name; plain values.

    ``settings`` (or ``run``) is the harness's own settings, ``run:NAME`` a run whatever else has its name. The key
    ``kind`` says which it is. The store is read only where nothing else has the name.

    Raises:
        UserError: nothing has that name, with the closest; or several runs have.
    """
    registries = load_registries(plugins)
    if name.startswith(RUN):
        store = Store(db)
        return store.together(lambda: _describe_run(store, store.find_run(name.removeprefix(RUN)), registries))
    if name in ("settings", "run"):
        return _describe_settings(registries["algorithm"])
    known = ["settings"]
    for kind, registry in registries.items():
        if name in registry.origins:
            cls = registry.get(name)
            origin = registry.origins[name].where
            found = {"kind": kind, "name": name, "from": origin, "properties": properties_of(cls), **_explained(cls)}
            return found | ({"settings": _own_settings(cls)} if kind == "algorithm" else {}) | _searched(kind, cls)
        known += registry.names()
    if name in (names := prompt_set_names()):
        return _describe_prompts(load_prompts(name))
    if name in (pipelines := backbones()):
        return _describe_backbone(pipelines[name])
    if name.startswith(PRESET) or name.partition(":")[0] in preset_names():
        return _describe_preset(load_preset(name.removeprefix(PRESET)))
    known += [*names, *pipelines, *(f"{PRESET}{preset}" for preset in preset_names())]
    if db.exists():
        store = Store(db)
        own = {text for run in store.runs() for text in (run["run_id"], run["name"]) if text}
        plain = unicodedata.normalize("NFC", name)
        if name and any(unicodedata.normalize("NFC", text).startswith(plain) for text in own):
            return store.together(lambda: _describe_run(store, store.find_run(name), registries))
        known += sorted(own)
    raise UserError(
        f"nothing is called {name!r}.{suggestion(name, known)} Try b2bench ls {'|'.join(LISTS)}"
        f"{'' if db.exists() else f' (database {db} does not exist)'}"
    )


def hidden_run(name: str, db: Path) -> bool:
    """Tell whether a run, too, has the name of something else; no if the store cannot be read at once."""
    with suppress(UserError):
        return db.exists() and bool(Store(db, 0.0).runs(name=name))
    return False


def _explained(cls: type) -> Row:
    return {
        "doc": docstring(cls),
        "hyperparameters": [
            {"name": p.name, "type": p.type_name, "range": p.range, "default": p.default, "doc": p.doc}
            for p in hyperparameters(cls)
        ],
    }


def _describe_settings(algorithms: Registry) -> Row:
    """Return the harness's settings; ``algorithms`` of a setting are those with a default of their own, and which."""
    own: dict[str, dict[str, Any]] = {}
    for name in algorithms.names():
        with suppress(Exception):  # a broken plugin hides no setting; b2bench ls algorithms says what is wrong with it
            own[name] = declared(algorithms.get(name))
    rows = _explained(Settings)["hyperparameters"]
    for row in rows:
        if row["name"] in DECLARABLE:
            row["algorithms"] = {name: found[row["name"]] for name, found in own.items() if row["name"] in found}
    return {"kind": "settings", "name": "run", "doc": docstring(Settings), "hyperparameters": rows}


def _own_settings(cls: type) -> list[Row]:
    """Return the settings of the harness that an algorithm has its own default of, as :func:`_explained` has them."""
    own = declared(cls)
    rows = _explained(Settings)["hyperparameters"]
    return [row | {"default": own[row["name"]]} for row in rows if row["name"] in own]


def _searched(kind: Kind, cls: type) -> Row:
    """Where ``b2bench tune`` looks for what, of an algorithm or a wrapper that has something searched."""
    found = {p.name: p.search for p in hyperparameters(cls) if p.search is not None}
    if kind == "algorithm":
        found = searched_settings(cls, declared(cls).get("lr", Settings.lr)) | found
    return {"searched": [{"name": name, **asdict(search)} for name, search in found.items()]} if found else {}


def _describe_prompts(prompts: PromptSet) -> Row:
    facts = ("version", "template", "source", "licence")
    return {
        "kind": "prompts",
        "name": prompts.name,
        "doc": prompts.description,
        "properties": {
            **{fact: getattr(prompts, fact) for fact in facts if getattr(prompts, fact)},
            "depicted by": ", ".join(prompts.depicted_by) or "not stated",
            "hash": prompts.content_hash,
        },
        "train": list(prompts.train),
        "test": list(prompts.test),
    }


def _describe_preset(preset: Preset) -> Row:
    return {
        "kind": "preset",
        "name": preset.name,
        "doc": preset.about,
        "properties": {
            "seeds": preset.seeds,
            "choices": ", ".join(f"{preset.name.partition(':')[0]}:{choice}" for choice in preset.choices) or None,
            "hash": preset.content_hash,
        },
        "values": [vars(value) for value in preset.values],
        "notes": list(preset.notes),
    }


def _describe_backbone(backbone: Backbone) -> Row:
    properties: Row = {
        "guidance": backbone.guidance,
        "prompts": backbone.prompts,
        "download": backbone.download or "none",
    }
    if backbone.name != "pocket":
        properties["source"] = backbone.source
    found: Row = {"kind": "backbone", "name": backbone.name, "doc": backbone.description, "properties": properties}
    if backbone.name == "pocket":
        found["vocabulary"] = {
            "captions": "a ANIMAL, a ANIMAL ACTIVITY; FOOD, COLOUR FOOD; OBJECT, OBJECT RELATION OBJECT of a pair",
            "animals": list(ANIMALS),
            "activities": list(ACTIVITIES),
            "foods": list(FOODS),
            "colours": list(COLOURS),
            "relations": list(RELATIONS),
            "pairs of objects, as pocket knows them": [
                ", ".join(caption(said) for said in known_sayings(*pair)) for pair in PAIRS
            ],
        }
    return found


def _describe_run(store: Store, run: Row, registries: Mapping[Kind, Registry]) -> Row:
    run_id = run["run_id"]
    rewards = store.sql(
        "SELECT round, count(*) AS n, avg(reward) AS reward FROM queries WHERE run_id = ? GROUP BY round", [run_id]
    )
    by_round = {row["round"]: row for row in rewards}
    equal = equal_rewards(store, run_id)
    stored, evals = store.rounds(run_id), [dict(row) for row in comparable(store.evals(run_id))]
    start = next((row["settings"] or {} for row in evals if row["queries"] == 0), {})
    reused = {"start_reused_from": start["reused_from"]} if "reused_from" in start else {}
    rounds = [
        {
            "round": row["round"],
            "queries": sum(found["n"] for found in rewards if found["round"] <= row["round"]),
            "reward": by_round.get(row["round"], {}).get("reward"),
            "kept": row["kept"],
            "updates": row["optimizer_steps"],
            "equal": equal.get(row["round"]),
            "loss": row["loss"],
            "steps": f"{row['interval_start']}-{row['interval_stop']}",
            "ratio": row["ratio_mean"],
            "clipped": row["clip_fraction"],
            "kl": row["approx_kl"],
            "grad": row["grad_norm"],
            "calls": _sum(row["denoiser_calls_sampling"], row["denoiser_calls_training"]),
            "equivalents": equivalents_of(row),
            "seconds": row["seconds"],
            "metrics": row["metrics"] or {},
        }
        for row in stored
    ]
    config = run["config"] if isinstance(run["config"], Mapping) else {}
    left_out = ("config", "config_hash", "error", "versions")
    facts = {name: value for name, value in run.items() if name not in left_out and value is not None}
    found: Row = plain(
        {
            "kind": "run",
            "name": run["name"] or run_id,
            "error": run["error"],
            "properties": facts | {"queries": sum(row["n"] for row in rewards), "cell": run["config_hash"]} | reused,
            "versions": run["versions"] or {},
            "differences": _differences(config, registries),
            "preset": config.get("preset"),
            "findings": [asdict(one) for one in findings(run, stored, evals, equal, utc_now())],
            "curves": _curves(run["reward"], rounds, evals),
            "evaluations": _before_after(evals),
            "rounds": rounds,
            "config": config,
        }
    )
    return found


def _curves(reward: str, rounds: Sequence[Row], evals: Sequence[Row]) -> dict[str, list[tuple[int, float]]]:
    """Return the reward against queries: of training rollouts, and on test prompts the trained and the
    held-out score.
    """
    found: dict[str, list[tuple[int, float]]] = {
        f"{reward} of training rollouts": [
            (row["queries"], row["reward"]) for row in rounds if row["reward"] is not None
        ]
    }
    for metric, name in ((reward, f"{reward}, test prompts"), (HELDOUT, "held-out scorer, test prompts")):
        points = [
            (row["queries"], row["value"])
            for row in evals
            if row["split"] == "test" and row["metric"] == metric and row["value"] is not None
        ]
        found[name] = sorted(points)
    return {name: points for name, points in found.items() if points}


def _sum(*values: int | None) -> int | None:
    return None if all(value is None for value in values) else sum(value or 0 for value in values)


def _before_after(evals: Iterable[Row]) -> list[Row]:
    """First and last value of each metric of each split; test before train."""
    series: dict[tuple[str, str], list[Row]] = {}
    for row in evals:
        series.setdefault((row["split"], row["metric"]), []).append(row)
    return [
        {
            "split": split,
            "metric": metric,
            "before": rows[0]["value"] if rows[0]["queries"] == 0 else None,  # an evaluated LoRA has no start
            "after": rows[-1]["value"] if rows[-1]["queries"] > 0 else None,
            "queries": rows[-1]["queries"],
            "images": rows[-1]["n"],
        }
        for (split, metric), rows in sorted(series.items(), key=lambda item: (item[0][0] != "test", *item[0]))
    ]


def _differences(config: Mapping[str, Any], registries: Mapping[Kind, Registry]) -> list[Row]:
    """Hyperparameters of a run that are not at their default; default None where it is not known here."""
    backbone = config.get("backbone")
    name = backbone.get("name") if isinstance(backbone, Mapping) else None
    harness = asdict(Settings())
    if found := backbones().get(str(name)):
        harness["guidance"] = found.guidance
    parts: list[tuple[str, Mapping[str, Any], Mapping[str, Any]]] = []
    trained = config.get("algorithm")
    if isinstance(trained, Mapping) and trained.get("name") in registries["algorithm"].origins:
        harness |= declared(registries["algorithm"].get(str(trained["name"])))
    if isinstance(config.get("settings"), Mapping):
        parts.append(("run", config["settings"], harness))
    for kind in KINDS:
        if isinstance(config.get(kind), Mapping):
            values = dict(config[kind])
            owner = str(values.pop("name", kind))
            defaults = _plugin_defaults(registries[kind], owner)
            if defaults.get("checkpoint") == "auto":
                known = backbones().get(str(name))
                defaults["checkpoint"] = own_checkpoint(known, registries[kind].get(owner)) if known else "paper"
            parts.append((owner, values, defaults))
    return [
        {"name": f"{owner}.{key}", "value": value, "default": defaults.get(key)}
        for owner, values, defaults in parts
        for key, value in values.items()
        if key not in defaults or value != defaults[key]
    ]


def _plugin_defaults(registry: Registry, name: str) -> dict[str, Any]:
    if name not in registry.origins:  # a plugin of the run that is not given here
        return {}
    return {parameter.name: parameter.default for parameter in hyperparameters(registry.get(name))}
