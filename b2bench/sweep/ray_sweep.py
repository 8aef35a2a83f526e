"""A sweep on a Ray cluster: each run a task on some node; what it made comes back through Ray.

No file system is shared. A task carries the user's files along, runs ``b2bench run`` on its node into a store of its
own (:mod:`b2bench.sweep.ray_task`), and returns that store and the run folder as bytes, which the driver, this process,
merges. The driver's store is again all that the sweep remembers.
"""

from __future__ import annotations

import os
import tempfile
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol

from b2bench.backbones.specs import backbones
from b2bench.config.choices import DEFAULTS
from b2bench.config.presets import TUNED, tuned_path
from b2bench.config.prompt_sets import prompt_set_names
from b2bench.errors import UserError
from b2bench.plugin_files import sources
from b2bench.store.rows import SWEEP_FOLDER
from b2bench.store.store import Store
from b2bench.sweep.local import ATTEMPTS, Progress, Sweep, ended_by, last_line
from b2bench.version import benchmark_version, both_versions

LOSSES = 5
"""Nodes that may die under one run before it counts as failed: a run may be what kills them, by its memory."""


class Lost(Exception):
    """A task ended with its node or its worker, by no error of its own."""


class Cluster(Protocol):
    """What a sweep needs of a cluster; :class:`b2bench.sweep.ray_cluster.RayCluster` is one."""

    def room(self) -> int: ...

    def submit(self, task: dict[str, Any]) -> Any: ...

    def wait(self, handles: Sequence[Any], seconds: float) -> list[Any]: ...

    def result(self, handle: Any) -> dict[str, Any]: ...

    def cancel(self, handles: Sequence[Any]) -> None: ...


def packed(arguments: Sequence[str]) -> tuple[list[str], dict[str, bytes]]:
    """Arguments of ``b2bench run`` for another machine, and the files that they name, by their paths there.

    Plugins, presets and prompts go along, under names of their own: a cell's identity holds their content and the
    prompts' name, not where they lie. A backbone is too large to go along and must lie at the same path everywhere.

    Raises:
        UserError: a file cannot be read, or a setting is a relative path of this machine.
    """
    found, files = [], dict[str, bytes]()

    def ship(path: Path, inside: str) -> str:
        try:
            files[inside] = path.read_bytes()
        except OSError as error:
            raise UserError(f"{path} cannot be read to be sent to the cluster: {error.strerror}") from None
        return inside

    for number, (flag, value) in enumerate(zip(arguments[::2], arguments[1::2], strict=True)):
        place = f"files/{number}"
        path, sent = Path(os.path.expanduser(value)), value
        if flag == "--plugin":
            for source in reversed(sources(path)):  # itself last: its place is what the command names
                sent = ship(source, f"{place}/{source.relative_to(path.parent).as_posix()}")
        elif flag == "--prompts" and value not in prompt_set_names() and path.is_dir():
            sent = f"{place}/{path.resolve().name}"
            for name in ("train.txt", "test.txt", "card.toml"):
                if (path / name).is_file():
                    ship(path / name, f"{sent}/{name}")
        elif flag == "--prompts" and value not in prompt_set_names() and path.is_file():
            sent = ship(path, f"{place}/{path.name}")
        elif flag == "--preset":
            if value == TUNED:  # another file for each cell, and a node may have none
                options = dict(zip(arguments[::2], arguments[1::2], strict=True))
                value = str(tuned_path(options["--algo"], options.get("--wrapper", DEFAULTS["wrapper"])))
            given, colon, choice = (value, "", "") if Path(value).is_file() else value.rpartition(":")
            if Path(given).is_file():
                sent = ship(Path(given), f"{place}/{Path(given).name}") + colon + choice
        elif flag == "--backbone" and value not in backbones() and Path(value).exists():
            sent = os.path.abspath(value)
        elif flag == "--set" and _is_relative_path(value.partition("=")[2]):
            raise UserError(
                f"--set {value}: a path on a cluster must be absolute and on every node; try an absolute path"
            )
        found += [flag, sent]
    return found, files


def _is_relative_path(text: str) -> bool:
    return os.sep in text and not os.path.isabs(text) and os.path.exists(text)


