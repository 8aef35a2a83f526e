"""Starting and resuming runs: what stands between the command line and the trainer."""

from __future__ import annotations

import contextlib
import secrets
import shutil
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import Timeout

from b2bench.config.resolve import from_dict
from b2bench.config.run import RunConfig
from b2bench.engine import Engine
from b2bench.errors import Busy, UserError
from b2bench.evaluation.reward_process import RewardProcess
from b2bench.locks import lockable, process_lock
from b2bench.store.database import SHORT
from b2bench.store.store import Store
from b2bench.training.inputs import digests
from b2bench.training.listener import Listener
from b2bench.training.provenance import run_row
from b2bench.training.summary import Summary
from b2bench.training.trainer import CONFIG_FILE, Trainer, write_config
from b2bench.version import benchmark_version, both_versions


class _Taken(UserError):
    """A run's folder is another process's or another run's, and stays as it is."""


def new_run_id(config: RunConfig) -> str:
    """Readable and unique: ``dpok-b2-s0-20260301T101500-3fa9``."""
    now = datetime.now(UTC).strftime("%Y%m%dT%H%M%S")
    return f"{config.algorithm_name}-{config.wrapper_name}-s{config.seed}-{now}-{secrets.token_hex(2)}"


def make_folder(out: Path, run_id: str) -> None:
    folder = out / run_id
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"the run folder {folder} cannot be made ({error.strerror}); try another --out") from None


def start(config: RunConfig, store: Store, out: Path, name: str | None, listener: Listener) -> Summary:
    """Run ``config`` from the beginning. Nothing is stored before backbone, reward and judges are loaded.

    If ``name`` is that of the same run, broken off, it goes on from its last checkpoint.

    Raises:
        UserError: the store, the folder, the backbone or the reward cannot be used.
        RunFailed: the run started and could not go on.
    """
    engine = Engine(scaled=config.settings.precision == "fp16")
    run_id = engine.broadcast_object(new_run_id(config))
    folder = out / run_id

    def check() -> str | None:
        store.check()
        row = store.named_run(name, config.cell_hash(), config.seed, benchmark_version())
        return None if row is None else row["run_id"]

    if (broken_off := engine.on_main_process(check)) is not None:
        return resume(broken_off, store, out, listener, config)
    trainer = Trainer(config, run_id, store, folder, listener, engine)
    with contextlib.ExitStack() as stack:

        def enter() -> None:
            row = run_row(config, run_id, name, trainer.policy, engine.world)
            stack.enter_context(_entered(config, store, out, row))

        listener.begins(run_id)
        with _judged(trainer), _found_in_store(trainer, new=True):
            engine.on_main_process(enter)
            return trainer.run()


@contextlib.contextmanager
def _entered(config: RunConfig, store: Store, out: Path, row: Mapping[str, Any]) -> Iterator[None]:
    """Give a new run, of ``row``, its folder, which it holds in the block, and its row in the store.

    Raises:
        UserError: nothing is stored of it, and nothing stays of it. A folder that is another run's stays as it is.
    """
    run_id = row["run_id"]
    make_folder(out, run_id)
    folder = out / run_id
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(_only_process(folder, run_id))
            if (folder / CONFIG_FILE).exists():  # two that start in the same second may have the same id
                raise _Taken(f"the run folder {folder} is another run's; try the same command again")
            write_config(config, folder)
            store.start_run(row, unique=True)
        except _Taken:
            raise
        except (UserError, OSError):
            shutil.rmtree(folder, ignore_errors=True)
            raise
        yield


