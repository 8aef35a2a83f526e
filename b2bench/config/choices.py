"""What a person chose, on the command line, in a notebook, a config file or by a preset, as configurations."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from b2bench.errors import UserError

if TYPE_CHECKING:  # --help does without it
    from b2bench.config.run import RunConfig
    from b2bench.registry import Kind, Registry

DEFAULTS: dict[str, Any] = {
    "algo": None,
    "wrapper": "vanilla",
    "backbone": "pocket",
    "reward": "clipscore",
    "prompts": None,
    "queries": 2400,
    "seed": 0,
}
"""Options of a run, and their values if they are not given."""


@dataclass(frozen=True, kw_only=True)
class Choices:
    """Hold the options of a run that were given; None is an option that was not given.

    ``values`` are hyperparameters by name, ``plugins`` are files, and ``preset`` stands behind all of these. ``tuning``
    says that the run helps to choose settings.
    """

    algo: str | None = None
    wrapper: str | None = None
    backbone: str | None = None
    reward: str | None = None
    prompts: str | None = None
    queries: int | None = None
    seed: int | None = None
    values: Mapping[str, Any] = field(default_factory=dict)
    plugins: tuple[Path, ...] = ()
    preset: str | None = None
    tuning: bool = False

    @property
    def options(self) -> dict[str, Any]:
        """The options that were given, by name."""
        return {name: value for name in DEFAULTS if (value := getattr(self, name)) is not None}


def with_file(choices: Choices, config_file: Path | None, assignments: Sequence[str]) -> Choices:
    """Add what a config file says, which choices overrule, and ``name=value`` assignments, which overrule its [set].

    Hyperparameters that the choices have overrule its [set], too.

    Raises:
        UserError: the file has something else than options and hyperparameters.
    """
    from b2bench.config.given import parse_assignments, read_config_file, wrong_type
    from b2bench.text import suggestion

    content = read_config_file(config_file) if config_file else {}
    values = content.pop("set", {})
    if not isinstance(values, dict):
        raise UserError(f"config file {config_file}: 'set' is not a table of hyperparameters; try [set]")
    for name, value in content.items():
        if name not in DEFAULTS:
            raise UserError(
                f"config file {config_file}: unknown option {name!r}.{suggestion(name, DEFAULTS)} "
                f"Options: {', '.join(DEFAULTS)}; hyperparameters go into [set]"
            )
        if wrong := wrong_type(name, value):
            raise UserError(f"config file {config_file}: {wrong}")
    values = overruled(overruled(values, choices.values), parse_assignments([*assignments]))
    return replace(choices, **(content | choices.options), values=values)


def overruled(values: Mapping[str, Any], by: Mapping[str, Any]) -> dict[str, Any]:
    """Return hyperparameters of which others overrule some, by their names alone or by ``part.name``."""

    def same(one: str, other: str) -> bool:
        (part, _, name), (of, _, its) = one.rpartition("."), other.rpartition(".")
        return name == its and (part == of or not part or not of)

    return {name: value for name, value in values.items() if not any(same(name, other) for other in by)} | dict(by)


def refuse_beside_resume(choices: Choices, others: Mapping[str, Any]) -> None:
    """Refuse what a run that goes on cannot have anew by itself; ``others`` are values by flag.

    Raises:
        UserError: something is given.
    """
    given = [f"--{option}" for option in choices.options] + [flag for flag, value in others.items() if value]
    if given:
        raise UserError(
            f"--resume continues a run as it was started; try without {', '.join(given)}, or repeat the whole command "
            "that started it, in which settings that change no result (such as micro_batch) may differ"
        )


def is_whole(choices: Choices, config: object) -> bool:
    """Whether what is given beside ``--resume`` may be the whole command of a run: it names the algorithm, itself or
    by its file or preset.

    Raises:
        UserError: there is no such preset.
    """
    if choices.algo or config:
        return True
    from b2bench.config.presets import TUNED, load_preset

    return choices.preset not in (None, "", TUNED) and "algo" in load_preset(str(choices.preset)).options


def resolved(choices: Choices) -> RunConfig:
    """Resolve choices into the configuration of a run: by their preset, or else by the defaults.

    Raises:
        UserError: a choice is unknown, or does not fit the others.
    """
    from b2bench.config.resolve import resolve, resolve_preset
    from b2bench.registry import Registry

    given, values, plugins = choices.options, choices.values, choices.plugins
    if choices.preset is not None:
        found = resolve_preset(choices.preset, given=given, defaults=DEFAULTS, values=values, plugins=plugins)
        return replace(found, tuning=choices.tuning)
    merged = DEFAULTS | given
    if merged["algo"] is None:
        raise UserError(f"no algorithm is named; try --algo with {', '.join(Registry('algorithm').names())}")
    found = resolve(
        algorithm=merged["algo"],
        wrapper=merged["wrapper"],
        reward=merged["reward"],
        backbone=merged["backbone"],
        prompts=merged["prompts"],
        queries=merged["queries"],
        seed=merged["seed"],
        values=values,
        plugins=plugins,
    )
    return replace(found, tuning=choices.tuning)


QUICK: Mapping[str, Any] = {"draws": 24, "eval_images": 48, "eval_train_images": 0, "kl_images": 0}
QUICK_QUERIES = 240
"""Two rounds and two small evaluations: about a minute on two cores."""


def quickened(choices: Choices) -> Choices:
    """Shorten a run to about a minute of pocket, where nothing else was asked for.

    Raises:
        UserError: a preset is given, whose settings are what it is for.
    """
    if choices.preset is not None:
        raise UserError(f"--quick has settings of its own, and so has --preset {choices.preset}; try one of them")
    queries = QUICK_QUERIES if choices.queries is None else choices.queries
    return replace(choices, queries=queries, values=overruled(QUICK, choices.values))


PAPER = ("ddpo", "pg", "dpo", "dpok")
"""The paper's four algorithms. With its four wrappers they are the 16 cells."""


def uncontrolled(registry: Registry) -> list[str]:
    """Return the names of a registry without controls and upper references: what *all* stands for."""
    aside = ("control", "upper_reference")
    return [name for name in registry.names() if not any(getattr(registry.get(name), kind, "") for kind in aside)]


def name_sets(kind: Kind, registry: Registry) -> dict[str, Callable[[], list[str]]]:
    """Return what *all* and *paper* stand for in a list of algorithms or wrappers.

    ``all`` imports every plugin of the kind, of other packages too, which only whoever says it asks for.
    """
    paper = [*PAPER] if kind == "algorithm" else ["vanilla", "bpt", "bs", "b2"]
    return {"all": lambda: uncontrolled(registry), "paper": lambda: paper}


def grid(choices: Choices) -> tuple[list[RunConfig], int | None]:
    """Resolve a run of every cell, and return a preset's seeds; who names no algorithm or wrapper has the paper's."""
    from b2bench.config.presets import TUNED, load_preset
    from b2bench.registry import load_registries

    known = load_preset(choices.preset) if choices.preset not in (None, TUNED) else None
    named = {**(known.options if known else {}), **choices.options}
    registries = load_registries(choices.plugins)
    cells = [
        replace(choices, algo=algo, wrapper=wrapper)
        for algo in ([named["algo"]] if named.get("algo") else PAPER)
        for wrapper in ([named["wrapper"]] if named.get("wrapper") else uncontrolled(registries["wrapper"]))
    ]
    return [resolved(cell) for cell in cells], known.seeds if known else None
