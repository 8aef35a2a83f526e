"""The settings of the harness, and which of them count where."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le, Lt

UNTRAINED_SETTINGS = (
    "steps",
    "eta",
    "guidance",
    "precision",
    "micro_batch",
    "decode_micro_batch",
    "guidance_split",
    "attention",
)
"""Settings that make images where nothing is trained; a profile's rows hold them."""

REWARD_SETTINGS = ("reward_device", "reward_process")
"""Where a reward runs: no number depends on it, so no row holds it."""

PROFILE_SETTINGS = (*UNTRAINED_SETTINGS, *REWARD_SETTINGS)
"""Settings that ``b2bench profile`` takes."""

BASELINE_SETTINGS = (
    *UNTRAINED_SETTINGS,
    "eval_seed",
    "eval_images",
    "eval_train_images",
    "inception",
    "inception_splits",
    "inception_weights",
    *REWARD_SETTINGS,
)
"""And ``b2bench baseline``."""

EVALUATE_SETTINGS = (*BASELINE_SETTINGS, "kl_images")
"""And ``b2bench evaluate``."""


@dataclass(kw_only=True)
class Settings:
    """Hyperparameters of the harness: equal in every cell, so that cells differ in one thing only."""

    draws: Annotated[int, Ge(1)] = 48
    """G, the number of prompt draws a round; each gives `samples` rollouts, and each rollout is one reward query"""
    samples: Annotated[int, Ge(1)] = 5
    """K, the number of rollouts per prompt draw: separate ones, or the leaves of one branch"""
    steps: Annotated[int, Ge(1)] = 20
    """T, the number of denoising steps (paper: 20)"""
    eta: Annotated[float, Ge(0), Le(1)] = 1.0
    """DDIM's eta: 1 is ancestral sampling, towards 0 deterministic (paper: 1)"""
    guidance: Annotated[float | None, Gt(0)] = None
    """Classifier-free guidance scale; none takes the backbone's default"""
    equal: Literal["transitions", "steps"] = "transitions"
    """What is equal in every cell: the transitions of an optimizer step, or the optimizer steps of a round"""
    transitions_per_step: Annotated[int, Ge(1)] = 100
    """Transitions of an optimizer step, a pair being two; steps follow from what is kept. With equal=transitions"""
    epochs: Annotated[int, Ge(1)] = 1
    """Passes over the kept transitions of a round, each shuffled anew. With equal=transitions"""
    optimizer_steps: Annotated[int, Ge(1)] = 48
    """Optimizer steps a round, whatever is kept of it; fewer where fewer items are kept. With equal=steps"""
    updates_per_round: Annotated[int | None, Ge(1)] = None
    """Optimizer steps on samples of one policy, before it is sampled again; none: all of a round on its rollouts"""
    timestep_fraction: Annotated[float, Gt(0), Le(1)] = 1.0
    """Share of a rollout's trained steps that its update uses, drawn anew each epoch; 1 uses all of them"""
    lr: Annotated[float, Gt(0)] = 1e-3
    """AdamW's learning rate for the LoRA weights"""
    weight_decay: Annotated[float, Ge(0)] = 1e-4
    """AdamW's weight decay"""
    max_grad_norm: Annotated[float, Gt(0)] = 1.0
    """Norm to which gradients are clipped"""
    lora_rank: Annotated[int, Ge(1), Le(1024)] = 8
    """Rank of the LoRA adapter on attention q, k, v and out; its alpha equals the rank"""
    advantage: Literal["history", "group", "loo"] = "history"
    """What a reward is compared with: its prompt's history, its group (GRPO), or the others of its group (LOOP)"""
    advantage_clip: Annotated[float, Gt(0)] = 5.0
    """Advantages are clipped to plus and minus this many standard deviations"""
    advantage_history: Annotated[int, Ge(0)] = 8
    """Earlier rounds that drew a prompt and count in its z-score"""
    micro_batch: Annotated[int, Ge(1)] = 96
    """Rows of one forward pass, in sampling and in training; changes memory and speed, not the draws"""
    train_micro_batch: Annotated[int, Ge(0)] = 0
    """Rows of one forward and backward pass of training; 0 takes micro_batch"""
    decode_micro_batch: Annotated[int, Ge(0)] = 0
    """Images decoded at a time; 0 takes micro_batch, at most 32"""
    gradient_checkpointing: bool = False
    """Compute activations a second time in the backward pass: a sixth of the memory for a third more time"""
    guidance_split: bool = False
    """Compute the two rows of guidance one by one: half of sampling's memory, of training's with checkpointing"""
    attention: Literal["sdpa", "sliced"] = "sdpa"
    """sdpa is fused if the device can do that; sliced goes head by head, for little memory and older devices"""
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """Precision of the frozen networks. The rest stays in fp32. fp16 needs a GPU and turns on loss scaling"""
    reward_device: str = "auto"
    """Device of the reward and of the judges of evaluations: auto (the one of training), cpu, cuda:1, ..."""
    reward_process: bool = False
    """Run the reward in a process of its own, which shares no memory with training"""
    reward_noise: Annotated[float, Ge(0)] = 0.0
    """Standard deviation of normal noise that is added to every reward query of training, never in an evaluation"""
    eval_points: Annotated[int, Ge(2)] = 2
    """Number of evaluations, evenly spaced in reward queries from 0 to the budget, both of which are among them"""
    eval_seed: Annotated[int, Ge(0), Lt(2**31)] = 0
    """Seed of the evaluation's noise: one test set for every run, whatever its training seed"""
    eval_images: Annotated[int | None, Ge(1)] = None
    """Images of test prompts in an evaluation; none: by the budget, with half as many between first and last"""
    eval_train_images: Annotated[int | None, Ge(0)] = None
    """Images of training prompts in each evaluation; none: ten, or five between first and last"""
    sample_images: Annotated[int, Ge(0)] = 8
    """Test images, each of another prompt, that every evaluation keeps as files for sample grids; 0 keeps none"""
    kl_images: Annotated[int | None, Ge(0)] = None
    """Test images on whose paths every evaluation measures the KL from the pretrained model; none: by the budget"""
    inception: Literal["auto", "none", "clip", "inception", "both"] = "auto"
    """Inception scores of an evaluation: is_clip (the paper's), is_inception (Inception v3); auto: see inception.py"""
    inception_splits: Annotated[int, Ge(1)] = 1
    """Parts that an inception score is averaged over; the score depends on them more than on a model"""
    inception_weights: str = ""
    """File of Inception v3's weights, .safetensors or .pth; if empty, torch-fidelity's are fetched"""

    def __post_init__(self) -> None:
        if self.equal == "transitions" and self.optimizer_steps != Settings.optimizer_steps:
            raise ValueError(
                f"optimizer_steps = {self.optimizer_steps} counts with equal=steps alone, and steps follow from "
                "transitions_per_step here; set one or the other"
            )
        if self.equal == "steps" and self.optimizer_steps % (self.updates_per_round or 1):
            raise ValueError(
                f"optimizer_steps = {self.optimizer_steps} a round are no whole number of updates of "
                f"{self.updates_per_round} steps (updates_per_round), so equal=steps could not hold; try a multiple"
            )
        if self.eval_images and self.inception_splits > self.eval_images and self.inception != "none":
            raise ValueError(
                f"inception_splits = {self.inception_splits}: {self.eval_images} test images (eval_images) do not fill "
                "them; try fewer splits, or more images"
            )

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
