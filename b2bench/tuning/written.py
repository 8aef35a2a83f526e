"""The result of a tuning as a file: a preset for the cell, with how its values were found."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from b2bench.config.presets import PARTS, Value, load_preset
from b2bench.config.prompt_sets import prompt_set_names
from b2bench.config.resolve import found_again, split_values
from b2bench.config.run import RunConfig
from b2bench.config.settings import NO_IDENTITY, OF_EQUAL, Settings
from b2bench.errors import UserError
from b2bench.files import write_whole
from b2bench.hyperparameters import Hyperparameter, hyperparameters, parse_value
from b2bench.leaderboard.tuning import Tried, TuningRow
from b2bench.search import GENERATION, Sampler
from b2bench.tuning.proposals import optuna_version
from b2bench.tuning.space import POINTS_SEED
from b2bench.tuning.stages import SEEDS, UNSEEN, Plan, caveat
from b2bench.version import benchmark_version

SOURCE = "b2bench tune"
SETTLED = "the default then"


def file_of(cell: Plan, folder: Path) -> Path:
    """Return the preset file of a cell.

    Raises:
        UserError: the file holds settings that were tuned on something else, by another sampler or with more, which
            would be lost.
    """
    path = folder / f"{cell.name}.toml"
    if not path.exists():
        return path
    try:
        tuning = tomllib.loads(path.read_text(encoding="utf-8")).get("tuning", {})
        had, by = tuning.get("on"), tuning.get("sampler")
    except (OSError, ValueError, AttributeError, RecursionError) as error:
        raise UserError(f"{path} is there and is not a tuned preset ({error}); try another --out") from None
    if had != _tuned_on(cell):
        was = "something else" if not isinstance(had, Mapping) else ", ".join(f"{k} {v}" for k, v in had.items())
        raise UserError(f"{path} holds what was tuned on {was}; try another --out, or move it away")
    if by != cell.sampler.described:
        raise UserError(f"{path} holds what was tuned by {by}; try another --out, or move it away")
    version = tuning.get("benchmark_version")
    if version != benchmark_version():
        raise UserError(f"{path} is of benchmark version {version}; try another --out, or move it away")
    spent = {"configurations": cell.count, "queries_a_run": cell.jobs[0][0].config.queries}
    for name, now in spent.items():
        before = tuning.get(name)
        if isinstance(before, int) and before > now:
            raise UserError(
                f"{path} holds what was tuned with more, {name} {before:,} and not {now:,}; try another --out, or move "
                "it away"
            )
    return path


def _tuned_on(cell: Plan) -> dict[str, str]:
    config = cell.config
    return {
        "backbone": config.backbone.name,
        "reward": config.reward_name,
        "prompts": config.prompts.name,
        "prompts_hash": config.prompts.content_hash,
    }


def write_preset(cell: Plan, tried: Sequence[Tried], row: TuningRow, code: Mapping[str, Any], path: Path) -> None:
    """Write the preset of a cell, whole or not at all. ``code`` says what its runs were made with.

    Raises:
        UserError: the folder cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, preset_text(cell, tried, row, code).encode())
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror}; try another --out") from None


def preset_text(cell: Plan, tried: Sequence[Tried], row: TuningRow, code: Mapping[str, Any]) -> str:
    """Return the preset as TOML: the chosen values, what else the cell was tuned with, and how they were found."""
    about_it = f"{row.algorithm} {row.wrapper} as b2bench tune chose it among {len(tried)} configurations."
    if cell.sampler is not Sampler.sobol:
        about_it = f"{about_it[:-1]} of sampler {cell.sampler}: {caveat(cell.sampler)}."
    lines = [f"about = {_toml(about_it)}", ""]
    sections: dict[str, list[Value]] = {}
    for value in _values(cell, row):
        sections.setdefault(value.section, []).append(value)
    for section, values in sections.items():
        lines += [f"[{section}]", *(f"{_key(value.name)} = {_entry(value)}" for value in values), ""]
    lines += _provenance(cell, tried, row, code)
    lines += ["", "[tuning.on]", *_pairs(_tuned_on(cell))]
    for axis in cell.space:
        about = {"low": axis.search.low, "high": axis.search.high, "log": axis.search.log, "default": axis.default}
        if axis.search.published is not None:
            about |= {"published": axis.search.published, "source": axis.search.source}
        lines += ["", f"[tuning.space.{_key(axis.name)}]", *_pairs(about)]
    for configuration, one in zip(cell.configurations, tried, strict=True):
        lines += ["", "[[tuning.tried]]", f"kind = {_toml(one.kind)}", f"values = {_toml(dict(one.values))}"]
        if configuration.point:
            lines.append(f"point = {_toml(list(configuration.point))}")
        for name in ("first", "last"):
            known = {str(seed): value for seed, t in one.trials.items() if (value := getattr(t, name)) is not None}
            lines.append(f"{'scores' if name == 'last' else 'first_round'} = {_toml(known)}")
        lines.append(f"collapsed = {_toml([seed for seed, trial in one.trials.items() if trial.collapsed])}")
    return "\n".join(lines) + "\n"


