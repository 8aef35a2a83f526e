"""What a person chose, from the command line, a config file or a preset, as configurations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from b2bench.errors import UserError

DEFAULTS: dict[str, Any] = {
    "algo": None,
    "wrapper": "vanilla",
    "backbone": "pocket",
    "reward": "clipscore",
    "prompts": None,
    "queries": 2400,
    "seed": 0,
}


def given_options(options: dict[str, Any], config_file: Path | None, assignments: list[str]) -> dict[str, Any]:
    """What the config file says, and over it the command line; hyperparameters under "set"."""
    from b2bench.config.given import parse_assignments, read_config_file
    from b2bench.text import suggestion

    content = read_config_file(config_file) if config_file else {}
    values = content.pop("set", {})
    if not isinstance(values, dict):
        raise UserError(f"config file {config_file}: 'set' must be a table of hyperparameters")
    for name, value in content.items():
        if name not in DEFAULTS:
            raise UserError(
                f"config file {config_file}: unknown option {name!r}.{suggestion(name, DEFAULTS)} "
                f"Options: {', '.join(DEFAULTS)}; hyperparameters go into [set]"
            )
        wanted = int if name in ("queries", "seed") else str
        if not isinstance(value, wanted) or isinstance(value, bool):
            raise UserError(f"config file {config_file}: {name} = {value!r} is no {wanted.__name__}")
    given = content | {name: value for name, value in options.items() if value is not None}
    given["set"] = values | parse_assignments(assignments)
    return given


def with_defaults(options: dict[str, Any], config_file: Path | None, assignments: list[str]) -> dict[str, Any]:
    """Defaults, and over them what is given."""
    return DEFAULTS | given_options(options, config_file, assignments)


def resolve_options(merged: dict[str, Any], plugins: list[Path], preset: str | None = None) -> Any:
    """A run of ``merged`` options; with a preset, ``merged`` is what was given, and the preset stands behind it."""
    from b2bench.config.resolve import resolve, resolve_preset
    from b2bench.registry import Registry

    if preset is not None:
        options = {name: value for name, value in merged.items() if name != "set"}
        return resolve_preset(preset, given=options, defaults=DEFAULTS, values=merged["set"], plugins=tuple(plugins))
    if merged["algo"] is None:
        raise UserError(f"name an algorithm with --algo: {', '.join(Registry('algorithm').names())}")
    return resolve(
        algorithm=merged["algo"],
        wrapper=merged["wrapper"],
        reward=merged["reward"],
        backbone=merged["backbone"],
        prompts=merged["prompts"],
        queries=merged["queries"],
        seed=merged["seed"],
        values=merged["set"],
        plugins=tuple(plugins),
    )


def grid(
    options: dict[str, Any], config_file: Path | None, assignments: list[str], plugins: list[Path], preset: str | None
) -> tuple[list[Any], int | None]:
    """A run of every cell of ``options``, where an algorithm or wrapper that nobody names is all; a preset's seeds."""
    from b2bench.config.presets import load_preset
    from b2bench.registry import load_registries

    known = load_preset(preset) if preset is not None else None
    given = given_options(options, config_file, assignments)
    named = {**(known.options if known else {}), **given}
    registries = load_registries(plugins)
    cells = [
        {"algo": algo, "wrapper": wrapper}
        for algo in ([named["algo"]] if named.get("algo") else registries["algorithm"].names())
        for wrapper in ([named["wrapper"]] if named.get("wrapper") else registries["wrapper"].names())
    ]
    configs = [
        resolve_options((given if known else DEFAULTS | given) | cell, plugins, preset if known else None)
        for cell in cells
    ]
    return configs, known.seeds if known else None
