"""LoRA files and pipeline folders that are damaged, or that are something else."""

from __future__ import annotations

import json
import pickle
import random
import shutil
import struct
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from bad_inputs.checkpoints import Bomb
from bad_inputs.made import Input, damage_bytes, misplace, tiny


def loras(drawn: random.Random, folder: Path) -> Input:
    file = folder / "lora.safetensors"
    command = drawn.choice(
        (
            ["evaluate", file.name, "--queries", "10", "--eval-images", "1"],
            ["evaluate", file.name, "--queries", "10", "--eval-images", "1"],
            ["profile", "--lora", file.name, "--taus", "1", "--branches", "2", "--leaves", "2", "--set", "steps=1"],
            [
                "pocket",
                "gallery",
                "--out",
                "g.png",
                "--prompts",
                "template1",
                "--seeds",
                "1",
                "--rows",
                "1",
                "--lora",
                file.name,
            ],
        )
    )
    way = drawn.choice(
        (
            *("bytes", "bytes", "header", "header", "tensors", "tensors", "tensors"),
            *("foreign", "foreign", "foreign", "peft", "pickle", "misplaced", "folder"),
        )
    )
    mode = False
    if way == "bytes":
        what = damage_bytes(drawn, file)
    elif way == "header":
        what = _header(drawn, file)
    elif way == "tensors":
        what = _tensors(drawn, file)
    elif way == "foreign":
        what = _foreign(drawn, file)
    elif way == "peft":
        command[command.index(file.name)] = "peft"
        what = _peft(drawn, file, folder / "peft")
    elif way == "pickle":
        file.write_bytes(pickle.dumps(Bomb()))
        what = "a pickle by the name of safetensors"
    elif way == "folder":
        command[command.index(file.name)] = "loras"
        (folder / "loras").mkdir()
        for i in range(drawn.choice((0, 2))):
            shutil.copy(file, folder / "loras" / f"{i}.safetensors")
        (folder / "loras" / "pytorch_lora_weights.bin").write_bytes(pickle.dumps(Bomb()))
        what = "a folder without one LoRA"
    else:
        what, mode = misplace(drawn, file)
    return Input(command, [file.name, "loras", "peft"], f"LoRA: {what}", loads=True, unreadable=mode)


def _header(drawn: random.Random, file: Path) -> str:
    content = file.read_bytes()
    size = struct.unpack("<Q", content[:8])[0]
    header, body = json.loads(content[8 : 8 + size]), content[8 + size :]
    name = drawn.choice([key for key in header if key != "__metadata__"])
    way = drawn.choice(("offsets", "dtype", "shape", "size", "JSON", "none", "empty", "metadata"))
    if way == "offsets":
        header[name]["data_offsets"] = drawn.choice(([0, 10**15], [-1, 5], [5, 1], [], "x", [0, 4]))
    elif way == "dtype":
        header[name]["dtype"] = drawn.choice(("F64", "I8", "BOOL", "X", "", 3))
    elif way == "shape":
        header[name]["shape"] = drawn.choice(([10**9, 10**9], [-1], [0], [], "x", [1, 2, 3]))
    elif way == "metadata":
        header["__metadata__"] = drawn.choice((3, {"format": "tf"}, {"format": 3}, [], {"lora_adapter_metadata": "{"}))
    text = json.dumps({} if way == "empty" else header).encode()
    text = {"JSON": b"{" * 50, "none": b""}.get(way, text)
    length = drawn.choice((0, 2**63, len(text) + 5)) if way == "size" else len(text)
    file.write_bytes(struct.pack("<Q", length) + text + (b"" if way == "empty" else body))
    return f"header's {way}"


def _tensors(drawn: random.Random, file: Path) -> str:
    weights = load_file(file)
    way = drawn.choice(("nan", "inf", "shape", "dtype", "names", "lack", "other", "rank", "no number", "mixed", "none"))
    if way in ("nan", "inf"):
        weights = {name: torch.full_like(value, float(way)) for name, value in weights.items()}
    elif way == "dtype":
        weights = {
            name: value.to(drawn.choice((torch.int32, torch.bool, torch.uint8))) for name, value in weights.items()
        }
    elif way == "names":
        weights = {
            drawn.choice((f"x.{name}", name.replace("unet.", ""), name.upper())): value
            for name, value in weights.items()
        }
    elif way == "lack":
        weights = dict(list(weights.items())[: drawn.choice((1, 3))])
    elif way == "other":
        weights = {"weight": torch.zeros(2, 2)}
    elif way == "no number":
        weights = {name: value[:0] for name, value in weights.items()}
    elif way == "none":
        weights = {}
    else:
        name = drawn.choice([*weights])
        old = weights[name]
        weights[name] = {
            "shape": torch.zeros(3, 5),
            "rank": torch.zeros(old.shape[0] * 2, old.shape[1] * 2),
            "mixed": old.half(),
        }[way]
    save_file({name: value.contiguous() for name, value in weights.items()}, file)
    return f"tensors: {way}"