@dataclass
class RaySweep(Sweep):
    """The jobs on a cluster, ``at_once`` at a time (0: as many as have room), each with ``threads`` CPU threads.

    A run that fails is started a second time, as in a :class:`Sweep`; one whose node dies is started again, up to
    ``LOSSES`` times, and that counts as no attempt. It starts anew: checkpoints stay on their nodes.
    """

    at_once: int = 0
    cluster: Cluster = field(kw_only=True)
    counts: ClassVar[bool] = False  # rows of a run arrive with its end

    def run(self) -> list[Progress]:
        """Do what is left of the plan. Ctrl-C gives up the runs that are not finished, and is raised.

        Raises:
            UserError: a node has another version of b2bench, or no node has room for a run.
        """
        self.look()
        self.out.mkdir(parents=True, exist_ok=True)
        queue = deque(progress for progress in self.progress if progress.state != "already done")
        running: dict[Any, Progress] = {}
        if queue and not self.at_once and not self.cluster.room():
            raise UserError(
                "no node of the cluster has the CPUs and GPUs that a run asks for; try a lower --cpus-per-run or "
                "--gpus-per-run, or --jobs if the cluster starts nodes on request"
            )
        try:
            while queue or running:
                while queue and len(running) < (self.at_once or self.cluster.room()):
                    progress = queue.popleft()
                    running[self._submit(progress)] = progress
                if not running:  # every node is gone: others may come
                    self._stop.wait(self.pause)
                    continue
                for handle in self.cluster.wait(list(running), self.pause):
                    again = self._collect(running[handle], handle)
                    progress = running.pop(handle)
                    if again:
                        queue.appendleft(progress)
        except BaseException:
            for progress in (*running.values(), *queue):
                self._set(progress, "stopped")
            self.cluster.cancel(list(running))
            raise
        return self.progress

    def _submit(self, progress: Progress) -> Any:
        arguments, files = packed(progress.job.arguments)
        progress.attempts += 1
        self._set(progress, "running")
        return self.cluster.submit(
            {"version": both_versions(), "arguments": arguments, "files": files, "threads": self.threads}
        )

    def _collect(self, progress: Progress, handle: Any) -> bool:
        """Take what a task left; True if the run is to be started again."""
        try:
            result = self.cluster.result(handle)
        except Lost as lost:
            progress.attempts -= 1
            progress.losses += 1
            progress.note = str(lost)
            self._set(progress, "failed" if progress.losses > LOSSES else "lost")
            return progress.losses <= LOSSES
        except Exception as error:  # of the node: its disk is full, ...
            result, progress.note = {}, f"{type(error).__name__}: {error}"
        if "refused" in result:
            raise UserError(
                f"node {result['node']} cannot run this: {result['refused']}, "
                f"the driver's is {both_versions()}. Try the same version on every node, and the same command"
            )
        if result:
            self._keep_log(progress, result)
            if result["code"] == 0:
                problem = self._take(progress, result, "done")
                if problem is None:
                    progress.note = ""  # that of an attempt before
                    self._set(progress, "done")
                    return False
                progress.note = problem
        if progress.attempts < ATTEMPTS:
            self._set(progress, "waiting")
            return True
        if result:
            self._take(progress, result, "failed")  # with its error, for reports and `show`
        self._set(progress, "failed")
        return False

    def _keep_log(self, progress: Progress, result: dict[str, Any]) -> None:
        cell, seed = progress.job.key
        progress.log = self.out / SWEEP_FOLDER / f"{cell}-s{seed}.log"
        progress.log.parent.mkdir(parents=True, exist_ok=True)
        with progress.log.open("ab") as log:
            log.write(f"on node {result['node']}:\n".encode() + result["log"])
        if result["code"]:
            progress.note = f"node {result['node']}, {ended_by(result['code'])}: {last_line(progress.log)}"

    def _take(self, progress: Progress, result: dict[str, Any], status: str) -> str | None:
        """Put a run folder under ``out``, then its rows into the store; what is wrong with them, if anything is."""
        if "run.duckdb" not in result["store"]:
            return f"node {result['node']} returned no store"
        with tempfile.TemporaryDirectory(prefix="b2bench-") as name:
            for file, content in result["store"].items():
                (Path(name) / file).write_bytes(content)
            source = Store(Path(name) / "run.duckdb")
            rows = [row for row in source.runs() if row["status"] == status]
            made = [(row["config_hash"], row["seed"], row["benchmark_version"]) for row in rows]
            wanted = (*progress.job.key, benchmark_version())
            if made != [wanted]:
                return (
                    f"node {result['node']} made another run ({made}, not {wanted}): a file that the arguments name "
                    "holds something else there"
                )
            run_id = rows[0]["run_id"]
            # first the folder, and whole: a run that the store says is done has its weights
            folder = self.out / run_id
            if not folder.exists():
                draft = Path(tempfile.mkdtemp(dir=self.out, prefix=f".{run_id}."))
                for file, content in result["files"].items():
                    (draft / file).parent.mkdir(parents=True, exist_ok=True)
                    (draft / file).write_bytes(content)
                (draft / run_id).rename(folder)
                draft.rmdir()
            self.store.merge(source.path, own=True)
            progress.run_id = run_id
        return None
