"""What can be true in a pocket scene, and how it is said.

The vocabulary of the paper's three prompt templates (section 4.1): an animal and what it does, a coloured fruit
or vegetable, two objects in a spatial relation. A scene is drawn in one of four styles and on a background;
no caption names either. What a caption leaves open is therefore measurable, which is what makes style collapse
a number here.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

ANIMALS: tuple[str, ...] = (
    "cat", "dog", "horse", "monkey", "rabbit", "zebra", "spider", "bird", "sheep", "deer", "cow", "goat",
    "lion", "tiger", "bear", "raccoon", "fox", "wolf", "lizard", "beetle", "ant", "butterfly", "fish",
    "shark", "whale", "dolphin", "squirrel", "mouse", "rat", "snake", "turtle", "frog", "chicken", "duck",
    "goose", "bee", "pig", "turkey", "fly", "llama", "camel", "bat", "gorilla", "hedgehog", "kangaroo",
)  # fmt: skip
ACTIVITIES: tuple[str, ...] = ("riding a bike", "playing chess", "washing dishes")

# Those of the paper's template 2 that have art, and others in the place of those that have none.
FOODS: tuple[str, ...] = (
    "apple", "banana", "orange", "strawberry", "grape", "watermelon", "kiwi", "mango", "pear", "pineapple",
    "peach", "blueberry", "lemon", "lime", "avocado", "cherry", "melon", "coconut", "olive", "chestnut",
    "carrot", "broccoli", "tomato", "cucumber", "lettuce", "bell pepper", "sweet potato", "onion", "garlic",
    "eggplant", "peas", "corn", "potato", "hot pepper", "ginger", "peanut", "beans", "mushroom", "pumpkin", "herb",
)  # fmt: skip
COLOURS: tuple[str, ...] = ("red", "yellow", "green", "brown", "orange", "purple", "blue", "black", "white")

# Twelve whose outlines differ in every style: two that are told apart by their heads alone were mixed up.
OBJECTS: tuple[str, ...] = (
    "dog", "bear", "car", "train", "boat", "tree", "umbrella", "chair", "laptop", "ball", "kite", "vase",
)  # fmt: skip
# Each relation and its mirror image, in which the same scene is said the other way round.
RELATIONS: dict[str, str] = {
    "on": "under",
    "under": "on",
    "on the left of": "on the right of",
    "on the right of": "on the left of",
    "in the front of": "behind",
    "behind": "in the front of",
}
# The relations by which a scene is described in its labels: the first of each pair.
CANONICAL: tuple[str, ...] = ("on", "on the left of", "in the front of")
# Which objects meet: every object with four others, 24 pairs of the 66.
PAIRS: tuple[tuple[str, str], ...] = tuple(
    (OBJECTS[i], OBJECTS[(i + gap) % len(OBJECTS)]) for gap in (1, 5) for i in range(len(OBJECTS))
)

STYLES: tuple[str, ...] = ("flat", "noto", "line", "soft")
BACKGROUNDS: tuple[str, ...] = ("plain", "gradient", "horizon")

# Classes of the labels. The last of DETAILS and of SECONDS is "there is none".
SUBJECTS: tuple[str, ...] = tuple(dict.fromkeys((*ANIMALS, *FOODS, *OBJECTS)))
DETAILS: tuple[str, ...] = (*ACTIVITIES, *COLOURS, *CANONICAL, "none")
SECONDS: tuple[str, ...] = (*OBJECTS, "none")

TEMPLATES = (1, 2, 3)
WORLD = 3  # raised when scenes or captions change: weights and build folders of another world do not fit


@dataclass(frozen=True)
class Facts:
    """What a caption claims or a scene shows.

    Template 1: an animal and an activity, or None. Template 2: a food and its colour, or None where it is not
    painted (grey). Template 3: an object, and a relation and another object, or None and None.
    """

    template: int
    subject: str
    detail: str | None = None
    second: str | None = None

    @property
    def canonical(self) -> Facts:
        """The same scene, said by the first relation of its pair: "dog under car" is "car on dog"."""
        if self.template != 3 or self.detail is None or self.second is None or self.detail in CANONICAL:
            return self
        return Facts(3, self.second, RELATIONS[self.detail], self.subject)

    @property
    def lacking(self) -> Facts:
        """The same thing without what the caption says of it: no activity, no colour, no second object."""
        return Facts(self.template, self.subject)

    @property
    def topic(self) -> tuple[int, frozenset[str | None]]:
        """The things that are spoken of, whatever is said of them."""
        return self.template, frozenset((self.subject, self.second))

    @property
    def labels(self) -> tuple[int, int, int]:
        """Class indices ``(subject, detail, second)`` of the scene, the same for both ways to say it."""
        facts = self.canonical
        subject, none = SUBJECTS.index(facts.subject), DETAILS.index("none")
        second = SECONDS.index(facts.second or "none")
        return subject, none if facts.detail is None else DETAILS.index(facts.detail), second


def caption(facts: Facts) -> str:
    """Return the paper's own wording: ``a cat riding a bike``, ``red apple``, ``dog on the left of car``.

    Without a detail: ``a cat``, ``apple``, ``dog``.
    """
    words = (facts.detail, facts.subject) if facts.template == 2 else (facts.subject, facts.detail, facts.second)
    text = " ".join(word for word in words if word is not None)
    return f"a {text}" if facts.template == 1 else text


def all_facts(template: int) -> list[Facts]:
    """Return what the captions of a template can claim: 135, 360 and 288, of which two name the same
    scene each time.
    """
    if template == 1:
        return [Facts(1, animal, activity) for animal in ANIMALS for activity in ACTIVITIES]
    if template == 2:
        return [Facts(2, food, colour) for food in FOODS for colour in COLOURS]
    ordered = [pair for first, second in PAIRS for pair in ((first, second), (second, first))]
    return [Facts(3, first, relation, second) for first, second in ordered for relation in RELATIONS]


# How template 3's network knows each pair: named in one order and standing one way round. Of the first twelve pairs
# the even ones, of the others the odd ones, are said by CANONICAL relations ("dog on bear"), the rest by their mirrors
# ("car under bear"), so that every object is named first in two pairs and each of the six relations is said of twelve.
_SAID: dict[frozenset[str], tuple[Facts, ...]] = {
    frozenset(pair): tuple(
        Facts(3, pair[0], relation, pair[1])
        if i % 2 == i // len(OBJECTS)
        else Facts(3, pair[1], RELATIONS[relation], pair[0])
        for relation in CANONICAL
    )
    for i, pair in enumerate(PAIRS)
}


def known_sayings(first: str, second: str) -> tuple[Facts, ...]:
    """Return the three captions in which template 3's network knows a pair of objects, whichever is given first."""
    return _SAID[frozenset((first, second))]


