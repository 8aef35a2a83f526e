"""Evaluation's numbers against loops in numpy and other people's code, and what evaluation draws."""

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from b2bench.rewards.bertscore import greedy_recall
from torch_fidelity.metric_isc import isc_features_to_metric

from b2bench.config.settings import Settings
from b2bench.evaluation.evaluate import eval_noise, eval_prompts
from b2bench.evaluation.judges import Judges
from b2bench.evaluation.scorers import ClipScorer
from b2bench.evaluation.statistics import entropy, inception_score, pairwise_distance
from b2bench.pocket.paths import POCKET_WEIGHTS


def probabilities(n: int, classes: int, seed: int = 0) -> torch.Tensor:
    return (3 * torch.randn(n, classes, generator=torch.Generator().manual_seed(seed)).double()).softmax(1)


@pytest.mark.parametrize("splits", [1, 5])
def test_inception_score_is_a_loop_in_numpy(splits: int) -> None:
    given = probabilities(40, 7)
    scores = []
    for part in np.split(given.numpy(), splits):
        divergences = []
        for row in part:
            divergences.append(sum(p * (math.log(p) - math.log(q)) for p, q in zip(row, part.mean(0), strict=True)))
        scores.append(math.exp(float(np.mean(divergences))))
    assert inception_score(given, splits) == pytest.approx(np.mean(scores), rel=1e-9)


@pytest.mark.parametrize("splits", [1, 4])
def test_inception_score_is_torch_fidelitys(splits: int) -> None:
    given = probabilities(64, 10, seed=1)
    theirs = isc_features_to_metric(given.log().float(), splits=splits, shuffle=False)
    expected = theirs["inception_score_mean"]
    assert inception_score(given, splits) == pytest.approx(expected, rel=1e-5)


def test_inception_score_at_its_limits() -> None:
    assert inception_score(torch.eye(4).repeat(3, 1)) == pytest.approx(4)
    assert inception_score(torch.tensor([[1.0, 0.0, 0.0]]).repeat(5, 1)) == pytest.approx(1)
    with pytest.raises(ValueError, match="splits"):
        inception_score(probabilities(3, 4), splits=4)


def test_pairwise_distance_is_a_loop_in_numpy() -> None:
    features = torch.nn.functional.normalize(torch.randn(7, 5, generator=torch.Generator().manual_seed(0)), dim=1)
    groups = [0, 1, 0, 1, 0, 2, 1]  # group 2 has one image and counts for nothing
    f, means = features.double().numpy(), []
    for group in (0, 1):
        rows = [i for i, g in enumerate(groups) if g == group]
        means.append(np.mean([1 - f[i] @ f[j] for i in rows for j in rows if i < j]))
    assert pairwise_distance(features, groups) == pytest.approx(np.mean(means), rel=1e-5)


def test_pairwise_distance_without_a_pair_is_no_number() -> None:
    assert math.isnan(pairwise_distance(torch.eye(3), [0, 1, 2]))


def test_entropy() -> None:
    shares = [0.5, 0.25, 0.25, 0.0]
    assert entropy(torch.tensor(shares)) == pytest.approx(-sum(p * math.log(p) for p in shares if p))
    assert entropy(torch.full((4,), 0.25)) == pytest.approx(math.log(4))
    assert entropy(torch.tensor([1.0, 0.0])) == 0


def test_greedy_recall_is_a_loop_in_numpy() -> None:
    draws = np.random.default_rng(0)
    candidate, reference = draws.normal(size=(5, 6)), draws.normal(size=(7, 6))
    scored = [False, True, True, False, True, True, False]
    best = []
    for token, counts in zip(reference, scored, strict=True):
        cosines = [token @ other / np.linalg.norm(token) / np.linalg.norm(other) for other in candidate]
        if counts:
            best.append(max(cosines))
    found = greedy_recall(torch.tensor(candidate), torch.tensor(reference), torch.tensor(scored))
    assert found == pytest.approx(np.mean(best), rel=1e-9)


def test_greedy_recall_by_hand() -> None:
    axes = torch.eye(3)
    everything = torch.ones(2, dtype=torch.bool)
    # Recall, not precision: what the candidate says beyond the reference costs nothing.
    assert greedy_recall(axes, axes[:2], everything) == 1
    assert greedy_recall(5 * axes[:1], axes[:2], everything) == 0.5
    assert greedy_recall(-axes[:1], axes[:1], everything[:1]) == -1


def test_clip_score_is_the_plain_cosine_of_open_clip() -> None:
    import open_clip

    folder: Path = POCKET_WEIGHTS / "scorer-training"
    model, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    tokenizer = open_clip.get_tokenizer(f"local-dir:{folder}")
    images = torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    prompts = ["a cat riding a bike", "a dog", "a cat riding a bike"]
    normalize = preprocess.transforms[-1]
    with torch.no_grad():
        image = model.eval().encode_image(normalize(images)).numpy()
        text = model.encode_text(tokenizer(prompts)).numpy()
    cosine = (image * text).sum(1) / np.linalg.norm(image, axis=1) / np.linalg.norm(text, axis=1)
    found = ClipScorer("pocket")(images, prompts)
    assert found.shape == (3,)
    np.testing.assert_allclose(found.numpy(), cosine, rtol=1e-4, atol=1e-5)
    heldout = ClipScorer("pocket-heldout")(images, prompts)
    assert not torch.allclose(found, heldout, atol=1e-3)


def test_evaluation_images_are_spread_evenly() -> None:
    assert eval_prompts(["a", "b", "c"], 7) == [(0, 0), (1, 0), (2, 0), (0, 1), (1, 1), (2, 1), (0, 2)]
    assert eval_prompts(["a"], 0) == []


def test_evaluation_noise_depends_on_seed_split_prompt_and_number_alone(make_policy: Any) -> None:
    policy = make_policy()
    few, many = eval_prompts(["a", "b"], 3), eval_prompts(["a", "b"], 6)
    one, two = eval_noise(policy, 0, "test", few), eval_noise(policy, 0, "test", many)
    for step in (-1, 0, 19):
        assert torch.equal(one([0, 1, 2], step), two(range(6), step)[:3])
        assert torch.equal(one([2], step)[0], two(range(6), step)[2])
    others = [eval_noise(policy, 1, "test", few), eval_noise(policy, 0, "train", few)]
    draws = [one([0], -1), one([1], -1), one([2], -1), one([0], 0), *(other([0], -1) for other in others)]
    assert all(not torch.equal(a, b) for i, a in enumerate(draws) for b in draws[:i])


def test_of_fewer_images_than_splits_there_is_no_inception_score() -> None:
    judges = object.__new__(Judges)
    judges.pocket, judges.splits = False, 10
    judges.inception = [SimpleNamespace(metric="is_clip", name="x")]  # type: ignore[list-item]
    for n, found in ((10, ["is_clip"]), (5, [])):
        assert list(judges.statistics({"is_clip": torch.full((n, 3), 1 / 3)}, [0] * n)) == found
    with pytest.raises(ValueError, match="inception_splits = 5: 2 test images"):
        Settings(inception="clip", inception_splits=5, eval_images=2)
    Settings(inception="clip", inception_splits=5, eval_images=5)
