"""Where a reward is decided: leaves of branches that are made at several steps, and how far they differ.

A branch at tau is what branch-based sampling makes when it trains the last tau of T steps (see
``b2bench.rollout.rollout``): one trajectory of T - tau steps, then K leaves with noise of their own. At
tau = T the leaves share the prompt and the initial latent x_T, as under wrapper ``bs``, and nothing else.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from b2bench.backbones.stable_diffusion import StableDiffusion, lora_file
from b2bench.config.run import RunConfig
from b2bench.config.settings import UNTRAINED_SETTINGS
from b2bench.engine import accelerator
from b2bench.errors import UserError
from b2bench.evaluation.judges import scored
from b2bench.leaderboard.openness import CONFIDENCE, RESAMPLES, Point, Profile, openness
from b2bench.leaderboard.openness import rows as profile_rows
from b2bench.pocket.paths import POCKET_WEIGHTS
from b2bench.protocols import Policy, Reward
from b2bench.rollout import Noise, rollout
from b2bench.seeding import generator, normal
from b2bench.store.database import FOR_HOURS
from b2bench.store.store import Store
from b2bench.studies.lora import check_network, lora_identity
from b2bench.training.provenance import commit, versions
from b2bench.training.setup import check_prompts, load_policy, ready_reward
from b2bench.types import Interval, micro_batches
from b2bench.version import benchmark_version

# styles(images [N, 3, h, w]) -> class indices [N], int64
Styles = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Leaves:
    """The leaves of B branches that were made with ``tau`` steps to go: rewards [B, K], float32; styles [B, K]."""

    tau: int
    prompts: tuple[str, ...]
    rewards: Tensor
    styles: Tensor | None


def pocket_styles(device: torch.device) -> Styles:
    """Return the style that pocket's classifier sees in an image: its most likely class."""
    from b2bench.pocket.judges import Classifier

    classifier = Classifier.load(POCKET_WEIGHTS / "classifier.safetensors", device)
    return lambda images: classifier(images.to(device))["style"].argmax(1)


