"""One sampling loop for every wrapper and for evaluation: a shared prefix, a branch point, leaves."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from b2bench.protocols import Policy
from b2bench.seeding import normal
from b2bench.types import Conditioning, Interval, Trajectories, concatenate, micro_batches

# noise(rows, step) -> [len(rows), C, H, W]; step -1 is the initial latent.
Noise = Callable[[Sequence[int], int], Tensor]


def round_noise(policy: Policy, seed: int, round: int, first: int = 0) -> Noise:
    """Make the noise of a training round from row ``first`` on: row i at step k depends on (seed, round, i, k)."""

    def draw(rows: Sequence[int], step: int) -> Tensor:
        return normal(policy.latent_shape, seed, "noise", [(round, first + row, step) for row in rows])

    return draw


@torch.no_grad()
def _denoise(
    policy: Policy,
    cond: Conditioning,
    latents: Tensor,
    rows: Sequence[int],
    steps: range,
    noise: Noise,
    micro_batch: int,
    record: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Run ``steps`` from ``latents`` [n, ...]: final latents, states [n, S+1, ...] and log-probs [n, S]."""
    device = cond.table.device
    finals, states, log_probs = [], [], []
    for part in micro_batches(len(rows), micro_batch):
        x = latents[part].to(device)
        visited, densities = [x.cpu()] if record else [], []
        for k in steps:
            step = torch.full((len(x),), k, device=device)
            gaussian = policy.transition(cond[part], x, step)
            x = gaussian.sample(noise(rows[part], k).to(device))
            if record:
                visited.append(x.cpu())
                densities.append(gaussian.log_prob(x).cpu())
        finals.append(x)
        if record:
            states.append(torch.stack(visited, 1))
            log_probs.append(torch.stack(densities, 1))
    nothing = torch.empty(0)
    return (
        torch.cat(finals),
        torch.cat(states) if record else nothing,
        torch.cat(log_probs) if record else nothing,
    )


def _segments(
    steps: range, interval: Interval, rows: Sequence[int], edge: Tensor | None
) -> list[tuple[range, list[int]]]:
    """Cut ``steps`` where rollouts part, and after ``interval``: (steps, the rows that are sampled there), of which
    others are copies.
    """
    after = [(range(interval.stop, steps.stop), [*rows])] if interval.stop < steps.stop else []
    if edge is None:
        return [(range(steps.start, interval.stop), [*rows]), *after]
    found: list[tuple[range, list[int]]] = []
    for k in range(steps.start, interval.stop):
        own = [i for i in rows if int(edge[i, k - interval.start]) == i]
        if found and found[-1][1] == own:
            found[-1] = range(found[-1][0].start, k + 1), own
        else:
            found.append((range(k, k + 1), own))
    return found + after


