"""A run: rounds of rollout, reward, advantage, selection and update, with every reward query logged.

It knows neither the algorithm's name nor what an image shows. One round (docs/architecture.md): interval,
prompts, rollout, reward, advantage, selection, update, then one transaction and one checkpoint; at
milestones in reward queries an evaluation.
"""

from __future__ import annotations

import contextlib
import errno
import json
import math
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn

import torch
from safetensors import SafetensorError
from torch import Tensor

from b2bench.advantage import advantage_rule
from b2bench.config.run import RunConfig, check_shares
from b2bench.engine import Engine
from b2bench.errors import Busy, NoRoom, RunFailed, UserError
from b2bench.evaluation import samples as sample_files
from b2bench.evaluation.before_after import draw_before_after
from b2bench.evaluation.evaluate import Evaluation, eval_noise, eval_prompts, evaluate
from b2bench.files import replaced
from b2bench.guard import guarded
from b2bench.metrics import OWN_COLUMNS
from b2bench.rollout import rollout, round_noise, sample
from b2bench.seeding import generator, normal
from b2bench.store.database import FOR_HOURS, SHORT
from b2bench.store.store import Store
from b2bench.text import described
from b2bench.training.checkpoint import load_checkpoint, save_checkpoint
from b2bench.training.health import of_round
from b2bench.training.listener import Listener, Silent
from b2bench.training.pace import pace_of, steps_of
from b2bench.training.peak import process_peak
from b2bench.training.phase import Phase
from b2bench.training.setup import load, plugin_errors
from b2bench.training.start import known_start, marked, start_key
from b2bench.training.summary import Summary, summary
from b2bench.types import Interval, Trajectories
from b2bench.update import UpdateReport, merged, step_weights, update
from b2bench.wrappers import edges_of, selected, shared_steps

DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO)
"""What a full or broken disk answers."""
CONFIG_FILE = "config.json"
BEAT = 300.0
"""Seconds after which a run says within a round that it is at work"""


@dataclass(frozen=True)
class _Part:
    """What was sampled and updated together, the whole round or a part of it.

    ``first`` is the index of its first reward query; ``calls`` of the denoiser here: for sampling, for training, and
    those of training that have a backward pass.
    """

    trajectories: Trajectories
    measured: Tensor
    report: UpdateReport
    first: int
    calls: tuple[int, int, int]


