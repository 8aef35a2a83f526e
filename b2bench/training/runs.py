"""Starting, resuming and evaluating runs: what stands between the command line and the trainer."""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

import torch
from accelerate import Accelerator
from filelock import FileLock, Timeout

import b2bench
from b2bench.backbones.stable_diffusion import StableDiffusion, lora_file
from b2bench.config.resolve import from_dict
from b2bench.config.run import RunConfig, cell_hash
from b2bench.config.settings import PROFILE_SETTINGS
from b2bench.engine import Engine
from b2bench.errors import UserError
from b2bench.evaluation.evaluate import Evaluation, evaluate
from b2bench.leaderboard.openness import CONFIDENCE, RESAMPLES, Point, Profile, openness
from b2bench.leaderboard.openness import rows as profile_rows
from b2bench.store.store import Store
from b2bench.studies.profile import pocket_styles, sample_leaves
from b2bench.training.provenance import versions
from b2bench.training.trainer import (
    Listener,
    Summary,
    Trainer,
    make_judges,
    pretrained_policy,
    ready_reward,
    write_config,
)


def _commit() -> str | None:
    """The commit of the checkout that b2bench runs from, ``-dirty`` if it has changes; None once installed."""
    root = Path(__file__).parents[2]
    if not (root / ".git").exists():
        return None
    try:
        command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=12"]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip() or None
    except (OSError, subprocess.SubprocessError):
        return None


def run_row(
    config: RunConfig, run_id: str, name: str | None, policy: StableDiffusion, processes: int = 1
) -> dict[str, Any]:
    """The row of table ``runs``."""
    return {
        "run_id": run_id,
        "name": name or run_id,
        "benchmark_version": b2bench.benchmark_version(),
        "algorithm": config.algorithm_name,
        "wrapper": config.wrapper_name,
        "backbone": config.backbone.name,
        "reward": config.reward_name,
        "prompts": config.prompts.name,
        "prompts_hash": config.prompts.content_hash,
        "seed": config.seed,
        "budget": config.queries,
        "config": config.as_dict(),
        "config_hash": config.cell_hash(),
        "versions": versions(),
        "commit": _commit(),
        "device": str(policy.device) if processes == 1 else f"{policy.device.type} x {processes}",
        "threads": policy.threads.count,
    }


def new_run_id(config: RunConfig) -> str:
    """Readable and unique: ``dpok-b2-s0-20260301T101500-3fa9``."""
    now = datetime.now(UTC).strftime("%Y%m%dT%H%M%S")
    return f"{config.algorithm_name}-{config.wrapper_name}-s{config.seed}-{now}-{secrets.token_hex(2)}"


def make_folder(out: Path, run_id: str) -> None:
    folder = out / run_id
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"the run folder {folder} cannot be made ({error.strerror}); choose another with --out"
        ) from None


def check_network(config: RunConfig) -> None:
    """If a checkpoint is to come from the hub and the hub is out of reach, make its client use the cache alone.

    It would try every file for half a minute, minutes in all, before it says that it is not there.
    """
    if Path(config.backbone.source).exists() and getattr(config.reward, "checkpoint", "") != "paper":
        return
    from huggingface_hub import constants, get_session

    try:
        get_session().head(constants.ENDPOINT, timeout=5)
    except Exception:  # no name, no route, a proxy that refuses, or offline by the user's choice
        constants.HF_HUB_OFFLINE = True


