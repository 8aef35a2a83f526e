"""What a run is: its choices by name, and every hyperparameter, resolved and checked before any work."""

from __future__ import annotations

import hashlib
import inspect
import json
import math
import os
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import b2bench
from b2bench.backbones.specs import Backbone, backbones, find_backbone
from b2bench.config.presets import deviations, load_preset
from b2bench.config.prompt_sets import PromptSet, load_prompts, prompt_set_names
from b2bench.errors import Refused, UserError
from b2bench.eval_images import EvalImages, automatic_images
from b2bench.hyperparameters import Hyperparameter, build, hyperparameters
from b2bench.registry import KINDS, Kind, check_methods, load_registries
from b2bench.text import described, suggestion

# Taken: a reward of one of these names would be stored under the same name as what judges it.
METRIC_NAMES = (
    "clipscore_heldout",
    "is_style",
    "is_subject",
    "is_clip",
    "is_inception",
    "style_entropy",
    "pairwise_distance",
    "kl_pretrained",
)

PROFILE_SETTINGS = (
    "steps",
    "eta",
    "guidance",
    "precision",
    "micro_batch",
    "decode_micro_batch",
    "guidance_split",
    "attention",
)
"""Settings that matter where nothing is trained: to ``b2bench profile``."""

# Taken: rows of table ``runs`` that no training made go by these.
NO_ALGORITHMS = ("external", "baseline")


@dataclass(kw_only=True)
class Settings:
    """Hyperparameters of the harness: equal in every cell, so that cells differ in one thing only."""

    draws: int = 48
    """G, prompt draws a round; each gives `samples` rollouts, and each rollout is one reward query"""
    samples: int = 5
    """K, rollouts per prompt draw: separate ones, or the leaves of one branch"""
    steps: int = 20
    """T, denoising steps (paper: 20)"""
    eta: float = 1.0
    """DDIM's eta: 1 is ancestral sampling, towards 0 deterministic (paper: 1)"""
    guidance: float | None = None
    """Classifier-free guidance scale; none takes the backbone's default"""
    optimizer_steps: int = 48
    """Optimizer steps a round, the same number in every cell"""
    timestep_fraction: float = 1.0
    """Share of the trained steps of a rollout, drawn anew each round, that its update takes; 1: all of them"""
    lr: float = 1e-3
    """AdamW's learning rate for the LoRA weights"""
    weight_decay: float = 1e-4
    """AdamW's weight decay"""
    max_grad_norm: float = 1.0
    """Norm to which gradients are clipped"""
    lora_rank: int = 8
    """Rank of the LoRA adapter on attention q, k, v and out; its alpha equals the rank"""
    advantage_clip: float = 5.0
    """Advantages are clipped to plus and minus this many standard deviations"""
    advantage_history: int = 8
    """Earlier rounds of a prompt that count in its z-score"""
    micro_batch: int = 96
    """Rows of one forward pass, in sampling and in training; changes memory and speed, not the draws"""
    train_micro_batch: int = 0
    """Rows of one forward and backward pass of training, where it is not micro_batch; 0: micro_batch"""
    decode_micro_batch: int = 0
    """Images decoded at a time; 0: micro_batch, at most 32"""
    gradient_checkpointing: bool = False
    """Compute activations a second time in the backward pass: a sixth of the memory for a third more time"""
    guidance_split: bool = False
    """The two rows of guidance one after the other, not as one batch: half of the memory"""
    attention: Literal["sdpa", "sliced"] = "sdpa"
    """sdpa: fused, where the device has it; sliced: head by head, for little memory and older devices"""
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """Of the frozen networks; latents, log-probs, LoRA weights stay fp32. fp16: a GPU, with loss scaling"""
    reward_device: str = "auto"
    """Device of the reward and of what judges evaluations: auto (that of training), cpu, cuda:1, ..."""
    reward_process: bool = False
    """The reward in a process of its own, whose memory is not that of training"""
    reward_noise: float = 0.0
    """Standard deviation of normal noise that is added to every reward query of training, never in an evaluation"""
    eval_points: int = 3
    """Evaluations, evenly spaced in reward queries from 0 to the budget"""
    eval_seed: int = 0
    """Seed of the evaluation's noise: one test set for every run, whatever its training seed"""
    eval_images: int | None = None
    """Images of test prompts in each evaluation, spread over the prompts; none: by the budget, between half as many"""
    eval_train_images: int | None = None
    """Images of training prompts in each evaluation; none: a sixth as many as the budget gives test prompts"""
    sample_images: int = 8
    """Test images, of as many prompts, that every evaluation keeps as files for sample grids; 0: none"""
    kl_images: int | None = None
    """Test images on whose paths every evaluation measures the KL from the pretrained model; none: by the budget"""
    inception: Literal["auto", "none", "clip", "inception", "both"] = "auto"
    """Inception scores of an evaluation: is_clip (the paper's), is_inception (Inception v3); auto: see inception.py"""
    inception_splits: int = 1
    """Parts that an inception score is averaged over; depends on them more than on a model"""
    inception_weights: str = ""
    """File of Inception v3's weights, .safetensors or .pth; empty: torch-fidelity's are fetched"""

    def __post_init__(self) -> None:
        for name in (
            "draws",
            "samples",
            "steps",
            "optimizer_steps",
            "lora_rank",
            "micro_batch",
            "eval_images",
            "inception_splits",
        ):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} = {value} is below 1")
        for name in ("lr", "max_grad_norm", "advantage_clip", "guidance"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"{name} = {value} is not above 0")
        if self.lora_rank > 1024:
            raise ValueError(f"lora_rank = {self.lora_rank} is above 1024: no layer is that wide")
        if self.eval_points < 2:
            raise ValueError(f"eval_points = {self.eval_points}: the start and the end are two")
        for name in (
            "advantage_history",
            "eval_seed",
            "eval_train_images",
            "weight_decay",
            "train_micro_batch",
            "decode_micro_batch",
            "sample_images",
            "kl_images",
        ):
            value = getattr(self, name)
            if value is not None and value < 0:
                raise ValueError(f"{name} = {value} cannot be negative")
        if self.eval_seed >= 2**31:
            raise ValueError(f"eval_seed = {self.eval_seed} is not below 2^31")
        if not 0 <= self.reward_noise < math.inf:
            raise ValueError(f"reward_noise = {self.reward_noise} is no standard deviation: 0 or above, and finite")
        if not 0 < self.timestep_fraction <= 1:
            raise ValueError(f"timestep_fraction = {self.timestep_fraction} is outside (0, 1]")
        if not 0 <= self.eta <= 1:
            raise ValueError(f"eta = {self.eta} is outside [0, 1]")


