"""``b2bench run --processes N``: the same command in N processes that form one run (:mod:`b2bench.engine`)."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress

from b2bench.environment import place, python, threads
from b2bench.errors import UserError

LAST_WORDS = 60.0
"""Seconds in which an interrupted run may say what it left, and close it in the store"""
LEAVE = 30.0
"""Seconds in which a process may end that was told to"""


def is_one_of_several() -> bool:
    """Whether this process was started as one of several of a run, by us, ``accelerate launch`` or ``torchrun``."""
    return place()[1] > 1


def world() -> int:
    """Return how many processes form the run."""
    return place()[1]


def is_first() -> bool:
    """Tell whether it is the one that writes."""
    return place()[0] == 0


def has_gpus(processes: int) -> bool:
    """Tell whether each of ``processes`` can have a GPU of its own; False if there is no GPU at all.

    Raises:
        UserError: there are GPUs, but too few.
    """
    import torch

    found = torch.cuda.device_count()
    if 0 < found < processes:
        raise UserError(
            f"--processes {processes}: this machine has {found} GPUs, and a process needs one; try --processes {found}"
        )
    return found > 0


def launch(processes: int, arguments: Sequence[str], *, cpu: bool) -> int:
    """Run ``b2bench ARGUMENTS`` in ``processes`` processes on this machine; the exit code of the first that failed.

    Each GPU gets one, or on a CPU each its part of the threads. When one fails the others, which would wait for it,
    are stopped. An interrupt is passed on: a terminal tells them all, and a scheduler or ``kill`` this process alone.
    If this process is killed, they are interrupted.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(processes)}
    if cpu:
        cores = threads() or os.cpu_count() or 1
        shared |= {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": str(max(1, cores // processes))}
    started: list[subprocess.Popen[bytes]] = []
    try:
        for rank in range(processes):
            own = {"RANK": str(rank), "LOCAL_RANK": str(rank)}
            command = [*python("b2bench.cli.with_parent"), *arguments]
            # the other end of its stdin closes when this process ends, however it ends
            started.append(subprocess.Popen(command, stdin=subprocess.PIPE, env=os.environ | shared | own))
        while True:
            codes = [process.poll() for process in started]
            if failed := [code for code in codes if code]:
                return _exit_code(failed[0])
            if None not in codes:
                return 0
            time.sleep(0.1)
    except KeyboardInterrupt:
        _pass_on(started)
        with suppress(subprocess.TimeoutExpired, IndexError):  # rank 0 says how to go on, if it does not wait itself
            started[0].wait(LAST_WORDS)
        return 1
    finally:
        _pass_on(started)
        for process in started:
            try:
                process.wait(LEAVE)
            except subprocess.TimeoutExpired:  # it waits for one that is gone, deep inside a library
                process.kill()
                process.wait()


def _pass_on(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    """Interrupt those that still run; SIGTERM, because Python shows a traceback of a SIGINT in its first moments."""
    for process in processes:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)


def _exit_code(code: int) -> int:
    return code if code > 0 else 1  # ended by a signal