def start(config: RunConfig, store: Store, out: Path, name: str | None, listener: Listener) -> Summary:
    """Run ``config`` from the beginning. Nothing is stored before backbone, reward and judges are loaded.

    If ``name`` is that of the same run, broken off, it goes on from its last checkpoint.

    Raises:
        UserError: the store, the folder, the backbone or the reward cannot be used.
        RunFailed: the run started and could not go on.
    """
    engine = Engine(scaled=config.settings.precision == "fp16")
    run_id = engine.same(new_run_id(config))
    folder = out / run_id

    def check() -> str | None:
        store.check()
        row = store.named_run(name, config.cell_hash(), config.seed, b2bench.benchmark_version())
        return None if row is None else row["run_id"]

    if (broken_off := engine.alone(check)) is not None:
        return resume(broken_off, store, out, listener)
    check_network(config)
    trainer = Trainer(config, run_id, store, folder, listener, engine)
    with contextlib.ExitStack() as stack:

        def enter() -> None:
            make_folder(out, run_id)
            write_config(config, folder)
            stack.enter_context(_only_process(folder, run_id))
            store.start_run(run_row(config, run_id, name, trainer.policy, engine.world))

        engine.alone(enter)
        return _run(trainer)


def resume(text: str, store: Store, out: Path, listener: Listener) -> Summary:
    """Continue a run, found by id, name or unique prefix, from its last checkpoint.

    Raises:
        UserError: no such run, it is finished, or what it needs is no longer there.
    """
    engine = Engine()

    def find() -> dict[str, Any]:
        store.check()
        row = store.find_run(text)
        run_id = row["run_id"]
        if row["status"] == "done":
            raise UserError(f"run {run_id} is finished; b2bench show {run_id} prints it")
        if row["benchmark_version"] != b2bench.benchmark_version():
            raise UserError(
                f"run {run_id} is of benchmark version {row['benchmark_version']}, this is b2bench "
                f"{b2bench.both_versions()}; results of two benchmark versions do not mix. Start it anew."
            )
        return {"run_id": run_id, "config": row["config"]}

    row = engine.alone(find)
    run_id, config = row["run_id"], from_dict(row["config"])
    if config.settings.precision == "fp16":
        engine.scale_losses()
    folder = out / run_id
    if not folder.is_dir():  # without its checkpoints it would start anew, over the rows that are stored
        raise UserError(f"run {run_id} has no folder {folder}; name the folder that holds it with --out")
    check_network(config)
    with contextlib.ExitStack() as stack:
        engine.alone(lambda: stack.enter_context(_only_process(folder, run_id)) or None)
        trainer = Trainer(config, run_id, store, folder, listener, engine)
        trainer.resume()
        engine.alone(lambda: store.restart_run(run_id))
        return _run(trainer)


