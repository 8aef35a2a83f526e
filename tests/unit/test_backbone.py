"""The Stable Diffusion backbone: its adapter, its files, and what a lower precision does to log-probabilities."""

import copy
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from diffusers import DDIMScheduler, StableDiffusionPipeline
from torch import Tensor

from b2bench.backbones import find_backbone
from b2bench.backbones.stable_diffusion import LORA_TARGETS, StableDiffusion, load_pipeline
from b2bench.config import resolve
from b2bench.errors import UserError
from b2bench.rollout import rollout, round_noise
from b2bench.types import Interval, micro_batches
from b2bench.update import transitions

PROMPTS = ["a cat riding a bike", "a dog playing chess", "a cat riding a bike", "a bee washing dishes"]


def inputs(policy: Any, seed: int = 0) -> tuple[Any, Tensor, Tensor]:
    draws = torch.Generator().manual_seed(seed)
    step = torch.arange(len(PROMPTS)) % policy.num_steps
    return policy.encode(PROMPTS), torch.randn(len(PROMPTS), *policy.latent_shape, generator=draws), step


def learn(policy: Any, lr: float, optimizer: type[torch.optim.Optimizer] = torch.optim.SGD) -> None:
    cond, latents, step = inputs(policy, seed=1)
    optimizer = optimizer(policy.parameters(), lr=lr)
    policy.transition(cond, latents, step).log_prob(latents).mean().backward()
    optimizer.step()
    optimizer.zero_grad()


# -- the adapter ------------------------------------------------------------------------------------------


def test_switching_the_adapter_off_restores_the_pretrained_model_exactly(
    make_policy: Any, pocket_pipeline: Any
) -> None:
    pretrained = StableDiffusion(copy.deepcopy(pocket_pipeline), num_steps=20, eta=1.0, guidance=3.0)
    policy = make_policy(guidance=3.0)
    learn(policy, lr=0.1)
    with torch.no_grad():
        expected = pretrained.noise(*inputs(pretrained))
        adapted = policy.noise(*inputs(policy))
    with policy.reference():
        assert not torch.is_grad_enabled()
        found = policy.noise(*inputs(policy))
    assert torch.equal(found, expected)
    assert (adapted - expected).abs().max() > 1e-3
    with torch.no_grad():
        assert torch.equal(policy.noise(*inputs(policy)), adapted)
    assert torch.is_grad_enabled()


def test_the_adapter_is_switched_on_again_after_an_error(make_policy: Any) -> None:
    policy = make_policy()
    with torch.no_grad():
        expected = policy.noise(*inputs(policy))
    with pytest.raises(ZeroDivisionError), policy.reference():
        _ = 1 / 0
    with torch.no_grad():
        assert torch.equal(policy.noise(*inputs(policy)), expected)


def test_a_fresh_adapter_changes_nothing(make_policy: Any, pocket_pipeline: Any) -> None:
    pretrained = StableDiffusion(copy.deepcopy(pocket_pipeline), num_steps=20, eta=1.0, guidance=3.0)
    policy = make_policy(moved=0.0, guidance=3.0)
    with torch.no_grad():
        assert torch.equal(policy.noise(*inputs(policy)), pretrained.noise(*inputs(pretrained)))


def test_only_the_adapter_is_trained(make_policy: Any) -> None:
    policy = make_policy(rank=4)
    modules = (policy.unet, policy.vae, policy.text_encoder)
    trained = [p for module in modules for p in module.parameters() if p.requires_grad]
    assert len(trained) == len(policy.parameters()) > 0
    assert {id(p) for p in trained} == {id(p) for p in policy.parameters()}
    names = [name for name, p in policy.unet.named_parameters() if p.requires_grad]
    assert all("lora_" in name and any(f".{target}." in name for target in LORA_TARGETS) for name in names)
    attentions = sum(name.endswith("to_q") for name, _ in policy.unet.named_modules())
    assert len(names) == attentions * len(LORA_TARGETS) * 2
    assert {min(p.shape) for p in trained} == {4}
    before = {n: p.clone() for m in modules for n, p in m.named_parameters() if "lora_" not in n}
    learn(policy, lr=0.1)
    assert all(torch.equal(p, before[n]) for m in modules for n, p in m.named_parameters() if "lora_" not in n)


def test_the_adapter_is_drawn_from_its_seed_alone(make_policy: Any, adapter_vector: Any) -> None:
    state = torch.random.get_rng_state()
    vectors = [adapter_vector(make_policy(seed=seed, moved=0.0)) for seed in (0, 0, 1)]
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.equal(vectors[0], vectors[1])
    assert not torch.equal(vectors[0], vectors[2])
    fresh = make_policy(moved=0.0)
    assert not any(p.any() for name, p in fresh.unet.named_parameters() if "lora_B" in name)


