"""A run, resolved: what it is made of, what it costs in queries, and the hash of its cell."""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from b2bench.backbones.specs import Backbone
from b2bench.config.prompt_sets import PromptSet
from b2bench.config.settings import NO_IDENTITY, OF_EQUAL, Settings
from b2bench.errors import UserError
from b2bench.eval_images import EvalImages, automatic_images
from b2bench.hyperparameters import hyperparameters
from b2bench.plugin_files import content_hash
from b2bench.registry import Kind
from b2bench.search import FIRST_TUNING_SEED
from b2bench.version import benchmark_version

if TYPE_CHECKING:  # they are written in torch's types, and a configuration can be read without torch
    from b2bench.protocols import Algorithm, Reward, Wrapper


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
    algorithm: Algorithm
    wrapper: Wrapper
    reward: Reward
    prompts_argument: str = ""
    plugins: tuple[str, ...] = ()
    code: Mapping[Kind, str] = field(default_factory=dict)
    preset: Mapping[str, Any] | None = None  # its name, its hash, and in what this run differs from it
    tuning: bool = False  # it helps to choose settings: its seed is one of tuning's, and reports leave it out

    @property
    def rounds(self) -> int:
        per_round = self.settings.draws * self.settings.samples
        return -(-self.queries // per_round)

    def draws(self, round: int) -> int:
        """Return the prompt draws of a round (0-based); the last round takes what the budget leaves."""
        total = self.queries // self.settings.samples
        return min(self.settings.draws, total - round * self.settings.draws)

    @property
    def notices(self) -> list[str]:
        """What whoever starts the run should know of it: that its wrapper needs more rounds, say."""
        notice = getattr(self.wrapper, "notice", None)
        text = notice(self.rounds, self.settings.steps) if notice else None
        return [f"{self.wrapper_name}: {text}"] if text else []

    def milestone(self, queries: int) -> int:
        """Return how many evaluations after the first are due after so many reward queries."""
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
        """Return what the evaluation at so many reward queries takes: what the settings say, or what the budget gives.

        Of what the budget gives, an evaluation between the first and the last takes half: the first half, because
        images are drawn by their place (:func:`b2bench.evaluation.evaluate.eval_prompts`).
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
        """Return everything that defines the run, as plain values."""

        def values(kind: Kind, plugin: Any) -> dict[str, Any]:
            found = {p.name: getattr(plugin, p.name) for p in hyperparameters(type(plugin))}
            return found | ({"code": self.code[kind]} if kind in self.code else {})

        return {
            "algorithm": {"name": self.algorithm_name, **values("algorithm", self.algorithm)},
            "wrapper": {"name": self.wrapper_name, **values("wrapper", self.wrapper)},
            "reward": {"name": self.reward_name, **values("reward", self.reward)},
            "backbone": {"name": self.backbone.name, "source": source_name(self.backbone)},
            "prompts": {"name": self.prompts.name, "hash": self.prompts.content_hash},
            "queries": self.queries,
            "seed": self.seed,
            "settings": asdict(self.settings),
            # Where this machine found them; no part of the cell's identity.
            "found": {"prompts": self.prompts_argument, "plugins": list(self.plugins)},
            **({"preset": dict(self.preset)} if self.preset else {}),
            **({"tuning": True} if self.tuning else {}),
        }

    def cell_hash(self) -> str:
        """Identity of a cell: a hash of :meth:`as_dict` without the seed and without what changes no result."""
        return cell_hash(self.as_dict())


def cell_hash(content: Mapping[str, Any]) -> str:
    """Identity of the cell that ``content``, as of :meth:`RunConfig.as_dict`, describes."""
    kept = {key: value for key, value in content.items() if key not in ("seed", "found", "preset", "tuning")}
    kept["settings"] = {key: value for key, value in kept["settings"].items() if key not in NO_IDENTITY}
    if not kept["settings"].get("reward_noise"):  # without noise a cell is what it was before there was the setting
        kept["settings"].pop("reward_noise", None)
    if kept["settings"].get("timestep_fraction") == 1:  # and so with all steps
        kept["settings"].pop("timestep_fraction")
    if kept["settings"].get("advantage") == "history":  # the only rule there was
        kept["settings"].pop("advantage")
    if kept["settings"].get("updates_per_round") is None:  # all of a round on its rollouts, as before
        kept["settings"].pop("updates_per_round", None)
    for part in ADDED.keys() & kept.keys():  # and so with these, where they leave everything as it was
        later = ADDED[part]
        kept[part] = {name: value for name, value in kept[part].items() if name not in later or value is not None}
    algorithm = kept.get("algorithm", {})  # a baseline has none
    if (own := ADDED_TO.get(algorithm.get("name", ""))) and not algorithm.get(own):
        kept["algorithm"] = {name: value for name, value in algorithm.items() if name != own}
    for equal, names in OF_EQUAL.items():
        if kept["settings"].get("equal", equal) != equal:  # runs before benchmark version 3 do not say
            kept["settings"] = {name: value for name, value in kept["settings"].items() if name not in names}
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()[:16]


def stored_hash(row: Mapping[str, Any]) -> str | None:
    """Return the hash of the cell that a row of table ``runs`` describes.

    None where it cannot be known: of another benchmark version, whose rule was another, or without a configuration.
    """
    content = row["config"]
    if row["benchmark_version"] != benchmark_version() or not isinstance(content, Mapping):
        return None
    return cell_hash(content) if isinstance(content.get("settings"), Mapping) else None


ADDED = {"wrapper": ("schedule_rounds",), "algorithm": ("clip_nats",)}
"""Hyperparameters that came later, and change nothing where they are None."""
ADDED_TO = {"ddpo": "kl_weight", "rwr": "guided"}
"""That of one algorithm that came later, and changes nothing where it is zero or false."""


def code_hash(cls: type) -> str | None:
    """Hash of the file that defines a plugin, and of those beside it that it imports.

    None for what is built in, which the benchmark's version names.
    """
    if cls.__module__.partition(".")[0] == "b2bench":
        return None
    file = inspect.getsourcefile(cls)
    return content_hash(Path(file)) if file else None


def parts_hash(reward: Any) -> str | None:
    """Hash of the files of a reward that is made of others, and of theirs; None if all of these are built in."""
    codes = [code_hash(type(part)) for part in getattr(reward, "parts", ())]
    if not any(codes):
        return None
    return hashlib.sha256(json.dumps([code_hash(type(reward)), *codes]).encode()).hexdigest()


def source_name(backbone: Backbone) -> str:
    """Not a path of one machine: the embedded weights go by their name."""
    if backbone.name == "pocket":
        return backbone.name
    # a variant is found by its folder, which holds the pipeline and its scorer
    return str(Path(backbone.source).parent) if backbone.is_pocket else backbone.source


def check_seed(config: RunConfig) -> None:
    """Refuse a seed that has another purpose: settings must not be judged by the seeds that they were chosen with.

    Raises:
        UserError: a final run has a tuning seed, or a seed that its settings were chosen with; or a tuning run has a
            seed of final runs.
    """
    seed = config.seed
    if config.tuning and seed < FIRST_TUNING_SEED:
        raise UserError(
            f"seed = {seed}: a tuning run has a seed from {FIRST_TUNING_SEED} on; the others are for the runs that a "
            f"report compares. Try --seed {FIRST_TUNING_SEED}"
        )
    if not config.tuning and seed >= FIRST_TUNING_SEED:
        raise UserError(
            f"seed = {seed}: seeds from {FIRST_TUNING_SEED} on are for tuning (b2bench tune), and settings must not be "
            f"judged by a seed that they may have been chosen with; try a seed from 0 to {FIRST_TUNING_SEED - 1}"
        )
    chosen_with = (config.preset or {}).get("tuning_seeds", ())
    if not config.tuning and seed in chosen_with:
        raise UserError(
            f"seed = {seed}: the settings of preset {(config.preset or {})['name']} were chosen with this seed, which "
            f"would flatter them; try a seed other than {', '.join(map(str, chosen_with))}"
        )


def check_shares(config: RunConfig, processes: int) -> None:
    """Refuse more processes than some round has prompt draws, or an evaluation images.

    Raises:
        UserError: a process would stand idle, and what it computes on nothing has no shape.
    """
    draws = config.draws(config.rounds - 1)
    together = config.settings.draws_per_update // 2  # an update may take fewer than planned
    if config.settings.updates_per_round is not None and 1 < processes > together:
        raise UserError(
            f"{processes} processes are too many for {config.algorithm_name}, which samples anew every "
            f"{config.settings.draws_per_update} prompt draws or so; try at most {max(1, together)}, or more "
            "transitions_per_step"
        )
    images = [config.images_at(queries) for queries in config.evaluations()]
    test, train = min(each.test for each in images), min(each.train for each in images)
    least = min(draws, test, train or processes)
    if least < processes:
        raise UserError(
            f"{processes} processes are too many: the smallest round has {draws} prompt draws, the smallest evaluation "
            f"{test} test and {train} training images; try at most {least}"
        )
