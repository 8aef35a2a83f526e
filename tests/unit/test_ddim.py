"""The DDIM transition and its Gaussian, against diffusers' scheduler and torch.distributions."""

import math
from typing import Any

import pytest
import torch
from diffusers import (
    CogVideoXDDIMScheduler,
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EDMDPMSolverMultistepScheduler,
    EDMEulerScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    LCMScheduler,
    PNDMScheduler,
    UnCLIPScheduler,
    UniPCMultistepScheduler,
)
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from b2bench.ddim import DDIM
from b2bench.errors import UserError
from b2bench.types import Gaussian

# Stable Diffusion v1's noise schedule and the two settings that give its last step a variance.
SD_V1: dict[str, Any] = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "clip_sample": False,
    "set_alpha_to_one": False,
    "steps_offset": 1,
}


def scheduler(**changes: Any) -> DDIMScheduler:
    return DDIMScheduler(**{**SD_V1, **changes})


def draw(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def steps_of_diffusers(num_steps: int, eta: float, dtype: torch.dtype) -> list[tuple[Tensor, Tensor, Tensor, Tensor]]:
    """(latents, noise prediction, drawn noise, where DDIMScheduler.step leads) of every step."""
    theirs = scheduler()
    theirs.alphas_cumprod = theirs.alphas_cumprod.to(dtype)
    theirs.final_alpha_cumprod = theirs.final_alpha_cumprod.to(dtype)
    theirs.set_timesteps(num_steps)
    found = []
    for k, timestep in enumerate(theirs.timesteps):
        latents, predicted, drawn = (draw(2, 4, 8, 8, seed=10 * k + i) for i in range(3))
        step = theirs.step(
            predicted.to(dtype),
            timestep,
            latents.to(dtype),
            eta=eta,
            variance_noise=drawn.to(dtype) if eta else None,
        )
        found.append((latents, predicted, drawn, step.prev_sample))
    return found


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["fp32", "fp64"])
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("num_steps", [20, 50, 7])
def test_every_step_is_diffusers_step(num_steps: int, eta: float, dtype: torch.dtype) -> None:
    ours = DDIM(scheduler(), num_steps, eta, stochastic=eta > 0)
    reference = steps_of_diffusers(num_steps, eta, dtype)
    assert ours.num_steps == len(ours.timesteps) == len(reference) == num_steps
    for k, (latents, predicted, drawn, expected) in enumerate(reference):
        gaussian = ours.transition(predicted, latents, torch.full((2,), k))
        found = gaussian.sample(drawn)
        assert found.dtype == torch.float32
        # x0 is as large as 1 / sqrt(a_t) = 15 times a prediction: some units in the last place of that.
        torch.testing.assert_close(found, expected.float(), rtol=1e-6, atol=5e-6 if dtype == torch.float32 else 2e-6)


@pytest.mark.parametrize("num_steps", [20, 50])
def test_every_step_of_a_velocity_is_diffusers_step(num_steps: int) -> None:
    theirs = scheduler(prediction_type="v_prediction")
    ours = DDIM(theirs, num_steps, 1.0)
    theirs.set_timesteps(num_steps)
    for k, timestep in enumerate(theirs.timesteps):
        latents, velocity, drawn = (draw(2, 4, 8, 8, seed=10 * k + i) for i in range(3))
        expected = theirs.step(velocity, timestep, latents, eta=1.0, variance_noise=drawn)
        step = torch.full((2,), k)
        predicted = ours.noise(velocity, latents, step)
        # the noise by which x_t is made of the scene that diffusers sees in it
        a = theirs.alphas_cumprod[timestep]
        torch.testing.assert_close(predicted, (latents - a.sqrt() * expected.pred_original_sample) / (1 - a).sqrt(),
                                   rtol=1e-4, atol=5e-5)  # fmt: skip
        found = ours.transition(predicted, latents, step).sample(drawn)
        torch.testing.assert_close(found, expected.prev_sample, rtol=1e-5, atol=1e-5)


def test_a_noise_prediction_is_taken_as_it_is() -> None:
    output = draw(2, 4, 8, 8, seed=0)
    assert DDIM(scheduler(), 20, 1.0).noise(output, draw(2, 4, 8, 8, seed=1), torch.tensor([0, 19])) is output


@pytest.mark.parametrize("num_steps", [20, 50])
def test_timesteps_by_hand(num_steps: int) -> None:
    stride = 1000 // num_steps
    assert DDIM(scheduler(), num_steps, 1.0).timesteps.tolist() == list(range(1001 - stride, 0, -stride))


def test_rows_may_be_at_different_steps() -> None:
    ours = DDIM(scheduler(), 20, 1.0)
    latents, predicted, step = draw(5, 4, 8, 8, seed=0), draw(5, 4, 8, 8, seed=1), torch.tensor([19, 0, 7, 7, 3])
    together = ours.transition(predicted, latents, step)
    for row, k in enumerate(step.tolist()):
        alone = ours.transition(predicted[row : row + 1], latents[row : row + 1], torch.tensor([k]))
        assert torch.equal(together.mean[row], alone.mean[0])
        assert torch.equal(together.std[row], alone.std[0])
    assert len(together.std.unique()) == 4


