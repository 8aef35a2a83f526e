"""One DDIM transition as a Gaussian (Song et al. 2021, equations 12 and 16), log-probability included."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import DDIMScheduler
from torch import Tensor

from b2bench.errors import UserError
from b2bench.types import Gaussian


def stable_diffusion_schedule(prediction_type: str = "epsilon", zero_snr: bool = False) -> DDIMScheduler:
    """Stable Diffusion v1's noise schedule; its last step ends at a variance above zero, so log_prob is finite.

    ``zero_snr``: rescaled so that it begins at nothing but noise (Lin et al. 2024), and is sampled from there.
    """
    return DDIMScheduler(
        num_train_timesteps=1000,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        prediction_type=prediction_type,
        rescale_betas_zero_snr=zero_snr,
        timestep_spacing="trailing" if zero_snr else "leading",
    )


SAME_PROCESS = (
    *(name for name in DDIMScheduler._compatibles if name != "EDMEulerScheduler"),
    "DDIMParallelScheduler",
    "DDPMParallelScheduler",
    "LCMScheduler",
    "TCDScheduler",
    "SASolverScheduler",
)
"""Schedulers of diffusers whose noise is that of betas. diffusers counts EDMEulerScheduler among them; it has none."""

NO_SIGNAL = 1e-6
"""Alphas below it are taken for zero: in float32, x0 from e would be rounding. Stable Diffusion's are above 0.004."""


def check_process(kind: str, config: Any) -> None:
    """Refuse a scheduler of another process than betas give; DDIM would take betas of its own in place of it.

    ``kind`` is the name of its class, ``config`` its configuration.

    Raises:
        UserError: which.
    """
    flow = [name for name in config if name.startswith("use_flow_") and config[name]]
    if kind not in SAME_PROCESS or flow:
        why = f"{flow[0]} is true" if flow else "its noise schedule is not given by betas"
        raise UserError(
            f"the scheduler is a {kind}, and {why}; b2bench samples by DDIM. Try a checkpoint with a DDIMScheduler, "
            "PNDMScheduler, EulerDiscreteScheduler or another of diffusion with betas"
        )


def _way_out(config: Any, eta: float) -> str:
    """Return what in a scheduler's configuration makes a variance zero, and what to write instead."""
    if not eta:
        return "Try eta above 0."
    spacing, wanted = config["timestep_spacing"], []
    if spacing == "linspace":  # which ends at timestep 0, however it is set otherwise
        wanted.append('timestep_spacing "leading"')
    if spacing != "trailing" and not config["steps_offset"]:
        wanted.append("steps_offset 1")
    if config["set_alpha_to_one"]:
        wanted.append("set_alpha_to_one false")
    if not wanted:
        return "Its betas are zero there; try other betas in scheduler_config.json."
    return f"Try {', '.join(wanted)} in scheduler_config.json, as in Stable Diffusion v1."


