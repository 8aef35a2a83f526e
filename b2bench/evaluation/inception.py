"""Inception scores (Salimans et al. 2016) of full-size images, by two extractors that are never mixed.

``is_inception``: classes of Inception v3, by torch-fidelity, whose weights are TensorFlow's of 2015. ``is_clip``: the
softmax over a CLIP image embedding before it is normalised, which is what the paper's tables hold (1.25 to 1.41) by
what its author says in issue 11 of its repository; its number of images is open. Both depend on the number of images
and of splits more than on a model: both stand beside every number.
"""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from b2bench.backbones.specs import Backbone
from b2bench.errors import UserError
from b2bench.evaluation.reward_process import RewardProcess
from b2bench.evaluation.scorers import ClipScorer, Probabilities, clip_probabilities
from b2bench.evaluation.weights import read_tensors
from b2bench.metrics import IS_CLIP, IS_INCEPTION
from b2bench.protocols import Reward


@dataclass(frozen=True)
class Extractor:
    """Class probabilities, what the score by them is stored as (``metric``), and what they are of (``name``)."""

    metric: str
    name: str
    probabilities: Probabilities


def extractors(which: str, weights: str, backbone: Backbone, reward: Reward, device: torch.device) -> list[Extractor]:
    """Return the extractors of setting ``inception``: none, clip, inception, both, or auto.

    auto: on pocket none, whose own classifier is better; elsewhere clip where the reward is a CLIPScore, whose
    network is loaded already, and none with another reward, for which it would cost 4 GB.

    Raises:
        UserError: a checkpoint is missing; the message says how to get it.
    """
    scorer = getattr(reward, "scorer", None)
    name, probabilities = (scorer.name, clip_probabilities(scorer)) if isinstance(scorer, ClipScorer) else ("", None)
    if isinstance(reward, RewardProcess) and reward.clip:
        name, probabilities = reward.clip, reward.probabilities
    if which == "auto":
        which = "clip" if probabilities and not backbone.is_pocket else "none"
    found = []
    if which in ("clip", "both"):
        if probabilities is None:
            scorer = ClipScorer(backbone.scorer or "paper", device, then=_THEN)
            name, probabilities = scorer.name, clip_probabilities(scorer)
        found.append(Extractor(IS_CLIP, f"softmax of the raw CLIP embedding, {name}", probabilities))
    if which in ("inception", "both"):
        found.append(
            Extractor(IS_INCEPTION, "Inception v3 (TensorFlow's), torch-fidelity", InceptionV3(weights, device))
        )
    return found


_THEN = ", on a machine with access, and set HF_HOME to that cache; or go without is_clip, with --set inception=none"


class InceptionV3:
    """Class probabilities of Inception v3 with TensorFlow's weights, as torch-fidelity computes them.

    ``weights``: a file of torch-fidelity's state dict, .safetensors or .pth; "" lets torch-fidelity's own address be
    fetched (95 MB) into torch's hub cache. A .pth file is read with ``weights_only``, which torch-fidelity does not.

    Raises:
        UserError: the weights cannot be had, or are of another network; the message says how to get them.
    """

    def __init__(self, weights: str = "", device: torch.device | str = "cpu", batch: int = 32) -> None:
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

        self.device, self.batch = torch.device(device), batch
        state = _read(weights)
        with tempfile.TemporaryDirectory() as folder:
            # It knows one way in, torch.load without weights_only: what it reads is a file of ours.
            path = os.path.join(folder, "weights.pth")
            torch.save(state, path)
            try:
                network = FeatureExtractorInceptionV3(
                    "inception-v3-compat", ["logits_unbiased"], feature_extractor_weights_path=path
                )
            except (RuntimeError, TypeError, AttributeError) as error:
                reason = " ".join(str(error).split())[:160]
                raise UserError(f"{weights or 'the download'} holds no weights of Inception v3: {reason}") from None
        self.network: Any = network.to(self.device)

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """Return class probabilities [N, 1008] of images [N, 3, h, w] in [0, 1], on the CPU."""
        found = []
        for part in images.split(self.batch):
            pixels = (part.to(self.device) * 255).round().clamp(0, 255).to(torch.uint8)
            found.append(self.network(pixels)[0].cpu().double().softmax(1))  # a Mac's GPU has no doubles
        return torch.cat(found)


def _read(weights: str) -> dict[str, Tensor]:
    from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3

    if not weights:
        try:
            found: dict[str, Tensor] = torch.hub.load_state_dict_from_url(
                URL_INCEPTION_V3, progress=False, weights_only=True
            )
        except Exception as error:  # the network's many kinds
            file = URL_INCEPTION_V3.rpartition("/")[2]
            raise UserError(
                f"the weights of Inception v3 (95 MB) could not be fetched ({type(error).__name__}). Try {file} from "
                "torch-fidelity's releases, with --set inception_weights=FILE"
            ) from None
        return found
    return read_tensors(Path(weights).expanduser(), "inception_weights")


INCEPTION_GIGABYTES = 0.1
