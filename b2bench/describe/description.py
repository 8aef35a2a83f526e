"""What ``b2bench ls`` and ``b2bench show`` say: everything is read from the classes and the store.

Nothing here is written twice: a summary is the first line of a docstring, a property comes from the
class's ``properties``, a hyperparameter from its field. Runs, prompts and backbones need no torch.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console, ConsoleOptions, Group, RenderableType
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from b2bench.backbones.specs import Backbone, backbones
from b2bench.config.presets import OPEN, Preset, load_preset, preset_names
from b2bench.config.prompt_sets import PromptSet, load_prompts, prompt_set_names
from b2bench.config.resolve import Settings, own_checkpoint
from b2bench.errors import UserError
from b2bench.hyperparameters import hyperparameters
from b2bench.leaderboard.evaluations import comparable
from b2bench.pocket.world import ACTIVITIES, ANIMALS, COLOURS, FOODS, PAIRS, RELATIONS
from b2bench.registry import KINDS, Kind, Registry, load_registries
from b2bench.store.store import Store
from b2bench.terminal.chart import chart
from b2bench.text import suggestion
from b2bench.training.health import findings, is_stale

Row = dict[str, Any]

LISTS = ("algorithms", "wrappers", "rewards", "prompts", "backbones", "presets", "runs")
PRESET = "preset:"  # some presets go by the name of an algorithm or a backbone
SHOWN_PROMPTS = 10


# -- lists -----------------------------------------------------------------------------------------


def listing(what: str, db: Path, plugins: list[Path]) -> list[Row]:
    """One row of plain values for each algorithm, wrapper, reward, prompt set, backbone or run.

    Raises:
        UserError: there is no such list, a plugin does not import, or ``db`` is no store.
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
    except Exception as error:  # one broken plugin hides no other
        return {"name": name, "summary": f"does not load: {_one_line(error)}", "from": origin.where}
    settings = {p.name: p.default for p in hyperparameters(cls)}
    row = {"name": name, "summary": _summary(cls), **getattr(cls, "properties", {})}
    return {**row, "hyperparameters": settings, "from": origin.where}


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
            **({"status": "stale"} if is_stale(run, _now()) else {}),
            "queries": counts.get(run["run_id"], 0),
            "budget": run["budget"],
            "started": _plain(run["started"]),
            "error": run["error"],
        }
        for run in store.runs()
    ]


def listing_table(what: str, rows: Sequence[Row]) -> RenderableType:
    """The rows of :func:`listing` for a terminal."""
    if not rows:
        return Text(f"no {what} yet; b2bench run makes one" if what == "runs" else f"no {what}")
    if what == "runs":
        return _runs_table(rows)
    plugins = what in ("algorithms", "wrappers", "rewards")
    left_out = {"hyperparameters"} | ({"summary"} if plugins else set())
    if all(row.get("from") == "built in" for row in rows):
        left_out.add("from")
    table = _rows_table([{key: value for key, value in row.items() if key not in left_out} for row in rows])
    if not plugins:
        return table
    # A summary is a sentence or an equation: too long for a column beside the properties.
    return Group(table, *(Text(f"{row['name']}  ", style="bold").append(row["summary"], "not bold") for row in rows))


def _runs_table(rows: Sequence[Row]) -> RenderableType:
    """Runs, with what is the same in all of them below the table instead of in it; baselines in a line below it."""
    baselines = [row for row in rows if row["algorithm"] == "baseline"]
    if baselines:
        names = ", ".join(dict.fromkeys(str(row["wrapper"]) for row in baselines))
        seeds = sorted({row["seed"] for row in baselines})
        count = f"{len(baselines)} baseline{'s' * (len(baselines) > 1)}, not trained: {names}"
        which = f"seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}"
        text = Text(f"{count}; {which}; --json lists each", "dim")
        trained = [row for row in rows if row["algorithm"] != "baseline"]
        return Group(_runs_table(trained), text) if trained else text
    alike = [key for key in ("reward", "backbone", "prompts") if len({row[key] for row in rows}) == 1]
    left_out = {"queries", "budget", "started", "error", *alike}
    if all(row["name"] in (row["run"], None) for row in rows):
        left_out.add("name")
    shown = [
        {
            **{key: value for key, value in row.items() if key not in left_out},
            "queries": f"{row['queries']}/{row['budget'] or 0}",
            "started": str(row["started"])[:16],
        }
        for row in rows
    ]
    # what an id says of its own is the first to go where the terminal is narrow: an id cut into lines cannot be copied
    told = all(row["run"].startswith(f"{row['algorithm']}-{row['wrapper']}-s{row['seed']}-") for row in rows)
    table = _Fitted(
        [
            _rows_table([{key: row[key] for key in row if key not in without} for row in shown], ("seed", "queries"))
            for without in ((), ("started",), ("started", "algorithm", "wrapper", "seed"))[: 3 if told else 1]
        ]
    )
    return Group(table, Text(f"all: {', '.join(f'{key} {rows[0][key]}' for key in alike)}", "dim")) if alike else table