@torch.no_grad()
def rollout(
    policy: Policy,
    prompts: Sequence[str],
    *,
    samples: int,
    leaves: int,
    interval: Interval,
    noise: Noise,
    micro_batch: int = 64,
    edges: Tensor | None = None,
) -> Trajectories:
    """Sample ``samples`` rollouts for each of the prompt draws ``prompts`` [G]: N = G * samples.

    Up to ``interval.start`` a branch of ``leaves`` rollouts is one trajectory, with the noise of its
    first leaf; from there each leaf has its own. ``leaves`` 1: no branching, and the group of a rollout
    is its prompt draw; otherwise its branch. Both number the same thing: with K = samples leaves a draw
    is a branch. ``edges`` [samples, S] are those of a tree (:func:`b2bench.wrappers.edges_of`): what shares a step is
    sampled once, with the noise of its first rollout. States are kept on the CPU, and only those of ``interval``.

    Raises:
        ValueError: ``leaves`` does not divide ``samples``, or ``edges`` are of another interval.
    """
    if samples % leaves:
        raise ValueError(f"{leaves} leaves do not divide {samples} samples")
    if edges is not None and edges.shape != (samples, len(interval)):
        raise ValueError(f"edges have shape {tuple(edges.shape)}; expected {(samples, len(interval))}")
    names = [prompt for prompt in prompts for _ in range(samples)]
    roots = list(range(0, len(names), leaves))
    cond = policy.encode(names)
    prefix, steps = range(interval.start), range(interval.start, policy.num_steps)
    x = noise(roots, -1)
    if prefix:
        x, _, _ = _denoise(policy, cond[torch.tensor(roots)], x, roots, prefix, noise, micro_batch, record=False)
    x = x.repeat_interleave(leaves, 0)
    rows = list(range(len(names)))
    edge = None
    if edges is not None:
        edge = (edges + samples * torch.arange(len(prompts)).reshape(-1, 1, 1)).flatten(0, 1)
    final, visited, densities, sampled = x, [], [], 0
    for part, own in _segments(steps, interval, rows, edge):
        if len(own) < len(rows):
            assert edge is not None
            place = torch.searchsorted(torch.tensor(own), edge[:, part.start - interval.start].contiguous())
            found = _denoise(policy, cond[torch.tensor(own)], final[own], own, part, noise, micro_batch, record=True)
            final, states, log_prob = (values[place.to(values.device)] for values in found)
        else:
            record = part.stop <= interval.stop
            final, states, log_prob = _denoise(policy, cond, final, rows, part, noise, micro_batch, record)
        sampled += len(own) * len(part)
        if part.stop <= interval.stop:
            visited.append(states if part.stop == interval.stop else states[:, :-1])
            densities.append(log_prob)
    states, log_prob = (concatenate(parts, 1) for parts in (visited, densities))
    return Trajectories(
        prompts=names,
        cond=cond,
        latents=states,
        log_prob=log_prob,
        group=torch.arange(len(names)) // (leaves if leaves > 1 else samples),
        leaf=torch.arange(len(names)) % (leaves if leaves > 1 else samples),
        interval=interval,
        images=policy.decode(final).cpu(),
        final=final.cpu(),
        edge=edge,
        calls=len(roots) * len(prefix) + sampled,
    )


@torch.no_grad()
def sample_with_kl(
    policy: Policy, prompts: Sequence[str], noise: Noise, micro_batch: int = 64
) -> tuple[Tensor, Tensor]:
    """Sample images as :func:`sample` does, and measure the KL of the policy's sampler from the pretrained one's.

    Returns the images [N, 3, h, w] and the KL over all T steps of each one's path, in nats: [N]. Along a path of the
    policy it is the sum of the KLs of its T transitions, over all latent dimensions: its mean over paths is
    KL(p_policy(x_0..x_T) || p_pretrained(x_0..x_T)), an upper bound of that of the images.
    """
    cond, rows = policy.encode(prompts), list(range(len(prompts)))
    with policy.reference():
        cond_ref = policy.encode(prompts)  # other than cond where a LoRA has a part for the text encoder
    device, finals, found = cond.table.device, [], []
    for part in micro_batches(len(rows), micro_batch):
        x = noise(rows[part], -1).to(device)
        total = torch.zeros(len(x), device=device)
        for k in range(policy.num_steps):
            step = torch.full((len(x),), k, device=device)
            gaussian = policy.transition(cond[part], x, step)
            with policy.reference():
                pretrained = policy.transition(cond_ref[part], x, step)
            total += gaussian.kl(pretrained) * policy.latent_size
            x = gaussian.sample(noise(rows[part], k).to(device))
        finals.append(x)
        found.append(total.cpu())
    return policy.decode(torch.cat(finals)).cpu(), torch.cat(found)


@torch.no_grad()
def sample(policy: Policy, prompts: Sequence[str], noise: Noise, micro_batch: int = 64) -> Tensor:
    """Sample images [N, 3, h, w] in [0, 1] of N prompts, on the CPU; intermediate states are not kept."""
    cond, rows = policy.encode(prompts), list(range(len(prompts)))
    steps = range(policy.num_steps)
    final, _, _ = _denoise(policy, cond, noise(rows, -1), rows, steps, noise, micro_batch, record=False)
    return policy.decode(final).cpu()
