"""The Stable Diffusion backbone: its adapter, its files, and what a lower precision does to log-probabilities."""

import copy
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from diffusers import DDIMScheduler, StableDiffusionPipeline
from peft.utils import get_peft_model_state_dict
from torch import Tensor

from b2bench.backbones.architectures import LORA_TARGETS
from b2bench.backbones.specs import find_backbone
from b2bench.backbones.stable_diffusion import StableDiffusion, load_pipeline
from b2bench.config.prompt_sets import PromptSet
from b2bench.errors import UserError
from b2bench.rollout import rollout, round_noise, sample
from b2bench.training.setup import check_precision, check_prompts
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
    saved, loaded = policy.adapter_state(), get_peft_model_state_dict(plain.unet, adapter_name="default_0")
    assert saved.keys() == loaded.keys()
    assert all(torch.equal(saved[name], loaded[name]) for name in saved)  # the weights to the bit,
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)  # what they compute to rounding
    assert not torch.allclose(found, pretrained, atol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["pocket", "other"])
def test_saved_weights_give_the_image_of_plain_diffusers_at_eta_0(
    name: str, other_pipeline: Path, tmp_path: Path
) -> None:
    source = find_backbone("pocket").source if name == "pocket" else str(other_pipeline)
    guidance, steps = 3.0, 20
    policy = StableDiffusion(
        load_pipeline(find_backbone(source)), num_steps=steps, eta=0.0, guidance=guidance, stochastic=False
    )
    policy.add_lora(4, seed=0)
    draws = torch.Generator().manual_seed(0)
    for weights in policy.parameters():
        weights.data = 0.1 * torch.randn(weights.shape, generator=draws)
    policy.save_lora(tmp_path)
    first = torch.randn(len(PROMPTS), *policy.latent_shape, generator=draws)

    def noise(rows: Any, step: int) -> Tensor:  # at eta 0 only the first latents matter
        return first[list(rows)] if step < 0 else torch.full((len(rows), *policy.latent_shape), 1e3)

    ours = sample(policy, PROMPTS, noise)

    plain = StableDiffusionPipeline.from_pretrained(source, safety_checker=None)
    plain.scheduler = DDIMScheduler.from_config(plain.scheduler.config)
    plain.set_progress_bar_config(disable=True)

    def images() -> Tensor:
        options = {"eta": 0.0, "guidance_scale": guidance, "num_inference_steps": steps, "output_type": "pt"}
        return plain(PROMPTS, latents=first.clone(), **options).images

    pretrained = images()
    plain.load_lora_weights(tmp_path)
    theirs = images()
    assert (ours - theirs).abs().max() < 1e-4
    assert (pretrained - theirs).abs().max() > 1e-2


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
    with pytest.raises(UserError, match=r"not a \.safetensors"):
        policy.load_lora(tmp_path / "lora.bin")
    (tmp_path / "broken.safetensors").write_bytes(b"no weights")
    with pytest.raises(UserError, match="not a LoRA"):
        policy.load_lora(tmp_path / "broken.safetensors")
    (tmp_path / "broken.safetensors").unlink()
    policy.save_lora(tmp_path)
    other = StableDiffusion(load_pipeline(find_backbone(str(other_pipeline))), num_steps=4, eta=1.0, guidance=5.0)
    with pytest.raises(UserError, match="not a LoRA for this backbone"):
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


def test_a_token_without_an_embedding_is_found_before_it_is_looked_up(make_policy: Any) -> None:
    """A tokenizer with words of a textual inversion, beside a text encoder that never learned them."""
    policy = make_policy()
    policy.pipeline.tokenizer.add_tokens(["<mine>"])
    assert "has the token '<mine>'" in policy.unreadable(["a cat", "a <mine>"])["a <mine>"]
    assert not policy.unreadable(PROMPTS)


def test_prompts_that_came_from_no_file_are_found_by_their_number(make_policy: Any) -> None:
    prompts = PromptSet("mine", "1", train=("a cat",), test=("a dog", "a cat " * 10))
    with pytest.raises(UserError, match=r"prompts mine, number 2 of the test split: the prompt .* has 22 tokens"):
        check_prompts(make_policy(), prompts)


