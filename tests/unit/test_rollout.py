"""The sampling loop: log-probabilities that training reproduces, shared prefixes, and noise that nothing shifts."""

from collections.abc import Callable, Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler
from torch import Tensor, nn

from b2bench.config.settings import Settings
from b2bench.rollout import rollout, round_noise, sample, sample_with_kl
from b2bench.seeding import normal
from b2bench.types import Interval, Trajectories, micro_batches
from b2bench.update import minibatches, transitions
from b2bench.wrappers import B2, BPT, BS, Vanilla

CAT, DOG, FOX = "a cat riding a bike", "a dog playing chess", "a fox washing dishes"


class Free(nn.Module):
    """A network that costs nothing and counts its rows."""

    def __init__(self) -> None:
        super().__init__()
        self.rows = 0

    def forward(self, latents: Tensor, timestep: Tensor, text: Tensor) -> SimpleNamespace:
        self.rows += len(latents)
        return SimpleNamespace(sample=0.1 * latents.sin() + text.mean((1, 2)).reshape(-1, 1, 1, 1))


@pytest.fixture
def free(make_policy: Any) -> Any:
    policy = make_policy()
    policy.network = Free()
    return policy


def recomputed(policy: Any, trajectories: Trajectories, items: Tensor, size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """(stored, recomputed) log-probs of (row, offset) items, with gradient, as the update computes them."""
    steps = len(trajectories.interval)
    for part in micro_batches(len(items), size):
        batch = transitions(trajectories, items[part] // steps, items[part] % steps, policy.device)
        gaussian = policy.transition(batch.cond, batch.latents, batch.step)
        log_prob = gaussian.log_prob(batch.next_latents)
        assert log_prob.requires_grad
        yield batch.log_prob, log_prob.detach()


def shuffled(trajectories: Trajectories, seed: int = 0) -> Tensor:
    items = len(trajectories) * len(trajectories.interval)
    return torch.randperm(items, generator=torch.Generator().manual_seed(seed))


# -- the stored log-probability is the one that training computes -----------------------------------------


@pytest.fixture(scope="module")
def behaviour(make_policy: Any) -> Any:
    return make_policy()


@pytest.fixture(scope="module")
def default_rollout(behaviour: Any, roll: Any) -> Trajectories:
    """A full micro-batch by the defaults of a run."""
    size = Settings().micro_batch
    return roll(behaviour, draws=size // 4, samples=4, micro_batch=size)


@pytest.mark.slow
def test_log_probs_are_reproduced_exactly_by_default(behaviour: Any, default_rollout: Trajectories) -> None:
    settings, trajectories = Settings(), default_rollout
    assert len(trajectories) == settings.micro_batch
    assert len(trajectories.interval) == settings.steps
    seen = 0
    dealt = minibatches(len(trajectories), settings.steps, 48, torch.Generator().manual_seed(0))
    for rows, offsets in list(dealt)[:16]:
        items = rows * settings.steps + offsets
        assert offsets.unique().numel() > 5  # steps are mixed, as in training and unlike in the rollout
        for stored, again in recomputed(behaviour, trajectories, items, settings.micro_batch):
            assert torch.equal(stored, again)
            seen += len(stored)
    assert seen >= 320


@pytest.mark.slow
@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 6, 7, 13])
def test_log_probs_are_reproduced_within_a_hundredth_of_the_clip_range(
    size: int, behaviour: Any, default_rollout: Trajectories, algorithm: Any
) -> None:
    clip_range = algorithm("ddpo").clip_nats / behaviour.latent_size
    for stored, again in recomputed(behaviour, default_rollout, shuffled(default_rollout)[: 3 * size], size):
        assert (stored - again).abs().max() < clip_range / 100


@pytest.mark.slow
@pytest.mark.parametrize("size", [1, 3, 8])
def test_log_probs_of_small_micro_batches_too(size: int, make_policy: Any, roll: Any, algorithm: Any) -> None:
    policy = make_policy(num_steps=4)
    trajectories = roll(policy, draws=3, samples=4, start=1, micro_batch=size)
    clip_range = algorithm("ddpo").clip_nats / policy.latent_size
    for stored, again in recomputed(policy, trajectories, shuffled(trajectories), 48):
        assert (stored - again).abs().max() < clip_range / 100


@pytest.mark.slow
def test_the_first_optimizer_step_is_at_ratio_one(
    behaviour: Any, default_rollout: Trajectories, algorithm: Any
) -> None:
    items = shuffled(default_rollout, seed=1)[:40]
    batch = transitions(default_rollout, items // 20, items % 20, behaviour.device)
    for name in ("ddpo", "pg", "dpok"):
        _, metrics = algorithm(name).loss(behaviour, batch)
        assert torch.equal(metrics["log_ratio"], torch.zeros(40)), name


@pytest.mark.slow
def test_what_is_stored_is_a_walk_of_the_policy(behaviour: Any, default_rollout: Trajectories) -> None:
    """A stored log-prob belongs to the stored state and the stored next state, in nats per dimension."""
    again = default_rollout.log_prob
    assert default_rollout.latents.dtype == again.dtype == torch.float32
    n = Settings().micro_batch
    assert default_rollout.latents.shape == (n, 21, *behaviour.latent_shape)
    # E[log N] = -log sigma - log sqrt(2 pi e), whatever the network: 768 dimensions, n rollouts.
    expected = -behaviour.ddim.sigma.log() - 0.5 * torch.log(torch.tensor(2 * torch.pi * torch.e))
    torch.testing.assert_close(again.mean(0), expected, rtol=0, atol=5 * (0.5 / 768 / n) ** 0.5)


# -- wrappers that are switched off are not there ---------------------------------------------------------


def plain(policy: Any, prompts: Sequence[str], rows: Sequence[int], stop: int) -> list[Tensor]:
    """The states of rollouts without any wrapper, by one loop over diffusers' own scheduler."""
    pipeline = policy.pipeline
    scheduler = DDIMScheduler.from_config(pipeline.scheduler.config)
    scheduler.set_timesteps(policy.num_steps)
    tokens = pipeline.tokenizer(["", *prompts], padding="max_length", return_tensors="pt").input_ids

    def noise(step: int) -> Tensor:
        return normal(policy.latent_shape, 0, "noise", [(0, row, step) for row in rows])

    with torch.no_grad():
        text = pipeline.text_encoder(tokens)[0]
        states = [noise(-1)]
        for k, timestep in enumerate(scheduler.timesteps[:stop]):
            x = states[-1]
            empty = pipeline.unet(x, timestep, text[:1].expand(len(x), -1, -1)).sample
            guided = empty + policy.guidance * (pipeline.unet(x, timestep, text[1:]).sample - empty)
            states.append(scheduler.step(guided, timestep, x, eta=policy.ddim.eta, variance_noise=noise(k)).prev_sample)
    return states


def run(policy: Any, prompts: Sequence[str], wrapper: Any, samples: int, rounds: int = 7) -> Trajectories:
    return rollout(
        policy,
        prompts,
        samples=samples,
        leaves=wrapper.leaves(samples),
        interval=wrapper.interval(0, rounds, policy.num_steps),
        noise=round_noise(policy, 0, 0),
    )


def same(one: Trajectories, two: Trajectories) -> bool:
    tensors = ("latents", "log_prob", "group", "leaf", "images")
    return one.prompts == two.prompts and all(torch.equal(getattr(one, t), getattr(two, t)) for t in tensors)


def test_vanilla_is_a_plain_loop_over_diffusers(make_policy: Any) -> None:
    policy = make_policy(num_steps=5)
    found = run(policy, [CAT, DOG, FOX], Vanilla(), samples=1)
    expected = plain(policy, [CAT, DOG, FOX], [0, 1, 2], 5)
    torch.testing.assert_close(found.latents, torch.stack(expected, 1), rtol=1e-4, atol=1e-4)
    with torch.no_grad():
        images = policy.pipeline.vae.decode(expected[-1] / policy.pipeline.vae.config.scaling_factor).sample
    torch.testing.assert_close(found.images, (images / 2 + 0.5).clamp(0, 1), rtol=1e-3, atol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("wrapper", [BS(keep="all"), BPT(tau_start=1.0), B2(tau_start=1.0, keep="all")])
def test_a_wrapper_that_is_switched_off_is_vanilla_bit_for_bit(wrapper: Any, make_policy: Any) -> None:
    policy = make_policy(num_steps=5)
    vanilla, found = (run(policy, [CAT, DOG, FOX, CAT], w, samples=1) for w in (Vanilla(), wrapper))
    found.reward = vanilla.reward = found.advantage = vanilla.advantage = torch.zeros(4)
    assert same(vanilla, found)
    assert torch.equal(wrapper.select(found), Vanilla().select(vanilla))
    switched_on = run(policy, [CAT, DOG, FOX, CAT], B2(), samples=2)
    assert not same(vanilla, switched_on)


def test_bpt_with_the_full_interval_is_vanilla_with_several_samples(make_policy: Any) -> None:
    policy = make_policy(num_steps=5)
    assert same(*(run(policy, [CAT, DOG], w, samples=3) for w in (Vanilla(), BPT(tau_start=1.0))))


@pytest.mark.slow
def test_a_shorter_interval_changes_what_is_kept_and_not_what_is_drawn(make_policy: Any) -> None:
    """BPT rolls out the very trajectories of vanilla, and stores their last states."""
    policy = make_policy(num_steps=5)
    vanilla, bpt = (run(policy, [CAT, DOG], w, samples=4) for w in (Vanilla(), BPT()))
    assert bpt.interval == Interval(2, 5)
    assert torch.equal(bpt.latents, vanilla.latents[:, 2:])
    assert torch.equal(bpt.log_prob, vanilla.log_prob[:, 2:])
    assert torch.equal(bpt.images, vanilla.images)


def test_an_interval_that_ends_early_is_cut_there(make_policy: Any) -> None:
    policy = make_policy(num_steps=5)
    options: dict[str, Any] = {"samples": 1, "leaves": 1, "noise": round_noise(policy, 0, 0)}
    part, whole = (rollout(policy, [CAT, DOG], interval=Interval(*i), **options) for i in ((1, 3), (0, 5)))
    assert torch.equal(part.latents, whole.latents[:, 1:4])
    assert torch.equal(part.log_prob, whole.log_prob[:, 1:3])
    assert torch.equal(part.images, whole.images)
    assert part.calls == whole.calls
    for values in (part.latents, part.log_prob):  # no view of all steps, which would keep them through the update
        assert values.untyped_storage().nbytes() == values.nbytes


def test_sampling_for_an_evaluation_gives_the_images_of_a_rollout(make_policy: Any) -> None:
    policy = make_policy(num_steps=5)
    noise = round_noise(policy, 0, 0)
    assert torch.equal(sample(policy, [CAT, DOG], noise), run(policy, [CAT, DOG], Vanilla(), samples=1).images)


# -- branches ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def branched(make_policy: Any) -> tuple[Any, Trajectories]:
    """Eight branches of three leaves, that part at step 2 of 5."""
    policy = make_policy(num_steps=5)
    return policy, run(policy, [CAT, DOG, FOX, CAT] * 2, B2(), samples=3)


@pytest.mark.slow
def test_leaves_share_their_prefix_bit_for_bit_and_differ_after_it(branched: Any) -> None:
    _, found = branched
    assert found.interval == Interval(2, 5)
    states = found.latents.unflatten(0, (8, 3))
    for branch in states:
        for leaf in (1, 2):
            assert torch.equal(branch[0, 0], branch[leaf, 0])
            for other in range(leaf):
                assert all(not torch.equal(branch[other, k], branch[leaf, k]) for k in (1, 2, 3))
    assert all(not torch.equal(a[0, 0], b[0, 0]) for i, a in enumerate(states) for b in states[:i])
    assert found.group.tolist() == [branch for branch in range(8) for _ in range(3)]
    assert found.leaf.tolist() == [0, 1, 2] * 8
    assert found.prompts == [p for p in [CAT, DOG, FOX, CAT] * 2 for _ in range(3)]
    assert len(found.images.flatten(1).unique(dim=0)) == 24


def test_the_prefix_is_the_plain_loop_of_the_first_leaf(branched: Any) -> None:
    policy, found = branched
    expected = plain(policy, [CAT, DOG, FOX, CAT] * 2, range(0, 24, 3), 5)
    torch.testing.assert_close(found.latents[::3, 0], expected[2], rtol=1e-4, atol=1e-4)
    # The first leaf goes on as if there were no branch; the others leave with noise of their own.
    torch.testing.assert_close(found.latents[::3], torch.stack(expected[2:], 1), rtol=1e-4, atol=1e-4)
    for leaf in (1, 2):
        assert (found.latents[leaf::3, 1] - expected[3]).abs().amax((1, 2, 3)).min() > 0.1


@pytest.mark.slow
def test_the_prefix_is_vanillas_bit_for_bit(branched: Any) -> None:
    policy, found = branched
    vanilla = run(policy, found.prompts, Vanilla(), samples=1)
    assert torch.equal(found.latents[::3], vanilla.latents[::3, 2:])
    assert not torch.equal(found.latents[1::3, 0], vanilla.latents[1::3, 2])


def test_without_bpt_leaves_share_the_initial_latent_alone(make_policy: Any) -> None:
    policy = make_policy(num_steps=2)
    found = run(policy, [CAT], BS(), samples=2)
    assert torch.equal(found.latents[0, 0], found.latents[1, 0])
    assert torch.equal(found.latents[0, 0], normal(policy.latent_shape, 0, "noise", [(0, 0, -1)])[0])
    assert not torch.equal(found.latents[0, 1], found.latents[1, 1])


def test_leaves_that_do_not_divide_the_samples_are_refused(free: Any) -> None:
    with pytest.raises(ValueError, match="divide"):
        rollout(free, [CAT], samples=5, leaves=2, interval=Interval(0, 20), noise=round_noise(free, 0, 0))


@pytest.mark.slow
@pytest.mark.parametrize(("wrapper", "calls"), [(B2(), 76), (BS(), 100), (BPT(), 100), (Vanilla(), 100)])
def test_a_branch_of_five_leaves_costs_76_denoiser_calls_of_100(wrapper: Any, calls: int, free: Any) -> None:
    for draws in (1, 3):
        free.calls = free.network.rows = 0
        found = run(free, [CAT, DOG, FOX][:draws], wrapper, samples=5)
        assert found.calls == free.calls == draws * calls
        assert free.network.rows == 2 * draws * calls  # guidance takes two rows and counts once


# -- noise ------------------------------------------------------------------------------------------------


def captured(policy: Any, micro_batch: int, leaves: int, prompts: Sequence[str] = (CAT, DOG)) -> dict[Any, Tensor]:
    """{(row, step): the noise that a rollout drew there}; twice is an error."""
    drawn: dict[tuple[int, int], Tensor] = {}
    original = round_noise(policy, 3, 4)

    def noise(rows: Sequence[int], step: int) -> Tensor:
        values = original(rows, step)
        for row, value in zip(rows, values, strict=True):
            assert (row, step) not in drawn
            drawn[row, step] = value
        return values

    options: dict[str, Any] = {"interval": Interval(6, 20), "noise": noise, "micro_batch": micro_batch}
    rollout(policy, prompts, samples=4, leaves=leaves, **options)
    return drawn


@pytest.mark.parametrize("leaves", [1, 4])
@pytest.mark.parametrize("micro_batch", [1, 3, 5, 8])
def test_the_micro_batch_changes_no_drawn_number(micro_batch: int, leaves: int, free: Any) -> None:
    expected, found = captured(free, 64, leaves), captured(free, micro_batch, leaves)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[key], expected[key]) for key in expected)
    roots = range(0, 8, leaves)
    prefix = {(row, step) for row in roots for step in range(-1, 6)}
    assert expected.keys() == prefix | {(row, step) for row in range(8) for step in range(6, 20)}
    assert len({tuple(value.flatten()[:4].tolist()) for value in expected.values()}) == len(expected)


def test_the_micro_batch_changes_a_rollout_by_rounding_only(make_policy: Any, roll: Any) -> None:
    policy = make_policy(num_steps=4)
    one, two = (roll(policy, draws=2, samples=3, leaves=3, start=1, micro_batch=m) for m in (48, 2))
    torch.testing.assert_close(one.latents, two.latents, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(one.log_prob, two.log_prob, rtol=1e-4, atol=1e-4)


def test_one_prompt_more_shifts_no_others_noise(free: Any) -> None:
    few, more = captured(free, 8, 4), captured(free, 8, 4, prompts=(CAT, DOG, FOX))
    assert few.keys() < more.keys()
    assert all(torch.equal(few[key], more[key]) for key in few)
    one, two = (
        rollout(free, p, samples=2, leaves=2, interval=Interval(6, 20), noise=round_noise(free, 0, 0))
        for p in ([CAT, DOG], [CAT, DOG, FOX])
    )
    torch.testing.assert_close(one.latents, two.latents[:4])


def test_noise_depends_on_seed_round_row_and_step(free: Any) -> None:
    draws: list[Tensor] = []
    for seed, number in ((0, 0), (1, 0), (0, 1)):
        noise: Callable[[Sequence[int], int], Tensor] = round_noise(free, seed, number)
        state = torch.random.get_rng_state()
        batch = noise([0, 1, 10], 5)
        assert torch.equal(torch.random.get_rng_state(), state)
        assert torch.equal(batch[2], noise([10], 5)[0])
        assert torch.equal(batch, noise([0, 1, 10], 5))
        draws += [*batch, *noise([0, 1, 10], 6)]
    assert all(not torch.equal(a, b) for i, a in enumerate(draws) for b in draws[:i])
    values = torch.stack(draws).flatten()
    assert abs(values.mean()) < 5 / len(values) ** 0.5
    assert abs(values.var() - 1) < 5 * (2 / len(values)) ** 0.5


@pytest.mark.slow
def test_the_kl_of_a_path_is_that_of_its_transitions(make_policy: Any) -> None:
    policy = make_policy()
    noise, names = round_noise(policy, 0, 0), [CAT, DOG, FOX]
    images, found = sample_with_kl(policy, names, noise)
    cond, x, total = policy.encode(names), noise([0, 1, 2], -1), torch.zeros(3)
    for k in range(policy.num_steps):
        step = torch.full((3,), k)
        with torch.no_grad():
            ours = policy.transition(cond, x, step)
            with policy.reference():
                theirs = policy.transition(cond, x, step)
        shape = (-1, 1, 1, 1)
        normals = [torch.distributions.Normal(g.mean, g.std.reshape(shape)) for g in (ours, theirs)]
        total += torch.distributions.kl_divergence(*normals).sum((1, 2, 3))
        x = ours.sample(noise([0, 1, 2], k))
    assert (found > 0.01).all()
    torch.testing.assert_close(found, total, rtol=1e-4, atol=1e-4)
    assert torch.equal(images, sample(policy, names, noise))
    assert not sample_with_kl(make_policy(moved=0.0), names, noise)[1].any()
