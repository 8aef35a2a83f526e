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
        """What it costs, in images sampled: on the paths of the KL the pretrained model predicts every step, too."""
        return self.test + self.train + self.kl

    @property
    def pretrained_samplings(self) -> int:
        """What it costs for the pretrained model itself, whose KL is 0."""
        return self.test + self.train


def automatic_images(queries: int) -> EvalImages:
    """Return what the first and the last evaluation of a run of so many reward queries take by default.

    Evaluations are to take at most some 15% of a run by the clock. On pocket a query of `ddpo` `vanilla`, which is
    sampled once and trained on in full, takes as long as 2.8 images of an evaluation, which are also decoded and
    judged. So there are nine test images for 40 queries, in sixes and at most 540, which 2,400 queries have; and ten of
    training prompts, whose reward every round of training shows. With the KL these are 1,112 samplings at the start
    and at the end, beside queries that take as long as 6,700. A wrapper that trains on less has as many, for all cells
    are evaluated alike. A run so small that it would have fewer than 30 has 30. The KL varies little from path to
    path: of the 540 test images it is measured on the first 12, and at least on four.
    """
    test = min(540, max(30, 9 * queries // 240 * 6))
    return EvalImages(test, 10, max(4, test // 45))
