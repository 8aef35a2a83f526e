"""What a plugin changes of the process that it runs in is put back when its call ends, and what it prints is no result.

A plugin is a program that somebody wrote for themselves: it may switch gradients off, seed every generator, change the
working folder or print, and the numbers of a run and its JSON must not depend on that. Needs no torch: a process that
has not imported it has nothing of it to put back.
"""

from __future__ import annotations

import io
import logging
import os
import random
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from dataclasses import dataclass
from functools import cache, partial
from operator import attrgetter
from typing import Any

SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
MKLDNN = (".mkldnn.matmul", ".mkldnn.conv", ".mkldnn.rnn")
UNREADABLE = (OSError, RuntimeError)
"""The working folder may be gone, and torch refuses to say what it was told in two ways that disagree"""


@dataclass(frozen=True)
class _State:
    """Something of the whole process: its name, as a check says it, how to get it and how to set it."""

    name: str
    get: Callable[[], Any]
    set: Callable[[Any], object]


def _torch() -> Any:
    """Return torch if it is imported, and wholly: it may be half imported, or wait (``deferred.py``)."""
    torch = sys.modules.get("torch")
    return torch if torch is not None and "compile" in vars(torch) else None


def _states() -> tuple[_State, ...]:
    main = threading.current_thread() is threading.main_thread()
    return _states_of(_torch(), sys.modules.get("numpy"), sys.modules.get("numpy.random"), main)


@cache
def _states_of(torch: Any, numpy: Any, numpy_random: Any, main: bool) -> tuple[_State, ...]:
    """Return what there is to put back where these modules are imported: made once, as each loss is guarded."""
    return tuple(_listed(torch, numpy, numpy_random, main))


def _listed(torch: Any, numpy: Any, numpy_random: Any, main: bool) -> Iterator[_State]:
    yield _State("the working folder", os.getcwd, os.chdir)
    yield _State("sys.stderr", partial(getattr, sys, "stderr"), partial(setattr, sys, "stderr"))
    yield _State("logging.disable", partial(getattr, logging.root.manager, "disable"), logging.disable)
    yield _State('warnings.simplefilter("error")', _fatal_warnings, _set_fatal_warnings)
    yield _State("the seed of Python's random", random.getstate, random.setstate)
    if main:  # no other thread may set them
        for number in SIGNALS:
            yield _State(f"the handler of {number.name}", partial(signal.getsignal, number), partial(_handle, number))
    if numpy_random is not None:
        yield _State("NumPy's seed", numpy_random.get_state, numpy_random.set_state)
    if numpy is not None:
        yield _State("numpy.seterr", numpy.geterr, lambda errors: numpy.seterr(**errors))
    if torch is None:
        return
    yield _State("torch's seed", torch.get_rng_state, torch.set_rng_state)
    yield _State("torch.set_grad_enabled", torch.is_grad_enabled, torch.set_grad_enabled)
    yield _State("torch.set_default_dtype", torch.get_default_dtype, torch.set_default_dtype)
    yield _State("torch.set_default_device", torch.get_default_device, _set_default_device)
    yield _State("torch.set_num_threads", torch.get_num_threads, torch.set_num_threads)
    yield _State(
        "torch.use_deterministic_algorithms",
        torch.are_deterministic_algorithms_enabled,
        torch.use_deterministic_algorithms,
    )
    for device in ("cpu", "cuda"):
        yield _State(
            f"autocast on {device}",
            partial(torch.is_autocast_enabled, device),
            partial(torch.set_autocast_enabled, device),
        )
    yield from _precisions(torch)
    yield _State("torch.backends.mkldnn.enabled", partial(getattr, torch.backends.mkldnn, "enabled"), _set_mkldnn)
    cudnn = torch.backends.cudnn
    for name in ("enabled", "benchmark", "deterministic", "allow_tf32"):
        yield _State(f"torch.backends.cudnn.{name}", partial(getattr, cudnn, name), partial(setattr, cudnn, name))


