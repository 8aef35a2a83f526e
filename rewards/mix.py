"""mix: several rewards, weighted together."""

from __future__ import annotations

import ast
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from b2bench.backbones.specs import Backbone
from b2bench.config.resolve import own_checkpoint
from b2bench.errors import UserError
from b2bench.evaluation.scorers import ClipScorer
from b2bench.hyperparameters import PLAIN, build, hyperparameters
from b2bench.protocols import ModelSize, Reward
from b2bench.registry import Registry, check_methods, reward


@dataclass(frozen=True)
class Term:
    """``weight`` times the reward of this name, with these settings."""

    weight: float
    name: str
    settings: Mapping[str, Any]

    def __str__(self) -> str:
        settings = ", ".join(f"{name}={value!r}" for name, value in self.settings.items())
        times = "" if abs(self.weight) == 1 else f"{abs(self.weight)!r} * "
        return f"{times}{self.name}({settings})" if settings else f"{times}{self.name}"


@reward
class Mix:
    """sum over i of w_i r_i, the r_i other rewards in their own units; not standardised, which a weight can do.

    Written as a formula: ``clipscore - 0.5 * bertscore(batch=8)``. Settings of a reward stand in brackets, texts in
    quotes. A plugin's reward goes by its name. Nothing is scaled, because a scale that follows the images
    would make the reward another one in every round; docs/rewards.md says how to choose weights.
    """

    properties: ClassVar[Mapping[str, str]] = {"range": "its rewards'", "pocket": "if theirs", "source": "b2bench"}

    rewards: str = "clipscore + 0.05 * jpeg"
    """The formula: rewards by name, each with a weight, as clipscore + 0.05 * jpeg(goal='incompressibility')"""

    def __post_init__(self) -> None:
        self.terms = _terms(self.rewards)
        self.parts: list[Reward] = []
        """The rewards, in the order of ``terms``, once they are assembled"""

    def assemble(self, rewards: Registry, backbone: Backbone | None) -> None:
        """Build the rewards, and write down for which checkpoint an ``auto`` of theirs stands with this backbone.

        Raises:
            UserError: one is unknown, is a mix itself, or refuses its settings.
        """
        terms, self.parts = [], []
        for term in self.terms:
            cls, settings = rewards.get(term.name), dict(term.settings)
            check_methods(cls)
            if hasattr(cls, "assemble"):
                raise UserError(f"mix: {term.name} is made of other rewards; try writing those into the formula")
            defaults = {parameter.name: parameter.default for parameter in hyperparameters(cls)}
            if backbone is not None and (defaults | settings).get("checkpoint") == "auto":
                settings["checkpoint"] = own_checkpoint(backbone, cls)
            terms.append(Term(term.weight, term.name, settings))
            self.parts.append(build(cls, settings))
        self.terms = terms
        self.rewards = _formula(terms)
        if all(hasattr(part, "with_gradient") for part in self.parts):
            self.with_gradient = self._with_gradient  # what lacks it is refused under an algorithm that follows it

    def refuses(self, backbone: Backbone) -> str | None:
        """Say which of the rewards does not judge what the backbone draws."""
        for term, part in zip(self.terms, self.parts, strict=True):
            refuses = getattr(part, "refuses", None)
            if refuses is not None and (reason := refuses(backbone)):
                return f"{term.name}: {reason}"
        return None

    def models(self) -> list[ModelSize]:
        """Return the models of all rewards; of a plugin that does not say, that nobody knows."""
        found: list[ModelSize] = []
        for term, part in zip(self.terms, self.parts, strict=True):
            models = getattr(part, "models", None)
            found += models() if models else [ModelSize(f"reward {term.name}, a plugin", 0, None)]
        return found

    def prepare(self, device: torch.device) -> None:
        """Load the models of all rewards before the first query."""
        for part in self.parts:
            if hasattr(part, "prepare"):
                part.prepare(device)
        # A CLIPScore among them serves for is_clip, as it does alone.
        scorers = [getattr(part, "scorer", None) for part in self.parts]
        self.scorer = next((scorer for scorer in scorers if isinstance(scorer, ClipScorer)), None)

    def __call__(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        """``images`` [N, 3, h, w] in [0, 1] -> weighted sums [N]."""
        return self._sum([part(images.clone(), list(prompts)) for part in self.parts])

    def _with_gradient(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        parts: list[Any] = self.parts
        return self._sum([part.with_gradient(images, list(prompts)) for part in parts])

    def _sum(self, scores: Sequence[Any]) -> Tensor:
        weighted = [term.weight * torch.as_tensor(s).float().cpu() for term, s in zip(self.terms, scores, strict=True)]
        return torch.stack(weighted).sum(0)


def _formula(terms: Sequence[Term]) -> str:
    signs = ["-" if term.weight < 0 else "+" for term in terms]
    text = " ".join(f"{sign} {term}" for sign, term in zip(signs, terms, strict=True))
    return text.removeprefix("+ ")


def _terms(text: str) -> list[Term]:
    """Return the terms of a formula, which is read as Python's grammar has it, and never run.

    Raises:
        UserError: where it is not a weighted sum of rewards.
    """
    try:
        return _of_sum(ast.parse(text.strip(), mode="eval").body, 1.0)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        reason = error.msg if isinstance(error, SyntaxError) else str(error)
        raise UserError(f"rewards = {text[:200]!r} cannot be read: {reason}") from None


def _of_sum(node: ast.expr, sign: float) -> list[Term]:
    match node:
        case ast.BinOp(left, ast.Add(), right):
            return _of_sum(left, sign) + _of_sum(right, sign)
        case ast.BinOp(left, ast.Sub(), right):
            return _of_sum(left, sign) + _of_sum(right, -sign)
        case ast.UnaryOp(ast.USub(), operand):
            return _of_sum(operand, -sign)
        case ast.BinOp(left, ast.Mult(), right):
            weight, other = (left, right) if _number(left) is not None else (right, left)
            found = _number(weight)
            if found is None:
                raise ValueError(f"{ast.unparse(node)} is not a number times a reward, as 0.05 * jpeg")
            if not found or not math.isfinite(found):
                raise ValueError(f"the weight {ast.unparse(weight)} of {ast.unparse(other)} is 0 or not finite")
            return [_of_reward(other, sign * found)]
    return [_of_reward(node, sign)]


def _number(node: ast.expr) -> float | None:
    match node:
        case ast.Constant(bool()):
            return None
        case ast.Constant(int() | float() as value):
            return float(value)
        case ast.UnaryOp(ast.USub(), operand):
            positive = _number(operand)
            return None if positive is None else -positive
    return None


def _of_reward(node: ast.expr, weight: float) -> Term:
    match node:
        case ast.Name(name):
            return Term(weight, name, {})
        case ast.Call(ast.Name(name), [], keywords):
            settings = {}
            for keyword in keywords:
                if keyword.arg is None:
                    break
                if keyword.arg in settings:
                    raise ValueError(f"{ast.unparse(node)} says {keyword.arg} twice")
                settings[keyword.arg] = _value(keyword.value)
            else:
                return Term(weight, name, settings)
    raise ValueError(f"{ast.unparse(node)} is not a reward, as clipscore or jpeg(goal='incompressibility')")


def _value(node: ast.expr) -> Any:
    if isinstance(node, ast.Constant | ast.UnaryOp):
        value = ast.literal_eval(node)
        if isinstance(value, PLAIN):
            return value
    raise ValueError(f"{ast.unparse(node)} is not a number, a text in quotes, True or False")
