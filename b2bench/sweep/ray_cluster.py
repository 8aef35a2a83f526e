"""A Ray cluster as a sweep sees it. Everything that imports Ray is here; extra ``ray``."""

from __future__ import annotations

import io
import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack, redirect_stdout, suppress
from typing import Any

from b2bench.errors import UserError
from b2bench.layout import install_extra
from b2bench.sweep import ray_task
from b2bench.sweep.ray_sweep import Lost

PATIENCE = 60.0  # seconds for a cluster to answer: Ray itself would try for minutes, then end the process


class RayCluster:
    """Tasks on the cluster at ``address``, each with ``cpus`` and ``gpus`` of a node. Made, it is connected.

    ``gpus`` None: one where the cluster has any, else none.

    Raises:
        UserError: Ray is not installed, or no cluster answers there. None is ever started.
    """

    def __init__(self, address: str, cpus: int, gpus: float | None) -> None:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        try:
            import ray
        except ImportError:
            raise UserError(f"--ray needs the package ray; try {install_extra('ray')}") from None
        check_address(address)
        self.ray = ray
        # Ray tells the end of each node on stdout, which is the result's, with twenty lines of its log.
        self._quiet = ExitStack()
        self._quiet.enter_context(redirect_stdout(io.StringIO()))
        self._known: list[dict[str, float]] = []
        try:
            ray.init(address=address, log_to_driver=False, logging_level="warning")
        except (ray.exceptions.RayError, ConnectionError, RuntimeError) as error:  # it answered a moment ago
            self._quiet.close()
            reason = " ".join(str(error).split())[:300]
            raise UserError(f"--ray {address}: the cluster does not answer any more: {reason}") from None
        # the node may have an old b2bench, or none: it says so itself
        ray.cloudpickle.register_pickle_by_value(ray_task)
        self.cpus = cpus
        self.gpus = gpus if gpus is not None else float(any(node.get("GPU") for node in self._nodes()))
        self._remote = ray.remote(
            num_cpus=cpus,
            num_gpus=self.gpus,
            max_retries=0,  # the sweep counts
            scheduling_strategy="SPREAD",
        )(ray_task.on_node)

    def room(self) -> int:
        """Return runs that the nodes that live now have room for, were nothing else on them."""
        return sum(fitting(node, self.cpus, self.gpus) for node in self._nodes())

    def submit(self, task: dict[str, Any]) -> Any:
        """Hand a task to the cluster; returns its handle."""
        return self._remote.remote(task)

    def wait(self, handles: Sequence[Any], seconds: float) -> list[Any]:
        """Handles of tasks that have ended; after ``seconds`` perhaps none. Results stay where they are."""
        ready, _ = self.ray.wait(list(handles), timeout=seconds, fetch_local=False)
        return list(ready)

    def result(self, handle: Any) -> dict[str, Any]:
        """Return what the task returned.

        Raises:
            Lost: its node or its worker died, or its result with them.
            Exception: what the task raised.
        """
        errors = self.ray.exceptions
        try:
            found: dict[str, Any] = self.ray.get(handle)
            return found
        except errors.RayTaskError as error:
            raise error.cause if isinstance(error.cause, Exception) else error from None
        except errors.RayError as error:  # all others are about nodes, workers and objects
            raise Lost(f"{type(error).__name__}: {' '.join(str(error).split())[:200]}") from None

    def cancel(self, handles: Sequence[Any], seconds: float = 10.0) -> None:
        """Interrupt tasks, and wait for so long that they have cleaned up."""
        for handle in handles:
            self.ray.cancel(handle)
        if handles:
            self.ray.wait(list(handles), num_returns=len(handles), timeout=seconds, fetch_local=False)

    def close(self) -> None:
        """Leave the cluster, which goes on."""
        self.ray.shutdown()
        self._quiet.close()

    def _nodes(self) -> list[dict[str, float]]:
        """Resources of the nodes that live; those of the last time while a busy head node does not answer."""
        with suppress(self.ray.exceptions.RayError):
            self._known = [node["Resources"] for node in self.ray.nodes() if node["Alive"]]
        return self._known


def fitting(resources: dict[str, float], cpus: int, gpus: float) -> int:
    """Return runs of ``cpus`` and ``gpus`` that fit on a node; a share of a GPU is of one GPU."""
    by_cpu = int(resources.get("CPU", 0) // cpus)
    return min(by_cpu, int(resources.get("GPU", 0)) * int(1 / gpus + 1e-9)) if gpus else by_cpu


def check_address(address: str) -> None:
    """See whether a cluster answers, in a process of its own: in this one a failure could not be bounded.

    Raises:
        UserError: it does not, with the reason.
    """
    hint = "start one with `ray start --head`, or name its HOST:PORT; this machine must be one of its nodes"
    if address != "auto":
        host, _, port = address.rpartition(":")
        if not host or "/" in host or not port.isdecimal():
            raise UserError(
                f"--ray {address!r} is not an address; try auto, or HOST:PORT as `ray start --head` prints it"
            )
        try:
            socket.create_connection((host, int(port)), timeout=10).close()
        except (OSError, OverflowError) as error:
            raise UserError(f"--ray {address}: nothing answers there ({error}); {hint}") from None
    script = "import sys, ray; ray.init(address=sys.argv[1], log_to_driver=False, logging_level='error')"
    try:
        asked = subprocess.run(
            [sys.executable, "-c", script, address], capture_output=True, text=True, timeout=PATIENCE
        )
    except subprocess.TimeoutExpired:
        raise UserError(f"--ray {address}: no Ray cluster answered within {PATIENCE:g} s; {hint}") from None
    if asked.returncode:
        lines = [line.strip() for line in asked.stderr.splitlines() if line.strip()]
        reason = lines[-1][:300] if lines else f"exit code {asked.returncode}"
        raise UserError(f"--ray {address}: the cluster cannot be used: {reason}; {hint}")