def _precisions(torch: Any) -> Iterator[_State]:
    """TF32 and bf16 in place of float32, by the names that torch has for it since 2.9, and by the earlier ones.

    They are two views of one state. The earlier ones raise a RuntimeError once the two disagree, so they come last.
    """
    for name in ("", ".cudnn", ".mkldnn", ".cuda.matmul", ".cudnn.conv", ".cudnn.rnn", *MKLDNN):  # the whole first
        part = attrgetter(f"backends{name}")(torch)
        yield _State(
            f"torch.backends{name}.fp32_precision",
            partial(getattr, part, "fp32_precision"),
            partial(setattr, part, "fp32_precision"),
        )
    yield _State(
        "torch.set_float32_matmul_precision", torch.get_float32_matmul_precision, torch.set_float32_matmul_precision
    )


def _set_mkldnn(on: bool) -> None:
    import torch

    torch.backends.mkldnn.set_flags(on)


def _fatal_warnings() -> list[Any]:
    """Filters that make an exception of a warning: one of a library would end the run. Those that hide one stay."""
    return [each for each in warnings.filters if each[0] == "error"]


def _set_fatal_warnings(wanted: list[Any]) -> None:
    kept = [each for each in warnings.filters if each[0] != "error" or each in wanted]
    warnings.filters[:] = kept  # type: ignore[index]  # a list, and the only one that warnings reads


def _handle(number: signal.Signals, handler: Any) -> None:
    if handler is not None:  # None: one that is not Python's
        signal.signal(number, handler)


def _set_default_device(device: Any) -> None:
    import torch

    # the device that there is without any: setting it would put a mode on every call that makes a tensor
    torch.set_default_device(None if device == torch.device("cpu") else device)


def _same(one: Any, other: Any) -> bool:
    """Whether two states are equal, those of arrays too."""
    if one is other:
        return True
    if isinstance(one, tuple):
        try:  # Python's own has 625 whole numbers, and a loss is called for every micro-batch
            return bool(one == other)
        except ValueError:  # NumPy's has an array, which is not equal as a whole
            return len(one) == len(other) and all(map(_same, one, other))
    return bool(_plain(one) == _plain(other))


def _plain(value: Any) -> Any:
    value = value.numpy() if hasattr(value, "numpy") else value
    return value.tobytes() if hasattr(value, "tobytes") else value


@contextmanager
def guarded(output: int = 2) -> Iterator[list[str]]:
    """Let a plugin work, and put back what it changed of the process; the list names that when the block has ended.

    What it prints goes to the file descriptor ``output``, by default stderr: stdout is the result's.
    """
    before: list[tuple[_State, Any]] = []
    new = _torch() is None
    for state in _states():
        with suppress(*UNREADABLE):
            before.append((state, state.get()))
    changed: list[str] = []
    try:
        with _printing_to(output):
            yield changed
    finally:
        if new and (torch := _torch()) is not None:
            started_with = {
                "torch.set_grad_enabled": True,
                "torch.set_default_dtype": torch.float32,
                "torch.set_default_device": torch.device("cpu"),
                "autocast on cpu": False,
                "torch.set_float32_matmul_precision": "highest",
            }
            before += [(state, started_with[state.name]) for state in _states() if state.name in started_with]
        for state, value in before:
            try:
                same = _same(state.get(), value)
            except UNREADABLE:
                same = False
            if not same:
                changed.append(state.name)
                with suppress(*UNREADABLE):
                    state.set(value)


class _Stderr(io.TextIOBase):
    """What is stdout to a plugin: its words go to stderr, and closing it closes nothing."""

    encoding = "utf-8"

    def write(self, text: str) -> int:
        return sys.stderr.write(text)

    def flush(self) -> None:
        sys.stderr.flush()

    def fileno(self) -> int:
        return sys.stderr.fileno()

    def close(self) -> None:
        """Leave stderr open: the next line may be the user's."""


@contextmanager
def _printing_to(output: int) -> Iterator[None]:
    """Send what is written to stdout elsewhere: by print, and by what writes to the file descriptor itself."""
    real = sys.stdout
    with suppress(OSError, ValueError, AttributeError):
        real.flush()
    try:
        kept = os.dup(1)
        os.dup2(output, 1)
    except OSError:  # a daemon may have neither
        kept = -1
    try:
        if output == 2:
            with redirect_stdout(_Stderr()):
                yield
        else:
            with open(output, "w", encoding="utf-8", errors="replace", closefd=False) as file, redirect_stdout(file):
                yield
    finally:
        if kept >= 0:
            os.dup2(kept, 1)
            os.close(kept)
