"""LoRA files of every trainer that people use with Stable Diffusion, read into one form.

A LoRA changes the weight W [O, E] of a layer to W + alpha / r B A, with A [r, E] and B [O, r]. Trainers agree in that,
and not in how they name layers and factors, nor in where alpha stands:

- diffusers: ``unet.down_blocks...to_q.lora_A.weight``, or ``.lora.down.weight``; alpha is in the file's header, else r;
- diffusers' attention processors, as ddpo-pytorch and B2-DiffuRL save them:
  ``...attn1.processor.to_q_lora.down.weight``; alpha is r;
- peft: ``base_model.model.down_blocks...lora_A.weight``; alpha is in ``adapter_config.json`` beside the file;
- kohya's sd-scripts: ``lora_unet_down_blocks_0_..._to_q.lora_down.weight``; alpha is a tensor of each layer, else r.

diffusers reads these too, and passes over what it does not know: weights that fit nowhere, alphas that differ between
layers, the alpha of peft. Here every weight of a file fits a layer, or the file is refused.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.utils import get_peft_model_state_dict, set_peft_model_state_dict
from peft.utils.other import get_pattern_key
from safetensors import safe_open
from torch import Tensor, nn

PEFT_FILE, PEFT_CONFIG = "adapter_model.safetensors", "adapter_config.json"
HEADER = "lora_adapter_metadata"  # diffusers' key for the LoRA's configuration in the header of a file

NAMES: tuple[tuple[str, str], ...] = (
    (r"\.lora_A(?:\.[\w-]+)?\.weight", "A"),  # peft may have the adapter's name in between
    (r"\.lora_B(?:\.[\w-]+)?\.weight", "B"),
    (r"\.lora(?:_linear_layer)?\.down\.weight", "A"),
    (r"\.lora(?:_linear_layer)?\.up\.weight", "B"),
    (r"\.lora_down\.weight", "A"),
    (r"\.lora_up\.weight", "B"),
    (r"_lora\.down\.weight", "A"),
    (r"_lora\.up\.weight", "B"),
    (r"(?:_lora|\.lora|\.lora_linear_layer)?\.alpha", "alpha"),
    (r"\.lora_magnitude_vector(?:\.[\w-]+)*", "magnitude"),
)
"""How the name of a weight ends, and what it is of its layer."""

STATE = {
    "A": "lora_A.weight",
    "B": "lora_B.weight",
    "magnitude": "lora_magnitude_vector",
}
"""The same in peft's words."""

HINTS = {
    "lora_te2_": "it seems to be for Stable Diffusion XL",
    "text_encoder_2.": "it seems to be for Stable Diffusion XL",
    "lora_unet_input_blocks": "it seems to be for Stable Diffusion XL",
    "transformer.": "it seems to be for a diffusion transformer, such as Flux",
    "hada_": "it is a LoHa, which is not read",
    "lokr_": "it is a LoKr, which is not read",
    "dora_scale": "it is a DoRA in a form that is not read",
    "lora_B.bias": "it has biases of B, which are not read",
    "lora_mid": "its convolutions have three factors, which are not read",
    "bundle_emb": "it has embeddings of new words, which are not read",
}
"""What an unknown name tells of its file."""

OWN_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")
"""Initialisations of peft that change the layer's own weight, too: without that change the factors mean nothing."""


@dataclass
class Layer:
    """What a file has of one layer, by :data:`STATE`; ``alpha`` None: the file does not say."""

    weights: dict[str, Tensor] = field(default_factory=dict)
    alpha: float | None = None

    @property
    def rank(self) -> int:
        return int(self.weights["B"].shape[1])


def peft_config(file: Path) -> Path | None:
    """Return the configuration beside a file that peft saved; None for any other file.

    Raises:
        OSError, SafetensorError: the file cannot be read.
        ValueError: the configuration is missing.
    """
    with safe_open(file, "pt") as content:
        if file.name != PEFT_FILE and not any("base_model.model." in name for name in content.keys()):  # noqa: SIM118
            return None
    config = file.parent / PEFT_CONFIG
    if not config.is_file():
        raise ValueError(f"peft saved it, and without {PEFT_CONFIG} beside it its alpha is not known; try adding that")
    return config


