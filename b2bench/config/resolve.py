"""What a run is: its choices by name, and every hyperparameter, resolved and checked before any work."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from b2bench.backbones.specs import Backbone, backbones, find_backbone, own_checkpoint
from b2bench.config.given import check_text
from b2bench.config.paths import absolute
from b2bench.config.presets import TUNED, Preset, deviations, load_preset, tuned_path
from b2bench.config.prompt_sets import PromptSet, load_prompts, prompt_set_names
from b2bench.config.run import RunConfig, code_hash, parts_hash, source_name
from b2bench.config.settings import PROFILE_SETTINGS, Settings
from b2bench.errors import Refused, UserError
from b2bench.guard import guarded
from b2bench.hyperparameters import Hyperparameter, assemble, build, declared, hyperparameters
from b2bench.registry import KINDS, Kind, check_methods, check_name, load_registries
from b2bench.text import described, suggestion
from b2bench.version import benchmark_version

if TYPE_CHECKING:  # torch's types
    from b2bench.protocols import Algorithm, Reward, Wrapper


def found_again(recorded: Mapping[str, str]) -> str:
    """Return what to look a run's backbone up by: its name, where that still means the same source."""
    known = backbones().get(recorded["name"])
    return recorded["name"] if known and source_name(known) == recorded["source"] else recorded["source"]


def resolve(
    *,
    algorithm: str,
    wrapper: str,
    reward: str,
    backbone: str,
    prompts: str | None = None,
    queries: int,
    seed: int,
    values: Mapping[str, Any],
    plugins: tuple[Path, ...] = (),
    under: Mapping[str, Any] | None = None,
) -> RunConfig:
    """Check every choice and every hyperparameter of ``values`` (``name`` or ``part.name``), which overrule ``under``.

    ``prompts`` None stands for the backbone's default. A plain name is looked up in the harness settings, the
    algorithm, the wrapper and the reward; where two of them have it, the part must be named: ``--set dpo.eps=0.2``.

    Raises:
        UserError: one line that says what is wrong and what to do.
    """
    registries = load_registries(plugins)
    chosen: dict[Kind, str] = {"algorithm": algorithm, "wrapper": wrapper, "reward": reward}
    classes = {kind: registries[kind].get(name) for kind, name in chosen.items()}
    for cls in classes.values():
        check_methods(cls)
    owners: dict[str, tuple[str, type]] = {"run": ("run", Settings)}
    owners |= {chosen[kind]: (kind, cls) for kind, cls in classes.items()}
    if len(owners) < 4:  # then a hyperparameter could not say whose it is
        raise UserError(
            f"algorithm {algorithm}, wrapper {wrapper}, reward {reward}: each needs a name of its own, not 'run'; "
            "try renaming the class of the one that is yours"
        )
    code = {kind: found for kind, cls in classes.items() if (found := code_hash(cls))}
    parts = split_values(values, owners, under)
    spec = find_backbone(backbone)
    prompts = spec.prompts if prompts is None else prompts
    spec = drawn_by(spec, prompt_set := load_prompts(prompts))
    settings: Settings = build(Settings, declared(classes["algorithm"]) | parts["run"])
    guidance = spec.guidance if settings.guidance is None else settings.guidance
    settings = replace(settings, guidance=guidance, inception_weights=absolute(settings.inception_weights))
    _check_budget(queries, seed, settings.samples)
    for kind, name in chosen.items():
        check_name(kind, name)
    _find_checkpoint(spec, classes["reward"], parts[reward])
    trained: Algorithm = build(classes["algorithm"], parts[algorithm])
    wrapping: Wrapper = build(classes["wrapper"], parts[wrapper])
    judging: Reward = build(classes["reward"], parts[reward])
    assemble(judging, registries["reward"], spec)
    if found_parts := parts_hash(judging):
        code["reward"] = found_parts
    if reason := _refusal(reward, judging, spec):
        raise UserError(f"reward {reward} does not go with the backbone {spec.name}: {reason}")
    if reason := _misfit((algorithm, trained), (wrapper, wrapping)):
        raise Refused(_refused_row(algorithm, wrapper, reward, spec, prompt_set, queries, reason))
    if getattr(trained, "reward_gradient", False) and not hasattr(judging, "with_gradient"):
        reason = f"it follows the reward's gradient, and {reward} has none; try clipscore"
        raise Refused(_refused_row(algorithm, wrapper, reward, spec, prompt_set, queries, reason), "reward")
    _check_learns(algorithm, trained, settings)
    found = prompts if prompts in prompt_set_names() else os.path.abspath(os.path.expanduser(prompts))
    for what, text in (("prompts", found), ("backbone", spec.source), *(("plugin", str(path)) for path in plugins)):
        check_text(what, text)
    return RunConfig(
        algorithm_name=algorithm,
        wrapper_name=wrapper,
        reward_name=reward,
        backbone=spec,
        prompts=prompt_set,
        queries=queries,
        seed=seed,
        settings=settings,
        algorithm=trained,
        wrapper=wrapping,
        reward=judging,
        prompts_argument=found,
        plugins=tuple(str(path.resolve()) for path in plugins),
        code=code,
    )