def test_images_are_in_range(make_policy: Any) -> None:
    policy = make_policy()
    images = policy.decode(10 * inputs(policy)[1])
    assert images.shape == (4, 3, 64, 64)
    assert images.dtype == torch.float32
    assert images.min() >= 0
    assert images.max() <= 1
    assert policy.latent_size == 16 * 8 * 8


# -- other checkpoints ------------------------------------------------------------------------------------


@pytest.mark.slow
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


@pytest.mark.parametrize(
    "native",
    [
        {"_class_name": "FlowMatchEulerDiscreteScheduler", "num_train_timesteps": 1000, "shift": 3.0},
        {"_class_name": "EDMEulerScheduler", "sigma_min": 0.002, "sigma_max": 80.0, "sigma_data": 0.5},
    ],
)
def test_a_configuration_of_another_scheduler_than_the_index_names(
    native: dict[str, Any], other_pipeline: Path, tmp_path: Path
) -> None:
    """diffusers would make the scheduler of the index of it, with betas that nobody chose."""
    shutil.copytree(other_pipeline, tmp_path / "p")
    (tmp_path / "p" / "scheduler" / "scheduler_config.json").write_text(json.dumps(native))
    with pytest.raises(UserError, match=f"backbone p: the scheduler is a {native['_class_name']}"):
        load_pipeline(find_backbone(str(tmp_path / "p")))


def test_a_folder_that_is_no_pipeline_is_refused(other_pipeline: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="not a diffusers pipeline"):
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


@pytest.fixture
def low(make_policy: Any) -> Any:
    """Pocket in bf16, with the adapter that ``make_policy()`` has in fp32."""
    exact = make_policy()
    policy = StableDiffusion(
        load_pipeline(find_backbone("pocket"), torch.bfloat16), num_steps=20, eta=1.0, guidance=exact.guidance
    )
    policy.add_lora(next(min(p.shape) for p in exact.parameters()), 0)
    policy.set_adapter_state(exact.adapter_state())
    return policy


