"""One resumable, seeded training loop for every pocket model."""

from __future__ import annotations

import json
import os
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

CHECKPOINT_SECONDS = 60.0


def step_rng(seed: int, stage: str, step: int) -> np.random.Generator:
    """Return the draws of one training step: they depend on nothing else, so that a resumed stage repeats them."""
    return np.random.default_rng([seed, zlib.crc32(stage.encode()), step])


def _save(state: dict[str, Any], path: Path) -> None:
    temporary = path.with_suffix(".tmp")
    torch.save(state, temporary)
    os.replace(temporary, path)


def fit(
    stage: str,
    model: nn.Module,
    loss: Callable[[np.random.Generator, torch.Generator], Tensor],
    *,
    steps: int,
    lr: float,
    seed: int,
    folder: Path,
    cycle: int | None = None,
    ema: float | None = None,
    weight_decay: float = 1e-4,
    report: Callable[[str, int, int, float], None],
) -> None:
    """Minimise ``loss`` by AdamW with a one-cycle learning rate; ``model`` ends with the final weights.

    Written to ``folder/STAGE.state`` once a minute, and taken up there again, optimizer, schedule and
    moving average included. ``cycle`` is the length of the cycle where that is not ``steps``: a model that is
    trained on by another stage need not come to rest. ``ema`` is the decay of a moving average that replaces
    the weights at the end. Batches are drawn from generators derived from (seed, stage, step).
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=lr, weight_decay=weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=(cycle or steps) + 1, pct_start=0.1)
    average = [p.detach().clone() for p in parameters] if ema is not None else []
    path = folder / f"{stage}.state"
    start, trace = 0, []
    if path.exists():
        state = torch.load(path, weights_only=True)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        schedule.load_state_dict(state["schedule"])
        average = state["average"]
        start, trace = state["step"], state["trace"]
    model.train()
    saved, running = time.monotonic(), None
    for step in range(start, steps):
        rng = step_rng(seed, stage, step)
        generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
        optimizer.zero_grad(set_to_none=True)
        value = loss(rng, generator)
        value.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()
        if ema is not None:
            decay = min(ema, (step + 1) / (step + 10))
            torch._foreach_lerp_(average, [p.detach() for p in parameters], 1 - decay)
        running = value.item() if running is None else 0.98 * running + 0.02 * value.item()
        if step % 50 == 49 or step + 1 == steps:
            trace.append([step + 1, running])
            report(stage, step + 1, steps, running)
        if time.monotonic() - saved > CHECKPOINT_SECONDS or step + 1 == steps:
            state = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
            state |= {"schedule": schedule.state_dict(), "average": average, "step": step + 1, "trace": trace}
            _save(state, path)
            saved = time.monotonic()
    with torch.no_grad():
        for parameter, value in zip(parameters, average, strict=bool(average)):
            parameter.copy_(value)
    model.eval()
    (folder / f"{stage}.trace.json").write_text(json.dumps(trace))
