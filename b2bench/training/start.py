"""The evaluation at 0 queries, of the pretrained model: measured once, and taken over by the later runs of a store.

It depends on the backbone, the prompts, the reward and the way it is evaluated, and on nothing that is trained. A key
says whether two runs agree in all of that. The rows of such an evaluation carry it in their settings, so that it is
stored in one transaction with them and goes with them through merges and exports; those of a copy also say which run
measured them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from b2bench.config.run import RunConfig
from b2bench.evaluation.evaluate import Evaluation, Metric, eval_prompts
from b2bench.store.store import Store
from b2bench.training.inputs import named, stamps
from b2bench.training.provenance import numeric_versions
from b2bench.version import benchmark_version

KEY, COUNT, SOURCE = "start", "start_metrics", "reused_from"
"""What settings of table ``evals`` hold at 0 queries: the key, how many rows the evaluation has, whose it was first"""

OF_TRAINING = (
    "draws",
    "samples",
    "equal",
    "transitions_per_step",
    "epochs",
    "optimizer_steps",
    "updates_per_round",
    "timestep_fraction",
    "lr",
    "weight_decay",
    "max_grad_norm",
    "lora_rank",
    "advantage",
    "advantage_clip",
    "advantage_history",
    "train_micro_batch",
    "gradient_checkpointing",
    "reward_noise",
    "eval_points",
    "sample_images",
)
"""Settings that the pretrained model's evaluation does not depend on. All others are part of the key, and so is a new
one until somebody puts it here: measuring once too often costs minutes, once too seldom a wrong number."""


def start_key(config: RunConfig, device: torch.device, processes: int) -> str:
    """Hash everything that the evaluation at 0 queries depends on, to the last bit.

    Rounding differs between devices, versions of packages and numbers of processes: then each has its own. Weights go
    by the name, size and time of their files.
    """
    whole = config.as_dict()
    settings = {name: value for name, value in whole["settings"].items() if name not in OF_TRAINING}
    settings |= {"images": vars(config.images_at(0)), "first": config.images_between.splits}
    cuda = device.type == "cuda"
    content = {
        "version": benchmark_version(),
        "backbone": whole["backbone"],
        "prompts": whole["prompts"]["hash"],
        "reward": whole["reward"],
        "settings": settings,
        "files": {name: stamps(name) for name in named(config)},
        "packages": numeric_versions(),
        "device": torch.cuda.get_device_name(device) if cuda else f"{device} {torch.backends.cpu.get_cpu_capability()}",
        "processes": processes,
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:24]


def marked(evaluation: Evaluation, key: str) -> Evaluation:
    """Return the evaluation as later runs find it by ``key``."""
    mark = {KEY: key, COUNT: len(evaluation.metrics)}
    metrics = [replace(metric, settings={**metric.settings, **mark}) for metric in evaluation.metrics]
    return replace(evaluation, metrics=metrics)


def known_start(store: Store, key: str, config: RunConfig) -> Evaluation | None:
    """Return the whole evaluation that a run of the store has under ``key``, without its images, or None."""

    def find() -> Evaluation | None:
        for run_id in store.evaluated_as(key):
            if found := _read(config, key, run_id, *store.evaluation(run_id, 0)):
                return found
        return None

    return store.together(find)


def _read(
    config: RunConfig, key: str, run_id: str, evals: Sequence[Mapping[str, Any]], images: Iterable[Mapping[str, Any]]
) -> Evaluation | None:
    """Return the rows of a run as an evaluation of ``config``; None where some are missing or are of another."""
    scores = {(row["prompt"], row["noise_index"]): row["score"] for row in images}
    texts = {"test": config.prompts.test, "train": config.prompts.train}
    drawn = {
        split: [(texts[split][prompt], noise) for prompt, noise in eval_prompts(texts[split], n)]
        for split, n in config.images_at(0).splits.items()
        if n
    }
    settings = [row["settings"] or {} for row in evals]
    whole = all(one.get(KEY) == key and one.get(COUNT) == len(evals) for one in settings)
    whole = whole and set(scores) == set(drawn["test"]) and None not in scores.values()
    if not whole or any(row["value"] is None for row in evals):
        return None
    metrics = [
        Metric(row["split"], row["metric"], row["value"], row["n"], {SOURCE: run_id, **one})
        for row, one in zip(evals, settings, strict=True)
    ]
    test = torch.tensor([scores[place] for place in drawn["test"]], dtype=torch.float64)
    own: dict[str, dict[str, Tensor]] = {"test": {config.reward_name: test}}
    return Evaluation(metrics, drawn, own, {})