def read_lora(file: Path, models: Mapping[str, nn.Module]) -> dict[str, dict[str, Layer]]:
    """Read {part: {layer: weights}} of a file for the ``models`` *unet* and *text_encoder*; shapes are checked.

    Raises:
        OSError, SafetensorError: the file cannot be read.
        ValueError: a weight fits no layer, one is missing, alpha is not known, or nothing would change.
    """
    beside = peft_config(file)
    with safe_open(file, "pt") as content:
        header, weights = content.metadata() or {}, {name: content.get_tensor(name) for name in content.keys()}  # noqa: SIM118
    known = {part: _layers(model) for part, model in models.items()}
    found: dict[str, dict[str, Layer]] = {part: {} for part in models}
    unknown = []
    for key, weight in weights.items():
        if (place := _place(key, known)) is None:
            unknown.append(key)
            continue
        part, name, role = place
        layer = found[part].setdefault(name, Layer())
        if role == "alpha":
            layer.alpha = _number(weight, key)
        elif role in layer.weights:
            raise ValueError(f"it has layer {name} twice, once as {key}")
        else:
            layer.weights[role] = weight
    if unknown:
        hint = next((f"; {hint}" for word, hint in HINTS.items() for key in unknown if word in key), "")
        raise ValueError(f"{len(unknown)} of its {len(weights)} weights fit no layer: {_some(unknown)}{hint}")
    for part, layers in found.items():
        config = _config(beside, header, part)
        for name, layer in layers.items():
            _check(name, layer, models[part].get_submodule(name))
            layer.alpha = _alpha(name, layer, config)
            if config and config.get("use_dora") and "magnitude" not in layer.weights:
                raise ValueError(
                    f"it is a DoRA (use_dora), and {name} has no lora_magnitude_vector; try saving it anew"
                )
    if weights and not any(_does_something(layer) for layers in found.values() for layer in layers.values()):
        raise ValueError(
            "it changes nothing, because every B or alpha of it is zero: the pretrained model would be measured by its "
            "name. Try saving it after its training"
        )
    return found


def _does_something(layer: Layer) -> bool:
    return "magnitude" in layer.weights or bool(layer.alpha and layer.weights["A"].any() and layer.weights["B"].any())


def attach_lora(model: nn.Module, layers: Mapping[str, Layer], device: torch.device) -> None:
    """Add the layers to ``model`` as peft's adapter *default*.

    Raises:
        ValueError: peft took some other weights than these.
    """
    state = {
        f"{name}.{STATE[role]}": weight.to(device)
        for name, layer in layers.items()
        for role, weight in layer.weights.items()
    }
    first = next(iter(layers.values()))
    assert first.alpha is not None
    config = LoraConfig(
        r=first.rank,
        lora_alpha=first.alpha,  # an integer or not
        rank_pattern={f"^{re.escape(name)}": layer.rank for name, layer in layers.items() if layer.rank != first.rank},
        alpha_pattern={
            f"^{re.escape(name)}": layer.alpha for name, layer in layers.items() if layer.alpha != first.alpha
        },
        target_modules=list(layers),
        use_dora=any("magnitude" in layer.weights for layer in layers.values()),
    )
    inject_adapter_in_model(config, model, low_cpu_mem_usage=True, state_dict=state)
    set_peft_model_state_dict(model, dict(state), low_cpu_mem_usage=True)
    model._hf_peft_config_loaded = True  # type: ignore[assignment]  # diffusers' own mark
    taken = get_peft_model_state_dict(model)
    if different := [name for name in {**taken, **state} if name not in state or name not in taken]:
        raise ValueError(f"it lacks weights, or has too many: {_some(different)}")


def _layers(model: nn.Module) -> dict[str, str]:
    """{name in a file: name in the model} of layers that a LoRA can have, also as kohya writes them, without dots."""
    known: dict[str, str] = {}
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            for given in _spellings(name):
                known |= {given: name, given.replace(".", "_"): name}
    return known


def _spellings(name: str) -> tuple[str, str, str]:
    """Return a layer's name, with and without the first word of CLIP's names, which transformers 5 has dropped."""
    return name, f"text_model.{name}", name.removeprefix("text_model.")


def _place(key: str, known: Mapping[str, Mapping[str, str]]) -> tuple[str, str, str] | None:
    """(part, layer, role) of a weight by its name; None if there is no such layer."""
    module = key
    while module.startswith("base_model.model."):
        module = module.removeprefix("base_model.model.")
    part = "unet"
    for prefix, of in (("unet.", "unet"), ("lora_unet_", "unet"), ("text_encoder.", "text_encoder"),
                       ("lora_te1_", "text_encoder"), ("lora_te_", "text_encoder")):  # fmt: skip
        if module.startswith(prefix):
            part, module = of, module.removeprefix(prefix).removeprefix("base_model.model.")
            break
    for ending, role in NAMES:
        if found := re.fullmatch(f"(.+?){ending}", module):
            name = found[1].replace(".processor.", ".")
            if part == "text_encoder":
                name = re.sub(r"\.to_(q|k|v|out)$", r".\1_proj", name)
            layers = known[part]
            layer = layers.get(name) or layers.get(f"{name}.0")  # the old names say to_out for to_out.0
            return None if layer is None else (part, layer, role)
    return None