# -- one thing -------------------------------------------------------------------------------------


def description(name: str, db: Path, plugins: list[Path]) -> Row:
    """All about the algorithm, wrapper, reward, prompt set, backbone, preset or run of that name; plain values.

    ``settings`` (or ``run``) is the harness's own settings. The key ``kind`` says which it is. The store
    is read only where nothing else has the name.

    Raises:
        UserError: nothing has that name, with the closest; or several runs have.
    """
    if name in ("settings", "run"):
        return {"kind": "settings", "name": "run", **_explained(Settings)}
    known = ["settings"]
    registries = load_registries(plugins)
    for kind, registry in registries.items():
        if name in registry.origins:
            cls = registry.get(name)
            properties = dict(getattr(cls, "properties", {}))
            origin = registry.origins[name].where
            return {"kind": kind, "name": name, "from": origin, "properties": properties, **_explained(cls)}
        known += registry.names()
    if name in (names := prompt_set_names()):
        return _describe_prompts(load_prompts(name))
    if name in (found := backbones()):
        return _describe_backbone(found[name])
    if name.startswith(PRESET) or name.partition(":")[0] in preset_names():
        return _describe_preset(load_preset(name.removeprefix(PRESET)))
    known += [*names, *found, *(f"{PRESET}{preset}" for preset in preset_names())]
    if db.exists():
        store = Store(db)
        own = {text for run in store.runs() for text in (run["run_id"], run["name"]) if text}
        if name and any(text.startswith(name) for text in own):
            return _describe_run(store, store.find_run(name), registries)
        known += sorted(own)
    raise UserError(
        f"nothing is called {name!r}.{suggestion(name, known)} b2bench ls {'|'.join(LISTS)} lists what there is"
        f"{'' if db.exists() else f' (there is no database {db})'}"
    )


def _docstring(cls: type) -> str:
    text = inspect.cleandoc(cls.__doc__ or "")
    # A dataclass without a docstring is given its signature as one.
    return "" if text.startswith(f"{cls.__name__}(") else text


def _summary(cls: type) -> str:
    return _docstring(cls).partition("\n")[0]


def _explained(cls: type) -> Row:
    return {
        "doc": _docstring(cls),
        "hyperparameters": [
            {"name": p.name, "type": p.type_name, "default": p.default, "doc": p.doc} for p in hyperparameters(cls)
        ],
    }


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
            "pairs of objects, either first": [f"{first} and {second}" for first, second in PAIRS],
        }
    return found


def _describe_run(store: Store, run: Row, registries: Mapping[Kind, Registry]) -> Row:
    run_id = run["run_id"]
    rewards = store.sql(
        "SELECT round, count(*) AS n, avg(reward) AS reward FROM queries WHERE run_id = ? GROUP BY round", [run_id]
    )
    by_round = {row["round"]: row for row in rewards}
    equal = {row["round"]: row["equal"] for row in store.sql(EQUAL_REWARDS, [run_id])}
    stored, evals = store.rounds(run_id), [dict(row) for row in comparable(store.evals(run_id))]
    start = next((row["settings"] or {} for row in evals if row["queries"] == 0), {})
    reused = {"start_reused_from": start["reused_from"]} if "reused_from" in start else {}
    rounds = [
        {
            "round": row["round"],
            "queries": sum(found["n"] for found in rewards if found["round"] <= row["round"]),
            "reward": by_round.get(row["round"], {}).get("reward"),
            "kept": row["kept"],
            "equal": equal.get(row["round"]),
            "loss": row["loss"],
            "steps": f"{row['interval_start']}-{row['interval_stop']}",
            "ratio": row["ratio_mean"],
            "clipped": row["clip_fraction"],
            "kl": row["approx_kl"],
            "grad": row["grad_norm"],
            "calls": _sum(row["denoiser_calls_sampling"], row["denoiser_calls_training"]),
            "seconds": row["seconds"],
        }
        for row in stored
    ]
    config = run["config"] if isinstance(run["config"], Mapping) else {}
    left_out = ("config", "config_hash", "error", "versions")
    facts = {name: value for name, value in run.items() if name not in left_out and value is not None}
    found: Row = _plain(
        {
            "kind": "run",
            "name": run["name"] or run_id,
            "error": run["error"],
            "properties": facts | {"queries": sum(row["n"] for row in rewards), "cell": run["config_hash"]} | reused,
            "versions": run["versions"] or {},
            "differences": _differences(config, registries),
            "preset": config.get("preset"),
            "findings": [asdict(one) for one in findings(run, stored, evals, equal, _now())],
            "curves": _curves(run["reward"], rounds, evals),
            "evaluations": _before_after(evals),
            "rounds": rounds,
            "config": config,
        }
    )
    return found


