"""What can be true in a pocket scene, and how it is said.

The vocabulary of template 1 of the paper (section 5.1): 45 animals, three activities. A scene shows
one animal and either one activity or none, in one of four drawing styles and on a background; a
caption names the animal and perhaps the activity, never the style. What the caption leaves open is
therefore measurable, which is what makes style collapse a number here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

ANIMALS: tuple[str, ...] = (
    "cat", "dog", "horse", "monkey", "rabbit", "zebra", "spider", "bird", "sheep", "deer", "cow", "goat",
    "lion", "tiger", "bear", "raccoon", "fox", "wolf", "lizard", "beetle", "ant", "butterfly", "fish",
    "shark", "whale", "dolphin", "squirrel", "mouse", "rat", "snake", "turtle", "frog", "chicken", "duck",
    "goose", "bee", "pig", "turkey", "fly", "llama", "camel", "bat", "gorilla", "hedgehog", "kangaroo",
)  # fmt: skip
ACTIVITIES: tuple[str, ...] = ("riding a bike", "playing chess", "washing dishes")
STYLES: tuple[str, ...] = ("flat", "noto", "line", "soft")
BACKGROUNDS: tuple[str, ...] = ("plain", "gradient", "horizon")

_CAPTION = re.compile(r"a (?P<animal>\w+)(?: (?P<activity>riding a bike|playing chess|washing dishes))?")


@dataclass(frozen=True)
class Facts:
    """What a caption claims or a scene shows: an animal, and an activity or None."""

    animal: str
    activity: str | None

    @property
    def labels(self) -> tuple[int, int]:
        """Class indices ``(animal, activity)``; the activity class after the last is "none"."""
        activity = len(ACTIVITIES) if self.activity is None else ACTIVITIES.index(self.activity)
        return ANIMALS.index(self.animal), activity


def caption(facts: Facts) -> str:
    """The paper's own wording: ``a cat riding a bike``; ``a cat`` where there is no activity."""
    return f"a {facts.animal}" if facts.activity is None else f"a {facts.animal} {facts.activity}"


def parse_caption(text: str) -> Facts:
    """Inverse of :func:`caption`.

    Raises:
        ValueError: the text is no sentence of the pocket world; the message says what is.
    """
    match = _CAPTION.fullmatch(" ".join(text.lower().split()))
    if match is None or match["animal"] not in ANIMALS:
        raise ValueError(
            f"the pocket backbone cannot depict {text!r}: it knows 'a ANIMAL', alone or "
            f"{', '.join(ACTIVITIES)}, for 45 animals (b2bench show pocket lists them). "
            "Change the prompt, or choose a backbone such as sd14."
        )
    return Facts(match["animal"], match["activity"])


def all_captions() -> list[str]:
    """The 135 captions of template 1, every animal with every activity."""
    return [caption(Facts(animal, activity)) for animal in ANIMALS for activity in ACTIVITIES]


def vocabulary() -> tuple[str, ...]:
    """Every word a pocket caption can hold, sorted."""
    words = {"a", *ANIMALS}
    for activity in ACTIVITIES:
        words.update(activity.split())
    return tuple(sorted(words))