def recomputed(policy: Any, trajectories: Any, micro_batch: int = 48) -> Tensor:
    """Log-probs of all transitions of a rollout, in its order, through what a loss calls."""
    rows, steps = trajectories.log_prob.shape
    items, found = torch.arange(rows * steps), []
    for part in micro_batches(len(items), micro_batch):
        batch = transitions(trajectories, items[part] // steps, items[part] % steps, policy.device)
        with torch.no_grad():
            found.append(policy.transition(batch.cond, batch.latents, batch.step).log_prob(batch.next_latents))
    return torch.cat(found).reshape(rows, steps)


def rolled(policy: Any) -> Any:
    """Few rollouts: a CPU without bf16 arithmetic takes a second and more for each in bf16."""
    found = rollout(
        policy, PROMPTS, samples=2, leaves=1, interval=Interval(0, 20), noise=round_noise(policy, 0, 0),
        micro_batch=48,
    )  # fmt: skip
    found.reward = found.advantage = torch.zeros(len(found))
    return found


@pytest.mark.slow
def test_in_bf16_what_is_stored_and_trained_stays_fp32(low: Any) -> None:
    trajectories = rolled(low)
    kept = (trajectories.latents, trajectories.log_prob, trajectories.images, trajectories.cond.table)
    assert {tensor.dtype for tensor in (*kept, *low.parameters())} == {torch.float32}
    frozen = {p.dtype for m in (low.unet, low.vae, low.text_encoder) for p in m.parameters() if not p.requires_grad}
    assert frozen == {torch.bfloat16}
    low.transition(*inputs(low)).log_prob(inputs(low)[1]).mean().backward()
    assert {p.grad.dtype for p in low.parameters()} == {torch.float32}


@pytest.mark.slow
def test_in_bf16_the_ratio_is_one_up_to_how_rows_are_batched(low: Any) -> None:
    """A row's kernels may differ by its place in a batch; beyond that sampling and training are the same call."""
    trajectories = rolled(low)
    drift = (recomputed(low, trajectories) - trajectories.log_prob).abs().max()
    assert drift < 1e-4


def test_the_gradient_in_bf16_points_where_that_in_fp32_does(low: Any, make_policy: Any) -> None:
    vectors = []
    for policy in (make_policy(), low):
        policy.transition(*inputs(policy)).log_prob(inputs(policy, seed=3)[1]).mean().backward()
        vectors.append(torch.cat([p.grad.flatten() for p in policy.parameters()]))
    assert F.cosine_similarity(vectors[0], vectors[1], dim=0) > 0.99


@pytest.mark.slow
def test_what_bf16_adds_to_the_change_of_log_prob_is_measured(low: Any, make_policy: Any, record_property: Any) -> None:
    """After an AdamW step of 1e-5, the change of every log-prob: in fp32, and by how much bf16 is off.

    docs/precision.md states it: the reason why fp32 is the default.
    """
    exact = make_policy()
    trajectories = rolled(exact)
    before = [recomputed(policy, trajectories) for policy in (exact, low)]
    learn(exact, lr=1e-5, optimizer=torch.optim.AdamW)
    low.set_adapter_state(exact.adapter_state())
    change, changed = (recomputed(policy, trajectories) - old for policy, old in zip((exact, low), before, strict=True))
    root = [float(values.square().mean().sqrt()) for values in (change, changed - change)]
    record_property("rms of the change, of the error in bf16", root)
    print("rms of the change", root)
    assert 0 < root[0] < 1e-3
    assert root[1] < 5e-3


def test_fp16_is_refused_without_a_gpu() -> None:
    with pytest.raises(UserError, match="fp16 needs a GPU"):
        check_precision("fp16", torch.device("cpu"))
    check_precision("bf16", torch.device("cpu"))


def test_bf16_that_a_gpu_would_emulate_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation)
    with pytest.raises(UserError, match="this GPU has no bf16 arithmetic"):
        check_precision("bf16", torch.device("cuda"))
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: True)
    check_precision("bf16", torch.device("cuda"))


# -- memory -----------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("saving", ["split", "checkpointing", "sliced", "decoded"])
def test_what_saves_memory_changes_results_by_rounding_only(saving: str, make_policy: Any) -> None:
    usual, frugal = make_policy(), make_policy()
    frugal.split = saving == "split"
    frugal.save_memory(checkpointing=saving == "checkpointing", sliced=saving == "sliced")
    frugal.decoded_at_once = 1 if saving == "decoded" else frugal.decoded_at_once
    found = []
    for policy in (usual, frugal):
        cond, latents, step = inputs(policy)
        noise = policy.noise(cond, latents, step)
        noise.square().mean().backward()
        gradient = torch.cat([p.grad.flatten() for p in policy.parameters()])
        found.append((noise.detach(), gradient, policy.decode(latents)))
    for expected, other in zip(*found, strict=True):
        assert (expected - other).norm() < 1e-5 * expected.norm()


def test_checkpointing_is_refused_for_a_network_with_dropout(make_policy: Any) -> None:
    policy = make_policy()
    policy.unet.down_blocks[0].resnets[0].dropout = torch.nn.Dropout(0.1)
    with pytest.raises(UserError, match="dropout"):
        policy.save_memory(checkpointing=True)


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder"])
def test_weights_that_a_file_lacks_are_not_drawn_at_random(part: str, other_pipeline: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = tmp_path / "p"
    shutil.copytree(other_pipeline, folder)
    (file,) = (folder / part).glob("*.safetensors")
    weights = load_file(file)
    gone = sorted(weights)[len(weights) // 2]
    save_file({name: weight for name, weight in weights.items() if name != gone}, file, metadata={"format": "pt"})
    with pytest.raises(UserError, match=f"{part} lack .*{gone.removeprefix('text_model.')}"):
        load_pipeline(find_backbone(str(folder)))
