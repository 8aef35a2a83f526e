"""LoRA files of other people: what is read, to which scale, and what is refused."""

import copy
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig
from safetensors.torch import load_file, save_file
from torch import Tensor

from b2bench.backbones.stable_diffusion import StableDiffusion
from b2bench.errors import UserError
from b2bench.rollout import sample_with_kl
from b2bench.studies.lora import lora_identity

PROMPTS = ["a cat riding a bike", "a dog playing chess"]
FILE = "pytorch_lora_weights.safetensors"


@pytest.fixture
def fresh(pocket_pipeline: Any) -> Callable[[], StableDiffusion]:
    """The pretrained model, which a LoRA file is to be read into."""
    return lambda: StableDiffusion(copy.deepcopy(pocket_pipeline), num_steps=4, eta=1.0, guidance=3.0)


@pytest.fixture
def state(make_policy: Any, tmp_path: Path) -> dict[str, Tensor]:
    """A LoRA of rank 2 as b2bench and diffusers save it; alpha is the rank."""
    make_policy(rank=2, moved=0.1).save_lora(tmp_path / "own")
    return dict(load_file(tmp_path / "own" / FILE))


def drawn(policy: StableDiffusion) -> Tensor:
    latents = torch.randn(2, *policy.latent_shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return policy.noise(policy.encode(PROMPTS), latents, torch.tensor([0, 3]))


def scaled(state: dict[str, Tensor], factor: float) -> dict[str, Tensor]:
    """The same LoRA with every B multiplied, which is what alpha = factor r does."""
    return {name: weight * factor if "lora_B" in name else weight.clone() for name, weight in state.items()}


def names(state: dict[str, Tensor], **changes: str) -> dict[str, Tensor]:
    """``state`` with its names changed, by regular expressions."""
    found = {}
    for name, weight in state.items():
        for old, new in changes.items():
            name = re.sub(PATTERNS[old], new, name)
        found[name] = weight
    return found


PATTERNS = {"unet": r"^unet\.", "A": r"\.lora_A\.weight$", "B": r"\.lora_B\.weight$", "out": r"\.to_out\.0"}


def processors(state: dict[str, Tensor], prefix: str = "") -> dict[str, Tensor]:
    """As diffusers' attention processors save themselves, in ddpo-pytorch, B2-DiffuRL and older diffusers."""
    found = names(state, unet=prefix, out=".to_out", A="_lora.down.weight", B="_lora.up.weight")
    return {re.sub(r"\.(attn\d)\.", r".\1.processor.", name): weight for name, weight in found.items()}


def kohya(state: dict[str, Tensor], alpha: float | None = None) -> dict[str, Tensor]:
    found = {}
    for name, weight in state.items():
        layer, factor = re.fullmatch(r"unet\.(.+)\.lora_([AB])\.weight", name).groups()  # type: ignore[union-attr]
        module = f"lora_unet_{layer.replace('.', '_')}"
        found[f"{module}.lora_{'down' if factor == 'A' else 'up'}.weight"] = weight
        if alpha is not None:
            found[f"{module}.alpha"] = torch.tensor(alpha)
    return found


FORMATS: dict[str, Callable[[dict[str, Tensor]], dict[str, Tensor]]] = {
    "diffusers": dict,
    "diffusers, before peft": lambda state: names(state, A=".lora.down.weight", B=".lora.up.weight"),
    "attention processors": processors,
    "attention processors of the pipeline": lambda state: processors(state, "unet."),
    "plain names": lambda state: names(state, unet=""),
    "adapter named with a dash": lambda state: names(state, A=".lora_A.my-style.weight", B=".lora_B.my-style.weight"),
    "named adapter": lambda state: names(state, A=".lora_A.default_0.weight", B=".lora_B.default_0.weight"),
    "kohya": lambda state: kohya(state, 2),
    "kohya without alpha": kohya,
    "eight bits": lambda state: {name: weight.to(torch.float8_e5m2) for name, weight in state.items()},
    "half": lambda state: {name: weight.half() for name, weight in state.items()},
}


@pytest.mark.slow
@pytest.mark.parametrize("layout", FORMATS)
def test_a_lora_is_the_same_in_every_layout(layout: str, fresh: Any, state: Any, tmp_path: Path) -> None:
    save_file(state, tmp_path / "own.safetensors")
    save_file(FORMATS[layout](state), tmp_path / "other.safetensors")
    own, other = fresh(), fresh()
    plain = drawn(own)
    own.load_lora(tmp_path / "own.safetensors")
    other.load_lora(tmp_path / "other.safetensors")
    assert {p.dtype for p in other.parameters()} == {torch.float32}
    expected, found = drawn(own), drawn(other)
    assert (expected - plain).abs().max() > 1e-2
    if layout == "eight bits":
        assert (found - expected).norm() < 0.5 * (expected - plain).norm()
    else:
        torch.testing.assert_close(found, expected, atol=0.02 if layout == "half" else 0, rtol=0)
    with other.reference():
        assert torch.equal(drawn(other), plain)


@pytest.mark.slow
@pytest.mark.parametrize("options", [{"use_dora": True}, {"target_modules": ["conv1", "proj_in"]}])
def test_what_peft_adds_to_a_lora_is_read(options: dict[str, Any], fresh: Any, tmp_path: Path) -> None:
    own, other = fresh(), fresh()
    whole = {"r": 2, "lora_alpha": 2, "target_modules": ["to_q", "to_k", "to_v", "to_out.0"], **options}
    own.unet.add_adapter(LoraConfig(**whole))
    draws = torch.Generator().manual_seed(0)
    for parameter in own.parameters():
        parameter.data += 0.1 * torch.randn(parameter.shape, generator=draws)
    own._fuse()
    own.save_lora(tmp_path)
    plain = drawn(other)
    other.load_lora(tmp_path)
    assert (drawn(other) - plain).abs().max() > 1e-2
    torch.testing.assert_close(drawn(other), drawn(own), atol=1e-5, rtol=1e-5)


def peft_folder(state: dict[str, Tensor], folder: Path, **config: Any) -> Path:
    folder.mkdir()
    save_file(names(state, unet="base_model.model."), folder / "adapter_model.safetensors")
    whole = {"peft_type": "LORA", "r": 2, "lora_alpha": 2, "init_lora_weights": "gaussian"} | config
    (folder / "adapter_config.json").write_text(json.dumps(whole))
    return folder


def by_kohya(state: dict[str, Tensor], folder: Path) -> Path:
    save_file(kohya(state, 4), folder / "kohya.safetensors")
    return folder / "kohya.safetensors"


def by_header(state: dict[str, Tensor], folder: Path) -> Path:
    header = {"lora_adapter_metadata": json.dumps({"unet.r": 2, "unet.lora_alpha": 4})}
    save_file(state, folder / "header.safetensors", metadata=header)
    return folder / "header.safetensors"


@pytest.mark.slow
@pytest.mark.parametrize(
    "write",
    [
        by_kohya,
        by_header,
        lambda state, folder: peft_folder(state, folder / "peft", lora_alpha=4),
        lambda state, folder: peft_folder(state, folder / "peft", lora_alpha=2 * 2**0.5, use_rslora=True),
        lambda state, folder: peft_folder(state, folder / "peft", alpha_pattern={"to_[qkv]": 4, r"to_out\.0": 4}),
    ],
    ids=["kohya", "diffusers' header", "peft", "peft, rank-stabilised", "peft, alpha by pattern"],
)
def test_an_alpha_of_twice_the_rank_doubles_the_change(write: Any, fresh: Any, state: Any, tmp_path: Path) -> None:
    save_file(scaled(state, 2), tmp_path / "twice.safetensors")
    twice, other = fresh(), fresh()
    twice.load_lora(tmp_path / "twice.safetensors")
    other.load_lora(write(state, tmp_path))
    torch.testing.assert_close(drawn(other), drawn(twice), atol=1e-4, rtol=1e-4)


def test_each_layer_has_its_own_alpha_and_rank(fresh: Any, state: Any, tmp_path: Path) -> None:
    layers = [name for name in kohya(state, 2) if name.endswith(".alpha")]
    mixed = kohya(state, 2) | {name: torch.tensor(4.0) for name in layers[::2]}
    wider = layers[0].removesuffix(".alpha")
    for part, dim in (("lora_down", 0), ("lora_up", 1)):  # rank 4, of which two are nothing
        weight = mixed[f"{wider}.{part}.weight"]
        mixed[f"{wider}.{part}.weight"] = torch.cat([weight, torch.zeros_like(weight)], dim)
    mixed[f"{wider}.alpha"] = torch.tensor(8.0)
    twice = {name.removesuffix(".alpha") for name in layers[::2]}
    expected = {
        name: weight * 2 if name.split(".")[0] in twice and "lora_up" in name else weight.clone()
        for name, weight in kohya(state, 2).items()
    }
    save_file(mixed, tmp_path / "mixed.safetensors")
    save_file(expected, tmp_path / "expected.safetensors")
    one, two = fresh(), fresh()
    one.load_lora(tmp_path / "mixed.safetensors")
    two.load_lora(tmp_path / "expected.safetensors")
    torch.testing.assert_close(drawn(one), drawn(two), atol=1e-4, rtol=1e-4)


def of_text(policy: StableDiffusion, projections: tuple[str, ...], layout: str) -> dict[str, Tensor]:
    """A LoRA for the text encoder, of kohya's layout or of peft's."""
    found = {}
    for name, module in policy.text_encoder.named_modules():
        if name.endswith(projections):
            rows, columns = module.weight.shape
            if layout == "kohya":
                down, up = (
                    f"lora_te_text_model_{name.replace('.', '_')}.lora_{part}.weight" for part in ("down", "up")
                )
            else:
                down, up = (f"text_encoder.text_model.{name}.lora_{part}.weight" for part in "AB")
            draws = torch.Generator().manual_seed(len(found))
            found[down] = torch.randn(2, columns, generator=draws)
            found[up] = 0.3 * torch.randn(rows, 2, generator=draws)
    return found


@pytest.mark.parametrize("projections", [("q_proj", "v_proj"), ("q_proj", "k_proj", "v_proj", "out_proj", "fc1")])
def test_a_part_for_the_text_encoder_is_read_too(projections: Any, fresh: Any, state: Any, tmp_path: Path) -> None:
    """diffusers reads kohya's only if it has all four projections."""
    found = []
    for layout, unet in (("kohya", kohya(state, 2)), ("peft", state)):
        policy = fresh()
        save_file(unet | of_text(policy, projections, layout), tmp_path / f"{layout}.safetensors")
        plain = policy.encode(PROMPTS).table
        policy.load_lora(tmp_path / f"{layout}.safetensors")
        found.append(policy.encode(PROMPTS).table)
        assert (found[-1] - plain).abs().max() > 1e-2
        with policy.reference():
            assert torch.equal(policy.encode(PROMPTS).table, plain)
    assert torch.equal(*found)


@pytest.mark.parametrize("layer", ["text_model.encoder.layers.0.self_attn.q_proj", "encoder.layers.0.self_attn.q_proj"])
def test_an_alpha_of_the_text_encoder_by_either_name(layer: str, fresh: Any, state: Any, tmp_path: Path) -> None:
    """transformers has dropped the first word of the names, which older files have."""
    text = of_text(fresh(), ("q_proj",), "peft")
    first = next(name for name in text if "layers.0.self_attn.q_proj" in name and "lora_B" in name)
    header = {"unet.lora_alpha": 2, "unet.r": 2, "text_encoder.lora_alpha": 2, "text_encoder.r": 2}
    found = []
    for name, change, pattern in (("plain", {}, {}), ("thrice", {first: 3 * text[first]}, {}), ("six", {}, {layer: 6})):
        config = json.dumps(header | {"text_encoder.alpha_pattern": pattern})
        save_file(state | text | change, tmp_path / f"{name}.safetensors", {"lora_adapter_metadata": config})
        policy = fresh()
        policy.load_lora(tmp_path / f"{name}.safetensors")
        found.append(policy.encode(PROMPTS).table)
    torch.testing.assert_close(found[2], found[1])
    assert not torch.allclose(found[2], found[0])


@pytest.mark.slow
def test_the_kl_is_from_the_pretrained_text_encoder_too(fresh: Any, state: Any, tmp_path: Path) -> None:
    policy = fresh()
    nothing = {name: weight * 0 for name, weight in state.items()}
    save_file(nothing | of_text(policy, ("q_proj", "v_proj"), "peft"), tmp_path / "text.safetensors")

    def noise(rows: Any, step: int) -> Tensor:
        draws = torch.Generator().manual_seed(step + 1)
        return torch.randn(len(rows), *policy.latent_shape, generator=draws)

    assert not sample_with_kl(policy, PROMPTS, noise)[1].any()
    policy.load_lora(tmp_path / "text.safetensors")
    assert bool((sample_with_kl(policy, PROMPTS, noise)[1] > 0).all())


FOREIGN = "unet.mid_block.attentions.7.transformer_blocks.0.attn1.to_q"


def without(state: dict[str, Tensor], word: str) -> dict[str, Tensor]:
    return {name: weight for name, weight in state.items() if word not in name}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (
            lambda state: (
                dict([*state.items()][: len(state) // 2])
                | {f"{FOREIGN}.lora_A.weight": torch.zeros(2, 8), f"{FOREIGN}.lora_B.weight": torch.zeros(8, 2)}
            ),
            rf"2 of its \d+ weights fit no layer: {re.escape(FOREIGN)}\.lora_A\.weight",
        ),
        (lambda state: {**state, "lora_te2_text_model_x.lora_down.weight": torch.zeros(2, 8)}, "Stable Diffusion XL"),
        (lambda state: {"transformer.x.lora_A.weight": torch.zeros(2, 8)}, "diffusion transformer"),
        (lambda state: {"lora_unet_mid_block.hada_w1_a": torch.zeros(2, 8)}, "LoHa"),
        (lambda state: kohya(state) | {f"{next(iter(kohya(state)))[:-17]}.dora_scale": torch.ones(2)}, "DoRA"),
        (lambda state: without(state, "to_q.lora_B"), "it lacks weights"),
        (lambda state: {n: w[:, :-1] if "lora_A" in n else w for n, w in state.items()}, r"the layer takes \[r, "),
        (lambda state: {n: w[:1] if "lora_A" in n else w for n, w in state.items()}, "of the same r in A and B"),
        (lambda state: {n: w.reshape(-1) if "lora_A" in n else w for n, w in state.items()}, "the layer takes"),
        (lambda state: {n: w.to(torch.int32) for n, w in state.items()}, r"has whole numbers \(int32\)"),
        (lambda state: kohya(state, float("nan")), "alpha is nan, and not a number"),
        (lambda state: names(state, unet="base_model.model."), "without adapter_config.json"),
        (lambda state: state | names(state, unet=""), "it has layer .* twice"),
        (lambda state: scaled(state, 0), "it changes nothing, because every B or alpha of it is zero"),
        (lambda state: kohya(state, 0), "it changes nothing"),
    ],
)
def test_what_fits_in_part_is_refused(change: Any, reason: str, fresh: Any, state: Any, tmp_path: Path) -> None:
    changed = {name: weight.clone().contiguous() for name, weight in change(state).items()}
    save_file(changed, tmp_path / "other.safetensors")
    with pytest.raises(UserError, match=f"other.safetensors is not a LoRA for this backbone: .*{reason}"):
        fresh().load_lora(tmp_path / "other.safetensors")


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({"peft_type": "LOHA"}, "it is a LOHA of peft"),
        ({"init_lora_weights": "pissa_niter_4"}, "began by pissa_niter_4"),
        ({"lora_alpha": "8"}, "lora_alpha is '8', and not a number"),
        ({"lora_alpha": None}, "lora_alpha is None"),
        ({"use_dora": True}, r"it is a DoRA .use_dora., and .* has no lora_magnitude_vector"),
        ({"alpha_pattern": {"[": 3}}, "alpha_pattern cannot be read"),
        ({"alpha_pattern": 3}, "alpha_pattern cannot be read"),
    ],
)
def test_a_configuration_of_peft_that_is_not_a_loras(
    config: Any, reason: str, fresh: Any, state: Any, tmp_path: Path
) -> None:
    folder = peft_folder(state, tmp_path / "peft", **config)
    with pytest.raises(UserError, match=reason):
        fresh().load_lora(folder)


def test_a_lora_goes_by_the_name_of_its_file_or_folder(
    state: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = peft_folder(state, tmp_path / "eta0.5")
    file = folder / "adapter_model.safetensors"
    assert lora_identity(folder, file)[0].startswith("eta0.5-")
    assert lora_identity(file, file)[0].startswith("adapter_model-")
    monkeypatch.chdir(folder)
    assert lora_identity(Path(), file)[0].startswith("eta0.5-")


def test_alpha_is_part_of_what_a_lora_is(state: Any, tmp_path: Path) -> None:
    one, two = (peft_folder(state, tmp_path / f"{alpha}", lora_alpha=alpha) for alpha in (2, 4))
    file = "adapter_model.safetensors"
    assert lora_identity(one, one / file)[1] != lora_identity(two, two / file)[1]