def _provenance(cell: Plan, tried: Sequence[Tried], row: TuningRow, code: Mapping[str, Any]) -> list[str]:
    facts: dict[str, Any] = {
        "seeds": list(SEEDS),
        "benchmark_version": benchmark_version(),
        **code,
        "score": "mean reward of the last two rounds of training, on training prompts, at the full budget of the run",
        "collapse": _collapse(tried),
        "sampler": cell.sampler.described,
        **({} if cell.sampler is Sampler.sobol else _of_optuna(cell.sampler)),
        "points_seed": POINTS_SEED,
        "configurations": len(tried),
        "queries_a_run": cell.jobs[0][0].config.queries,
        "queries": row.queries,
        "runs": sum(len(one.trials) for one in tried),
        "tuned": row.tuned_score,
        "default": row.default_score,
        "gain": row.gain,
        "best_of": {str(m): value for m, value in row.best_of.items() if value is not None},
        "collapsed": row.collapsed,
        "below_pretrained": row.below,
    }
    return ["[tuning]", *_pairs(facts)]


def _collapse(tried: Sequence[Tried]) -> str:
    """Say how far below its start a run has collapsed; the limits of a reward in a unit of its own differ a little."""
    limits = [trial.limit for one in tried for trial in one.trials.values() if trial.limit is not None]
    if not limits:
        return "it failed"
    return f"it failed, or its score is more than {median(limits):.3g} below the mean reward of its first round"


def _of_optuna(sampler: Sampler) -> dict[str, Any]:
    return {"optuna": optuna_version(), "generation": GENERATION, "points": caveat(sampler)}


def _values(cell: Plan, row: TuningRow) -> Iterable[Value]:
    """Options, then what the base preset says of this cell, what was given for all runs, and what was chosen.

    Beneath these all other settings of the cell, so that a default that changes later changes no tuned cell.
    """
    config = cell.config
    options = {"algo": row.algorithm, "wrapper": row.wrapper}
    options["backbone"] = found_again(config.as_dict()["backbone"])
    options |= {"reward": config.reward_name}
    if config.prompts_argument in prompt_set_names():
        options["prompts"] = config.prompts_argument
    chosen = {"algorithm": config.algorithm_name, "wrapper": config.wrapper_name, "reward": config.reward_name}
    found = {("options", name): Value("options", name, value, SOURCE) for name, value in options.items()}
    found |= {(value.section, value.name): value for value in _settled(config)}
    sections = {"set", *(f"{part}.{chosen[part]}" for part in PARTS)}
    if cell.preset is not None:
        for value in load_preset(cell.preset).values:
            if value.section in sections or (value.section, value.name) == ("options", "queries"):
                found[value.section, value.name] = value
    owners: dict[str, tuple[str, type]] = {"run": ("run", Settings)}
    plugins = {"algorithm": config.algorithm, "wrapper": config.wrapper, "reward": config.reward}
    owners |= {chosen[part]: (part, type(plugins[part])) for part in PARTS}
    for owner, values in split_values(cell.given, owners).items():
        part = owners[owner][0]
        holder = config.settings if part == "run" else plugins[part]
        for name in values:
            if f"{part}.{name}" not in UNSEEN:
                section = "set" if part == "run" else f"{part}.{owner}"
                found[section, name] = Value(section, name, getattr(holder, name), "open", "set for all runs of tuning")
    for long, value in row.chosen.values.items():
        part, _, name = long.partition(".")
        section = "set" if part == "run" else f"{part}.{chosen[part]}"
        found[section, name] = Value(section, name, value, SOURCE)
    return sorted(found.values(), key=lambda value: (value.section != "options", value.section != "set", value.section))


def _settled(config: RunConfig) -> Iterable[Value]:
    """Return the settings that tell a cell from others, with the values that they have if none is given.

    Without what follows the backbone, whose guidance and reward are other ones elsewhere, and without a plugin's
    default that is no value of its type, which nobody could give.
    """
    unused = {name for equal, names in OF_EQUAL.items() if equal != config.settings.equal for name in names}
    left = {*unused, *NO_IDENTITY, "guidance"}
    owners: list[tuple[str, Any]] = [("set", config.settings)]
    owners.append((f"algorithm.{config.algorithm_name}", config.algorithm))
    owners.append((f"wrapper.{config.wrapper_name}", config.wrapper))
    for section, owner in owners:
        for parameter in hyperparameters(type(owner)):
            value = getattr(owner, parameter.name)
            if section == "set" and (parameter.name in left or parameter.name.startswith(("eval_", "inception"))):
                continue
            if _can_be_given(parameter, value):
                yield Value(section, parameter.name, value, SETTLED)


def _can_be_given(parameter: Hyperparameter, value: Any) -> bool:
    """Tell whether a preset that says the value is read as this very value."""
    if type(value) not in (bool, int, float, str, type(None)):
        return False
    try:
        read = parse_value(parameter, "none" if value is None else value)
    except UserError:
        return False
    return type(read) is type(value) and read == value


def _entry(value: Value) -> str:
    entry = {"value": value.value, "source": value.source, **({"why": value.why} if value.why else {})}
    return _toml(entry)


def _pairs(values: Mapping[str, Any]) -> list[str]:
    return [f"{_key(name)} = {_toml(value)}" for name, value in values.items()]


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else _toml(name)


def _toml(value: Any) -> str:
    """Return a TOML value; None, which TOML has not, is "none", as presets have it."""
    if value is None:
        return '"none"'
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, Mapping):
        items = ", ".join(f"{_key(str(key))} = {_toml(item)}" for key, item in value.items())
        return f"{{ {items} }}" if items else "{}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_toml, value))}]"
    return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")