@contextlib.contextmanager
def _only_process(folder: Path, run_id: str) -> Iterator[None]:
    """Hold the run's folder. The system lets go of it when the process ends, however it ends.

    Raises:
        UserError: another process holds it: two would rewind each other's rounds.
    """
    lock = FileLock(folder / "lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise UserError(f"run {run_id} is running in another process; wait for it, or stop it first") from None
    try:
        yield
    finally:
        lock.release()


def _run(trainer: Trainer) -> Summary:
    """Run; an interrupt carries the run's id, which whoever wants to resume must know."""
    try:
        return trainer.run()
    except KeyboardInterrupt:
        raise KeyboardInterrupt(trainer.run_id) from None


def evaluate_lora(
    config: RunConfig,
    lora: Path | None,
    queries: int | None,
    store: Store,
    name: str | None,
    progress: Callable[[str], None],
) -> tuple[str, Evaluation]:
    """Measure somebody's LoRA (None: the pretrained model) by the protocol of runs, into the store.

    It becomes a run of algorithm ``external`` whose only evaluation stands at ``queries``, the reward queries
    that its owner says it cost, among the runs of that budget. The pretrained model cost none, and stands among
    the runs of budget ``queries``. The LoRA's hash is part of its cell's identity and of its name.

    Raises:
        UserError: the LoRA does not fit the backbone, nobody says what it cost, or the store cannot be used.
    """
    file = None if lora is None else lora_file(lora)
    if file is not None and not queries:
        raise UserError(f"how many reward queries did {lora} cost? --queries N; tables compare runs of equal budgets")
    store.check()
    settings, budget = config.settings, queries or config.queries
    images = replace(config, queries=budget).images_at(budget)
    check_network(config)
    progress(f"loading {config.backbone.name}")
    policy = _fixed_policy(config, file)
    judges = make_judges(config, policy.device)
    result = evaluate(
        policy,
        judges,
        {"test": config.prompts.test, "train": config.prompts.train},
        images.splits,
        settings.eval_seed,
        settings.micro_batch,
        lambda split: progress(f"evaluating on {split} prompts"),
        kl_images=images.kl,
    )
    label, code = "pretrained", None
    if lora is not None and file is not None:
        label, code = _lora_identity(lora, file)
    run_id = f"external-{label}-s{config.seed}-{secrets.token_hex(4)}"
    row = run_row(config, run_id, name or label, policy)
    row |= {"algorithm": "external", "wrapper": label, "budget": budget}
    row["config"] = row["config"] | {
        "algorithm": {"name": "external", "lora": label, "code": code},
        "wrapper": {"name": label},
        "queries": budget,
    }
    row["config_hash"] = cell_hash(row["config"])
    store.start_run(row)
    spent = 0 if lora is None else budget
    store.record_evals(run_id, result.metric_rows(spent), result.image_rows(spent, config.reward_name))
    store.finish_run(run_id, "done")
    return run_id, result


def _fixed_policy(config: RunConfig, lora: Path | None) -> StableDiffusion:
    """The backbone, with a LoRA file if there is one, to sample from and not to train."""
    policy = pretrained_policy(config, Accelerator().device)
    if lora is not None:
        policy.load_lora(lora)
    return policy


def _lora_identity(given: Path, file: Path) -> tuple[str, str]:
    """A name that tells a LoRA from others of the same file name, and its hash."""
    code = hashlib.sha256(file.read_bytes()).hexdigest()[:16]
    return f"{given.stem}-{code[:6]}", code


class ProfileListener(Protocol):
    """Who watches a profile; none of this changes it."""

    def stage(self, text: str) -> None:
        """What it does now, in a few words."""

    def queried(self, queries: int) -> None:
        """So many more reward queries were made."""

    def point_done(self, prompts: str, point: Point) -> None:
        """The branches of one tau are measured."""


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

    The configs differ in their prompts alone. Each profile is stored when it is whole.

    Raises:
        UserError: the LoRA does not fit, or the store cannot be used.
        RunFailed: the reward answers with something else than finite numbers.
    """
    config, settings = configs[0], configs[0].settings
    file = None if lora is None else lora_file(lora)
    store.check()
    check_network(config)
    listener.stage(f"loading {config.backbone.name}")
    policy = _fixed_policy(config, file)
    listener.stage(f"loading {config.reward_name}")
    reward, _ = ready_reward(config, policy.device)
    styles = pocket_styles(policy.device) if config.backbone.is_pocket else None
    label = None if lora is None or file is None else _lora_identity(lora, file)[0]
    done = []
    for chosen in configs:
        started, points = datetime.now(UTC).replace(tzinfo=None), []
        for tau in taus:
            listener.stage(f"{chosen.prompts.name}: {branches} branches of {leaves} leaves, {tau} steps to go")
            found = sample_leaves(
                policy,
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
            "benchmark_version": b2bench.benchmark_version(),
            "backbone": config.backbone.name,
            "lora": label,
            "reward": config.reward_name,
            "prompts": chosen.prompts.name,
            "prompts_hash": chosen.prompts.content_hash,
            "split": split,
            "seed": config.seed,
            "settings": {name: content["settings"][name] for name in PROFILE_SETTINGS}
            | {"reward": content["reward"], "backbone": content["backbone"]}
            | {"resamples": RESAMPLES, "confidence": CONFIDENCE, "versions": versions(), "commit": _commit()},
            "queries": result.queries,
        }
        store.record_profile([shared | row for row in profile_rows(result)])
        done.append((profile_id, result))
    return done


def limit_threads(threads: int | None) -> None:
    """The number of threads of what follows; None keeps torch's choice, the cores or OMP_NUM_THREADS."""
    if threads is not None:
        torch.set_num_threads(max(1, min(threads, os.cpu_count() or 1)))
