"""A run that somebody asks for, on the command line or in a notebook: looked up in the store first, then made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from b2bench.config.run import check_seed
from b2bench.errors import UserError
from b2bench.store.store import Store
from b2bench.training.summary import Summary
from b2bench.version import benchmark_version

if TYPE_CHECKING:  # a mistake is told before torch is imported
    from b2bench.config.run import RunConfig
    from b2bench.training.listener import Listener


@dataclass(frozen=True)
class Request:
    """A run to start, of ``config``, or one to resume, ``run_id``; its budget and the name of its reward.

    ``done`` is the row of the run of this name, if it is finished: then there is nothing to make, and
    :func:`b2bench.training.summary.summary_again` says what it was. ``stored`` is the configuration of one to resume.
    """

    store: Store
    budget: int
    reward: str
    config: RunConfig | None = None
    name: str | None = None
    run_id: str | None = None
    done: Mapping[str, Any] | None = None
    stored: Mapping[str, Any] = field(default_factory=dict)

    def make(self, out: Path, threads: int | None, listener: Listener) -> Summary:
        """Start the run, or resume it, and stay with it to its end.

        ``out`` is the folder of the run folders; ``threads`` are those of this process from now on.

        Raises:
            UserError: something that it needs cannot be used; nothing is stored of a run that did not start.
            RunFailed: the run started and could not go on; its reason is in the store.
            KeyboardInterrupt: it was interrupted; with its id, once it is in the store.
        """
        listener.stage("importing torch")
        from b2bench.training import runs, setup

        setup.limit_threads(threads)
        with setup.process_kept():
            if self.run_id is not None:
                return runs.resume(self.run_id, self.store, out, listener, self.config)
            assert self.config is not None
            return runs.start(self.config, self.store, out, self.name, listener)


def to_start(config: RunConfig, store: Store, name: str | None) -> Request:
    """Ask for a run of ``config``; of the name of the same run, broken off, it will go on from its last checkpoint.

    Raises:
        UserError: the store cannot be used, the name is another run's, or the seed is for another purpose.
    """
    check_seed(config)
    store.check()
    same = store.named_run(name, config.cell_hash(), config.seed, benchmark_version())
    done = same if same is not None and same["status"] == "done" else None
    return Request(store, config.queries, config.reward_name, config=config, name=name, done=done)


def to_resume(text: str, store: Store, config: RunConfig | None = None) -> Request:
    """Ask for the run whose id or name is ``text``, or the only one whose id or name starts with it, to go on.

    ``config`` is that of its whole command, given again: what changes no result may differ in it, such as settings of
    memory and where files lie. None: as it was started.

    Raises:
        UserError: the store cannot be used, there is no such run, or it is another than ``config`` describes.
    """
    row = store.find_run(text)
    if config is not None and (config.cell_hash(), config.seed) != (row["config_hash"], row["seed"]):
        what = "another seed" if config.cell_hash() == row["config_hash"] else "other settings"
        raise UserError(
            f"run {row['run_id']} has {what} than these options say; try without --algo and the others, or with all "
            "that it was started with, of which settings that change no result (such as micro_batch) may differ"
        )
    return Request(store, row["budget"], row["reward"], config, run_id=row["run_id"], stored=row["config"] or {})
