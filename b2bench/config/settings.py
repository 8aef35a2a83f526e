"""The settings of the harness, and which of them count where."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

PROFILE_SETTINGS = (
    "steps",
    "eta",
    "guidance",
    "precision",
    "micro_batch",
    "decode_micro_batch",
    "guidance_split",
    "attention",
)
"""Settings that matter where nothing is trained: to ``b2bench profile``."""


@dataclass(kw_only=True)
class Settings:
    """Hyperparameters of the harness: equal in every cell, so that cells differ in one thing only."""

    draws: int = 48
    """G, the number of prompt draws a round; each gives `samples` rollouts, and each rollout is one reward query"""
    samples: int = 5
    """K, the number of rollouts per prompt draw: separate ones, or the leaves of one branch"""
    steps: int = 20
    """T, the number of denoising steps (paper: 20)"""
    eta: float = 1.0
    """DDIM's eta: 1 is ancestral sampling, towards 0 deterministic (paper: 1)"""
    guidance: float | None = None
    """Classifier-free guidance scale; none takes the backbone's default"""
    equal: Literal["transitions", "steps"] = "transitions"
    """What is equal in every cell: the transitions of an optimizer step, or the optimizer steps of a round"""
    transitions_per_step: int = 100
    """Transitions of an optimizer step, a pair being two; steps follow from what is kept. With equal=transitions"""
    epochs: int = 1
    """Passes over the kept transitions of a round, each shuffled anew. With equal=transitions"""
    optimizer_steps: int = 48
    """Optimizer steps a round, whatever is kept of it; fewer where fewer items are kept. With equal=steps"""
    updates_per_round: int | None = None
    """Optimizer steps on samples of one policy, before it is sampled again; none: all of a round on its rollouts"""
    timestep_fraction: float = 1.0
    """Share of a rollout's trained steps that its update uses, drawn anew each epoch; 1 uses all of them"""
    lr: float = 1e-3
    """AdamW's learning rate for the LoRA weights"""
    weight_decay: float = 1e-4
    """AdamW's weight decay"""
    max_grad_norm: float = 1.0
    """Norm to which gradients are clipped"""
    lora_rank: int = 8
    """Rank of the LoRA adapter on attention q, k, v and out; its alpha equals the rank"""
    advantage_clip: float = 5.0
    """Advantages are clipped to plus and minus this many standard deviations"""
    advantage_history: int = 8
    """Earlier rounds that drew a prompt and count in its z-score"""
    micro_batch: int = 96
    """Rows of one forward pass, in sampling and in training; changes memory and speed, not the draws"""
    train_micro_batch: int = 0
    """Rows of one forward and backward pass of training; 0 takes micro_batch"""
    decode_micro_batch: int = 0
    """Images decoded at a time; 0 takes micro_batch, at most 32"""
    gradient_checkpointing: bool = False
    """Compute activations a second time in the backward pass: a sixth of the memory for a third more time"""
    guidance_split: bool = False
    """Compute the two rows of guidance one after the other instead of as one batch: half of the memory"""
    attention: Literal["sdpa", "sliced"] = "sdpa"
    """sdpa is fused if the device can do that; sliced goes head by head, for little memory and older devices"""
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """Precision of the frozen networks. The rest stays in fp32. fp16 needs a GPU and turns on loss scaling"""
    reward_device: str = "auto"
    """Device of the reward and of the judges of evaluations: auto (the one of training), cpu, cuda:1, ..."""
    reward_process: bool = False
    """Run the reward in a process of its own, which shares no memory with training"""
    reward_noise: float = 0.0
    """Standard deviation of normal noise that is added to every reward query of training, never in an evaluation"""
    eval_points: int = 2
    """Number of evaluations, evenly spaced in reward queries from 0 to the budget"""
    eval_seed: int = 0
    """Seed of the evaluation's noise: one test set for every run, whatever its training seed"""
    eval_images: int | None = None
    """Images of test prompts in an evaluation; none: by the budget, with half as many between first and last"""
    eval_train_images: int | None = None
    """Images of training prompts in each evaluation; none: ten, or five between first and last"""
    sample_images: int = 8
    """Test images, each of another prompt, that every evaluation keeps as files for sample grids; 0 keeps none"""
    kl_images: int | None = None
    """Test images on whose paths every evaluation measures the KL from the pretrained model; none: by the budget"""
    inception: Literal["auto", "none", "clip", "inception", "both"] = "auto"
    """Inception scores of an evaluation: is_clip (the paper's), is_inception (Inception v3); auto: see inception.py"""
    inception_splits: int = 1
    """Parts that an inception score is averaged over; the score depends on them more than on a model"""
    inception_weights: str = ""
    """File of Inception v3's weights, .safetensors or .pth; if empty, torch-fidelity's are fetched"""

    def __post_init__(self) -> None:
        for name in (
            "draws",
            "samples",
            "steps",
            "transitions_per_step",
            "epochs",
            "optimizer_steps",
            "updates_per_round",
            "lora_rank",
            "micro_batch",
            "eval_images",
            "inception_splits",
        ):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} = {value} is below 1")
        if self.equal == "transitions" and self.optimizer_steps != Settings.optimizer_steps:
            raise ValueError(
                f"optimizer_steps = {self.optimizer_steps} counts with equal=steps alone, and steps follow from "
                "transitions_per_step here; set one or the other"
            )
        for name in ("lr", "max_grad_norm", "advantage_clip", "guidance"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"{name} = {value} is not above 0")
        if self.lora_rank > 1024:
            raise ValueError(f"lora_rank = {self.lora_rank} is above 1024, and no layer is that wide")
        if self.eval_points < 2:
            raise ValueError(f"eval_points = {self.eval_points} is below 2: the start and the end are two")
        for name in (
            "advantage_history",
            "eval_seed",
            "eval_train_images",
            "weight_decay",
            "train_micro_batch",
            "decode_micro_batch",
            "sample_images",
            "kl_images",
        ):
            value = getattr(self, name)
            if value is not None and value < 0:
                raise ValueError(f"{name} = {value} cannot be negative")
        if self.eval_seed >= 2**31:
            raise ValueError(f"eval_seed = {self.eval_seed} is not below 2^31")
        if not 0 <= self.reward_noise < math.inf:
            raise ValueError(
                f"reward_noise = {self.reward_noise} is not a standard deviation; it must be finite and at least 0"
            )
        if not 0 < self.timestep_fraction <= 1:
            raise ValueError(f"timestep_fraction = {self.timestep_fraction} is outside (0, 1]")
        if not 0 <= self.eta <= 1:
            raise ValueError(f"eta = {self.eta} is outside [0, 1]")

    @property
    def fixed_steps(self) -> int | None:
        """Return the optimizer steps of a round where they are what is equal, else None: they follow."""
        return self.optimizer_steps if self.equal == "steps" else None

    @property
    def passes(self) -> int:
        """Return how often kept transitions are dealt: ``epochs``, or once where steps are equal or few by choice."""
        return 1 if self.equal == "steps" or self.updates_per_round is not None else self.epochs

    @property
    def draws_per_update(self) -> int:
        """Return the prompt draws that an update samples if all rollouts and steps are kept: the fewest it can."""
        if self.updates_per_round is None:
            return self.draws
        if self.equal == "steps":
            return max(1, self.draws * self.updates_per_round // self.optimizer_steps)
        wanted = self.updates_per_round * self.transitions_per_step
        return min(self.draws, max(1, round(wanted / (self.samples * self.steps))))


OF_EQUAL = {"transitions": ("transitions_per_step", "epochs"), "steps": ("optimizer_steps",)}
"""Settings that count for one value of ``equal`` alone."""

NO_IDENTITY = (
    "micro_batch",
    "train_micro_batch",
    "decode_micro_batch",
    "gradient_checkpointing",
    "guidance_split",
    "attention",
    "reward_device",
    "reward_process",
    "sample_images",
    "kl_images",
    "inception_weights",
)
"""Settings that change results by rounding at most: how a batch is cut and computed, what is kept or measured besides,
and where a file lies."""
