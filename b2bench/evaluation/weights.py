"""Published weights of judges, from the hub or a folder: a missing one is an error that says how to get it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from b2bench.errors import UserError
from b2bench.hub import download_command
from b2bench.protocols import ModelSize

PUBLISHED = "published"
"""As ``checkpoint`` of a reward: its weights as they were published on the hub"""


def network_from_hub(loader: Any, who: str, source: str, size: str, **options: Any) -> Any:
    """Return a network as :func:`from_hub` does, all of whose weights were there.

    transformers fills what a checkpoint lacks with random numbers, and only warns.

    Raises:
        UserError: it is not there or cannot be read, or lacks weights.
    """
    network, told = from_hub(loader, who, source, size, output_loading_info=True, **options)
    _refuse_missing(sorted(told["missing_keys"]), f"{who} checkpoint {source}")
    return network


def _refuse_missing(missing: Sequence[str], what: str) -> None:
    if missing:
        more = f" and {len(missing) - 1} more weights" if len(missing) > 1 else ""
        raise UserError(f"{what} has no {missing[0]}{more}: it is of another network, or was saved in part")


def from_hub(loader: Any, who: str, source: str, size: str, **options: Any) -> Any:
    """Return ``loader.from_pretrained(source)``: a class of transformers, a folder or a repository of ``size``.

    ``who`` needs it. An empty ``size`` says that it cannot be fetched.

    Raises:
        UserError: it is not there or cannot be read; the message says how to get it.
    """
    try:
        return loader.from_pretrained(source, **options)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        reason = " ".join(str(error).split())[:160]
        if Path(source).is_dir() or not size:
            raise UserError(f"{who} checkpoint {source} cannot be read: {reason}") from None
        raise UserError(_missing(who, source, size, download_command(source), reason)) from None


def hub_file(who: str, repository: str, file: str, size: str) -> Path:
    """Return one file of a repository of the hub, in the hub's cache, fetched if it was not there.

    Raises:
        UserError: it could not be fetched; the message says how to get it.
    """
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(repository, file))
    except Exception as error:  # the hub client raises many kinds
        how = download_command(repository, file)
        raise UserError(_missing(who, f"{repository} {file}", size, how, type(error).__name__)) from None


def _missing(who: str, what: str, size: str, how: str, reason: str) -> str:
    return (
        f"{who} needs {what} ({size}), which is not on this machine and could not be fetched. Try: "
        f"{how}, on a machine with access, and set HF_HOME to that cache. ({reason})"
    )


def folder_file(who: str, folder: Path, names: Sequence[str]) -> Path:
    """Return the first of the files ``names`` that ``folder`` holds.

    Raises:
        UserError: it holds none.
    """
    found = next((folder / name for name in names if (folder / name).is_file()), None)
    if found is None:
        if not folder.is_dir():
            raise UserError(f"{who} checkpoint {str(folder)!r} is not a folder; try {PUBLISHED}, or another path")
        raise UserError(f"{who} checkpoint: {folder} has no {' or '.join(names)}; try another folder")
    return found


def read_tensors(path: Path, what: str) -> dict[str, Tensor]:
    """Return the tensors of a .safetensors file, or of one of torch, which is read with ``weights_only``.

    ``what`` names the setting that gave the path. Of {"state_dict": {...}} the inner dict counts.

    Raises:
        UserError: the file is missing, or holds something else.
    """
    from safetensors.torch import load_file  # imports torch, and listing rewards needs none

    try:
        if path.suffix == ".safetensors":
            return dict(load_file(path))
        found = torch.load(path, weights_only=True, map_location="cpu")
    except FileNotFoundError:
        raise UserError(f"{what} {path} does not exist; try another path") from None
    except (OSError, SafetensorError) as error:
        raise UserError(f"{what} {path} cannot be read: {' '.join(str(error).split())[:160]}") from None
    except Exception as error:  # pickle's many kinds
        raise UserError(f"{what} {path} holds no state dict: {type(error).__name__}") from None
    if isinstance(found, dict) and isinstance(found.get("state_dict"), dict):
        found = found["state_dict"]
    if not isinstance(found, dict):
        raise UserError(f"{what} {path} holds a {type(found).__name__}, not a state dict")
    return {name: value for name, value in found.items() if isinstance(value, Tensor)}


def fill(network: nn.Module, tensors: dict[str, Tensor], what: str) -> None:
    """Copy every weight of ``network`` from ``tensors``, which may hold more.

    Raises:
        UserError: a weight is missing or of another shape; ``what`` says of which file.
    """
    try:
        missing = network.load_state_dict(tensors, strict=False).missing_keys
    except RuntimeError as error:  # of another shape
        raise UserError(f"{what} holds weights of another network: {' '.join(str(error).split())[:160]}") from None
    _refuse_missing(missing, what)


def ready(network: nn.Module, device: torch.device) -> Any:
    """Return a network in float32 on the device, for judging: no dropout, and no gradient of its weights."""
    return network.to(device).float().eval().requires_grad_(False)


def counted(name: str, make: Callable[[], nn.Module]) -> ModelSize:
    """Return the size in float32 of the network that ``make`` builds, which takes no memory here."""
    with torch.device("meta"):
        parameters = sum(p.numel() for p in make().parameters())
    return ModelSize(name, parameters, 4 * parameters)
