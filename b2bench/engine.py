"""One run on one process or on several: who holds which rollouts, and how gradients become one optimizer step.

Every process draws the same prompts, knows the rewards of all rollouts and takes the same optimizer steps; each
samples, scores and differentiates its own share. Gradients are summed over processes before they are clipped, once
an optimizer step. torch's DistributedDataParallel would do it in every micro-batch, divide by the number of processes
rather than of rows, and wait for ever where one process has no row of a minibatch.
"""

from __future__ import annotations

import math
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
from accelerate import Accelerator, InitProcessGroupKwargs
from accelerate.utils import broadcast_object_list, gather_object
from torch import Tensor, nn

from b2bench.environment import check_launcher
from b2bench.errors import RunFailed, UserError
from b2bench.text import described

T = TypeVar("T")

# A process waits for the slowest one, which may be scoring images with a 7B model: torch's ten minutes are short.
PATIENCE = timedelta(hours=6)
SKIPS = 20  # optimizer steps in a row that fp16 may skip while its loss scale comes down from 65,536 to below 1


def accelerator() -> Any:
    """Let accelerate find the device and the other processes of this run, whatever precision it was launched with.

    Raises:
        UserError: the environment asks for what a run does not do, or for what cannot be.
    """
    check_launcher()
    try:
        return Accelerator(mixed_precision="no", kwargs_handlers=[InitProcessGroupKwargs(timeout=PATIENCE)])
    except (ValueError, RuntimeError, ImportError) as error:  # it reads some forty variables, and says which
        raise UserError(
            f"accelerate cannot start as the environment tells it to: {described(error)}. Try correcting the variable "
            "(env | grep -E 'ACCELERATE|MASTER|RANK|OMP' lists them)"
        ) from None


def _told(error: BaseException) -> str:
    """Return an error as another process says it: with its place, unless it is made to be read."""
    if isinstance(error, UserError | RunFailed):
        return str(error)
    where = traceback.extract_tb(error.__traceback__)[-1]
    return f"{described(error)} ({where.filename}, line {where.lineno})"


class Engine:
    """The processes of a run, as ``accelerate launch``, ``torchrun`` or ``b2bench run --processes`` started them.

    ``rank`` of ``world`` processes; rank 0 alone writes. ``scaled``: multiply losses before they are differentiated
    in fp16, and skip the steps whose gradients overflow (torch's GradScaler).

    Raises:
        UserError: what the environment says of processes and devices cannot be meant.
    """

    def __init__(self, *, scaled: bool = False) -> None:
        self.accelerator = accelerator()
        self.device: torch.device = self.accelerator.device
        self.rank: int = self.accelerator.process_index
        self.world: int = self.accelerator.num_processes
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=False)
        self._skipped = 0
        if scaled:
            self.scale_losses()

    def scale_losses(self) -> None:
        """Scale losses from now on if ``scaled``."""
        self.scaler = torch.amp.GradScaler(self.device.type)
        # it makes its scale with the first loss, and a process without a row of the first minibatch has none
        self.scaler.scale(torch.zeros((), device=self.device))

    @property
    def first(self) -> bool:
        """Tell whether this process writes to the store, the disk and the terminal."""
        return self.rank == 0

    def shares(self, n: int) -> list[range]:
        """Deal ``n`` items in order to the processes, as evenly as possible; equal on all of them."""
        bounds = [n * i // self.world for i in range(self.world + 1)]
        return [range(bounds[i], bounds[i + 1]) for i in range(self.world)]

    def share(self, n: int) -> range:
        """Return this process's part of ``n`` items."""
        return self.shares(n)[self.rank]

    def broadcast_object(self, value: T) -> T:
        """Return rank 0's value, a plain object, on every process."""
        if self.world == 1:
            return value
        values = [value]
        broadcast_object_list(values)
        return values[0]

    def all_gather_object(self, value: T) -> list[T]:
        """Return the plain objects of all processes, by rank."""
        if self.world == 1:
            return [value]
        found: list[T] = gather_object([value])
        return found

    def all_gather_rows(self, rows: Tensor) -> Tensor:
        """Join the rows of all processes, by rank, on the CPU."""
        return torch.cat(self.all_gather_object(rows.cpu())) if self.world > 1 else rows.cpu()

    def raise_together(self, error: BaseException | None) -> None:
        """Raise on every process the error that one of them met, so that the others do not wait for it.

        Raises:
            BaseException: this process's own error.
            UserError: that of another, if it is one.
            RunFailed: any other error of another process, and where it was raised.
        """
        met = self.all_gather_object(None if error is None else (isinstance(error, UserError), _told(error)))
        if error is not None:
            raise error
        for rank, found in enumerate(met):
            if found is not None:
                users, text = found
                raise (UserError if users else RunFailed)(f"process {rank} of {self.world}: {text}")

    @contextmanager
    def together(self) -> Iterator[None]:
        """Let each process do its own share in the block, in which none waits for another; all know how it ended.

        Without it an error above rank 0 would be told by nobody: rank 0 alone speaks, and waits for the others.

        Raises:
            BaseException: what this process met, or what :meth:`raise_together` makes of another's error.
        """
        error: BaseException | None = None
        try:
            yield
        except (KeyboardInterrupt, GeneratorExit):  # each process is interrupted by itself
            raise
        except BaseException as met:  # a plugin may raise SystemExit
            error = met
        self.raise_together(error)

    def on_main_process(self, what: Callable[[], T]) -> T:
        """Let rank 0 do something, and give every process its result, a plain object.

        Raises:
            BaseException: what rank 0 met, or on the others what :meth:`raise_together` makes of it.
        """
        value = None
        with self.together():
            if self.first:
                value = what()
        return self.broadcast_object(value)  # type: ignore[return-value]

    def backward(self, loss: Tensor) -> None:
        """Add the gradient of ``loss`` to that of this process."""
        self.scaler.scale(loss).backward()

    def step(self, optimizer: torch.optim.Optimizer, clipped: Sequence[nn.Parameter], max_norm: float) -> float | None:
        """Sum gradients over processes, clip the norm of ``clipped`` and take the step: the norm before clipping.

        None: the loss scale of fp16 was too large, and the step was skipped.

        Raises:
            RunFailed: the gradient is not finite, in fp16 for ``SKIPS`` steps in a row.
        """
        self._sum_gradients([p for group in optimizer.param_groups for p in group["params"]])
        if self.scaler.is_enabled():
            self.scaler.unscale_(optimizer)
        norm = float(nn.utils.clip_grad_norm_(clipped, max_norm))
        self.scaler.step(optimizer)
        self.scaler.update()
        if math.isfinite(norm):
            self._skipped = 0
            return norm
        self._skipped += 1
        if not self.scaler.is_enabled() or self._skipped > SKIPS:
            raise RunFailed("the gradient is not finite")
        return None

    def _sum_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        if self.world == 1:
            return
        for parameter in parameters:
            if parameter.grad is None:  # no row of this minibatch was here
                parameter.grad = torch.zeros_like(parameter)
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        torch.distributed.all_reduce(flat)
        for gradient, part in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
            gradient.copy_(part.view_as(gradient))

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint keeps."""
        return dict(self.scaler.state_dict())

    def load_state(self, state: dict[str, Any]) -> None:
        if state:
            self.scaler.load_state_dict(state)