def in_order(facts: Facts) -> bool:
    """Whether a caption that names two objects is one that template 3's network has read; one thing alone always is."""
    return facts.template != 3 or facts.second is None or facts in known_sayings(facts.subject, facts.second)


def plain_facts(template: int) -> list[Facts]:
    """Captions that name one thing and nothing else."""
    return [Facts(template, subject) for subject in {1: ANIMALS, 2: FOODS, 3: OBJECTS}[template]]


@cache
def _sentences() -> dict[str, Facts]:
    return {caption(facts): facts for t in TEMPLATES for facts in (*plain_facts(t), *all_facts(t))}


def parse_caption(text: str) -> Facts:
    """Inverse of :func:`caption`.

    Raises:
        ValueError: the text is no sentence of the pocket world; the message says what is.
    """
    facts = _sentences().get(" ".join(text.lower().split()))
    if facts is None:
        raise ValueError(
            f"the pocket backbone cannot depict {text!r}: it knows 'a ANIMAL', alone or {', '.join(ACTIVITIES)}; "
            f"'COLOUR FOOD'; and 'OBJECT RELATION OBJECT' for {len(PAIRS)} pairs of objects "
            "(b2bench show pocket lists them). Change the prompt, or choose a backbone such as sd14."
        )
    return facts


def vocabulary() -> tuple[str, ...]:
    """Return every word a pocket caption can hold, sorted."""
    return tuple(sorted({word for sentence in _sentences() for word in sentence.split()}))