EQUAL_REWARDS = """
SELECT round, avg(CASE WHEN most = least THEN 1 ELSE 0 END) AS equal FROM (
    SELECT round, group_id, max(reward) AS most, min(reward) AS least
    FROM queries WHERE run_id = ? GROUP BY round, group_id HAVING count(*) > 1
) GROUP BY round
"""


def _now() -> datetime:
    return datetime.now(UTC).replace(tzinfo=None)


def _curves(reward: str, rounds: Sequence[Row], evals: Sequence[Row]) -> dict[str, list[tuple[int, float]]]:
    """The reward against queries: of training rollouts, and on test prompts the trained and the held-out score."""
    found: dict[str, list[tuple[int, float]]] = {
        f"{reward} of training rollouts": [
            (row["queries"], row["reward"]) for row in rounds if row["reward"] is not None
        ]
    }
    for metric, name in ((reward, f"{reward}, test prompts"), ("clipscore_heldout", "held-out scorer, test prompts")):
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
            "before": rows[0]["value"],
            "after": rows[-1]["value"] if len(rows) > 1 else None,
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
    if name in backbones():
        harness["guidance"] = backbones()[name].guidance
    parts: list[tuple[str, Mapping[str, Any], Mapping[str, Any]]] = []
    if isinstance(config.get("settings"), Mapping):
        parts.append(("run", config["settings"], harness))
    for kind in KINDS:
        if isinstance(config.get(kind), Mapping):
            values = dict(config[kind])
            owner = str(values.pop("name", kind))
            defaults = _plugin_defaults(registries[kind], owner)
            if defaults.get("checkpoint") == "auto":
                defaults["checkpoint"] = own_checkpoint(backbones()[name], owner) if name in backbones() else "paper"
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


