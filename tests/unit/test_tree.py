"""The tree of rollouts: where it splits, what is sampled once, what is trained on once, and with which advantage."""

from collections import Counter
from typing import Any

import pytest
import torch

from b2bench.minibatches import tree_share
from b2bench.plugins.toy import PROMPTS, ToyPolicy, toy_reward
from b2bench.registry import Registry
from b2bench.rollout import rollout, round_noise
from b2bench.seeding import generator
from b2bench.types import Interval, Trajectories
from b2bench.update import Units, edge_advantages, minibatches, update
from b2bench.wrappers import BS, Tree

ALL = Interval(0, 4)


def rolled(policy: ToyPolicy, samples: int = 5, **values: Any) -> Trajectories:
    policy.remember()
    edges = Tree(**values).edges(samples, ALL)
    found = rollout(
        policy, PROMPTS[:3], samples=samples, leaves=samples, interval=ALL, noise=round_noise(policy, 0, 0), edges=edges
    )
    found.reward = toy_reward(0)(found.images, found.prompts)
    found.advantage = torch.randn(len(found), generator=generator(0, "advantages"))
    return found


@pytest.mark.parametrize(
    ("samples", "steps", "values", "sizes"),
    [
        (5, 20, {}, [2] * 3 + [4] * 3 + [5] * 14),
        (8, 20, {}, [2] * 3 + [4] * 3 + [8] * 14),
        (9, 20, {"ways": 3, "spacing": 0.5}, [3] * 10 + [9] * 10),
        (8, 4, {}, [2, 4, 8, 8]),
        (8, 3, {"spacing": 1.0}, [2, 2, 8]),  # what is left splits at the last step
        (5, 1, {}, [5]),
        (1, 3, {}, [1, 1, 1]),
    ],
)
def test_a_draw_splits_until_each_rollout_has_an_edge_of_its_own(
    samples: int, steps: int, values: dict[str, Any], sizes: list[int]
) -> None:
    edges = Tree(**values).edges(samples, Interval(0, steps))
    assert [len(set(column)) for column in edges.T.tolist()] == sizes
    for column in edges.T.tolist():  # as even as can be
        counts = Counter(column).values()
        assert max(counts) - min(counts) <= 1


def test_what_shares_a_step_is_the_same_and_sampled_once() -> None:
    policy = ToyPolicy(0)
    policy.move(0.2, "behaviour")
    found = rolled(policy)
    assert found.edge is not None
    for k in range(4):
        for one in range(len(found)):
            for two in range(one):
                shared = bool(found.edge[one, k] == found.edge[two, k])
                assert torch.equal(found.latents[one, k + 1], found.latents[two, k + 1]) == shared
                assert torch.equal(found.log_prob[one, k], found.log_prob[two, k]) or not shared
    assert found.calls == 3 * (2 + 4 + 5 + 5)
    assert found.group.tolist() == [i // 5 for i in range(15)]
    # the log-probabilities are those of the transitions that are stored
    for k in range(4):
        step = torch.full((15,), k)
        with torch.no_grad():
            again = policy.transition(found.cond, found.latents[:, k], step).log_prob(found.latents[:, k + 1])
        torch.testing.assert_close(again, found.log_prob[:, k])


def test_a_tree_that_splits_once_is_a_branch() -> None:
    policy = ToyPolicy(0)
    policy.move(0.2, "behaviour")
    tree = rolled(policy, ways=5)
    branch = rollout(
        policy, PROMPTS[:3], samples=5, leaves=BS().leaves(5), interval=ALL, noise=round_noise(policy, 0, 0)
    )
    for name in ("latents", "log_prob", "final", "images"):
        assert torch.equal(getattr(tree, name), getattr(branch, name)), name
    assert tree.calls == branch.calls


def test_an_edges_advantage_is_the_mean_of_its_leaves() -> None:
    found = rolled(ToyPolicy(0))
    assert found.edge is not None
    assert found.advantage is not None
    advantages = edge_advantages(found)
    for row in range(len(found)):
        for k in range(4):
            leaves = [i for i in range(len(found)) if found.edge[i, k] == found.edge[row, k]]
            expected = sum(float(found.advantage[i]) for i in leaves) / len(leaves)
            assert float(advantages[row, k]) == pytest.approx(expected, abs=1e-6)
    torch.testing.assert_close(advantages[:, -1], found.advantage)


def test_each_edge_is_trained_on_once_and_each_final_image_at_every_step() -> None:
    found = rolled(ToyPolicy(0))
    everything = torch.ones(len(found), dtype=torch.bool)
    share = tree_share(Registry("algorithm").get("ddpo")(), Tree().edges(5, ALL))
    assert share == pytest.approx((2 + 4 + 5 + 5) / 20)
    units = Units(Registry("algorithm").get("ddpo")(), found, everything, None)
    assert found.edge is not None
    dealt = [
        (int(found.edge[row, k]), k)
        for rows, offsets in minibatches(len(units), 4, 3, generator(0, "dealt"), own=units.own)
        for row, k in zip(rows.tolist(), offsets.tolist(), strict=True)
    ]
    assert len(dealt) == len(set(dealt)) == round(60 * share)
    assert set(dealt) == {(int(found.edge[row, k]), k) for row in range(15) for k in range(4)}
    batch: Any = units.batch(torch.tensor([0, 6]), torch.tensor([0, 3]), torch.device("cpu"))
    torch.testing.assert_close(batch.advantage, edge_advantages(found)[[0, 6], [0, 3]])
    # where the first of an edge is left out, the next has it
    kept = everything.clone()
    kept[0] = False
    units = Units(Registry("algorithm").get("ddpo")(), found, kept, None)
    assert units.own is not None
    assert units.own[0].tolist() == [True, True, True, True]
    assert Units(Registry("algorithm").get("nft")(), found, everything, lambda places: torch.zeros(0)).own is None


def test_a_tree_of_which_nothing_is_kept_takes_no_step() -> None:
    policy = ToyPolicy(0)
    found = rolled(policy)
    report = update(
        policy,
        Registry("algorithm").get("ddpo")(),
        torch.optim.SGD(policy.parameters(), lr=1.0),
        found,
        torch.zeros(len(found), dtype=torch.bool),
        micro_batch=4,
        max_grad_norm=1.0,
        generator=generator(0, "dealt"),
    )
    assert report.optimizer_steps == 0


@pytest.mark.parametrize("name", ["dpo", "diffusion_dpo", "raft"])
def test_an_algorithm_on_pairs_is_refused(name: str) -> None:
    assert "on pairs has none" in str(Tree().refuses(Registry("algorithm").get(name)()))
    assert Tree().refuses(Registry("algorithm").get("ddpo")()) is None
