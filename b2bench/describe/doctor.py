"""What this machine has: devices, precisions, versions, checkpoints, room on the disk. ``b2bench doctor``."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from torch import nn

from b2bench.backbones.specs import backbones
from b2bench.errors import UserError
from b2bench.hub import download_command
from b2bench.layout import install_extra
from b2bench.pocket.paths import NETWORKS, POCKET_WEIGHTS
from b2bench.store.store import Store
from b2bench.types import PRECISIONS, dtype_of
from b2bench.version import both_versions

PACKAGES = (
    "torch", "torchvision", "diffusers", "transformers", "peft", "accelerate", "open_clip_torch", "torch-fidelity",
    "duckdb", "numpy", "scipy",
)  # fmt: skip
OPTIONAL = {"pandas": "notebook", "optuna": "optuna", "resvg_py": "pocket", "ray": "ray"}  # package -> extra


@dataclass(frozen=True)
class Hub:
    """A checkpoint of the hub that something here can use: one of its files tells whether it is there."""

    repository: str
    files: tuple[str, ...]
    gigabytes: float
    serves: str


CHECKPOINTS = (
    Hub("CompVis/stable-diffusion-v1-4", ("unet/diffusion_pytorch_model.safetensors",), 4.3, "--backbone sd14"),
    Hub(
        "laion/CLIP-ViT-H-14-laion2B-s32B-b79K",
        ("open_clip_model.safetensors", "open_clip_pytorch_model.safetensors", "open_clip_pytorch_model.bin"),
        3.9,
        "clipscore and is_clip at full size",
    ),
    Hub("llava-hf/llava-1.5-7b-hf", ("model.safetensors.index.json",), 14.1, "bertscore at full size"),
    Hub("microsoft/deberta-xlarge-mnli", ("pytorch_model.bin", "model.safetensors"), 3.0, "bertscore at full size"),
    Hub("openai/clip-vit-large-patch14", ("model.safetensors", "pytorch_model.bin"), 1.7, "aesthetic"),
    Hub("trl-lib/ddpo-aesthetic-predictor", ("aesthetic-model.pth",), 0.004, "aesthetic"),
    Hub("yuvalkirstain/PickScore_v1", ("model.safetensors", "pytorch_model.bin"), 3.9, "pickscore"),
    Hub("xswu/HPSv2", ("HPS_v2.1_compressed.pt",), 2.0, "hpsv2"),
    Hub("THUDM/ImageReward", ("ImageReward.pt",), 1.8, "imagereward"),
    Hub("google-bert/bert-base-uncased", ("vocab.txt",), 0.001, "imagereward"),
)


@dataclass(frozen=True)
class Finding:
    """One line. ``state``: ok; absent (not needed by the embedded default); broken (something here cannot work)."""

    part: str
    name: str
    state: str
    detail: str


def examine(db: Path) -> list[Finding]:
    """Everything, in the order in which it is printed."""
    return [*_devices(), *_precisions(), *_versions(), *_checkpoints(), *_disk(), *_store(db)]


def _devices() -> Iterator[Finding]:
    asked = os.environ.get("OMP_NUM_THREADS", "not set")
    detail = f"{os.cpu_count()} cores, {torch.get_num_threads()} threads (OMP_NUM_THREADS {asked})"
    yield Finding("device", "cpu", "ok", detail)
    for i in range(torch.cuda.device_count()):
        found = torch.cuda.get_device_properties(i)
        yield Finding("device", f"cuda:{i}", "ok", f"{found.name}, {found.total_memory / 2**30:.0f} GiB")
    if not torch.cuda.device_count():
        why = "this torch has no CUDA" if torch.version.cuda is None else "no GPU that it can use"
        yield Finding("device", "cuda", "absent", f"{why}; Stable Diffusion on a CPU takes days")


def _precisions() -> Iterator[Finding]:
    """Yield a convolution forward and backward in each, on each device: whether it works, and its speed
    beside fp32's.
    """
    names = ["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
    for name in names:
        seconds: dict[str, float] = {}
        for precision in PRECISIONS:
            try:
                seconds[precision] = _convolution_seconds(torch.device(name), dtype_of(precision))
            except RuntimeError as error:
                state = "broken" if precision == "fp32" else "absent"
                yield Finding("precision", f"{precision} on {name}", state, " ".join(str(error).split())[:120])
                continue
            relative = seconds["fp32"] / seconds[precision] if "fp32" in seconds else 1.0
            detail = "" if precision == "fp32" else f"{relative:.2g} times as fast as fp32 in a convolution"
            yield Finding("precision", f"{precision} on {name}", "ok", detail)


def _convolution_seconds(device: torch.device, dtype: torch.dtype) -> float:
    """Return the shortest of five runs."""
    layer = nn.Conv2d(64, 64, 3, padding=1).to(device, dtype)
    images = torch.randn(8, 64, 16, 16, device=device, dtype=dtype)
    taken = []
    for _ in range(6):
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        started = time.perf_counter()
        found = layer(images).square().mean()
        found.backward()
        float(found.detach())  # waits for the device
        taken.append(time.perf_counter() - started)
    if not all(bool(p.grad.isfinite().all()) for p in layer.parameters() if p.grad is not None):
        raise RuntimeError("a convolution's gradient is not finite")
    return min(taken[1:])


def _versions() -> Iterator[Finding]:
    yield Finding("package", "b2bench", "ok", both_versions())
    for package in PACKAGES:
        try:
            yield Finding("package", package, "ok", version(package))
        except PackageNotFoundError:
            yield Finding("package", package, "broken", "not installed: pip install b2bench")
    for package, extra in OPTIONAL.items():
        try:
            yield Finding("package", package, "ok", version(package))
        except PackageNotFoundError:
            yield Finding("package", package, "absent", install_extra(extra))


def _checkpoints() -> Iterator[Finding]:
    missing = [
        name
        for name in (*NETWORKS, "scorer-training", "scorer-heldout", "captioner", "bert", "classifier.safetensors")
        if not (POCKET_WEIGHTS / name).exists()
    ]
    if missing:
        yield Finding("checkpoint", "pocket", "broken", f"{', '.join(missing)} missing: reinstall b2bench")
    else:
        yield Finding("checkpoint", "pocket", "ok", str(POCKET_WEIGHTS))
    for hub in CHECKPOINTS:
        folder = _cached(hub)
        if folder:
            yield Finding("checkpoint", hub.repository, "ok", folder)
        else:
            detail = f"{hub.gigabytes:g} GB, for {hub.serves}: {download_command(hub.repository)}"
            yield Finding("checkpoint", hub.repository, "absent", detail)
    try:
        weights = inception_file()
    except ImportError:  # which the versions tell
        weights = Path()
    if weights.is_file():
        yield Finding("checkpoint", "Inception v3", "ok", str(weights))
    else:
        detail = "0.1 GB, for is_inception: fetched when it is asked for, or --set inception_weights=FILE"
        yield Finding("checkpoint", "Inception v3", "absent", detail)
    for backbone in backbones().values():
        if backbone.broken:
            yield Finding("checkpoint", backbone.name, "broken", backbone.broken)


def _cached(hub: Hub) -> str:
    """Return the folder of a checkpoint in the hub's cache; "" where it is not there."""
    from huggingface_hub import try_to_load_from_cache

    for file in hub.files:
        found = try_to_load_from_cache(hub.repository, file)
        if isinstance(found, str) and all(
            isinstance(try_to_load_from_cache(hub.repository, part), str) for part in _parts(Path(found))
        ):
            return str(Path(found).parents[len(Path(file).parts) - 1])
    return ""


