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

    Evaluations are to take at most some 15% of a run by the clock. On pocket a query of `ddpo` `vanilla`, which is
    sampled once and trained on in full, takes as long as 2.8 images of an evaluation, which are also decoded and
    judged. So there are nine test images for 40 queries, in sixes and at most 540, which 2,400 queries have; and an
    eighteenth as many of training prompts. With the KL these are 1,188 samplings at the start and at the end, beside
    queries that take as long as 6,800: 15%, and 17% was measured with all that is not sampling. A wrapper that trains
    on less has as many, for all cells are evaluated alike. A run so small that it would have fewer than 30 and 10 has
    30 and 10. The KL varies little from path to path: 12 paths for 540 images, and at least four.
    """
    test = min(540, max(30, 9 * queries // 240 * 6))
    return EvalImages(test, max(10, test // 18), max(4, test // 45))