def test_the_scheduler_of_stable_diffusion_v1_4_gives_the_same_steps() -> None:
    """Its checkpoint names a PNDMScheduler, whose own timesteps repeat one and number T + 1."""
    theirs = PNDMScheduler.from_config({**SD_V1, "skip_prk_steps": True})
    assert theirs.config["clip_sample"] is False
    ours, expected = DDIM(theirs, 20, 1.0), DDIM(scheduler(), 20, 1.0)
    assert ours.timesteps.tolist() == expected.timesteps.tolist()
    assert torch.equal(ours.sigma, expected.sigma)


@pytest.mark.parametrize("num_steps", [20, 50])
def test_the_last_step_has_a_finite_log_prob(num_steps: int) -> None:
    last = torch.full((3,), num_steps - 1)
    gaussian = DDIM(scheduler(), num_steps, 1.0).transition(draw(3, 4, 8, 8, seed=0), draw(3, 4, 8, 8, seed=1), last)
    z = draw(3, 4, 8, 8, seed=2)
    sigma = scheduler()._get_variance(1, -1).sqrt().item()
    assert 0 < sigma < 0.05
    expected = -z.square().flatten(1).mean(1) / 2 - math.log(sigma) - math.log(2 * math.pi) / 2
    torch.testing.assert_close(gaussian.log_prob(gaussian.sample(z)), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("changes", "eta", "reason"),
    [
        ({"steps_offset": 0}, 1.0, "variance is zero at step 19 of 20"),
        ({"set_alpha_to_one": True}, 1.0, "variance is zero at step 19 of 20"),
        ({"steps_offset": 0, "set_alpha_to_one": True}, 1.0, "variance is zero at step 19 of 20"),
        ({}, 0.0, "variance is zero at step 0 of 20 .* Try eta above 0"),
        ({"timestep_spacing": "linspace"}, 1.0, r'timestep 0, eta 1.* Try timestep_spacing "leading" in scheduler'),
        (
            {"timestep_spacing": "linspace", "steps_offset": 0, "set_alpha_to_one": True},
            1.0,
            'Try timestep_spacing "leading", steps_offset 1, set_alpha_to_one false in',
        ),
        ({"steps_offset": 0}, 1.0, "Try steps_offset 1 in"),
        ({"timestep_spacing": "trailing", "set_alpha_to_one": True}, 1.0, "Try set_alpha_to_one false in"),
        ({"trained_betas": [0.0] * 1000}, 1.0, "Its betas are zero there"),
        (
            {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"},
            1.0,
            "the DDIMScheduler begins at timestep 999",
        ),
        ({"prediction_type": "sample"}, 1.0, "sample"),
        ({"clip_sample": True}, 1.0, "clip_sample"),
        ({"thresholding": True}, 1.0, "thresholding"),
    ],
)
def test_a_scheduler_without_a_log_prob_is_refused(changes: dict[str, Any], eta: float, reason: str) -> None:
    DDIM(scheduler(), 20, 1.0)
    with pytest.raises(UserError, match=reason):
        DDIM(scheduler(**changes), 20, eta)


@pytest.mark.parametrize(
    ("theirs", "reason"),
    [
        (
            FlowMatchEulerDiscreteScheduler(),
            "is a FlowMatchEulerDiscreteScheduler, and its noise schedule is not given",
        ),
        (EDMEulerScheduler(), "is a EDMEulerScheduler"),
        (EDMDPMSolverMultistepScheduler(), "is a EDMDPMSolverMultistepScheduler"),
        (UnCLIPScheduler(), "is a UnCLIPScheduler"),
        (DPMSolverMultistepScheduler(use_flow_sigmas=True), "DPMSolverMultistepScheduler, and use_flow_sigmas is true"),
        (CogVideoXDDIMScheduler(), "is a CogVideoXDDIMScheduler"),
    ],
)
def test_a_scheduler_of_another_process_is_refused_by_its_name(theirs: Any, reason: str) -> None:
    """DDIM made of its configuration would have the betas of nobody."""
    with pytest.raises(UserError, match=reason):
        DDIM(theirs, 20, 1.0)


@pytest.mark.parametrize(
    "kind", [DPMSolverMultistepScheduler, EulerDiscreteScheduler, UniPCMultistepScheduler, LCMScheduler]
)
def test_samplers_of_the_same_process_give_the_same_steps(kind: Any) -> None:
    changes = {"timestep_spacing": "leading"}
    theirs = kind.from_config({**SD_V1, **changes})
    assert torch.equal(DDIM(theirs, 20, 1.0).state_weight, DDIM(scheduler(**changes), 20, 1.0).state_weight)


@pytest.mark.parametrize("eta", [0.99, 0.5])
def test_the_first_step_from_nothing_but_noise_is_diffusers_step(eta: float) -> None:
    """Zero terminal SNR: alpha is 0 at the first of trailing timesteps, and x0 is minus the velocity."""
    theirs = scheduler(rescale_betas_zero_snr=True, timestep_spacing="trailing", prediction_type="v_prediction")
    ours = DDIM(theirs, 20, eta)
    theirs.set_timesteps(20)
    assert theirs.alphas_cumprod[theirs.timesteps[0]] == 0
    for k, timestep in enumerate(theirs.timesteps):
        latents, velocity, drawn = (draw(2, 4, 8, 8, seed=10 * k + i) for i in range(3))
        expected = theirs.step(velocity, timestep, latents, eta=eta, variance_noise=drawn)
        step = torch.full((2,), k)
        gaussian = ours.transition(ours.noise(velocity, latents, step), latents, step)
        found = gaussian.sample(drawn)
        assert bool(gaussian.log_prob(found).isfinite().all())
        # the second step has alpha near 1e-5 in it, and diffusers' coefficients are float32
        torch.testing.assert_close(found, expected.prev_sample, rtol=1e-4, atol=1e-4)


def test_the_first_step_from_nothing_but_noise_at_eta_1() -> None:
    """By hand: there diffusers takes the root of a rounding error below zero."""
    theirs = scheduler(rescale_betas_zero_snr=True, timestep_spacing="trailing", prediction_type="v_prediction")
    ours, step = DDIM(theirs, 20, 1.0), torch.zeros(2, dtype=torch.long)
    latents, velocity = (draw(2, 4, 8, 8, seed=i) for i in range(2))
    found = ours.transition(ours.noise(velocity, latents, step), latents, step)
    alpha = theirs.alphas_cumprod[949].double()
    torch.testing.assert_close(found.mean, -alpha.sqrt().float() * velocity)
    torch.testing.assert_close(found.std, (1 - alpha).sqrt().float().expand(2))


def test_the_error_of_the_noise_prediction_is_zero_where_there_is_nothing_but_noise() -> None:
    """x_t is e there; the velocity, which the transition needs, is an estimate of minus x_0."""
    theirs = scheduler(rescale_betas_zero_snr=True, timestep_spacing="trailing", prediction_type="v_prediction")
    ours, clean, noise = DDIM(theirs, 20, 1.0), draw(2, 4, 8, 8, seed=1), draw(2, 4, 8, 8, seed=2)
    for k in range(20):
        step = torch.full((2,), k)
        noised = ours.add_noise(clean, noise, step)
        a = theirs.alphas_cumprod[ours.timesteps[k]]
        velocity = a.sqrt() * noise - (1 - a).sqrt() * clean
        torch.testing.assert_close(ours.noise(velocity, noised, step, for_transition=False), noise)
        alike = torch.equal(
            ours.noise(velocity, noised, step), ours.noise(velocity, noised, step, for_transition=False)
        )
        assert alike == (k > 0)


def test_more_steps_than_the_offset_leaves() -> None:
    with pytest.raises(UserError, match="begin at timestep 1000, and the DDIMScheduler has 1000, from 0 on"):
        DDIM(scheduler(), 1000, 1.0)


@pytest.mark.parametrize("num_steps", [0, 1001])
def test_as_many_steps_as_the_scheduler_has(num_steps: int) -> None:
    with pytest.raises(UserError, match=r"outside 1\.\.1000"):
        DDIM(scheduler(), num_steps, 1.0)


def test_log_prob_is_the_mean_of_torchs_normal() -> None:
    mean, x, std = draw(4, 3, 5, 5, seed=0).double(), draw(4, 3, 5, 5, seed=1).double(), torch.rand(4).double() + 0.01
    expected = Normal(mean, std.reshape(4, 1, 1, 1)).log_prob(x).mean((1, 2, 3))
    torch.testing.assert_close(Gaussian(mean, std).log_prob(x), expected)


def test_kl_is_the_mean_of_torchs_kl_divergence() -> None:
    one, two = (Gaussian(draw(4, 3, 5, 5, seed=i).double(), torch.rand(4).double() + 0.1) for i in (0, 1))
    theirs = [Normal(g.mean, g.std.reshape(4, 1, 1, 1)) for g in (one, two)]
    torch.testing.assert_close(one.kl(two), kl_divergence(*theirs).mean((1, 2, 3)))
    torch.testing.assert_close(two.kl(one), kl_divergence(*reversed(theirs)).mean((1, 2, 3)))


def test_sample_is_where_the_noise_leads() -> None:
    gaussian, z = Gaussian(draw(2, 3, 4, 4, seed=0), torch.tensor([0.5, 2.0])), draw(2, 3, 4, 4, seed=1)
    torch.testing.assert_close(gaussian.sample(z)[0], gaussian.mean[0] + 0.5 * z[0])
    torch.testing.assert_close(gaussian.sample(z)[1], gaussian.mean[1] + 2 * z[1])