def branch_noise(policy: Policy, seed: int, first: int, leaves: int, tau: int) -> Noise:
    """Return noise of a rollout whose first row is leaf 0 of branch ``first``.

    Before the branch point it depends on (seed, branch, step), so that the branches of every tau leave the same
    trajectories: differences between tau are paired. After it, on (seed, branch, leaf, tau, step): no leaf
    repeats one of another tau.
    """

    def draw(rows: Sequence[int], step: int) -> Tensor:
        places = [(first + row // leaves, row % leaves) for row in rows]
        if step < policy.num_steps - tau:
            return normal(policy.latent_shape, seed, "profile-stem", [(branch, step) for branch, _ in places])
        return normal(policy.latent_shape, seed, "profile-leaf", [(*place, tau, step) for place in places])

    return draw


@torch.no_grad()
def sample_leaves(
    policy: Policy,
    reward: Reward,
    reward_name: str,
    prompts: Sequence[str],
    *,
    tau: int,
    branches: int,
    leaves: int,
    seed: int,
    micro_batch: int = 48,
    styles: Styles | None = None,
    progress: Callable[[int], None] = lambda queries: None,
) -> Leaves:
    """Sample ``branches`` branches of ``leaves`` leaves at ``tau`` and score every leaf: one reward query each.

    The prompts are drawn as a training round draws them, uniformly and with replacement, so branches are
    independent draws; the same ones at every tau of a seed. ``progress`` is told of queries as they are made.

    Raises:
        RunFailed: the reward answers with something else than finite numbers.
    """
    drawn = torch.randint(len(prompts), (branches,), generator=generator(seed, "profile-prompts"))
    names = [prompts[i] for i in drawn]
    rewards, classes = [], []
    for part in micro_batches(branches, max(1, micro_batch // leaves)):
        found = rollout(
            policy,
            names[part],
            samples=leaves,
            leaves=leaves,
            interval=Interval(policy.num_steps - tau, policy.num_steps),
            noise=branch_noise(policy, seed, part.start, leaves, tau),
            micro_batch=micro_batch,
        )
        rewards.append(scored(reward, found.images, found.prompts, reward_name))
        if styles is not None:
            classes.append(styles(found.images).cpu())
        progress(len(found))
    return Leaves(
        tau=tau,
        prompts=tuple(names),
        rewards=torch.cat(rewards).reshape(branches, leaves),
        styles=torch.cat(classes).reshape(branches, leaves) if classes else None,
    )


class ProfileListener(Protocol):
    """Who watches a profile; none of this changes it."""

    def stage(self, text: str) -> None:
        """Hear what it does now, in a few words."""

    def queried(self, queries: int) -> None:
        """So many more reward queries were made."""

    def point_done(self, prompts: str, point: Point) -> None:
        """Hear that the branches of one tau are measured."""


def _policies(
    configs: Sequence[RunConfig], device: torch.device, stage: Callable[[str], None], lora: Path | None
) -> dict[str, StableDiffusion]:
    """Load {source: network} of all configs, before an hour is spent on the first; every prompt set is checked."""
    found: dict[str, StableDiffusion] = {}
    for config in configs:
        if (known := found.get(config.backbone.source)) is not None:
            check_prompts(known, config.prompts)
            continue
        for earlier in found.values():  # which took the process's threads
            torch.set_num_threads(earlier.threads.count)
        found[config.backbone.source] = load_policy(config, device, stage, lora=lora)
    return found


def _lora_for(lora: Path, configs: Sequence[RunConfig]) -> Path:
    """Return the file of a LoRA that all configs are drawn with.

    Raises:
        UserError: there is none, or it cannot be of the networks that draw them.
    """
    file = lora_file(lora)
    for config in configs:
        check_network(file, config)
    if len({config.backbone.source for config in configs}) > 1:
        raise UserError(
            f"--lora with --prompts {','.join(config.prompts.name for config in configs)}: pocket has a network for "
            "each template, and a LoRA is of one; try the prompts that it was trained on"
        )
    return file


def profile(
    configs: Sequence[RunConfig],
    lora: Path | None,
    *,
    split: str,
    taus: Sequence[int],
    branches: int,
    leaves: int,
    store: Store,
    listener: ProfileListener,
) -> list[tuple[str, Profile]]:
    """Measure when a reward is decided, for each config's prompts, into the store: [(profile id, profile)].

    The configs differ in their prompts, and in the network that draws them: pocket has one for each template. Each
    profile is stored when it is whole.

    Raises:
        UserError: the LoRA does not fit, a prompt of any set cannot be read, or the store cannot be used.
        RunFailed: the reward answers with something else than finite numbers.
    """
    config, settings = configs[0], configs[0].settings
    file = None if lora is None else _lora_for(lora, configs)
    store.check()
    device = accelerator().device
    policies = _policies(configs, device, listener.stage, file)
    listener.stage(f"loading {config.reward_name}")
    reward, _ = ready_reward(config, device)
    styles = pocket_styles(device) if config.backbone.is_pocket else None
    label = None if lora is None or file is None else lora_identity(lora, file)[0]
    done = []
    for chosen in configs:
        started, points = datetime.now(UTC).replace(tzinfo=None), []
        for tau in taus:
            listener.stage(f"{chosen.prompts.name}: {branches} branches of {leaves} leaves, {tau} steps to go")
            found = sample_leaves(
                policies[chosen.backbone.source],
                reward,
                config.reward_name,
                chosen.prompts.train if split == "train" else chosen.prompts.test,
                tau=tau,
                branches=branches,
                leaves=leaves,
                seed=config.seed,
                micro_batch=settings.micro_batch,
                styles=styles,
                progress=listener.queried,
            )
            classes = None if found.styles is None else found.styles.numpy()
            point = Point(tau, branches, leaves, openness(found.rewards.numpy(), classes, config.seed))
            points.append(point)
            listener.point_done(chosen.prompts.name, point)
        result = Profile(chosen.prompts.name, settings.steps, tuple(points), len(taus) * branches * leaves)
        profile_id = f"profile-{chosen.prompts.name}-s{config.seed}-{started:%Y%m%dT%H%M%S}-{secrets.token_hex(2)}"
        content = chosen.as_dict()
        shared = {
            "profile_id": profile_id,
            "started": started,
            "benchmark_version": benchmark_version(),
            "backbone": config.backbone.name,
            "lora": label,
            "reward": config.reward_name,
            "prompts": chosen.prompts.name,
            "prompts_hash": chosen.prompts.content_hash,
            "split": split,
            "seed": config.seed,
            "settings": {name: content["settings"][name] for name in UNTRAINED_SETTINGS}
            | {"reward": content["reward"], "backbone": content["backbone"]}
            | {"resamples": RESAMPLES, "confidence": CONFIDENCE, "versions": versions(), "commit": commit()},
            "queries": result.queries,
        }
        with store.waiting(FOR_HOURS):
            store.record_profile([shared | row for row in profile_rows(result)])
        done.append((profile_id, result))
    return done