def _find_checkpoint(spec: Backbone, reward: type, values: dict[str, Any]) -> None:
    """Name the checkpoint of the backbone's own reward where ``auto`` asks for it, and a file by its absolute path."""
    defaults = {p.name: p.default for p in hyperparameters(reward)}
    checkpoint = (defaults | values).get("checkpoint")
    if checkpoint == "auto":
        values["checkpoint"] = own_checkpoint(spec, reward)
    elif isinstance(checkpoint, str) and (found := absolute(checkpoint)) != checkpoint:
        values["checkpoint"] = found


def _check_learns(algorithm: str, trained: Algorithm, settings: Settings) -> None:
    """Refuse settings under which nothing can be learned, or the gradient of a reward is not what is counted.

    Raises:
        UserError: which.
    """
    if settings.samples == 1 and (trained.pairs or settings.advantage != "history"):
        what = f"{algorithm} learns from pairs" if trained.pairs else f"advantage={settings.advantage} compares"
        raise UserError(f"samples = 1: {what} within a prompt draw, and one rollout has no other; try 2 or more")
    if not getattr(trained, "reward_gradient", False):
        return
    if settings.updates_per_round != 1:
        asked = settings.updates_per_round
        raise UserError(
            f"updates_per_round = {'none' if asked is None else asked}: {algorithm} takes one optimizer step on a "
            "sample, because the reward of the image after it would be another query; try updates_per_round=1, or "
            "declare it: defaults = {'updates_per_round': 1} in the algorithm's class"
        )
    if settings.timestep_fraction != 1:
        raise UserError(
            f"timestep_fraction = {settings.timestep_fraction:g}: {algorithm} trains the last step of each rollout "
            "alone, of which there is no share; try without it"
        )
    if settings.reward_process:
        raise UserError(
            f"reward_process: {algorithm} follows the reward's gradient, which does not pass from one process to "
            "another; try reward_process=false"
        )
    if settings.reward_noise:
        raise UserError(
            f"reward_noise = {settings.reward_noise:g}: {algorithm} follows the reward's gradient, which has no noise; "
            "try without it"
        )


def _refused_row(
    algorithm: str, wrapper: str, reward: str, backbone: Backbone, prompts: PromptSet, queries: int, reason: str
) -> dict[str, Any]:
    """Return a row of table ``refusals``."""
    return {
        "benchmark_version": benchmark_version(),
        "algorithm": algorithm,
        "wrapper": wrapper,
        "backbone": backbone.name,
        "reward": reward,
        "prompts": prompts.name,
        "prompts_hash": prompts.content_hash,
        "budget": queries,
        "reason": reason,
    }


def _check_budget(queries: int, seed: int, samples: int) -> None:
    """Refuse a budget that is no whole number of prompt draws, and numbers that the store cannot hold."""
    if max(queries, seed) >= 2**31 or seed < 0:
        raise UserError(f"queries = {queries}, seed = {seed}: the seed cannot be negative, and both must be below 2^31")
    if queries < samples:
        raise UserError(
            f"queries = {queries} is too small; try at least {samples}, which is one prompt draw of {samples} samples"
        )
    if queries % samples:
        raise UserError(
            f"queries = {queries} is not a multiple of samples = {samples}; try {queries - queries % samples}"
        )