class DDIM:
    """The reverse process of a diffusers scheduler's noise schedule by DDIM, at T steps and a given eta.

    ``eta`` 1 is ancestral sampling, 0 the deterministic limit; only above 0 is there a log-probability.
    Coefficients are float64, the states float32. With t' = t - T_train // T:

        sigma^2 = eta^2 (1 - a_t') / (1 - a_t) (1 - a_t / a_t')
        x0 = (x_t - sqrt(1 - a_t) e) / sqrt(a_t)
        mean = sqrt(a_t') x0 + sqrt(1 - a_t' - sigma^2) e

    A schedule of zero terminal SNR (Lin et al. 2024) begins at a_t = 0, where x_t is all noise and e says nothing of
    x0. A network that predicts the velocity does: v = -x0. There v takes the place of e, and
    mean = sqrt(1 - a_t' - sigma^2) x_t - sqrt(a_t') v.

    Raises:
        UserError: a scheduler of another process, sample-prediction, clipped or thresholded samples, a zero variance at
            some step (steps_offset 0 or set_alpha_to_one at the last one), where log-probabilities are not
            finite, or a prediction of noise where there is nothing but noise.
    """

    def __init__(self, scheduler: Any, num_steps: int, eta: float, *, stochastic: bool = True) -> None:
        # Checkpoints name other schedulers of the same noise schedule (Stable Diffusion v1.4 a PNDMScheduler,
        # whose timesteps repeat one): what is taken from them is the schedule, and the sampler is DDIM.
        kind = type(scheduler).__name__
        config = scheduler.config
        check_process(kind, config)
        scheduler = DDIMScheduler.from_config(config, clip_sample=config.get("clip_sample", False))
        config = scheduler.config
        prediction = config.get("prediction_type", "epsilon")
        if prediction not in ("epsilon", "v_prediction"):
            raise UserError(
                f"the scheduler predicts {prediction!r}; b2bench reads epsilon (Stable Diffusion v1) and v_prediction "
                "(Stable Diffusion v2.1). Try such a checkpoint."
            )
        if config.get("clip_sample") or config.get("thresholding"):
            raise UserError(
                "the scheduler clips or thresholds x0, which has no Gaussian log-probability. "
                "Try clip_sample and thresholding false in scheduler_config.json."
            )
        train_steps = int(config["num_train_timesteps"])
        if not 1 <= num_steps <= train_steps:
            raise UserError(f"steps = {num_steps} is outside 1..{train_steps}, the timesteps of this scheduler")
        scheduler.set_timesteps(num_steps)
        self.timesteps: Tensor = scheduler.timesteps.long().cpu()
        if int(self.timesteps.max()) >= train_steps:
            raise UserError(
                f"{num_steps} steps with steps_offset = {config['steps_offset']} begin at timestep "
                f"{int(self.timesteps.max())}, and the {kind} has {train_steps}, from 0 on; try fewer steps"
            )
        self.num_steps = num_steps
        self.eta = eta
        alphas = scheduler.alphas_cumprod.double()
        final = 1.0 if config.get("set_alpha_to_one") else float(alphas[0])
        previous = self.timesteps - train_steps // num_steps
        a = alphas[self.timesteps]
        # Clamped: the last step of Stable Diffusion v1 leads from t = 1 to "before 0", which is alpha[0].
        b = torch.where(previous >= 0, alphas[previous.clamp(min=0)], torch.full_like(a, final))
        variance = eta**2 * (1 - b) / (1 - a) * (1 - a / b)
        certain = ~(variance > 1e-12)  # nan where alpha is 1, of betas that are zero from the start
        if stochastic and bool(certain.any()):
            step = int(certain.nonzero()[0])
            raise UserError(
                f"the {kind}'s variance is zero at step {step} of {num_steps} (timestep "
                f"{int(self.timesteps[step])}, eta {eta:g}): its log-probability is not finite. {_way_out(config, eta)}"
            )
        all_noise = a < NO_SIGNAL
        if bool(all_noise.any()) and prediction == "epsilon":
            raise UserError(
                f"the {kind} begins at timestep {int(self.timesteps[0])}, where nothing is left of the image (zero "
                "terminal SNR), and a prediction of the noise says nothing of it there; try timestep_spacing "
                '"leading" or rescale_betas_zero_snr false in scheduler_config.json, or a checkpoint that predicts v'
            )
        # Of a network's output and of the state in the noise: e = v sqrt(a_t) + x_t sqrt(1 - a_t) for a network that
        # predicts the velocity v = sqrt(a_t) e - sqrt(1 - a_t) x0 (Salimans and Ho 2022, appendix D).
        self.predicts_velocity = prediction == "v_prediction"
        one, zero = torch.ones_like(a), torch.zeros_like(a)
        signal, share = a.sqrt(), (1 - a).sqrt()
        self._noise_from = torch.where(all_noise, zero, signal).float(), torch.where(all_noise, one, share).float()
        self._transition_from = torch.where(all_noise, one, signal).float(), torch.where(all_noise, zero, share).float()
        self._shares = a.sqrt().float(), (1 - a).sqrt().float()
        self.sigma = variance.sqrt().float()
        # mean = state * x_t + noise * e: the two coefficients, computed in float64 and rounded once.
        rest = (1 - b - variance).clamp(min=0).sqrt()
        self.state_weight = torch.where(all_noise, rest, (b / a).sqrt()).float()
        self.noise_weight = torch.where(all_noise, -b.sqrt(), rest - (b * (1 - a) / a).sqrt()).float()

    def noise(self, output: Tensor, latents: Tensor, step: Tensor, *, for_transition: bool = True) -> Tensor:
        """Return the noise prediction e that follows from a network's output [B, C, H, W] at ``step`` [B].

        At a step of nothing but noise it is the velocity, see above, for :meth:`transition`. Without
        ``for_transition`` it is e there, too, which the state itself is: an error of the noise prediction
        says nothing of the network at that step.
        """
        if not self.predicts_velocity:
            return output
        both = self._transition_from if for_transition else self._noise_from
        of_output, of_state = (self._at(weights, latents, step) for weights in both)
        return of_output * output + of_state * latents

    def add_noise(self, latents: Tensor, noise: Tensor, step: Tensor) -> Tensor:
        """Noise clean latents [B, C, H, W] to ``step`` [B]: sqrt(a_t) x_0 + sqrt(1 - a_t) e (Ho et al. 2020, eq. 4)."""
        signal, share = (self._at(weights, latents, step) for weights in self._shares)
        return signal * latents + share * noise

    @staticmethod
    def _at(weights: Tensor, latents: Tensor, step: Tensor) -> Tensor:
        return weights[step.to("cpu")].to(latents.device).reshape(-1, *[1] * (latents.ndim - 1))

    def transition(self, noise: Tensor, latents: Tensor, step: Tensor) -> Gaussian:
        """Return p(x_{k+1} | x_k) for a noise prediction [B, C, H, W] at ``step`` [B]; std [B]."""
        state, prediction = (self._at(weights, latents, step) for weights in (self.state_weight, self.noise_weight))
        return Gaussian(state * latents + prediction * noise, self.sigma[step.to("cpu")].to(latents.device))
