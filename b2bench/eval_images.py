"""How many images an evaluation takes. It needs no torch, because reports use it too."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class EvalImages:
    """Images of test prompts and of training prompts, and the test images on whose paths the KL is measured."""

    test: int
    train: int
    kl: int

    @property
    def splits(self) -> dict[str, int]:
        """Images by split."""
        return {"test": self.test, "train": self.train}

    @property
    def samplings(self) -> int:
        """What it costs, in images sampled: on a path of the KL the pretrained model predicts every step, too."""
        return self.test + self.train + 2 * self.kl


def automatic_images(queries: int) -> EvalImages:
    """Return what the first and the last evaluation of a run of so many reward queries take by default.

    Evaluations are to take about a seventh of a run, by denoiser work and with every rollout trained on in full: then a
    query counts as four images of an evaluation, sampled once and trained on for three times that. A wrapper that
    trains on less has as many, for all cells are evaluated alike. So there are nine test images for 40 queries, in
    sixes and at most 540, which 2,400 queries have; and a sixth as many of training prompts. With the evaluation
    between, which takes half of them, these are 1,575 images beside 9,600. A run so small that it would have fewer than
    30 and 10 has 30 and 10. The KL varies little from path to path: 24 paths for 540 images, and at least four.
    """
    test = min(540, max(30, 9 * queries // 240 * 6))
    return EvalImages(test, max(10, test // 6), max(4, 2 * test // 45))