def _misfit(algorithm: tuple[str, Algorithm], wrapper: tuple[str, Wrapper]) -> str | None:
    """Why an algorithm cannot be trained under a wrapper: one of them says so, or it would be trained as another."""
    (_, trained), (_, wrapping) = algorithm, wrapper
    if reason := _refusal(*algorithm, wrapping) or _refusal(*wrapper, trained):
        return reason
    changes = next((name for name in ("edges", "step_weights") if hasattr(wrapping, name)), None)
    if trained.pairs and changes:  # nothing of it would reach the loss
        return f"its {changes} are about advantages, and an algorithm on pairs has none"
    if getattr(trained, "reward_gradient", False):
        if changes:
            return f"its {changes} are about advantages, and the reward's gradient needs none"
        if any(_last_step(*wrapper, round) < _PROBE[1] for round in range(_PROBE[0])):
            return "it leaves the last step out, which is the one that the reward's gradient is followed through"
    if changes == "edges" and getattr(trained, "whole_groups", False) and not getattr(trained, "finals", False):
        return "its groups share steps, and an algorithm on whole groups would be given the same step many times"
    return None


_PROBE = (20, 20)
"""Rounds and steps of the run for which a wrapper is asked which steps it trains"""


def _last_step(name: str, wrapper: Wrapper, round: int) -> int:
    """Return where the steps end that a wrapper trains in a round of :data:`_PROBE`.

    Raises:
        UserError: it does not say.
    """
    try:
        with guarded():
            found = wrapper.interval(round, *_PROBE).stop
    except Exception as error:  # a plugin may raise anything
        raise UserError(f"{name}.interval raised {described(error)}; try b2bench check") from None
    if not isinstance(found, int):
        raise UserError(f"{name}.interval ends at {found!r}; try b2bench check")
    return found


def _refusal(name: str, part: Any, other: Any) -> str | None:
    """Why ``part`` does not go with ``other``, if it says so in a method ``refuses``.

    Raises:
        UserError: it answers with something else than text or None, or not at all.
    """
    refuses = getattr(part, "refuses", None)
    if refuses is None:
        return None
    try:
        with guarded():
            reason = refuses(other)
    except Exception as error:  # a plugin may raise anything
        raise UserError(f"{name}.refuses({type(other).__name__}) raised {described(error)}") from None
    if reason is not None and not isinstance(reason, str):
        raise UserError(f"{name}.refuses answered {reason!r}; try the reason as text, or None")
    return reason or None


def drawn_by(backbone: Backbone, prompts: PromptSet) -> Backbone:
    """Return the backbone with the network that draws these prompts; where it can depict other sets only, name them.

    Raises:
        UserError: see :meth:`Backbone.drawing`.
    """
    try:
        return backbone.drawing([*prompts.train, *prompts.test])
    except UserError as error:
        if prompts.name not in prompt_set_names():
            raise
        # a variant of pocket depicts what pocket does
        name = "pocket" if backbone.is_pocket else backbone.name
        fitting = ", ".join(found for found in prompt_set_names() if name in _depicted_by(found))
        raise UserError(
            f"prompts {prompts.name} are not for the backbone {backbone.name}, which can depict {fitting}. ({error})"
        ) from None


def _depicted_by(prompts: str) -> tuple[str, ...]:
    try:
        return load_prompts(prompts).depicted_by
    except UserError:  # a broken plugin is not what this is about
        return ()


def check_profile_values(config: RunConfig, values: Mapping[str, Any]) -> None:
    """Refuse what a profile would ignore: settings of training, and of the algorithm.

    Raises:
        UserError: which, and what may be set instead.
    """
    check_untrained_values("a profile", PROFILE_SETTINGS, config, values)