class Trainer:
    """One run, from its first evaluation to its last checkpoint.

    ``folder`` receives ``config.json``, checkpoints and the LoRA weights; ``store`` every row. Of several processes
    each has a trainer, and that of rank 0 alone writes.

    Raises:
        UserError: the backbone, a judge or the reward cannot be loaded.
    """

    def __init__(
        self,
        config: RunConfig,
        run_id: str,
        store: Store,
        folder: Path,
        listener: Listener | None = None,
        engine: Engine | None = None,
    ) -> None:
        self.config, self.run_id, self.store, self.folder = config, run_id, store, folder
        self.listener: Listener = listener or Silent()
        settings = config.settings
        self.engine = engine or Engine(scaled=settings.precision == "fp16")
        device = self.engine.device
        check_shares(config, self.engine.world)
        with self.engine.together():
            self.policy, self.judges = load(config, device, self.listener.stage, trained=True)
        with self.engine.together(), plugin_errors(f"algorithm {config.algorithm_name}"):
            if hasattr(config.algorithm, "setup"):
                config.algorithm.setup(self.policy, generator(config.seed, "algorithm"))
            networks = list(config.algorithm.networks()) if hasattr(config.algorithm, "networks") else []
            self.networks = [network for network, _ in networks]
            groups: list[dict[str, Any]] = [{"params": list(self.policy.parameters()), "lr": settings.lr}]
            groups += [{"params": list(network.parameters()), "lr": lr} for network, lr in networks]
            decay = settings.weight_decay
            self.optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.999), eps=1e-8, weight_decay=decay)
        self.advantage = advantage_rule(
            settings.advantage,
            history=settings.advantage_history,
            clip=settings.advantage_clip,
            draws=settings.draws,
        )
        self.pace = pace_of(config, self.engine.world)
        self.phase = Phase(self.listener, self._alive)
        self.policy.watch = self.phase.called
        self.round = 0
        self.queries = 0
        self._evaluated: int | None = None
        self._beat = time.monotonic()
        self._warned: set[str] = set()

    def run(self) -> Summary:
        """Run to the end of the budget. In any case the store says how the run ended.

        Raises:
            RunFailed: the run cannot go on; status and reason are in the store.
            KeyboardInterrupt: it was interrupted; the store says so, and the last checkpoint is whole.
        """
        with self.store.waiting(FOR_HOURS):
            return self._run()

    def _run(self) -> Summary:
        started = time.monotonic()
        first = self.queries
        try:
            if not first:
                with plugin_errors(f"wrapper {self.config.wrapper_name}"):
                    for text in self.config.notices:
                        self.listener.warned(text)
            while True:
                if self._evaluation_due():
                    self._evaluate()
                if self.round == self.config.rounds:
                    break
                self._round()
            self._save_weights()
        except KeyboardInterrupt:
            self._leave("interrupted by the user")
            raise
        except Busy as error:
            self._leave(error.reason)
            raise RunFailed(f"round {self.round}: {error.reason}; {self._again('closing it there')}") from error
        except (NoRoom, OSError) as error:
            if isinstance(error, OSError) and error.errno not in DISK_ERRORS:
                self._fail(error)
            reason = f"{error.filename or self.folder}: {error.strerror}" if isinstance(error, OSError) else str(error)
            self._leave(reason)
            raise RunFailed(f"round {self.round}: {reason}; {self._again('making room')}") from error
        except (RunFailed, UserError) as error:
            self._finish_anyway(str(error))
            raise RunFailed(f"round {self.round}: {error}") from error
        except BaseException as error:  # a plugin may raise anything, SystemExit too
            self._fail(error)
        self._finish("done")
        seconds = time.monotonic() - started
        self.engine.on_main_process(self._draw)
        made = self.queries - first
        return self.engine.on_main_process(
            lambda: summary(self.store, self.run_id, self.folder, queries=self.queries, made=made, seconds=seconds)
        )

    def _fail(self, error: BaseException) -> NoReturn:
        """End a run by an unforeseen error: its place goes into the reason, and its traceback into the folder."""
        where = traceback.extract_tb(error.__traceback__)[-1]
        reason = f"{described(error)} ({where.filename}, line {where.lineno})"
        self._finish_anyway(reason)
        trace = self.folder / ("traceback.txt" if self.engine.first else f"traceback-{self.engine.rank}.txt")
        trace.write_text("".join(traceback.format_exception(error)), encoding="utf-8", errors="backslashreplace")
        raise RunFailed(f"round {self.round}: {reason}; the traceback is in {trace}") from error

    def _finish(self, status: str, reason: str | None = None) -> None:
        if self.engine.first:
            self.store.finish_run(self.run_id, status, reason)

    def _finish_anyway(self, reason: str) -> None:
        """Say in the store that the run failed, if that can be said: what is raised is why it failed."""
        with contextlib.suppress(UserError):
            self._finish("failed", reason)

    def _leave(self, reason: str) -> None:
        """Say in the store that the run was interrupted, if the store can be had at once; else it is found stale."""
        self.store.patience = min(self.store.patience, SHORT)
        with contextlib.suppress(UserError):
            self._finish("interrupted", reason)

    def _again(self, advice: str) -> str:
        return f"try {advice}, then --resume {self.run_id}, which continues from the last whole round"

    def _alive(self) -> None:
        """Say in the store that the run is at work, every few minutes if nobody has it: a round may take hours."""
        now = time.monotonic()
        if self.engine.first and now - self._beat > BEAT:
            self._beat = now
            with contextlib.suppress(UserError):
                self.store.beat(self.run_id)

    def resume(self) -> None:
        """Take up the last checkpoint, and undo what the store holds beyond it.

        Raises:
            UserError: the checkpoint is whole, but it is not of this run.
        """
        with self.engine.together():  # nobody goes on, and replaces it, before everybody has read it
            state = load_checkpoint(self.folder, self.listener.warned)
        if state is None:
            self.engine.on_main_process(self._nothing_is_lost)
            self._rewind(0, -1)
            return
        try:
            with self.engine.together():
                self._take_up(state)
        except Exception as error:  # torch, peft and what is not there raise many kinds
            reason = " ".join(described(error).split())[:200]
            raise UserError(
                f"the newest checkpoint in {self.folder} is not of run {self.run_id} ({reason}); try removing it, "
                "to continue from the one before it, or a new run"
            ) from None
        self._rewind(self.round, self.queries)

    def _nothing_is_lost(self) -> None:
        """Refuse to begin anew over rounds that were followed by a checkpoint, as each is before the next.

        Raises:
            UserError: there are some, so the checkpoints were removed or are damaged.
        """
        rounds = len(self.store.rounds(self.run_id))
        if rounds > 1:
            raise UserError(
                f"run {self.run_id} has {rounds} rounds in the store and no readable checkpoint in {self.folder}: it "
                "would begin anew, and the rows would be lost; try restoring a checkpoint, or a new run"
            )

    def _take_up(self, state: dict[str, Any]) -> None:
        round, queries = state["round"], state["queries"]
        if not (type(round) is type(queries) is int and 0 < round <= self.config.rounds):
            raise ValueError(f"round {round!r}, {queries!r} queries")
        own = self.policy.adapter_state()
        given = {name: tuple(weights.shape) for name, weights in state["adapter"].items()}
        if given != {name: tuple(weights.shape) for name, weights in own.items()}:
            raise ValueError("its adapter has other weights")
        self.policy.set_adapter_state(state["adapter"])
        self.optimizer.load_state_dict(state["optimizer"])
        for network, weights in zip(self.networks, state["networks"], strict=True):
            network.load_state_dict(weights)
        self.advantage.load_state(state["advantage"])
        self.pace.kept = float(state.get("kept_per_draw", self.pace.kept))
        self.engine.load_state(state.get("engine", {}))
        self.round, self.queries = round, queries

    def _rewind(self, round: int, queries: int) -> None:
        if self.engine.first:
            self.store.rewind(self.run_id, round, queries)

    def _evaluation_due(self) -> bool:
        if self._evaluated is None:  # of a run that is resumed, the store knows
            rows = self.store.evals([self.run_id]) if self.engine.first else []
            self._evaluated = self.engine.broadcast_object(max((row["queries"] for row in rows), default=-1))
        done = self._evaluated
        return done < 0 or self.config.milestone(self.queries) > self.config.milestone(done)

    def _evaluate(self) -> None:
        result = self._measured_now() if self.queries else self._start()
        files = self._keep_samples(result)
        if self.engine.first:
            rows = result.image_rows(self.queries, self.config.reward_name, files)
            self.store.record_evals(self.run_id, result.metric_rows(self.queries), rows)
        self._evaluated = self.queries
        self.listener.evaluated(self.queries, result)

    def _start(self) -> Evaluation:
        """Return the evaluation of the pretrained model: an earlier run's if the store has the same, else its own."""
        config, key = self.config, start_key(self.config, self.policy.device, self.engine.world)
        known = self.engine.on_main_process(lambda: known_start(self.store, key, config))
        return known or marked(self._measured_now(), key)

    def _measured_now(self) -> Evaluation:
        config, settings = self.config, self.config.settings
        images = config.images_at(self.queries)

        def begin(split: str) -> None:
            mine = len(self.engine.share(images.splits[split]))
            text = f"evaluating on {split} prompts at {self.queries} queries"
            self.phase.begin(text, mine, mine * settings.steps)

        return evaluate(
            self.policy,
            self.judges,
            {"test": config.prompts.test, "train": config.prompts.train},
            images.splits,
            settings.eval_seed,
            settings.micro_batch,
            begin,
            self.engine,
            images.kl,
            config.images_between.splits,
            pretrained=self.queries == 0,
        )

    def _keep_samples(self, result: Evaluation) -> dict[int, str]:
        """Return the images of sample grids as files, each written by the process that drew it, before
        rows name them.
        """
        n, wanted = len(result.drawn["test"]), self.config.settings.sample_images
        places = sample_files.chosen(len(self.config.prompts.test), n, wanted)
        if not places:
            return {}
        if "test" in result.images:
            images = dict(zip(self.engine.share(n), result.images["test"], strict=True))
        else:
            images = self._drawn_again(places, n) if self.engine.first else {}
        with self.engine.together():
            return sample_files.save(self.folder, self.queries, places, images)

    def _drawn_again(self, places: Sequence[int], n: int) -> dict[int, Tensor]:
        """Draw images of another run's evaluation of ``n`` test images again: prompt and noise are the same."""
        texts, settings = self.config.prompts.test, self.config.settings
        every = eval_prompts(texts, n)
        pairs = [every[place] for place in places]
        noise = eval_noise(self.policy, settings.eval_seed, "test", pairs)
        images = sample(self.policy, [texts[prompt] for prompt, _ in pairs], noise, settings.micro_batch)
        return dict(zip(places, images, strict=True))

    def _interval(self) -> Interval:
        """Return the trained steps of this round."""
        with guarded():
            return self.config.wrapper.interval(self.round, self.config.rounds, self.config.settings.steps)

    def _sample(self, drawn: Sequence[str], start: int) -> Trajectories:
        """Sample this process's rollouts of the prompts ``drawn``, and return them with prompts and groups of all.

        ``start`` is the number of draws of the round that were sampled before.
        """
        config, settings, round = self.config, self.config.settings, self.round
        interval = self._interval()
        samples = settings.samples
        with guarded():
            leaves = config.wrapper.leaves(samples)
        mine = self.engine.share(len(drawn))
        n = len(mine) * samples
        # the steps before the trained ones are sampled once for all leaves of a branch
        edges = edges_of(config.wrapper, samples, interval)
        calls = n // max(1, leaves) * interval.start + n * (settings.steps - interval.start)
        calls -= len(mine) * shared_steps(edges)
        self.phase.begin(f"round {round + 1}: sampling {len(drawn) * samples} images", n, calls)
        with self.engine.together():
            found = rollout(
                self.policy,
                drawn[mine.start : mine.stop],
                samples=samples,
                leaves=leaves,
                interval=interval,
                noise=round_noise(self.policy, config.seed, round, (start + mine.start) * samples),
                micro_batch=settings.micro_batch,
                edges=edges,
            )
        edge = None if found.edge is None else self.engine.all_gather_rows(found.edge + mine.start * samples)
        per_draw = 1 if leaves == 1 else samples // leaves
        return replace(
            found,
            prompts=[prompt for prompt in drawn for _ in range(samples)],
            group=self.engine.all_gather_rows(found.group + mine.start * per_draw) + start * per_draw,
            leaf=self.engine.all_gather_rows(found.leaf),
            edge=edge,
            first=mine.start * samples,
        )

    def _measured(self, trajectories: Trajectories) -> Tensor:
        """Score all rollouts, [N]: each process asks its own reward for its own rollouts."""
        n = len(trajectories.images)
        prompts = trajectories.prompts[trajectories.first : trajectories.first + n]
        with self.engine.together():
            scores = self.judges.scores(trajectories.images, prompts)
        return self.engine.all_gather_rows(scores)

    def _round(self) -> None:
        """Sample, score, select and update: once, or for as many parts of the round as its algorithm asks for."""
        config = self.config
        started = time.monotonic()
        interval = self._interval()
        draws, train = config.draws(self.round), config.prompts.train
        chosen = torch.randint(len(train), (draws,), generator=generator(config.seed, "prompts", self.round))
        prompts = [train[i] for i in chosen]
        parts: list[_Part] = []
        self.pace.begin(draws, steps_of(config, interval))
        while size := self.pace.next():
            start = draws - self.pace.left
            part = self._part(prompts[start : start + size], start, () if size == draws else (len(parts),))
            self.pace.took(size, int(part.report.kept.sum()))
            parts.append(part)
        report = merged([part.report for part in parts])
        calls = (sum(kind) for kind in zip(*(part.calls for part in parts), strict=True))
        spent = self.engine.all_gather_object((*calls, peak_mb(self.policy.device)))
        rewards = torch.cat([part.trajectories.reward for part in parts if part.trajectories.reward is not None])
        queries = self.queries + len(rewards)
        round_row = {
            "round": self.round,
            "queries": queries,
            "interval_start": interval.start,
            "interval_stop": interval.stop,
            "kept": int(report.kept.sum()),
            "optimizer_steps": report.optimizer_steps,
            "loss": report.loss,
            "ratio_mean": report.metrics.get("ratio_mean", math.nan),
            "approx_kl": report.metrics.get("approx_kl", math.nan),
            "clip_fraction": report.metrics.get("clipped", math.nan),
            "grad_norm": report.grad_norm,
            "denoiser_calls_sampling": sum(sampling for sampling, *_ in spent),
            "denoiser_calls_training": sum(training for _, training, *_ in spent),
            "denoiser_calls_gradient": sum(gradient for *_, gradient, _ in spent),
            "seconds": time.monotonic() - started,
            "peak_mb": max(peak for *_, peak in spent),  # of the process that takes most
            "off_policy": report.off_policy,
            "metrics": {name: value for name, value in report.metrics.items() if name not in OWN_COLUMNS} or None,
        }
        if self.engine.first:
            self.store.record_round(self.run_id, round_row, [row for part in parts for row in self._query_rows(part)])
        self.round += 1
        self.queries = queries
        if self.engine.first:
            save_checkpoint(self.folder, self.round, self._state())
        self.listener.round_done(self.round, config.rounds, self.queries, float(rewards.mean()), report)
        for text in of_round(round_row, _equal_share([part.trajectories for part in parts])):
            if (kind := text.partition(":")[0]) not in self._warned:  # once: b2bench show lists all rounds
                self._warned.add(kind)
                self.listener.warned(f"round {self.round}: {text}")

    def _part(self, drawn: Sequence[str], start: int, part: tuple[int, ...]) -> _Part:
        """Sample ``drawn`` by the policy as it is, score the rollouts, and update the policy on what is selected.

        ``start`` is the number of draws of the round before; ``part`` names the part in what it draws, unless it is
        the whole round.
        """
        config, settings, samples = self.config, self.config.settings, self.config.settings.samples
        calls = self.policy.calls
        self.policy.remember()
        trajectories = self._sample(drawn, start)
        sampling = self.policy.calls - calls
        self.phase.begin(f"round {self.round + 1}: {config.reward_name} on {len(trajectories)} images")
        reward = measured = self._measured(trajectories)
        first = self.queries + start * samples
        if settings.reward_noise:
            reward = measured + settings.reward_noise * query_noise(config.seed, self.round, first, len(measured))
        trajectories.reward = reward
        trajectories.advantage = self.advantage(reward, trajectories.prompts, trajectories.group)
        kept = selected(config.wrapper, trajectories, generator(config.seed, "selection", self.round, *part))
        self.phase.begin(f"round {self.round + 1}: optimising")
        calls, gradient_calls = self.policy.calls, self.policy.gradient_calls
        report = update(
            self.policy,
            config.algorithm,
            self.optimizer,
            trajectories,
            kept,
            transitions_per_step=settings.transitions_per_step,
            epochs=settings.passes,
            optimizer_steps=settings.updates_per_round or settings.fixed_steps,
            micro_batch=settings.train_micro_batch or settings.micro_batch,
            max_grad_norm=settings.max_grad_norm,
            generator=generator(config.seed, "minibatches", self.round, *part),
            timestep_fraction=settings.timestep_fraction,
            noise=self._drawn,
            weights=step_weights(config.wrapper, self.policy, trajectories.interval),
            judge=self.judges.followed,
            engine=self.engine,
            progress=self.phase.stepped,
        )
        training, gradient = self.policy.calls - calls, self.policy.gradient_calls - gradient_calls
        trajectories.latents = trajectories.images = torch.empty(0)  # of no use any more, and most of the memory
        trajectories.final = None
        return _Part(trajectories, measured, report, first, (sampling, training, gradient))

    def _drawn(self, places: Sequence[tuple[int, int]]) -> Tensor:
        """Noise for final latents: that of a comparison group and step depends on (seed, round, group, step) alone."""
        shape = self.policy.latent_shape
        return normal(shape, self.config.seed, "finals", [(self.round, group, step) for group, step in places])

    def _query_rows(self, part: _Part) -> list[dict[str, Any]]:
        trajectories, measured, kept = part.trajectories, part.measured, part.report.kept
        assert trajectories.reward is not None
        assert trajectories.advantage is not None
        columns = zip(
            trajectories.prompts,
            trajectories.group.tolist(),
            trajectories.leaf.tolist(),
            trajectories.reward.tolist(),
            measured.tolist(),
            trajectories.advantage.tolist(),
            kept.tolist(),
            strict=True,
        )
        return [
            {
                "query_index": part.first + i,
                "round": self.round,
                "prompt": prompt,
                "group_id": group,
                "leaf": leaf,
                "reward": reward,
                "scores": {self.config.reward_name: score},
                "advantage": advantage,
                "kept": used,
            }
            for i, (prompt, group, leaf, reward, score, advantage, used) in enumerate(columns)
        ]

    def _state(self) -> dict[str, Any]:
        return {
            "round": self.round,
            "queries": self.queries,
            "adapter": self.policy.adapter_state(),
            "optimizer": self.optimizer.state_dict(),
            "networks": [network.state_dict() for network in self.networks],
            "advantage": self.advantage.state(),
            "kept_per_draw": self.pace.kept,
            "engine": self.engine.state(),
        }

    def _draw(self) -> None:
        """Leave a picture of test images before and after. Without one a run is as good, so nothing fails for it."""
        with contextlib.suppress(OSError, ValueError, UserError):
            kept = "SELECT * FROM images WHERE run_id = ? AND queries = ? AND path IS NOT NULL"
            ordered = f"{kept} ORDER BY length(path), path"
            points = 0, self.queries
            before, after = self.store.together(lambda: [self.store.sql(ordered, [self.run_id, at]) for at in points])
            draw_before_after(self.folder, before, after)

    def _save_weights(self) -> None:
        if self.engine.first:
            try:
                self.policy.save_lora(self.folder)
            except SafetensorError as error:
                raise NoRoom(f"the LoRA weights cannot be written to {self.folder}: {error}") from error


