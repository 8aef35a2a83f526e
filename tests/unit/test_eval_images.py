"""How many images evaluations take, and how those of fewer images stand beside those of more."""

import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from b2bench.leaderboard.evaluations import comparable
from torch import Tensor

from b2bench.config.resolve import resolve
from b2bench.config.run import RunConfig, check_shares
from b2bench.errors import UserError
from b2bench.eval_images import EvalImages, automatic_images
from b2bench.evaluation.evaluate import eval_prompts, measure


def config(queries: int = 2400, **values: Any) -> RunConfig:
    return resolve(
        algorithm="ddpo", wrapper="b2", reward="clipscore", backbone="pocket", queries=queries, seed=0, values=values
    )


@pytest.mark.parametrize(
    ("queries", "images"),
    [
        (2400, EvalImages(540, 10, 12)),
        (1200, EvalImages(270, 10, 6)),
        (25_600, EvalImages(540, 10, 12)),
        (120, EvalImages(30, 10, 4)),
        (5, EvalImages(30, 10, 4)),
    ],
)
def test_images_follow_the_budget(queries: int, images: EvalImages) -> None:
    assert automatic_images(queries) == images


@pytest.mark.parametrize("queries", [300, 600, 1000, 1200, 2400, 4800, 25_600])
def test_evaluations_take_at_most_15_percent_of_the_clock(queries: int) -> None:
    found = config(queries)
    first, last = (found.images_at(at) for at in found.evaluations())
    spent = first.pretrained_samplings + last.samplings
    # 2.8: measured, see automatic_images; small runs have at least so many images
    assert spent / (2.8 * queries + spent) <= (0.15 if queries >= 1200 else 0.165)
    assert last.samplings / (2.8 * queries + last.samplings) < 0.1  # the first is taken over


def test_a_small_run_is_evaluated_on_few_images() -> None:
    found = config(120)
    assert sum(sum(found.images_at(at).splits.values()) for at in found.evaluations()) == 80


def test_between_the_first_and_the_last_it_is_the_first_half() -> None:
    found = config(eval_points=3)
    assert found.evaluations() == [0, 1200, 2400]
    assert [found.images_at(at).splits for at in found.evaluations()] == [
        {"test": 540, "train": 10},
        {"test": 270, "train": 5},
        {"test": 540, "train": 10},
    ]
    assert len({found.images_at(at).kl for at in found.evaluations()}) == 1
    texts = found.prompts.test
    assert eval_prompts(texts, 270) == eval_prompts(texts, 540)[:270]


def test_a_given_number_is_that_of_every_evaluation() -> None:
    found = config(eval_images=100, eval_train_images=0, kl_images=3)
    assert {found.images_at(at) for at in found.evaluations()} == {EvalImages(100, 0, 3)}
    assert config(eval_images=2).images_at(0).kl == 2  # of no image that is not drawn
    assert config(eval_images="none").images_at(0) == config().images_at(0)


def test_the_smallest_evaluation_limits_the_processes() -> None:
    check_shares(config(600, draws=60), 10)
    with pytest.raises(UserError, match="smallest evaluation 132 test and 10 training images; try at most 10"):
        check_shares(config(600, draws=60), 12)
    check_shares(config(600, draws=60, eval_train_images=0), 60)


# -- the same images -----------------------------------------------------------------------------------


class FakeJudges:
    """Scores and features of images that hold one number each."""

    def look(self, images: Tensor, prompts: Sequence[str]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        level = images[:, 0, 0, 0]
        return {"level": level}, {"level": level}

    def statistics(self, features: dict[str, Tensor], groups: Sequence[int]) -> dict[str, tuple[float, dict[str, Any]]]:
        spread = features["level"].max() - features["level"].min()
        return {"spread": (float(spread), {"splits": 1}), "groups": (float(len(set(groups))), {})}


def fake(images: int, first: dict[str, int] | None = None) -> dict[str, Any]:
    levels = torch.rand(9, generator=torch.Generator().manual_seed(0))

    def draw(split: str, names: Sequence[str], pairs: Sequence[tuple[int, int]]) -> Tensor:
        return levels[: len(pairs)].reshape(-1, 1, 1, 1).expand(-1, 3, 2, 2)

    found = measure(FakeJudges(), {"test": ["a", "b"]}, {"test": images}, draw, first=first)  # type: ignore[arg-type]
    return {metric.name: metric for metric in found.metrics}


def test_an_evaluation_says_what_its_first_images_have() -> None:
    whole, few = fake(9, {"test": 4}), fake(4)
    assert whole.keys() == few.keys() == {"level", "spread", "groups"}
    for name, metric in whole.items():
        assert metric.n == 9
        assert metric.settings["first"] == {"images": 4, "value": few[name].value}
        assert {key: value for key, value in metric.settings.items() if key != "first"} == fake(9)[name].settings
    assert all("first" not in metric.settings for metric in fake(4, {"test": 4}).values())


def rows(*points: tuple[int, float | None, int, Any]) -> list[dict[str, Any]]:
    """Rows of one metric: queries, value, images, what the first images had."""
    shared = {"run_id": "a", "split": "test", "metric": "is_style"}
    return [
        {**shared, "queries": queries, "value": value, "n": n, "settings": None if first is None else {"first": first}}
        for queries, value, n, first in points
    ]


def test_fewer_images_are_put_on_all_by_their_change() -> None:
    first = {"images": 4, "value": 2.0}
    found = comparable(rows((0, 2.5, 9, first), (10, 2.25, 4, None), (20, 3.0, 9, first)))
    assert [row["value"] for row in found] == [2.5, 2.75, 3.0]
    assert [row["n"] for row in found] == [9, 4, 9]


@pytest.mark.parametrize(
    ("first", "n"),
    [
        (None, 4),
        ({"images": 5, "value": 2.0}, 4),
        ({"images": 4, "value": None}, 4),
        ({"images": 4, "value": math.nan}, 4),
        ({"images": 9, "value": 2.0}, 9),
        ("strange", 4),
    ],
)
def test_without_the_same_images_a_value_stays_as_it_is(first: Any, n: int) -> None:
    given = rows((0, 2.5, 9, first), (10, 2.25, n, None), (20, None, 4, None))
    assert comparable(given) == given
    assert comparable(given[1:]) == given[1:]