def check_untrained_values(what: str, settings: Sequence[str], config: RunConfig, values: Mapping[str, Any]) -> None:
    """Refuse ``values`` that are neither among ``settings`` nor the reward's.

    Raises:
        UserError: which, and what may be set instead.
    """
    known = {*settings, *(p.name for p in hyperparameters(type(config.reward)))}
    for given in values:
        if given.rpartition(".")[2] not in known:
            raise UserError(f"{what} trains nothing and does not use {given}; try one of {', '.join(sorted(known))}")


def from_dict(content: Mapping[str, Any]) -> RunConfig:
    """Rebuild a configuration from :meth:`RunConfig.as_dict`, for resuming.

    Raises:
        UserError: a plugin or a prompt file is missing, or the prompts have changed since.
    """
    try:
        config = _again(content)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(
            f"the configuration of the run is damaged, or was changed by hand ({type(error).__name__}: {error}); "
            "try a new run"
        ) from None
    for kind in KINDS:
        if config.code.get(kind) != content[kind].get("code"):
            raise UserError(
                f"the file of {kind} {content[kind]['name']} has changed since the run started; "
                "try restoring it, or a new run"
            )
    if config.prompts.content_hash != content["prompts"].get("hash"):
        raise UserError(f"prompts {content['found']['prompts']} have changed since the run started; try restoring them")
    return replace(config, preset=content.get("preset"), tuning=bool(content.get("tuning")))


def _again(content: Mapping[str, Any]) -> RunConfig:
    values: dict[str, Any] = {f"run.{name}": value for name, value in content["settings"].items()}
    for kind in ("algorithm", "wrapper", "reward"):
        values |= {f"{kind}.{name}": value for name, value in content[kind].items() if name not in ("name", "code")}
    return resolve(
        algorithm=content["algorithm"]["name"],
        wrapper=content["wrapper"]["name"],
        reward=content["reward"]["name"],
        backbone=found_again(content["backbone"]),
        prompts=content["found"]["prompts"],
        queries=content["queries"],
        seed=content["seed"],
        values=values,
        plugins=tuple(Path(path) for path in content["found"]["plugins"]),
    )


def resolve_preset(
    name: str,
    *,
    given: Mapping[str, Any],
    defaults: Mapping[str, Any],
    values: Mapping[str, Any],
    plugins: tuple[Path, ...] = (),
) -> RunConfig:
    """Return a run by a preset: its options and values, overruled by ``given`` options and hyperparameter ``values``.

    ``defaults`` are options for what neither says.

    The configuration records the preset's name and hash, and each value in which it differs from it.

    Raises:
        UserError: as :func:`resolve` and :func:`b2bench.config.presets.load_preset` do.
    """
    if name == TUNED:
        if not given.get("algo"):
            raise UserError(
                f"preset {TUNED} is one for each algorithm and wrapper; try naming the algorithm with --algo"
            )
        registries, cell = load_registries(plugins), {**defaults, **given}
        registries["algorithm"].get(cell["algo"])  # a name that is mistyped was not tuned either
        registries["wrapper"].get(cell["wrapper"])
        name = str(tuned_path(cell["algo"], cell["wrapper"]))
    preset = load_preset(name)
    _check_version(preset)
    _check_owners(preset, plugins)
    merged = {**defaults, **preset.options, **given}

    def run(options: Mapping[str, Any], own: Mapping[str, Any]) -> RunConfig:
        chosen = {kind: str(merged[option]) for kind, option in _OPTION_OF.items()}
        return resolve(
            **chosen,
            backbone=options["backbone"],
            prompts=options.get("prompts"),
            queries=options["queries"],
            seed=options.get("seed", 0),
            values=own,
            plugins=plugins,
            under=preset.hyperparameters(chosen),
        )

    if merged.get("algo") is None:
        raise UserError(f"preset {preset.name} leaves the algorithm open; try naming it with --algo")
    config = run(merged, values)
    # By its own backbone and budget, with what was chosen where it leaves the choice open.
    try:
        plain = run({**merged, **preset.options}, {}).as_dict()
    except UserError:  # its own run cannot be had here, such as by a budget that does not fit the samples given
        found = _given_otherwise(preset, merged, values)
    else:
        for kind, option in _OPTION_OF.items():
            if option in preset.options:
                plain[kind] = plain[kind] | {"name": preset.options[option]}
        found = deviations(config.as_dict(), plain)
    recorded: dict[str, Any] = {"name": preset.name, "hash": preset.content_hash, "deviations": found}
    if preset.tuning is not None:
        recorded["tuning_seeds"] = list(preset.tuning["seeds"])
        recorded["tuned_by"] = {name: preset.tuning[name] for name in PROTOCOL if name in preset.tuning}
        recorded["searched"] = sorted(preset.tuning.get("space", {}))
        recorded["tuned_on"] = preset.tuning.get("on", {}).get("prompts")
    return replace(config, preset=recorded)