def _foreign(drawn: random.Random, file: Path) -> str:
    """A LoRA that fits in part, or one of another trainer or another model."""
    weights = load_file(file)
    some = drawn.sample([*weights], len(weights) // 2)
    way = drawn.choice(("half", "prefix", "flat", "old", "text", "odd"))
    if way == "half":
        weights = {name: weights[name] for name in some}
        layer = drawn.choice(("unet.mid_block.attentions.7.attn1.to_q", "unet.conv_in", "text_encoder.x", "y"))
        weights |= {f"{layer}.lora_A.weight": torch.zeros(2, 4), f"{layer}.lora_B.weight": torch.zeros(4, 2)}
    elif way == "prefix":
        prefix = drawn.choice(("transformer.", "text_encoder.", "base_model.model.", "unet.unet.", "lora_te2_", "unet"))
        weights = {name.replace("unet.", prefix): value for name, value in weights.items()}
    elif way == "flat":
        ends = {".lora_A.weight": ".lora_down.weight", ".lora_B.weight": ".lora_up.weight"}
        for old, new in ends.items():
            weights = {name.replace(old, new): value for name, value in weights.items()}
        weights = {
            f"lora_{name[:stop].replace('.', '_')}{name[stop:]}": value
            for name, value in weights.items()
            for stop in [name.index(".lora_")]
        }
        end = drawn.choice(("alpha", "dora_scale", "lora_mid.weight", "hada_w1_a", "lokr_w1"))
        number = drawn.choice((torch.tensor(float("nan")), torch.zeros(2, 3), torch.zeros(0)))
        weights[f"{drawn.choice([*weights]).split('.')[0]}.{end}"] = number
    elif way == "old":
        weights = {name.replace(".lora_A.", "_lora.down.").replace("unet.", ""): w for name, w in weights.items()}
        weights = dict(list(weights.items())[:-1])
    elif way == "text":
        layer = "lora_te_text_model_encoder_layers_9_self_attn_q_proj"
        weights = {f"{layer}.lora_down.weight": torch.zeros(2, 96), f"{layer}.lora_up.weight": torch.zeros(96, 2)}
    else:
        for name in some:
            weights[drawn.choice((name + ".x", "", ".", "unet.", "base_model.model.", f"{name}\n", "_lora.alpha"))] = (
                weights.pop(name)
            )
    save_file({name: value.contiguous() for name, value in weights.items()}, file)
    return f"foreign: {way}"


def _peft(drawn: random.Random, file: Path, folder: Path) -> str:
    """A folder of peft whose configuration says something that its weights cannot mean."""
    folder.mkdir()
    weights = {name.replace("unet.", "base_model.model."): value for name, value in load_file(file).items()}
    save_file(weights, folder / "adapter_model.safetensors")
    key = drawn.choice(("lora_alpha", "alpha_pattern", "peft_type", "init_lora_weights", "lora_alpha"))
    junk: dict[str, tuple[object, ...]] = {
        "lora_alpha": (None, "x", [], {}, True, float("inf")),
        "alpha_pattern": ("x", 3, {"(": 1}, {"to_q": "x"}, [1]),
        "peft_type": ("LOHA", "IA3", 3, ["LORA"]),
        "init_lora_weights": ("pissa", "olora", "loftq"),
    }
    value = drawn.choice(junk[key])
    text = json.dumps({"peft_type": "LORA", "r": 2, "lora_alpha": 2} | {key: value})
    if drawn.random() < 0.3:
        text = drawn.choice(("", "[]", "3", "{", "null", "\x00", "[" * 5000))
    if drawn.random() < 0.9:
        (folder / "adapter_config.json").write_text(text, encoding="utf-8")
    return f"peft: {text[:80]}"


CONFIGURATIONS: dict[str, tuple[dict[str, object], ...]] = {
    "unet": (
        {"sample_size": [8, 8]},
        {"sample_size": 10**12},
        {"class_embed_type": "identity"},
        {"num_class_embeds": 5},
        {"time_cond_proj_dim": 8},
        {"addition_embed_type": "text"},
        {"in_channels": 33},
        {"out_channels": 32},
        {"cross_attention_dim": [96, 48]},
        {"encoder_hid_dim": 7},
        {"encoder_hid_dim_type": "image_proj", "encoder_hid_dim": 96},
    ),
    "vae": ({"scaling_factor": 0}, {"latent_channels": 4}, {"out_channels": 1}, {"scaling_factor": None}),
    "text_encoder": ({"use_attention_mask": True}, {"hidden_size": 48}, {"max_position_embeddings": 8}),
    "scheduler": (
        {"timestep_spacing": "linspace"},
        {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing", "trained_betas": None},
        {"_class_name": "FlowMatchEulerDiscreteScheduler"},
        {"_class_name": "EDMEulerScheduler"},
        {"steps_offset": 900},
        {"set_alpha_to_one": True},
        {"trained_betas": [0.0] * 1000},
    ),
}
"""What does not go with the rest of pocket's pipeline."""


def _configured(drawn: random.Random, pipe: Path) -> str:
    part = drawn.choice([*CONFIGURATIONS])
    changes = drawn.choice(CONFIGURATIONS[part])
    file = pipe / part / ("scheduler_config.json" if part == "scheduler" else "config.json")
    file.write_text(json.dumps(json.loads(file.read_text(encoding="utf-8")) | changes), encoding="utf-8")
    return f"{part}: {str(changes)[:80]}"


def backbones(drawn: random.Random, folder: Path) -> Input:
    """A pipeline folder without a part, or with one that is damaged; and files that are no checkpoint."""
    pipe = folder / "pipe"
    reward = ["--reward", "plain", "--plugin", "plain.py"]  # clipscore's checkpoint for other backbones is not here
    command = ["run", "--algo", "ddpo", *reward, "--backbone", "pipe", "--queries", "1", *tiny()]
    files = [file for file in pipe.rglob("*") if file.is_file()]
    texts = [file for file in files if file.suffix in (".json", ".txt")]
    way = drawn.choice(
        (
            *("bytes", "bytes", "gone", "JSON", "JSON", "JSON", "part", "single", "variant", "misplaced"),
            *("configured", "configured", "configured", "prompts"),
        )
    )
    told = ["pipe", "prediction", "guidance", "run failed: round"]
    if way == "bytes":
        what = damage_bytes(drawn, file := drawn.choice(files))
        told.append(file.name)
    elif way == "gone":
        file = drawn.choice(files)
        file.unlink()
        what = f"no {file.name}"
    elif way == "part":
        part = drawn.choice(("unet", "vae", "text_encoder", "tokenizer", "scheduler"))
        shutil.rmtree(pipe / part)
        what = f"no folder {part}"
    elif way == "single":
        shutil.rmtree(pipe)
        command[command.index("pipe")] = "one.safetensors"
        one = folder / "one.safetensors"
        one.write_bytes((folder / "lora.safetensors").read_bytes())
        what = damage_bytes(drawn, one) if drawn.random() < 0.7 else "a LoRA as backbone"
        told = ["one.safetensors"]
    elif way == "variant":
        text = drawn.choice(("{", "[]", "{}", '{"variant": 3, "world": 99}', '{"variant": "x"}', "", "\x00"))
        (pipe / "variant.json").write_text(text, encoding="utf-8")
        what = f"variant.json {text!r}"
    elif way == "configured":
        what = _configured(drawn, pipe)
    elif way == "prompts":  # of which one is longer than the encoder reads
        lines = [f"a cat {'and a dog ' * n}playing chess" for n in range(9)]
        drawn.shuffle(lines)
        (folder / "long.txt").write_text("\n".join(lines), encoding="utf-8")
        command += ["--prompts", "long.txt"]
        told, what = ["long.txt"], "a prompt that is too long"
    elif way == "misplaced":
        what, mode = misplace(drawn, drawn.choice(files))
        return Input(command, told, f"backbone: {what}", loads=True, unreadable=mode)
    else:
        file = drawn.choice([file for file in texts if file.suffix == ".json"])
        what = f"{file.parent.name}/{file.name}: {_json(drawn, file)}"
    return Input(command, told, f"backbone: {what}", loads=True)


def _json(drawn: random.Random, file: Path) -> str:
    """One value of a JSON file of another type, or another file."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except ValueError:
        content = {}
    junk = drawn.choice((None, -1, 0, 10**12, "text", [], {}, [1], 1e300, True))
    file.unlink()
    if not isinstance(content, dict) or not content or drawn.random() < 0.2:
        text = drawn.choice(("[]", "3", "null", "{", "", '{"_class_name": 3}', "[" * 5000))
        file.write_text(text, encoding="utf-8")
        return text[:20]
    key = drawn.choice([*content])
    file.write_text(json.dumps(content | {key: junk}), encoding="utf-8")
    return f"{key} = {junk!r}"