@dataclass(frozen=True)
class RunConfig:
    """A resolved run. ``algorithm``, ``wrapper`` and ``reward`` are instances of their plugins.

    ``code`` holds the hash of the file, as it was imported, of each that is not built in.
    """

    algorithm_name: str
    wrapper_name: str
    reward_name: str
    backbone: Backbone
    prompts: PromptSet
    queries: int
    seed: int
    settings: Settings
    algorithm: Any
    wrapper: Any
    reward: Any
    prompts_argument: str = ""
    plugins: tuple[str, ...] = ()
    code: Mapping[Kind, str] = field(default_factory=dict)
    preset: Mapping[str, Any] | None = None  # its name, its hash, and in what this run differs from it

    @property
    def rounds(self) -> int:
        per_round = self.settings.draws * self.settings.samples
        return -(-self.queries // per_round)

    def draws(self, round: int) -> int:
        """Prompt draws of a round (0-based); the last round takes what the budget leaves."""
        total = self.queries // self.settings.samples
        return min(self.settings.draws, total - round * self.settings.draws)

    def milestone(self, queries: int) -> int:
        """How many evaluations after the first are due once so many reward queries are made."""
        return queries * (self.settings.eval_points - 1) // self.queries

    def evaluations(self) -> list[int]:
        """Reward queries at which the run is evaluated: at its start, and after each round that passes a milestone."""
        done, queries = [0], 0
        for round in range(self.rounds):
            queries += self.draws(round) * self.settings.samples
            if self.milestone(queries) > self.milestone(done[-1]):
                done.append(queries)
        return done

    def images_at(self, queries: int) -> EvalImages:
        """What the evaluation at so many reward queries takes: what the settings say, or what the budget gives.

        Of what the budget gives, an evaluation between the first and the last takes half: the first half, because
        images are drawn by their place (:func:`b2bench.evaluate.eval_prompts`).
        """
        own, given = self.settings, automatic_images(self.queries)
        parts = 1 if queries in (0, self.queries) else 2
        test = given.test // parts if own.eval_images is None else own.eval_images
        train = given.train // parts if own.eval_train_images is None else own.eval_train_images
        return EvalImages(test, train, min(test, given.kl if own.kl_images is None else own.kl_images))

    @property
    def images_between(self) -> EvalImages:
        """What the evaluations between the first and the last take, whether there are any or not."""
        return self.images_at(-1)

    def as_dict(self) -> dict[str, Any]:
        """Everything that makes the run what it is, as plain values."""

        def values(kind: Kind, plugin: Any) -> dict[str, Any]:
            found = {p.name: getattr(plugin, p.name) for p in hyperparameters(type(plugin))}
            return found | ({"code": self.code[kind]} if kind in self.code else {})

        return {
            "algorithm": {"name": self.algorithm_name, **values("algorithm", self.algorithm)},
            "wrapper": {"name": self.wrapper_name, **values("wrapper", self.wrapper)},
            "reward": {"name": self.reward_name, **values("reward", self.reward)},
            "backbone": {"name": self.backbone.name, "source": _source_name(self.backbone)},
            "prompts": {"name": self.prompts.name, "hash": self.prompts.content_hash},
            "queries": self.queries,
            "seed": self.seed,
            "settings": asdict(self.settings),
            # Where this machine found them; no part of the cell's identity.
            "found": {"prompts": self.prompts_argument, "plugins": list(self.plugins)},
            **({"preset": dict(self.preset)} if self.preset else {}),
        }

    def cell_hash(self) -> str:
        """Identity of a cell: a hash of :meth:`as_dict` without the seed and without what changes no result."""
        return cell_hash(self.as_dict())


_NO_IDENTITY = (
    "micro_batch",
    "train_micro_batch",
    "decode_micro_batch",
    "gradient_checkpointing",
    "guidance_split",
    "attention",
    "reward_device",
    "reward_process",
    "sample_images",
    "kl_images",
    "inception_weights",
)
"""Settings that change results by rounding at most: how a batch is cut and computed, what is kept or measured besides,
and where a file lies."""


def cell_hash(content: Mapping[str, Any]) -> str:
    """Identity of the cell that ``content``, as of :meth:`RunConfig.as_dict`, describes."""
    kept = {key: value for key, value in content.items() if key not in ("seed", "found", "preset")}
    kept["settings"] = {key: value for key, value in kept["settings"].items() if key not in _NO_IDENTITY}
    if not kept["settings"].get("reward_noise"):  # without noise a cell is what it was before there was the setting
        kept["settings"].pop("reward_noise", None)
    if kept["settings"].get("timestep_fraction") == 1:  # and so with all steps
        kept["settings"].pop("timestep_fraction")
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()[:16]


def code_hash(cls: type) -> str | None:
    """Hash of the file that defines a plugin; None for what is built in, which the benchmark's version names."""
    if cls.__module__.partition(".")[0] == "b2bench":
        return None
    file = inspect.getsourcefile(cls)
    return hashlib.sha256(Path(file).read_bytes()).hexdigest()[:16] if file else None


def _found_again(recorded: Mapping[str, str]) -> str:
    """What to look a run's backbone up by: its name, where that still means the same source."""
    known = backbones().get(recorded["name"])
    return recorded["name"] if known and _source_name(known) == recorded["source"] else recorded["source"]


def _source_name(backbone: Backbone) -> str:
    """Not a path of one machine: the embedded weights go by their name."""
    if backbone.name == "pocket":
        return backbone.name
    # a variant is found by its folder, which holds the pipeline and its scorer
    return str(Path(backbone.source).parent) if backbone.is_pocket else backbone.source


def read_config_file(path: Path) -> dict[str, Any]:
    """A TOML file of options (algo, wrapper, ...) and a table ``[set]`` of hyperparameters.

    Raises:
        UserError: the file is missing or no TOML; with the line.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"config file {path} does not exist") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"config file {path} is no TOML: {error}") from None
    except RecursionError:
        raise UserError(f"config file {path} is no TOML of options: it is nested too deeply") from None
    except OSError as error:
        raise UserError(f"config file {path} cannot be read: {error.strerror}") from None


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
) -> RunConfig:
    """Check every choice and every hyperparameter of ``values`` (``name`` or ``part.name``).

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
            "rename the class of the one that is yours"
        )
    code = {kind: found for kind, cls in classes.items() if (found := code_hash(cls))}
    parts = split_values(values, owners)
    spec = find_backbone(backbone)
    prompts = spec.prompts if prompts is None else prompts
    prompt_set = load_prompts(prompts)
    check_depicted(spec, prompt_set)
    settings: Settings = build(Settings, parts["run"])
    if settings.guidance is None:
        settings = replace(settings, guidance=spec.guidance)
    if max(queries, seed) >= 2**31 or seed < 0:
        raise UserError(f"queries = {queries}, seed = {seed}: the seed cannot be negative, and both are below 2^31")
    if queries < settings.samples:
        raise UserError(
            f"queries = {queries}: the budget must be at least {settings.samples}, one prompt draw "
            f"of {settings.samples} samples"
        )
    if queries % settings.samples:
        raise UserError(
            f"queries = {queries} is no multiple of samples = {settings.samples}; "
            f"take {queries - queries % settings.samples}"
        )
    if algorithm in NO_ALGORITHMS:
        raise UserError(f"{algorithm} is the name of what b2bench measures without training; rename your algorithm")
    names = {p.name for p in hyperparameters(classes["reward"])}
    if "checkpoint" in names and parts[reward].get("checkpoint", "auto") == "auto":
        parts[reward]["checkpoint"] = own_checkpoint(spec, reward)
    if reward in METRIC_NAMES:
        raise UserError(f"{reward} is the name of a metric of every evaluation; give your reward another name")
    if reward == "success" and not spec.is_pocket:
        raise UserError(f"reward success reads pocket scenes only, the backbone is {spec.name}; use clipscore")
    trained: Any = build(classes["algorithm"], parts[algorithm])
    wrapping: Any = build(classes["wrapper"], parts[wrapper])
    if reason := _refusal(algorithm, trained, wrapping) or _refusal(wrapper, wrapping, trained):
        raise Refused(
            {
                "benchmark_version": b2bench.benchmark_version(),
                "algorithm": algorithm,
                "wrapper": wrapper,
                "backbone": spec.name,
                "reward": reward,
                "prompts": prompt_set.name,
                "prompts_hash": prompt_set.content_hash,
                "budget": queries,
                "reason": reason,
            }
        )
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
        reward=build(classes["reward"], parts[reward]),
        prompts_argument=found,
        plugins=tuple(str(path.resolve()) for path in plugins),
        code=code,
    )