def _check_version(preset: Preset) -> None:
    """Refuse what was tuned in another benchmark version: it was chosen by other numbers than a run would give.

    Raises:
        UserError: which version, and what to do.
    """
    version = (preset.tuning or {}).get("benchmark_version")
    if version is not None and str(version) != benchmark_version():
        raise UserError(
            f"preset {preset.name} was tuned in benchmark version {version}, and this is {benchmark_version()}; "
            "try b2bench tune again, or its values by --set"
        )


def _check_owners(preset: Preset, plugins: tuple[Path, ...]) -> None:
    """Refuse settings of an algorithm, wrapper or reward that there is not: nothing would take them.

    Raises:
        UserError: which, and what it may have been meant to be.
    """
    registries = load_registries(plugins)
    for value in preset.values:
        kind, _, owner = value.section.partition(".")
        if owner and owner not in (known := registries[kind].names()):  # type: ignore[index]
            raise UserError(f"preset {preset.name}: [{value.section}] is of no {kind}.{suggestion(owner, known)}")


def _given_otherwise(preset: Preset, options: Mapping[str, Any], values: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return what was given in place of what a preset says, as :func:`b2bench.config.presets.deviations` has it."""
    found = [
        {"name": name, "preset": value, "value": options[name]}
        for name, value in preset.options.items()
        if options[name] != value
    ]
    said = {value.name: value.value for value in preset.values if value.section != "options"}
    for name, value in values.items():
        found.append({"name": name, "preset": said.get(name.rpartition(".")[2]), "value": value})
    return found


PROTOCOL = ("sampler", "configurations", "queries_a_run")
"""What must be equal of two tunings for their cells to be tuned alike."""
_OPTION_OF: dict[Kind, str] = {"algorithm": "algo", "wrapper": "wrapper", "reward": "reward"}


def split_values(
    values: Mapping[str, Any], owners: Mapping[str, tuple[str, type]], under: Mapping[str, Any] | None = None
) -> dict[str, dict[str, Any]]:
    """Give every ``name`` or ``owner.name`` to the part that has it, and what ``under`` has where ``values`` do not.

    Returns: {owner: {name: value}}.

    Raises:
        UserError: no part has it, several have, or it is given twice.
    """
    known: dict[str, list[tuple[str, Hyperparameter]]] = {}
    for owner, (_, cls) in owners.items():
        for parameter in hyperparameters(cls):
            known.setdefault(parameter.name, []).append((owner, parameter))
    parts: dict[str, dict[str, Any]] = {owner: {} for owner in owners}
    for given, value in values.items():
        prefix, _, name = given.rpartition(".")
        found = [owner for owner, _ in known.get(name, []) if prefix in ("", owner, owners[owner][0])]
        if not found:
            raise UserError(
                f"unknown hyperparameter {given!r}.{suggestion(name, known)} "
                f"Try b2bench show {' or '.join(list(owners)[1:])}."
            )
        if len(found) > 1:
            options = " or ".join(f"{owner}.{name}" for owner in found)
            raise UserError(f"hyperparameter {name!r} is ambiguous here; try {options}")
        if name in parts[found[0]]:
            raise UserError(
                f"hyperparameter {name} is given twice, by itself and as {found[0]}.{name}; try one of them"
            )
        parts[found[0]][name] = value
    if under:
        return {owner: own | parts[owner] for owner, own in split_values(under, owners).items()}
    return parts