def test_adapter_state_goes_round(make_policy: Any, adapter_vector: Any) -> None:
    one, two = make_policy(seed=1), make_policy(seed=2)
    two.set_adapter_state(one.adapter_state())
    assert torch.equal(adapter_vector(one), adapter_vector(two))


def test_saved_weights_load_in_plain_diffusers_and_give_the_same_output(make_policy: Any, tmp_path: Path) -> None:
    policy = make_policy()
    learn(policy, lr=0.1)
    policy.save_lora(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["pytorch_lora_weights.safetensors"]
    plain = StableDiffusionPipeline.from_pretrained(find_backbone("pocket").source, safety_checker=None)
    cond, latents, step = inputs(policy)
    timestep, text = policy.timesteps[step], cond.embeddings()
    with torch.no_grad():
        pretrained = plain.unet(latents, timestep, text).sample
        plain.load_lora_weights(tmp_path)
        found = plain.unet(latents, timestep, text).sample
        expected = policy.unet(latents, timestep, text).sample
    assert torch.equal(found, expected)
    assert not torch.allclose(found, pretrained, atol=1e-3)


@pytest.mark.parametrize("as_file", [False, True])
def test_saved_weights_load_in_an_evaluation(
    as_file: bool, make_policy: Any, pocket_pipeline: Any, tmp_path: Path
) -> None:
    policy = make_policy(guidance=3.0)
    policy.save_lora(tmp_path)
    other = StableDiffusion(copy.deepcopy(pocket_pipeline), num_steps=20, eta=1.0, guidance=3.0)
    other.load_lora(tmp_path / "pytorch_lora_weights.safetensors" if as_file else tmp_path)
    with torch.no_grad():
        assert torch.equal(other.noise(*inputs(other)), policy.noise(*inputs(policy)))


def test_what_is_no_lora_of_this_backbone_is_refused(
    make_policy: Any, other_pipeline: Path, pocket_pipeline: Any, tmp_path: Path
) -> None:
    policy = make_policy()
    with pytest.raises(UserError, match="0 safetensors"):
        policy.load_lora(tmp_path)
    with pytest.raises(UserError, match=r"no \.safetensors"):
        policy.load_lora(tmp_path / "lora.bin")
    (tmp_path / "broken.safetensors").write_bytes(b"no weights")
    with pytest.raises(UserError, match="no LoRA"):
        policy.load_lora(tmp_path / "broken.safetensors")
    (tmp_path / "broken.safetensors").unlink()
    policy.save_lora(tmp_path)
    other = StableDiffusion(load_pipeline(find_backbone(str(other_pipeline))), num_steps=4, eta=1.0, guidance=5.0)
    with pytest.raises(UserError, match="no LoRA for this backbone"):
        other.load_lora(tmp_path)


# -- the network ------------------------------------------------------------------------------------------


def test_guidance_is_the_published_combination(make_policy: Any) -> None:
    policy = make_policy(guidance=4.0)
    cond, latents, step = inputs(policy)
    with torch.no_grad():
        prompted = policy.unet(latents, policy.timesteps[step], cond.embeddings()).sample
        empty = policy.unet(latents, policy.timesteps[step], cond.empty.expand(4, -1, -1)).sample
        found = policy.noise(cond, latents, step)
        guided = policy.ddim.noise(empty + 4 * (prompted - empty), latents, step)
        torch.testing.assert_close(found, guided, rtol=1e-4, atol=1e-5)
        assert policy.calls == 4
        policy.guidance = 1.0
        expected = policy.ddim.noise(prompted, latents, step)
        torch.testing.assert_close(policy.noise(cond, latents, step), expected, rtol=1e-4, atol=1e-5)
    assert policy.calls == 8


def test_embeddings_are_the_pipelines(make_policy: Any) -> None:
    policy = make_policy()
    cond = policy.encode(PROMPTS)
    assert len(cond.table) == 3  # equal prompts once
    expected, empty = policy.pipeline.encode_prompt(PROMPTS, "cpu", 1, True)
    torch.testing.assert_close(cond.embeddings(), expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(cond.empty.expand(4, -1, -1), empty, rtol=1e-4, atol=1e-5)
    with pytest.raises(UserError, match="tokens"):
        policy.encode(["a cat " * 10])


def test_images_are_in_range(make_policy: Any) -> None:
    policy = make_policy()
    images = policy.decode(10 * inputs(policy)[1])
    assert images.shape == (4, 3, 64, 64)
    assert images.dtype == torch.float32
    assert images.min() >= 0
    assert images.max() <= 1
    assert policy.latent_size == 16 * 8 * 8


# -- other checkpoints ------------------------------------------------------------------------------------


def test_any_stable_diffusion_folder_is_a_backbone(other_pipeline: Path, tmp_path: Path) -> None:
    backbone = find_backbone(str(other_pipeline))
    policy = StableDiffusion(load_pipeline(backbone), num_steps=4, eta=1.0, guidance=backbone.guidance)
    assert policy.latent_size == 4 * 8 * 8
    scheduler = DDIMScheduler.from_config(policy.pipeline.scheduler.config)
    scheduler.set_timesteps(4)
    assert policy.timesteps.tolist() == scheduler.timesteps.tolist()
    policy.add_lora(2, 0)
    learn(policy, lr=0.1)
    found = rollout(
        policy, PROMPTS, samples=2, leaves=2, interval=Interval(1, 4), noise=round_noise(policy, 0, 0), micro_batch=8
    )
    assert found.images.shape == (8, 3, 16, 16)
    assert found.log_prob.isfinite().all()
    policy.save_lora(tmp_path)
    plain = StableDiffusionPipeline.from_pretrained(other_pipeline, safety_checker=None)
    plain.load_lora_weights(tmp_path)


def edited(source: Path, target: Path, file: str, **changes: Any) -> str:
    shutil.copytree(source, target)
    content = json.loads((target / file).read_text())
    (target / file).write_text(json.dumps({**content, **changes}))
    return str(target)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"prediction_type": "sample"}, "sample"),
        ({"set_alpha_to_one": True}, "variance is zero"),
    ],
)
def test_a_checkpoint_without_log_probs_is_refused(
    changes: dict[str, Any], reason: str, other_pipeline: Path, tmp_path: Path
) -> None:
    folder = edited(other_pipeline, tmp_path / "p", "scheduler/scheduler_config.json", **changes)
    with pytest.raises(UserError, match=reason):
        StableDiffusion(load_pipeline(find_backbone(folder)), num_steps=20, eta=1.0, guidance=5.0)


