"""Reward queries a second: beside trl's DDPO trainer, beside the bare denoiser, of the 16 cells, and as they grow.

    uv run --group reference python benchmarks/speed.py peers    # trl 0.23.1 and b2bench on the same work
    uv run python benchmarks/speed.py floor                      # a round as a multiple of its denoiser calls
    uv run python benchmarks/speed.py cores --threads 2          # one core and two
    uv run python benchmarks/speed.py precision                  # the denoiser in fp32 and in bf16
    uv run --group reference python benchmarks/speed.py memory   # the peak of a run, and of trl's trainer
    uv run python benchmarks/speed.py cells                      # the paper's algorithms under its wrappers
    uv run python benchmarks/speed.py growth                     # with queries, leaves, steps, prompts, stored rows

All on pocket, one thread. Ways that are compared take turns within one process, forwards and backwards by turns, and a
ratio is the median of those within a turn. ``cells`` and ``growth`` count the CPU's seconds, which a busy machine
changes less than the clock's, but does change: up to 2.4 times has been seen. Peak memory is that of a process of its
own for each way.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from unittest import mock

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
from rich import box
from rich.console import Console
from rich.table import Table
from startup import TO_ITS_END, measured
from torch import Tensor

from b2bench.advantage import PromptAdvantage
from b2bench.backbones import stable_diffusion
from b2bench.backbones.shards import Threads
from b2bench.backbones.specs import find_backbone
from b2bench.backbones.stable_diffusion import StableDiffusion, load_pipeline
from b2bench.config.choices import name_sets
from b2bench.config.resolve import resolve
from b2bench.config.run import RunConfig
from b2bench.estimate.footprint import measure
from b2bench.registry import Registry
from b2bench.rollout import rollout, round_noise
from b2bench.seeding import generator
from b2bench.store.store import Store
from b2bench.training import trainer as trainer_module
from b2bench.training.peak import process_peak
from b2bench.training.trainer import Trainer
from b2bench.types import Trajectories, dtype_of
from b2bench.update import trained_steps, update
from b2bench.wrappers import selected

QUERIES = 48  # of a round
SAMPLES = 6  # of a prompt draw; trl draws a prompt for each, which costs as much
MINIBATCH = 8  # trajectories of an optimizer step: six steps a round
STEPS, GUIDANCE, RANK, LR = 20, 3.0, 4, 3e-4
PROMPTS = ["a cat riding a bike", "a dog playing chess", "a horse washing dishes", "a fox playing chess"]
console = Console()
K = TypeVar("K")


def reward(images: Tensor) -> Tensor:
    """Costs nothing, on both sides."""
    return (images[:, 0] - images[:, 2]).mean((1, 2))


# -- peers ------------------------------------------------------------------------------------------------


def trl_round(batch: int) -> Callable[[], None]:
    """A round of trl's trainer: QUERIES images, one pass over them in optimizer steps of MINIBATCH trajectories."""
    from accelerate import PartialState
    from trl import DDPOConfig, DDPOTrainer, DefaultDDPOStableDiffusionPipeline

    prompts = itertools.cycle(PROMPTS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        PartialState(cpu=True)  # its loggers refuse to speak before
        pipeline = DefaultDDPOStableDiffusionPipeline(find_backbone("pocket").source)
        config = DDPOConfig(
            mixed_precision="no",
            accelerator_kwargs={"cpu": True},
            sample_num_steps=STEPS,
            sample_eta=1.0,
            sample_guidance_scale=GUIDANCE,
            sample_batch_size=batch,
            sample_num_batches_per_epoch=QUERIES // batch,
            train_batch_size=MINIBATCH,
            train_gradient_accumulation_steps=1,
            train_learning_rate=LR,
            logdir=tempfile.mkdtemp(),
        )
        trainer = DDPOTrainer(config, lambda i, *_: (reward(i), {}), lambda: (next(prompts), {}), pipeline)
        pipeline.set_progress_bar_config(disable=True)
    return lambda: trainer.step(0, 0)


@dataclass
class Ours:
    """Rollout and update as a run makes them, with a reward that costs nothing and no store."""

    sampled_at_once: int = QUERIES
    trained_at_once: int = 0
    wrapper: str = "vanilla"
    fraction: float = 1.0  # of the steps
    round: int = 5  # the same in every turn: of ten, in which BPT's interval grows from 14 steps to 20, that with 17
    rounds: int = 10
    compiled: bool = False
    precision: str = "fp32"
    threads: int = 0  # 0: torch's number

    def __post_init__(self) -> None:
        self.policy = StableDiffusion(
            load_pipeline(find_backbone("pocket"), dtype_of(self.precision)),
            num_steps=STEPS,
            eta=1.0,
            guidance=GUIDANCE,
            threads=Threads(self.threads or torch.get_num_threads()),
        )
        self.policy.add_lora(RANK, 0)
        if self.compiled:
            fast, plain = torch.compile(self.policy.unet, dynamic=False), self.policy.unet
            self.policy.network = lambda *inputs: (plain if torch.is_grad_enabled() else fast)(*inputs)
        self.optimizer = torch.optim.AdamW(self.policy.parameters(), lr=LR, weight_decay=1e-4)
        self.algorithm = Registry("algorithm").get("ddpo")()
        self.policies = Registry("wrapper").get(self.wrapper)()
        self.advantage = PromptAdvantage(8, 5.0)

    def sample(self) -> Trajectories:
        found = rollout(
            self.policy,
            [PROMPTS[i % len(PROMPTS)] for i in range(QUERIES // SAMPLES)],
            samples=SAMPLES,
            leaves=self.policies.leaves(SAMPLES),
            interval=self.policies.interval(self.round, self.rounds, STEPS),
            noise=round_noise(self.policy, 0, self.round),
            micro_batch=self.sampled_at_once,
        )
        found.reward = reward(found.images)
        found.advantage = self.advantage(found.reward, found.prompts)
        return found

    def train(self, trajectories: Trajectories) -> None:
        update(
            self.policy,
            self.algorithm,
            self.optimizer,
            trajectories,
            selected(self.policies, trajectories, generator(0, "selection", self.round)),
            optimizer_steps=QUERIES // MINIBATCH,
            micro_batch=self.trained_at_once or self.sampled_at_once,
            max_grad_norm=1.0,
            generator=torch.Generator().manual_seed(self.round),
            timestep_fraction=self.fraction,
        )

    def __call__(self) -> None:
        self.train(self.sample())


AT_ONCE = 96  # transitions trained at once, the default; trl's trainer takes MINIBATCH
FAST = 0.4  # a timestep_fraction, which changes what is learned (docs/speed.md)
WAYS: dict[str, Callable[[], Callable[[], None]]] = {
    "trl, samples 48 at once, trains 8": lambda: trl_round(48),
    "trl, samples 8 at once, trains 8": lambda: trl_round(8),
    "b2bench, same settings, samples 48, trains 48": lambda: Ours(48),
    "b2bench, same settings, samples 48, trains 8": lambda: Ours(48, MINIBATCH),
    "b2bench, same settings, samples 8, trains 8": lambda: Ours(8),
    "b2bench, same settings, torch.compile for sampling": lambda: Ours(48, compiled=True),
    "b2bench, fp32, b2": lambda: Ours(48, AT_ONCE, wrapper="b2"),
    "b2bench, bf16, vanilla": lambda: Ours(48, AT_ONCE, precision="bf16"),
    "b2bench, bf16, b2": lambda: Ours(48, AT_ONCE, precision="bf16", wrapper="b2"),
    f"b2bench, fp32, timestep_fraction {FAST}, vanilla": lambda: Ours(48, AT_ONCE, fraction=FAST),
}


def peak_mb(way: str) -> float:
    """Peak memory of a process that makes two rounds, in 2^20 bytes."""
    command = [sys.executable, __file__, "peak", "--way", way]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    ended = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    return float(json.loads(ended.stdout.splitlines()[-1]))


def print_peak(way: str) -> None:
    play = WAYS[way]()
    play()
    play()
    print(json.dumps(process_peak()))


def memory() -> None:
    """Peak memory of a short run, from its start to its end, beside that of two rounds of trl's trainer."""
    checkout = Path(__file__).parents[1]
    found = {"import torch": measured(["-c", "import torch"], checkout)[1]}
    found |= {way: peak_mb(way) for way in WAYS if way.endswith("trains 8")}
    found[" ".join(TO_ITS_END[1:])] = measured(TO_ITS_END, checkout)[1]
    most = max(peak for way, peak in found.items() if way.startswith("trl"))
    table = Table("", "peak MiB", "times trl's most", box=box.SIMPLE)
    for way, peak in found.items():
        table.add_row(way, f"{peak:.0f}", f"{peak / most:.2f}")
    console.print(table)


def timed(play: Callable[[], Any]) -> float:
    start = time.perf_counter()
    play()
    return time.perf_counter() - start


def cpu_seconds(play: Callable[[], Any]) -> float:
    start = time.process_time()
    play()
    return time.process_time() - start


def in_turns(plays: dict[K, Callable[[], Any]], repetitions: int) -> dict[K, list[float]]:
    """Seconds of each, after one that does not count; the order turns round from one repetition to the next."""
    found: dict[K, list[float]] = defaultdict(list)
    for play in plays.values():
        play()
    for repetition in range(repetitions):
        for name in list(plays)[:: 1 if repetition % 2 else -1]:
            found[name].append(timed(plays[name]))
            console.log(f"{name}: {found[name][-1]:.2f} s", highlight=False)
    return found


def peers(repetitions: int) -> None:
    found = in_turns({name: make() for name, make in WAYS.items()}, repetitions)
    table = Table(
        "",
        "queries a second",
        "times trl's best",
        "peak MiB",
        box=box.SIMPLE,
        title=f"DDPO, {QUERIES} queries a round, T = {STEPS}, guidance, fp32, {QUERIES // MINIBATCH} optimizer steps",
    )
    for name, seconds in found.items():
        ratios = [b / s for b, s in zip(_best_of_turn(found), seconds, strict=True)]
        spread = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        table.add_row(name, f"{QUERIES / statistics.median(seconds):.2f}", spread, f"{peak_mb(name):.0f}")
    console.print(table)


def cores(repetitions: int, threads: int) -> None:
    """One run on one core and on several: shards of its batches side by side, each operation on one thread."""
    ways = {str(count): Ours(48, threads=count) for count in (1, threads)}
    found = in_turns(dict(ways), repetitions)
    table = Table("threads", "queries a second", "times one thread", box=box.SIMPLE)
    for name, seconds in found.items():
        ratios = [a / b for a, b in zip(found["1"], seconds, strict=True)]
        spread = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        table.add_row(name, f"{QUERIES / statistics.median(seconds):.2f}", spread)
    console.print(table)


def _best_of_turn(found: dict[str, list[float]]) -> list[float]:
    theirs = [seconds for name, seconds in found.items() if name.startswith("trl")]
    return [min(turn) for turn in zip(*theirs, strict=True)]


# -- floor ------------------------------------------------------------------------------------------------


def denoiser(policy: StableDiffusion, rows: int, backward: bool) -> Callable[[], None]:
    """One call of the UNet, LoRA included, on ``rows`` rows of guidance's batch, and backward to the adapter."""
    cond = policy.encode([PROMPTS[i % len(PROMPTS)] for i in range(rows)])
    latents = torch.randn(rows, *policy.latent_shape, dtype=policy.dtype)
    text = cond.embeddings().to(policy.dtype)
    both = (
        torch.cat([latents, latents]).to(memory_format=policy.layout),
        torch.cat([cond.empty.to(text).expand_as(text), text]),
    )
    timestep = policy.timesteps[torch.randint(policy.num_steps, (rows,))].repeat(2)

    def call() -> None:
        with torch.set_grad_enabled(backward):
            output = policy.unet(both[0], timestep, both[1]).sample
        if backward:
            torch.autograd.grad(output.sum(), policy.parameters())

    return call


def floor(repetitions: int, precision: str) -> None:
    """A vanilla DDPO round of the default run, all of it: reward, store and checkpoint too."""
    rows_tried = (8, 16, 24, 48, 96)
    with tempfile.TemporaryDirectory() as folder, timed_phases() as phases:
        run = config("ddpo", "vanilla", queries=240 * (repetitions + 1), precision=precision)
        trainer = Trainer(run, "measured", Store(Path(folder) / "b2bench.duckdb"), Path(folder) / "run")
        trainer.store.start_run(_row(run, trainer))
        n = run.settings.draws * run.settings.samples
        trained = n * trained_steps(run.settings.steps, run.settings.timestep_fraction)
        calls = {
            (kind, rows): denoiser(trainer.policy, rows, kind == "training")
            for kind in ("sampling", "training")
            for rows in rows_tried
        }
        for call in calls.values():
            call()
        trainer._round()
        found: dict[Any, list[float]] = defaultdict(list)
        for repetition in range(repetitions):
            for key in list(calls)[:: 1 if repetition % 2 else -1]:
                found[key].append(min(timed(calls[key]) for _ in range(3)))
            phases.clear()
            whole = timed(trainer._round)
            for kind in ("sampling", "training", "decoding"):
                found[kind].append(phases[kind])
            found["rest"].append(whole - phases["sampling"] - phases["training"])
    best = {
        kind: min((statistics.median(found[kind, rows]) / rows, rows) for rows in rows_tried)
        for kind in ("sampling", "training")
    }
    least = {
        "sampling": best["sampling"][0] * n * run.settings.steps,
        "training": best["training"][0] * trained,
    }
    taken = {kind: statistics.median(found[kind]) for kind in ("sampling", "training", "decoding", "rest")}
    taken["sampling"] -= taken["decoding"]
    bare, total = sum(least.values()), sum(taken.values())
    table = Table(
        "", "ms a query and step", "at rows", "bare calls (s)", "b2bench (s)", "of the bare round", box=box.SIMPLE
    )
    for kind, (seconds, rows) in best.items():
        numbers = (f"{1000 * seconds:.2f}", str(rows), f"{least[kind]:.2f}", f"{taken[kind]:.2f}")
        table.add_row(kind, *numbers, f"{taken[kind] / bare:.3f}")
    table.add_row("decoding images", "", "", "", f"{taken['decoding']:.2f}", f"{taken['decoding'] / bare:.3f}")
    table.add_row("reward, store, checkpoint", "", "", "", f"{taken['rest']:.2f}", f"{taken['rest'] / bare:.3f}")
    table.add_row("the round", "", "", f"{bare:.2f}", f"{total:.2f}", f"{total / bare:.3f}")
    console.print(table)
    print_limit(run, best, (n * run.settings.steps, trained), total)


def print_limit(run: RunConfig, best: dict[str, tuple[float, int]], calls: tuple[int, int], total: float) -> None:
    """Operations a second of the machine's matrix product, of the denoiser alone, and of the whole round."""
    footprint = measure(run)
    flops = {"sampling": footprint.call_flops, "training": footprint.training_flops}
    speeds = {"a matrix product, 1,024 x 1,024, fp32": matrix_product()}
    speeds |= {f"the denoiser in {kind}": flops[kind] / seconds for kind, (seconds, _) in best.items()}
    speeds["the round"] = sum(count * flops[kind] for kind, count in zip(flops, calls, strict=True)) / total
    limit = next(iter(speeds.values()))
    table = Table("", "GFLOP/s", "of the matrix product", box=box.SIMPLE)
    for name, speed in speeds.items():
        table.add_row(name, f"{speed / 1e9:.1f}", f"{speed / limit:.2f}")
    console.print(table)


def matrix_product(size: int = 1024) -> float:
    """Floating-point operations a second of a product of two square matrices, the best of ten."""
    left, right = torch.randn(size, size), torch.randn(size, size)
    return 2 * size**3 / min(timed(lambda: left @ right) for _ in range(10))


@contextlib.contextmanager
def timed_phases() -> Iterator[dict[str, float]]:
    """Seconds that rounds spend in sampling, decoding (a part of sampling) and training, while it is open."""
    found: dict[str, float] = defaultdict(float)

    def timing(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            start = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                found[name] += time.perf_counter() - start

        return call

    with (
        mock.patch.object(trainer_module, "rollout", timing("sampling", trainer_module.rollout)),
        mock.patch.object(trainer_module, "update", timing("training", trainer_module.update)),
        mock.patch.object(StableDiffusion, "decode", timing("decoding", StableDiffusion.decode)),
    ):
        yield found


# -- precision --------------------------------------------------------------------------------------------


def precision(repetitions: int) -> None:
    """The guided denoiser with its LoRA, 48 latents at once: fp32, bf16, and bf16 without backbones/half.py."""
    policies = {name: Ours(QUERIES, precision=name).policy for name in ("fp32", "bf16")}
    with mock.patch.object(stable_diffusion, "ease_half", return_value=False):
        policies["bf16, channels last, without half.py"] = Ours(QUERIES, precision="bf16").policy
    plays = {
        (name, backward): guided(policy, QUERIES, backward)
        for name, policy in policies.items()
        for backward in (False, True)
    }
    found = in_turns(plays, repetitions)
    table = Table("", "forward, ms a row", "times fp32", "forward and backward", "times fp32", box=box.SIMPLE)
    middle = {key: 1000 * statistics.median(seconds) / QUERIES for key, seconds in found.items()}
    for name in policies:
        cells = ((f"{middle[name, b]:.2f}", f"{middle[name, b] / middle['fp32', b]:.2f}") for b in (False, True))
        table.add_row(name, *itertools.chain(*cells))
    console.print(table)


def guided(policy: StableDiffusion, rows: int, backward: bool) -> Callable[[], None]:
    """A noise prediction as rollouts and updates call it."""
    cond = policy.encode([PROMPTS[i % len(PROMPTS)] for i in range(rows)])
    latents, step = torch.randn(rows, *policy.latent_shape), torch.randint(policy.num_steps, (rows,))

    def call() -> None:
        with torch.set_grad_enabled(backward):
            noise = policy.noise(cond, latents, step)
        if backward:
            torch.autograd.grad(noise.sum(), policy.parameters())

    return call


# -- cells ------------------------------------------------------------------------------------------------


def config(algorithm: str, wrapper: str, **values: Any) -> RunConfig:
    queries = values.pop("queries", 720)
    plain: dict[str, Any] = {"eval_images": 1, "eval_train_images": 0, "eval_points": 2}
    return resolve(
        algorithm=algorithm,
        wrapper=wrapper,
        reward="clipscore",
        backbone="pocket",
        queries=queries,
        seed=0,
        values=plain | values,
    )


def rounds_of(run: RunConfig) -> list[dict[str, Any]]:
    """The rounds of a whole run, reward, store and checkpoints included.

    ``seconds`` are the CPU's: of one thread they are those of the clock on an idle machine.
    """
    seconds: list[float] = []

    def timed_round(self: Trainer) -> None:
        start = time.process_time()
        whole(self)
        seconds.append(time.process_time() - start)

    whole = Trainer._round
    with mock.patch.object(Trainer, "_round", timed_round), tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder) / "b2bench.duckdb")
        trainer = Trainer(run, "measured", store, Path(folder) / "run")
        store.start_run(_row(run, trainer))
        trainer.run()
        return [{**row, "seconds": spent} for row, spent in zip(store.rounds("measured"), seconds, strict=True)]


def _row(run: RunConfig, trainer: Trainer) -> dict[str, Any]:
    from b2bench.training.provenance import run_row

    (trainer.folder).mkdir()
    return run_row(run, "measured", None, trainer.policy)


def cells() -> None:
    # the paper's: not every other algorithm goes with every other wrapper
    algorithms, wrappers = (name_sets(kind, Registry(kind))["paper"]() for kind in ("algorithm", "wrapper"))
    names = list(itertools.product(algorithms, wrappers))
    table = Table(
        "algorithm", "wrapper", "queries a CPU second", "times ddpo vanilla", "calls a query", "trained", box=box.SIMPLE
    )
    rows = []
    for algorithm, wrapper in names:
        run = config(algorithm, wrapper, queries=240, draws=12, advantage_history=0)
        found = rounds_of(run)[1:]  # the first warms up
        seconds, queries = sum(r["seconds"] for r in found), found[-1]["queries"] - 60
        sampling, training = (sum(r[f"denoiser_calls_{k}"] for r in found) for k in ("sampling", "training"))
        rows.append((algorithm, wrapper, queries / seconds, sampling / queries, training / queries))
        console.log(f"{algorithm} {wrapper}: {queries / seconds:.2f} queries a CPU second", highlight=False)
    base = next(rate for algorithm, wrapper, rate, *_ in rows if (algorithm, wrapper) == ("ddpo", "vanilla"))
    for algorithm, wrapper, rate, sampling, training in rows:
        table.add_row(algorithm, wrapper, f"{rate:.2f}", f"{rate / base:.2f}", f"{sampling:.1f}", f"{training:.1f}")
    console.print(table)


# -- growth -----------------------------------------------------------------------------------------------


def growth() -> None:
    table = Table("what grows", "from", "to", "seconds a query, times", box=box.SIMPLE)

    def seconds(**values: Any) -> float:
        first, *found = rounds_of(config("ddpo", "b2", **{"queries": 180, "draws": 12} | values))
        return sum(r["seconds"] for r in found) / (found[-1]["queries"] - first["queries"])

    for name, few, many in (
        ("rounds", {"queries": 180}, {"queries": 600}),
        ("prompt draws a round", {"draws": 12, "queries": 180}, {"draws": 48, "queries": 720}),
        ("leaves", {"samples": 3, "draws": 20}, {"samples": 10, "draws": 6}),
        ("denoising steps", {"steps": 10}, {"steps": 40}),
    ):
        one, two = seconds(**few), seconds(**many)
        key = next(iter(few))
        table.add_row(name, str(few[key]), str(many[key]), f"{two / one:.2f}")
        console.log(f"{name}: {one:.3f} to {two:.3f} s a query", highlight=False)
    for kind, small, large in stored_rows(10_000, 1_000_000):
        table.add_row(f"rows in the store: {kind}", "10,000", "1,000,000", f"{large / small:.2f}")
    console.print(table)


def stored_rows(*sizes: int) -> list[tuple[str, float, float]]:
    """Seconds of what a round does with the store, beside so many query rows of other runs."""
    small, large = (_store_seconds(size) for size in sizes)
    return [(kind, small[kind], large[kind]) for kind in small]


def _store_seconds(size: int, per_run: int = 10_000) -> dict[str, float]:
    run = config("ddpo", "vanilla")
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder) / "b2bench.duckdb")
        row = _row(run, Trainer(run, "measured", store, Path(folder) / "run"))
        store.start_run(row)
        for other in range(size // per_run):
            store.start_run(row | {"run_id": f"other-{other}", "name": f"other-{other}", "seed": other})
            store.record_round(f"other-{other}", _round_row(0, per_run), _query_rows(per_run))

        def record(round: int) -> None:
            store.record_round("measured", _round_row(round, 240 * (round + 1)), _query_rows(240, round))

        taken = [cpu_seconds(lambda k=k: record(k)) for k in range(9)]
        return {
            "record a round": statistics.median(taken),
            "rewind a round": cpu_seconds(lambda: store.rewind("measured", 8, 8 * 240)),
        }


def _round_row(round: int, queries: int) -> dict[str, Any]:
    zero = dict.fromkeys(("loss", "ratio_mean", "approx_kl", "clip_fraction", "grad_norm", "seconds", "peak_mb"), 0.0)
    count = {"kept": 1, "optimizer_steps": 1, "denoiser_calls_sampling": 1, "denoiser_calls_training": 1}
    return {"round": round, "queries": queries, "interval_start": 0, "interval_stop": 20, **count, **zero}


def _query_rows(n: int, round: int = 0) -> list[dict[str, Any]]:
    return [
        {
            "query_index": round * n + i,
            "round": round,
            "prompt": PROMPTS[i % len(PROMPTS)],
            "group_id": i // 5,
            "leaf": i % 5,
            "reward": 0.5,
            "scores": {"clipscore": 0.5},
            "advantage": 0.0,
            "kept": True,
        }
        for i in range(n)
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["peers", "floor", "cells", "growth", "cores", "precision", "memory", "peak"])
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2, help="of cores, beside one")
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32", help="of floor")
    parser.add_argument("--way", default="", help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.what == "peers":
        peers(options.repetitions)
    elif options.what == "cores":
        cores(options.repetitions, options.threads)
    elif options.what == "memory":
        memory()
    elif options.what == "peak":
        print_peak(options.way)
    elif options.what == "floor":
        floor(options.repetitions, options.precision)
    elif options.what == "precision":
        precision(options.repetitions)
    elif options.what == "cells":
        cells()
    else:
        growth()


if __name__ == "__main__":
    main()
