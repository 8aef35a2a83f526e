"""How many test images an evaluation should draw, by the runs of a store."""

from __future__ import annotations

from b2bench.describe.tables import tables_of
from b2bench.leaderboard.noise import MOST
from b2bench.leaderboard.sheets import contrast_name
from b2bench.store.store import Store
from b2bench.text import visible


def images_needed(store: Store, backbone: str, prompts: str, reward: str) -> dict[str, object]:
    """Return how many test images would make the noise of evaluations small, for a backbone, prompts and a reward.

    ``needed`` is the most that a planned contrast of the store takes (:mod:`b2bench.leaderboard.noise`), ``drawn``
    what its runs drew, and ``contrast`` which one it is. ``needed`` is None if no contrast says: two wrappers of an
    algorithm need three shared seeds, and these must spread more than their images do. ``text`` says it in words.

    Raises:
        UserError: the store cannot be read.
    """
    contrasts = [
        (contrast.noise.needed, contrast.noise.images, f"{row.algorithm} {contrast_name(contrast.name)}")
        for group in tables_of(store)
        if (group.head.context.backbone, group.head.context.prompts, group.head.context.reward)
        == (visible(backbone), visible(prompts), visible(reward))
        for row in group.contrasts
        for contrast in row.contrasts
        if contrast.noise is not None
    ]
    found = [(needed, drawn, name) for needed, drawn, name in contrasts if needed is not None]
    if not found:
        text = (
            f"test images: {store.path} does not say how many are needed; two wrappers of an algorithm with three "
            "shared seeds would, if their seeds spread more than their images do"
        )
        return {"needed": None, "drawn": None, "contrast": None, "text": text}
    needed, drawn, name = max(found)
    text = (
        f"test images: {needed:,} bring the noise of evaluations to {MOST:g} of the variance of seeds in {name}, the "
        f"most of {len(found)} contrast{'s' * (len(found) != 1)} in {store.path}; its runs drew {drawn:,}"
    )
    if without := len(contrasts) - len(found):
        text += f"; in {without} more the seeds spread no more than their images do, so no number can be given"
    if needed > drawn:
        text += f"; try --set eval_images={needed}"
    return {"needed": needed, "drawn": drawn, "contrast": name, "text": text}