def _refusal(name: str, part: Any, other: Any) -> str | None:
    """Why ``part`` does not go with ``other``, if it says so in a method ``refuses``.

    Raises:
        UserError: it answers with something else than text or None, or not at all.
    """
    refuses = getattr(part, "refuses", None)
    if refuses is None:
        return None
    try:
        reason = refuses(other)
    except Exception as error:  # a plugin may raise anything
        raise UserError(f"{name}.refuses({type(other).__name__}) raised {described(error)}") from None
    if reason is not None and not isinstance(reason, str):
        raise UserError(f"{name}.refuses answered {reason!r}; answer with the reason as text, or None")
    return reason or None


def check_text(what: str, text: str | None) -> None:
    """Refuse a name that no store and no JSON file can hold, before there are rows to put it into.

    Raises:
        UserError: it is no UTF-8, as file names and arguments may be.
    """
    try:
        (text or "").encode()
    except UnicodeEncodeError:
        raise UserError(f"{what} {text!r} is no UTF-8 text; rename it") from None


def check_shares(config: RunConfig, processes: int) -> None:
    """Refuse more processes than some round has prompt draws, or an evaluation images.

    Raises:
        UserError: a process would stand idle, and what it computes on nothing has no shape.
    """
    draws = config.draws(config.rounds - 1)
    images = [config.images_at(queries) for queries in config.evaluations()]
    test, train = min(each.test for each in images), min(each.train for each in images)
    least = min(draws, test, train or processes)
    if least < processes:
        raise UserError(
            f"{processes} processes are too many: the smallest round has {draws} prompt draws, the smallest evaluation "
            f"{test} test and {train} training images; take at most {least}"
        )