def _parts(file: Path) -> set[str]:
    """Files that an index names, which comes before them in a download; of any other file none."""
    if not file.name.endswith(".index.json"):
        return set()
    try:
        return set(json.loads(file.read_text(encoding="utf-8"))["weight_map"].values())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {""}  # half an index


def inception_file() -> Path:
    """Return where torch's hub keeps torch-fidelity's weights."""
    from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3

    return Path(torch.hub.get_dir()) / "checkpoints" / URL_INCEPTION_V3.rpartition("/")[2]


def _disk() -> Iterator[Finding]:
    from huggingface_hub import constants

    needed = sum(hub.gigabytes for hub in CHECKPOINTS if not _cached(hub))
    for name, folder, wanted in (("here", Path.cwd(), 1.0), ("hub cache", Path(constants.HF_HUB_CACHE), needed)):
        place = folder
        while not place.exists():
            place = place.parent
        free = shutil.disk_usage(place).free / 1e9
        short = free < wanted
        detail = f"{free:.0f} GB free in {folder}"
        if name == "hub cache" and wanted:
            detail += f"; all of these checkpoints would take {wanted:.0f} GB more"
        yield Finding("disk", name, ("broken" if name == "here" else "absent") if short else "ok", detail)


def _store(db: Path) -> Iterator[Finding]:
    if not db.exists():
        yield Finding("store", str(db), "absent", "the first run makes it")
        return
    try:
        store: Any = Store(db, patience=5)
        store.check()
        yield Finding("store", str(db), "ok", f"{len(store.runs())} runs")
    except UserError as error:
        yield Finding("store", str(db), "broken", str(error))