def test_a_folder_that_is_no_pipeline_is_refused(other_pipeline: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no diffusers pipeline"):
        find_backbone(str(tmp_path / "empty"))
    other = edited(other_pipeline, tmp_path / "xl", "model_index.json", _class_name="StableDiffusionXLPipeline")
    with pytest.raises(UserError, match="StableDiffusionXLPipeline"):
        load_pipeline(find_backbone(other))
    shutil.copytree(other_pipeline, tmp_path / "headless")
    for file in (tmp_path / "headless" / "unet").iterdir():
        file.unlink()
    with pytest.raises(UserError, match="cannot be read"):
        load_pipeline(find_backbone(str(tmp_path / "headless")))


@pytest.mark.parametrize("content", ["", "no JSON", "[]"])
def test_a_damaged_index_is_refused(content: str, other_pipeline: Path, tmp_path: Path) -> None:
    shutil.copytree(other_pipeline, tmp_path / "p")
    (tmp_path / "p" / "model_index.json").write_text(content)
    with pytest.raises(UserError, match="folder"):
        load_pipeline(find_backbone(str(tmp_path / "p")))


def test_unknown_backbones_are_refused() -> None:
    with pytest.raises(UserError, match="Did you mean pocket"):
        find_backbone("poket")


# -- precision --------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("accelerate_state")
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_a_lower_precision_keeps_small_changes_of_log_prob_or_is_not_offered(
    precision: str, make_policy: Any, algorithm: Any, record_property: Any
) -> None:
    """After an AdamW step of 1e-5 the change of every log-prob is that of fp32, within a tenth of the clip range.

    Both are measured on the same transitions and for the same weights, through what a run calls.
    """
    chosen = {"algorithm": "ddpo", "wrapper": "vanilla", "reward": "clipscore", "prompts": "template1"}
    try:
        resolve(**chosen, backbone="pocket", queries=5, seed=0, values={"precision": precision})
    except UserError:
        return
    exact, low = make_policy(), make_policy()
    low.network = Accelerator(mixed_precision=precision).prepare_model(low.unet)
    trajectories = rollout(
        exact, PROMPTS, samples=2, leaves=1, interval=Interval(0, 20), noise=round_noise(exact, 0, 0), micro_batch=48
    )
    trajectories.reward = trajectories.advantage = torch.zeros(8)
    items = torch.randperm(160, generator=torch.Generator().manual_seed(0))

    def log_probs(policy: Any) -> Tensor:
        found = []
        for part in micro_batches(len(items), 48):
            batch = transitions(trajectories, items[part] // 20, items[part] % 20, policy.device)
            with torch.no_grad():
                found.append(policy.transition(batch.cond, batch.latents, batch.step).log_prob(batch.next_latents))
        return torch.cat(found)

    before = [log_probs(policy) for policy in (exact, low)]
    learn(exact, lr=1e-5, optimizer=torch.optim.AdamW)
    low.set_adapter_state(exact.adapter_state())
    change, changed = (log_probs(policy) - old for policy, old in zip((exact, low), before, strict=True))
    assert change.any()
    difference = (changed - change).abs()
    bar = 0.1 * algorithm("ddpo").clip_nats / exact.latent_size
    record_property("change_rms", [float(c.square().mean().sqrt()) for c in (change, changed)])
    assert difference.max() < bar, f"{precision} is off by up to {difference.max():.1e}, {bar:.1e} is allowed"