def own_checkpoint(backbone: Backbone, reward: str) -> str:
    """What ``checkpoint=auto`` of a reward stands for: the models that belong to the backbone."""
    if not backbone.is_pocket:
        return "paper"
    return backbone.scorer if reward == "clipscore" else "pocket"


def check_depicted(backbone: Backbone, prompts: PromptSet) -> None:
    """Refuse prompts that the backbone cannot depict; where it can depict other sets, name them.

    Raises:
        UserError: see :meth:`Backbone.check_prompts`.
    """
    try:
        backbone.check_prompts([*prompts.train, *prompts.test])
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
            raise UserError(f"{what} trains nothing and has no use for {given}; it takes {', '.join(sorted(known))}")


def from_dict(content: Mapping[str, Any]) -> RunConfig:
    """Inverse of :meth:`RunConfig.as_dict`, for resuming.

    Raises:
        UserError: a plugin or a prompt file is no longer there, or the prompts have changed since.
    """
    try:
        config = _again(content)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(
            f"the configuration of the run is damaged, or was changed by hand ({type(error).__name__}: {error}); "
            "start it anew"
        ) from None
    for kind in KINDS:
        if config.code.get(kind) != content[kind].get("code"):
            raise UserError(
                f"the file of {kind} {content[kind]['name']} has changed since the run started; "
                "restore it, or start anew"
            )
    if config.prompts.content_hash != content["prompts"].get("hash"):
        raise UserError(
            f"prompts {content['found']['prompts']} have changed since the run started; restore them, or start anew"
        )
    return replace(config, preset=content.get("preset"))