def _plain(value: Any) -> Any:
    """``value`` for JSON: times as text, and null for what is not finite."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, datetime):
        return value.isoformat(sep=" ", timespec="seconds")
    return None if isinstance(value, float) and not math.isfinite(value) else value


# -- a terminal ------------------------------------------------------------------------------------


def render_description(found: Mapping[str, Any], console: Console) -> None:
    """Print what :func:`description` found. Text of users and plugins is never read as markup."""
    head = Text(str(found["name"]), style="bold")
    console.print(head.append(f"  {found['kind']}", style="dim"))
    if found.get("error"):
        console.print(Text(f"error: {found['error']}", style="red"))
    if found.get("doc"):
        console.print(Text(f"\n{_reflowed(found['doc'])}"))
    if found.get("properties"):
        console.print()
        console.print(_facts(found["properties"]))
    if "hyperparameters" in found:
        _section("Hyperparameters", console)
        if found["hyperparameters"]:
            console.print(_hyperparameter_table(found["hyperparameters"]))
            example = found["hyperparameters"][0]
            console.print(Text(f"set one with --set {example['name']}={_value(example['default'])}", style="dim"))
        else:
            console.print(Text("none", style="dim"))
    for split in ("train", "test"):
        if split in found:
            _prompt_list(split, found[split], console)
    for name, words in found.get("vocabulary", {}).items():
        _section(name.capitalize(), console)
        console.print(Text(words if isinstance(words, str) else ", ".join(words)))
    if found["kind"] == "preset":
        _render_preset(found, console)
    if found["kind"] == "run":
        _render_run(found, console)


def _render_preset(found: Mapping[str, Any], console: Console) -> None:
    _section("Values", console)
    table = _table(("section", "name", "value", "source"), right=("value",))
    for row in found["values"]:
        source = f"{row['source']}: {row['why']}" if row["why"] else row["source"]
        table.add_row(*map(_text, (row["section"], row["name"], row["value"], source)))
    console.print(table)
    if found["notes"]:
        _section("Notes", console)
    for note in found["notes"]:
        console.print(Text(f"- {note}"))
    console.print(Text(f"take it with b2bench run --preset {found['name']}", style="dim"))


def _render_run(found: Mapping[str, Any], console: Console) -> None:
    if found["versions"]:
        _section("Versions", console)
        console.print(Text(", ".join(f"{name} {version}" for name, version in found["versions"].items())))
    _section("Differs from the defaults in", console)
    if found["differences"]:
        table = _table(("name", "value", "default"), right=("value", "default"))
        for row in found["differences"]:
            table.add_row(*map(_text, row.values()))
        console.print(table)
    else:
        console.print(Text("nothing", style="dim"))
    if found["preset"]:
        _section(f"Differs from preset {found['preset']['name']} in", console)
        if found["preset"]["deviations"]:
            console.print(_rows_table(found["preset"]["deviations"], right=("preset", "value")))
        else:
            console.print(Text("nothing", style="dim"))
    _section("How it went", console)
    for finding in found["findings"]:
        style = "bold red" if finding["level"] == "failed" else "yellow"
        console.print(Text.assemble((finding["level"], style), f"  {finding['text']}"))
    if not found["findings"]:
        console.print(Text("nothing conspicuous by the rules of docs/health.md", "dim"))
    if found["curves"]:
        console.print()
        console.print(chart(found["curves"], width=max(24, min(72, console.width - 12)), unit="reward queries"))
    _section("Evaluations", console)
    if found["evaluations"]:
        rows = [{**row, "change": _change(row)} for row in found["evaluations"]]
        names = ("split", "metric", "before", "after", "change", "queries", "images")
        console.print(_rows_table([{name: row[name] for name in names} for row in rows], right=names[2:]))
    else:
        console.print(Text("none yet", style="dim"))
    _section("Rounds", console)
    if found["rounds"]:
        left_out = ("loss",) if console.width >= 100 else ("loss", "kl", "calls")
        rounds = [{name: value for name, value in row.items() if name not in left_out} for row in found["rounds"]]
        console.print(_rows_table(rounds, right=tuple(rounds[0])))
        note = (
            "equal: share of prompt draws whose rewards are all equal; steps: trained interval, first and after last; "
            "ratio, clipped, kl, grad: means of the round"
        )
        console.print(Text(note, style="dim"))
    else:
        console.print(Text("none yet", style="dim"))


def _reflowed(doc: str) -> str:
    """Paragraphs on one line each, for a terminal of any width; tables and lists stay as they are."""
    paragraphs = doc.split("\n\n")
    laid_out = [any(line[:1] in (" ", "|", "-") for line in part.splitlines()) for part in paragraphs]
    return "\n\n".join(
        part if keep else " ".join(part.split()) for part, keep in zip(paragraphs, laid_out, strict=True)
    )


def _change(row: Mapping[str, Any]) -> float | None:
    return None if row["before"] is None or row["after"] is None else row["after"] - row["before"]


def _section(title: str, console: Console) -> None:
    console.print()
    console.print(Text(title, style="bold"))


def _prompt_list(split: str, prompts: Sequence[str], console: Console) -> None:
    _section(f"{split.capitalize()}: {len(prompts)} prompts", console)
    for prompt in prompts[:SHOWN_PROMPTS]:
        console.print(Text(f"  {prompt}"))
    if len(prompts) > SHOWN_PROMPTS:
        console.print(Text(f"  and {len(prompts) - SHOWN_PROMPTS} more; --json prints all", style="dim"))


def _hyperparameter_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    table = _table(("name", "type", "default", "what it is"), right=("default",))
    for row in rows:
        table.add_row(*map(_text, (row["name"], row["type"], row["default"], row["doc"])))
    return table


def _facts(facts: Mapping[str, Any]) -> Table:
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in facts.items():
        cell = _text(value)
        if name == "status":
            cell.stylize(_status_style(str(value)))
        table.add_row(Text(str(name)), cell)
    return table


class _Fitted:
    """The first of some tables that the terminal is wide enough for, or the last."""

    def __init__(self, tables: Sequence[Table]) -> None:
        self.tables = tables

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Table]:
        unbounded = options.update(max_width=10_000)
        widths = [Measurement.get(console, unbounded, table).maximum for table in self.tables]
        fitting = [table for table, width in zip(self.tables, widths, strict=True) if width <= options.max_width]
        yield fitting[0] if fitting else self.tables[-1]


def _rows_table(rows: Sequence[Mapping[str, Any]], right: Sequence[str] = ()) -> Table:
    """Rows under all the names that any of them has; numbers to four digits."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    numbers = [name for name in names if all(isinstance(row.get(name, 0), int | float) for row in rows)]
    table = _table(names, (*right, *numbers))
    for row in rows:
        cells = [_text(row.get(name, ""), digits=4) for name in names]
        if "status" in row:
            cells[names.index("status")].stylize(_status_style(row["status"]))
        table.add_row(*cells)
    return table


def _table(names: Sequence[str], right: Sequence[str] = ()) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for name in names:
        justify: Any = "right" if name in right else "left"
        table.add_column(Text(name), justify=justify, no_wrap=name in ("name", "type"), overflow="fold")
    return table


def _text(value: Any, digits: int = 6) -> Text:
    """A cell; Text, so that brackets in it are not markup."""
    return Text(_value(value, digits))


def _value(value: Any, digits: int = 6) -> str:
    if value is None:
        return "-" if digits == 4 else "none"
    return f"{value:.{digits}g}" if isinstance(value, float) else str(value)


def _status_style(status: str) -> str:
    return {"done": "green", "failed": "red", "running": "cyan"}.get(status, "yellow")


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text if isinstance(error, UserError) else f"{type(error).__name__}: {text}"