def _check(name: str, layer: Layer, module: nn.Module) -> None:
    """Bring the factors into float32 and peft's shapes; a 1x1 convolution may be written as a matrix."""
    if missing := [STATE[role] for role in ("A", "B") if role not in layer.weights]:
        raise ValueError(f"it lacks weights, {name}.{missing[0]} for one")
    assert isinstance(module, nn.Linear | nn.Conv2d)
    rows, *columns = module.weight.shape
    rank = layer.weights["A"].shape[0] if layer.weights["A"].ndim else 0
    ones = [1] * (len(columns) - 1)
    expected = {
        "A": (rank, *columns),
        "B": (rows, rank, *ones),
        "magnitude": (1, rows, *ones) if ones else (rows,),
    }
    for role, shape in expected.items():
        if (weight := layer.weights.get(role)) is None:
            continue
        if rank < 1 or [n for n in weight.shape if n != 1] != [n for n in shape if n != 1]:
            symbols = {"A": ("r", *shape[1:]), "B": (rows, "r", *ones)}.get(role, shape)
            raise ValueError(
                f"{name}.{STATE[role]} is {list(weight.shape)}, the layer takes [{', '.join(map(str, symbols))}] of "
                "the same r in A and B"
            )
        if not weight.is_floating_point():
            raise ValueError(f"{name}.{STATE[role]} has whole numbers ({str(weight.dtype).removeprefix('torch.')})")
        layer.weights[role] = weight.float().reshape(shape)


def _config(beside: Path | None, header: Mapping[str, str], part: str) -> dict[str, Any] | None:
    """Return what peft's file or diffusers' header says of the adapter of ``part``; None: nothing is said."""
    try:
        if beside is not None:
            config = json.loads(beside.read_text(encoding="utf-8"))
        elif HEADER in header:
            every = json.loads(header[HEADER])
            config = {key.removeprefix(f"{part}."): value for key, value in every.items() if key.startswith(f"{part}.")}
        else:
            return None
    except (ValueError, AttributeError, RecursionError) as error:
        raise ValueError(f"{beside or HEADER} cannot be read: {error}") from None
    if not isinstance(config, dict):
        raise ValueError(f"{beside or HEADER} is not a table of settings")
    kind, start = config.get("peft_type") or "LORA", str(config.get("init_lora_weights"))
    if kind != "LORA":
        raise ValueError(f"it is a {kind} of peft, and not a LoRA")
    if start.lower().startswith(OWN_BASE):
        raise ValueError(
            f"it began by {start} (init_lora_weights), which changes the layers' own weights, too; try saving it with "
            "peft's path_initial_model_for_weight_conversion, which makes an ordinary LoRA of it"
        )
    return config or None


def _alpha(name: str, layer: Layer, config: Mapping[str, Any] | None) -> float:
    """Alpha of a layer: its own, else the configuration's, else the rank, by which all without one go."""
    if layer.alpha is not None:
        return layer.alpha
    if config is None:
        return float(layer.rank)
    pattern, alpha = config.get("alpha_pattern") or {}, config.get("lora_alpha")
    try:
        for given in _spellings(name):
            alpha = pattern.get(get_pattern_key(list(pattern), given), alpha)
    except (AttributeError, TypeError, re.error) as error:
        raise ValueError(f"its alpha_pattern cannot be read: {error}") from None
    alpha = _number(alpha, "lora_alpha")
    return alpha * math.sqrt(layer.rank) if config.get("use_rslora") else alpha  # there the scale is alpha / sqrt(r)


def _number(value: Any, what: str) -> float:
    """Return a finite number, of a tensor or a configuration.

    Raises:
        ValueError: it is something else.
    """
    if isinstance(value, Tensor) and value.numel() == 1:
        value = value.item()
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        shown = list(value.shape) if isinstance(value, Tensor) else value
        raise ValueError(f"{what} is {shown!r}, and not a number")
    return float(value)


def _some(names: Sequence[str], most: int = 3) -> str:
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")