def query_noise(seed: int, round: int, first: int, n: int) -> Tensor:
    """Draw standard normal noise [n] for the reward queries from ``first`` on; each has its own, resumed or not."""
    return normal((), seed, "reward-noise", [(round, first + i) for i in range(n)])


def peak_mb(device: torch.device) -> float:
    """Return peak memory so far in MiB: of the GPU if there is one, else of the process; nan if nobody knows."""
    return torch.cuda.max_memory_allocated(device) / 2**20 if device.type == "cuda" else process_peak()


def write_config(config: RunConfig, folder: Path) -> None:
    """Put ``config.json`` into a run folder, whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    with replaced(folder / CONFIG_FILE) as temporary:
        temporary.write_text(json.dumps(config.as_dict(), indent=2) + "\n", encoding="utf-8")


def _equal_share(parts: Sequence[Trajectories]) -> float:
    """Return the share of groups, of those of several rollouts, whose rewards are all equal: no advantage comes of
    them.
    """
    rewards: dict[int, list[float]] = {}
    for trajectories in parts:
        assert trajectories.reward is not None
        for group, reward in zip(trajectories.group.tolist(), trajectories.reward.tolist(), strict=True):
            rewards.setdefault(group, []).append(reward)
    several = [len(set(found)) == 1 for found in rewards.values() if len(found) > 1]
    return sum(several) / len(several) if several else 0.0
