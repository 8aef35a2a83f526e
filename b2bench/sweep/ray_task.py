"""What a node of a Ray cluster does for a run of ``b2bench sweep --ray``: ``b2bench run`` in a process of its own.

A crash of torch then ends that process and no worker of Ray, and the process ends with its worker. The node gets this
module's :func:`on_node` with the task, so that a node with an old b2bench, or none, can say so.
"""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

PREFIX = "b2bench-ray-"


def on_node(task: dict[str, Any]) -> dict[str, Any]:
    """Run ``b2bench run`` with the task's arguments in a temporary folder, which is gone afterwards.

    ``task``: ``version``, what ``b2bench --version`` must print here, ``arguments``, ``files`` (path within the folder
    -> content) and ``threads``.

    Returns:
        ``node``, its host name; and ``refused``, why it cannot run this; or ``code``, the exit code, ``log``, ``store``
        (files of the run's database) and ``files`` (of the run folder, without checkpoints), as bytes by name.
    """
    node = socket.gethostname()
    environment = os.environ | {"OMP_NUM_THREADS": str(task["threads"]), "COLUMNS": "120"}
    command = [sys.executable, "-m", "b2bench", "--version"]
    asked = subprocess.run(command, cwd=tempfile.gettempdir(), capture_output=True, text=True, env=environment)
    found = asked.stdout.strip() if asked.returncode == 0 else "none that starts"
    if found != task["version"]:
        return {"node": node, "refused": f"its b2bench is {found} (of {sys.executable})"}
    with own_folder() as folder:
        result = run_in(folder, task, environment)
    if result is None:
        os._exit(1)  # the end of this worker is what tells the driver
    return {"node": node, **result}


def run_in(folder: Path, task: dict[str, Any], environment: dict[str, str]) -> dict[str, Any] | None:
    """Return the result of :func:`on_node`; None where the node's raylet ended meanwhile.

    A worker outlives it until its task is done. What the task then returned would be lost with the raylet's memory,
    and the driver would learn so only at the end of a run of hours.
    """
    raylet = os.getppid()
    for path, content in task["files"].items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
    arguments = ["run", *task["arguments"], "--db", "run.duckdb", "--out", "runs"]
    with (folder / "log").open("wb") as log:
        child = subprocess.Popen(
            [sys.executable, "-m", "b2bench.cli.on_node", str(folder), *arguments],
            stdin=subprocess.PIPE,  # its end tells the child that this worker is gone
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=folder,
            env=environment,
        )
        try:
            while (code := child.poll()) is None and os.getppid() == raylet:
                time.sleep(0.1)  # a cancelled task is interrupted between two statements, not within a wait
        finally:
            child.kill()
            child.wait()
    if code is None:
        return None
    kept = [
        path
        for path in sorted((folder / "runs").glob("*/**/*"))
        if path.is_file() and path.name != "lock" and not path.name.startswith("checkpoint-")
    ]
    return {
        "code": code,
        "log": (folder / "log").read_bytes()[-(2**20) :],
        "store": {path.name: path.read_bytes() for path in folder.glob("run.duckdb*") if path.suffix != ".lock"},
        "files": {str(path.relative_to(folder / "runs")): path.read_bytes() for path in kept},
    }


@contextmanager
def own_folder() -> Iterator[Path]:
    """Return a temporary folder; what killed workers left is removed first.

    A folder is in use while a process holds the lock beside it, which is taken before the folder is made.
    """
    from filelock import FileLock, Timeout

    parent = Path(tempfile.gettempdir())
    for left in parent.glob(f"{PREFIX}*"):
        if left.is_dir():
            with suppress(Timeout, OSError), FileLock(f"{left}.lock", timeout=0):
                shutil.rmtree(left)
                Path(f"{left}.lock").unlink(missing_ok=True)
    folder = parent / f"{PREFIX}{secrets.token_hex(8)}"
    with FileLock(f"{folder}.lock"):
        folder.mkdir(mode=0o700)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            Path(f"{folder}.lock").unlink(missing_ok=True)