def _again(content: Mapping[str, Any]) -> RunConfig:
    values: dict[str, Any] = {f"run.{name}": value for name, value in content["settings"].items()}
    for kind in ("algorithm", "wrapper", "reward"):
        values |= {f"{kind}.{name}": value for name, value in content[kind].items() if name not in ("name", "code")}
    return resolve(
        algorithm=content["algorithm"]["name"],
        wrapper=content["wrapper"]["name"],
        reward=content["reward"]["name"],
        backbone=_found_again(content["backbone"]),
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
    """A run by a preset: its options and values, overruled by ``given`` options and hyperparameter ``values``.

    ``defaults`` are options for what neither says.

    The configuration records the preset's name and hash, and each value in which it differs from it.

    Raises:
        UserError: as :func:`resolve` and :func:`b2bench.config.presets.load_preset` do.
    """
    preset = load_preset(name)
    merged = {**defaults, **preset.options, **given}

    def run(options: Mapping[str, Any], own: Mapping[str, Any]) -> RunConfig:
        chosen = {kind: str(merged[option]) for kind, option in _OPTION_OF.items()}
        return resolve(
            **chosen,
            backbone=options["backbone"],
            prompts=options.get("prompts"),
            queries=options["queries"],
            seed=options.get("seed", 0),
            values={**preset.hyperparameters(chosen), **own},
            plugins=plugins,
        )

    if merged.get("algo") is None:
        raise UserError(f"preset {preset.name} leaves the algorithm open: name it with --algo")
    config = run(merged, values)
    # By its own backbone and budget, with what was chosen where it leaves the choice open.
    plain = run({**merged, **preset.options}, {}).as_dict()
    for kind, option in _OPTION_OF.items():
        if option in preset.options:
            plain[kind] = plain[kind] | {"name": preset.options[option]}
    found = deviations(config.as_dict(), plain)
    return replace(config, preset={"name": preset.name, "hash": preset.content_hash, "deviations": found})


_OPTION_OF: dict[Kind, str] = {"algorithm": "algo", "wrapper": "wrapper", "reward": "reward"}


def split_values(values: Mapping[str, Any], owners: Mapping[str, tuple[str, type]]) -> dict[str, dict[str, Any]]:
    """Give every ``name`` or ``owner.name`` to the part that has it; {owner: {name: value}}."""
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
                f"b2bench show {' or '.join(list(owners)[1:])} lists them."
            )
        if len(found) > 1:
            options = " or ".join(f"{owner}.{name}" for owner in found)
            raise UserError(f"hyperparameter {name!r} is ambiguous here: say {options}")
        parts[found[0]][name] = value
    return parts


def parse_assignments(assignments: list[str]) -> dict[str, str]:
    """``["lr=1e-3"]`` to ``{"lr": "1e-3"}``.

    Raises:
        UserError: an entry without ``=``, or a name given twice.
    """
    values: dict[str, str] = {}
    for text in assignments:
        name, equals, value = text.partition("=")
        if not equals or not name.strip():
            raise UserError(f"--set {text!r} is not of the form name=value")
        if name.strip() in values:
            raise UserError(f"--set {name.strip()} is given twice")
        values[name.strip()] = value.strip()
    return values