def resume(text: str, store: Store, out: Path, listener: Listener, wanted: RunConfig | None = None) -> Summary:
    """Continue a run, found by id, name or unique prefix, from its last checkpoint.

    ``wanted`` is the configuration of the same cell and seed as it is asked for now, None for the stored one.

    Raises:
        UserError: the run does not exist, it is finished, or something that it needs is missing.
    """
    engine = Engine()

    def find() -> dict[str, Any]:
        store.check()
        row = store.find_run(text)
        run_id = row["run_id"]
        _refuse_done(row)
        if row["benchmark_version"] != benchmark_version():
            raise UserError(
                f"run {run_id} is of benchmark version {row['benchmark_version']}, this is b2bench "
                f"{both_versions()}; results of two benchmark versions do not mix; try a new run"
            )
        return {"run_id": run_id, "config": row["config"]}

    row = engine.on_main_process(find)
    run_id, config = row["run_id"], wanted or from_dict(row["config"])
    engine.on_main_process(lambda: _refuse_changed(row["config"] or {}, config))
    if config.settings.precision == "fp16":
        engine.scale_losses()
    folder = out / run_id
    if not folder.is_dir():  # without its checkpoints it would start anew, over the rows that are stored
        raise UserError(f"run {run_id} has no folder {folder}; try --out with the folder that holds it")
    with contextlib.ExitStack() as stack:
        engine.on_main_process(lambda: stack.enter_context(_only_process(folder, run_id)) or None)
        engine.on_main_process(
            lambda: _refuse_done(store.find_run(run_id))
        )  # the process that had it may have ended it
        trainer = Trainer(config, run_id, store, folder, listener, engine)
        listener.begins(run_id)
        with _judged(trainer), _found_in_store(trainer):
            trainer.resume()
            if trainer.queries:
                listener.resumed(trainer.queries)
            engine.on_main_process(lambda: store.restart_run(run_id))
            return trainer.run()


def _refuse_done(row: Mapping[str, Any]) -> None:
    if row["status"] == "done":
        raise UserError(f"run {row['run_id']} is finished; try b2bench show {row['run_id']}")


def _refuse_changed(stored: Mapping[str, Any], config: RunConfig) -> None:
    """Refuse weights that are others than those that the run began with, under the same name."""
    if not (began := (stored.get("found") or {}).get("weights")):
        return
    now = digests(config)
    if changed := [name for name, digest in began.items() if now.get(name, digest) != digest]:
        raise UserError(
            f"{', '.join(changed)}: the weights have changed since the run started; try restoring them, or a new run"
        )


@contextlib.contextmanager
def _only_process(folder: Path, run_id: str) -> Iterator[None]:
    """Hold the run's folder. The system lets go of it when the process ends, however it ends.

    Raises:
        UserError: another process holds it, and two would rewind each other's rounds; or its disk has no locks.
    """
    lock = process_lock(folder / "lock")
    try:
        with lockable(f"folder {folder}", "--out"):
            lock.acquire(timeout=0)
    except Timeout:
        raise _Taken(f"run {run_id} is running in another process; try waiting for it, or stop it first") from None
    try:
        yield
    finally:
        lock.release()


@contextlib.contextmanager
def _judged(trainer: Trainer) -> Iterator[None]:
    """End what the reward runs in, if that is a process of its own, however the block ends."""
    try:
        yield
    finally:
        if isinstance(process := trainer.judges.reward, RewardProcess):
            process.close()


@contextlib.contextmanager
def _found_in_store(trainer: Trainer, new: bool = False) -> Iterator[None]:
    """Let an interrupt carry the run's id, which whoever wants to resume must know, if the store has the run.

    If it came before that, nothing stays of a ``new`` run; and a run that it left as running is interrupted.
    """
    store, run_id = trainer.store, trainer.run_id
    try:
        yield
    except KeyboardInterrupt:
        if trainer.engine.first:
            store.patience = min(store.patience, SHORT)
            with contextlib.suppress(Busy):  # then it is found stale
                rows = store.runs(run_id=run_id) if store.path.exists() else []
                if not rows and new:
                    shutil.rmtree(trainer.folder, ignore_errors=True)
                    raise
                if rows and rows[0]["status"] == "running":
                    store.finish_run(run_id, "interrupted", "interrupted by the user")
        raise KeyboardInterrupt(run_id) from None
