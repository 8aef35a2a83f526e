"""Registered algorithms under registered wrappers, each of both at least twice, from the first query to the saved
weights; test_toy.py has all cells.

A new plugin is tested with no new line here.
"""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest
import torch
from b2bench.rewards.clipscore import CLIPScore
from safetensors.torch import load_file
from torch import Tensor

from b2bench.backbones.stable_diffusion import StableDiffusion
from b2bench.config.choices import PAPER
from b2bench.config.resolve import resolve
from b2bench.config.run import RunConfig
from b2bench.errors import Refused, RunFailed
from b2bench.minibatches import tree_share
from b2bench.registry import Registry
from b2bench.store.store import Store
from b2bench.training import runs, trainer
from b2bench.training.listener import Silent
from b2bench.training.summary import Summary
from b2bench.training.trainer import query_noise
from b2bench.version import BENCHMARK_VERSION
from b2bench.wrappers import B2, Extremes, Independent, edges_of

# Two draws of three samples in the first round, one in the second: the budget leaves no more.
DRAWS, SAMPLES, STEPS, TRANSITIONS = 2, 3, 3, 9
ROUNDS = [6, 3]  # queries of each round
QUERIES = sum(ROUNDS)
SETTINGS = {
    "draws": DRAWS,
    "samples": SAMPLES,
    "steps": STEPS,
    "transitions_per_step": TRANSITIONS,
    "lora_rank": 2,
    "eval_points": 2,
    "eval_images": 2,
    "eval_train_images": 0,
    "sample_images": 0,  # a run that takes a first evaluation over draws them again; STARTED and RESUMED have some
}
# Each algorithm under two wrappers, each wrapper with two algorithms; tests/contract/test_toy.py has all of them
CELLS = [
    (algorithm, wrapper)
    for algorithm in Registry("algorithm").names()
    for wrapper in Registry("wrapper").names()
    if wrapper in ("vanilla", "b2") or algorithm in ("ddpo", "dpo")
]


DEFAULTS = {"pg": {"lr": 1e-3}, "dpok": {"kl_weight": 0.1}}
"""What defaults were when :data:`NUMBERS` was written: another default is no other number of the same cell."""
NUMBERS = Path(__file__).with_name("numbers.json")
"""What these cells gave when the benchmark version was raised last."""


@dataclass
class Finished:
    """A run that came to its end, and what the store and the folder hold of it."""

    summary: Summary
    store: Store
    folder: Path

    @cached_property
    def run(self) -> dict[str, Any]:
        return self.store.find_run(self.summary.run_id)

    @cached_property
    def rounds(self) -> list[dict[str, Any]]:
        return self.store.rounds(self.summary.run_id)

    @cached_property
    def queries(self) -> list[dict[str, Any]]:
        return self.store.sql("SELECT * FROM queries WHERE run_id = ? ORDER BY query_index", [self.summary.run_id])

    @property
    def weights(self) -> Path:
        return Path(self.summary.weights)

    def results(self) -> dict[str, list[dict[str, Any]]]:
        """Every row, without what differs between two runs of the same thing: their names, also that of the run whose
        first evaluation was taken over, and the clock."""
        tables = {
            "queries": self.queries,
            "rounds": self.rounds,
            "evals": [
                row | {"settings": {key: value for key, value in row["settings"].items() if key != "reused_from"}}
                for row in self.store.evals(self.summary.run_id)
            ],
            "images": self.store.sql(
                "SELECT * FROM images WHERE run_id = ? ORDER BY queries, prompt, noise_index", [self.summary.run_id]
            ),
        }
        own = {"run_id", "seconds", "peak_mb"}
        # As text, where nan equals nan; repr of a float is exact.
        return {
            table: [{name: repr(value) for name, value in row.items() if name not in own} for row in rows]
            for table, rows in tables.items()
        }


class Hearing(Silent):
    """A listener that keeps what it is warned of."""

    def __init__(self) -> None:
        self.heard: list[str] = []

    def warned(self, text: str) -> None:
        self.heard.append(text)


def choose(
    algorithm: str, wrapper: str, seed: int = 0, queries: int = QUERIES, reward: str = "clipscore", **values: Any
) -> RunConfig:
    return resolve(
        algorithm=algorithm,
        wrapper=wrapper,
        reward=reward,
        backbone="pocket",
        prompts="template1",
        queries=queries,
        seed=seed,
        values={**SETTINGS, **DEFAULTS.get(algorithm, {}), **values},
    )


def finishing(folder: Path) -> Callable[..., Finished]:
    """Return what starts a run in a folder and waits for its end."""
    store = Store(folder / "b2bench.duckdb")

    def start(config: RunConfig, listener: Any = None) -> Finished:
        summary = runs.start(config, store, folder / "runs", None, listener or Silent())
        return Finished(summary, store, folder / "runs" / summary.run_id)

    return start


@pytest.fixture
def finish(tmp_path: Path) -> Callable[..., Finished]:
    """Start a run in a store of the test's own."""
    return finishing(tmp_path)


@pytest.fixture(scope="module")
def finish_cell(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Finished]:
    """Start a run in the store of all cells, as a sweep does: the pretrained model is measured once."""
    return finishing(tmp_path_factory.mktemp("cells"))


@pytest.fixture
def scored(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Images of each call of the reward."""
    calls: list[int] = []
    original = CLIPScore.__call__

    def counted(self: CLIPScore, images: Tensor, prompts: Sequence[str]) -> Tensor:
        assert len(images) == len(prompts)
        assert images.shape[1:] == (3, 64, 64)
        calls.append(len(images))
        return original(self, images, prompts)

    monkeypatch.setattr(CLIPScore, "__call__", counted)
    return calls


def expected_calls(wrapper: str, config: RunConfig, round: int) -> int:
    leaves = config.wrapper.leaves(SAMPLES)
    interval = config.wrapper.interval(round, config.rounds, STEPS)
    rollouts, start = config.draws(round) * SAMPLES, interval.start
    shared = 0
    if (edges := edges_of(config.wrapper, SAMPLES, interval)) is not None:
        shared = config.draws(round) * sum(len(edges) - len(set(column)) for column in edges.T.tolist())
    return rollouts // leaves * start + rollouts * (STEPS - start) - shared


@pytest.mark.slow
@pytest.mark.parametrize(("algorithm", "wrapper"), CELLS)
def test_cell(
    algorithm: str, wrapper: str, finish_cell: Callable[..., Finished], scored: list[int], pocket_pipeline: Any
) -> None:
    refused = {
        ("dpo", "noise_weighted"): "on pairs has none",
        ("dpo", "tree"): "on pairs has none",
        ("draft1", "b2"): "try vanilla",
    }
    if reason := refused.get((algorithm, wrapper)):
        with pytest.raises(Refused, match=reason):
            choose(algorithm, wrapper)
        return
    config = choose(algorithm, wrapper)
    found = finish_cell(config)
    assert (found.run["status"], found.run["error"]) == ("done", None)
    assert (found.run["algorithm"], found.run["wrapper"], found.run["budget"]) == (algorithm, wrapper, QUERIES)

    # Every query on a training image is a row, and nothing else is.
    evals = [row for row in found.store.evals(found.summary.run_id) if row["metric"] == "clipscore"]
    assert [row["n"] for row in evals] == [2, 2]
    measured = [row["n"] for row in evals if "reused_from" not in row["settings"]]
    queries, rounds = found.queries, found.rounds
    assert sum(scored) == len(queries) + sum(measured)
    if config.settings.updates_per_round is None:
        assert scored == [*measured[:-1], *ROUNDS, 2]
    assert [row["query_index"] for row in queries] == list(range(QUERIES))
    assert [row["round"] for row in queries] == [number for number, n in enumerate(ROUNDS) for _ in range(n)]
    assert [row["group_id"] for row in queries] == [i // 3 for n in ROUNDS for i in range(n)]
    assert [row["leaf"] for row in queries] == [0, 1, 2] * (QUERIES // 3)
    assert all(len({row["prompt"] for row in queries[i : i + 3]}) == 1 for i in range(0, QUERIES, 3))
    assert {row["prompt"] for row in queries} <= set(config.prompts.train)
    assert [row["queries"] for row in rounds] == [ROUNDS[0], QUERIES] == [ROUNDS[0], found.summary.queries]

    for row in rounds:
        kept = [query for query in queries if query["round"] == row["round"] and query["kept"]]
        assert row["kept"] == len(kept)
        if isinstance(config.wrapper, Extremes) and not config.algorithm.pairs:  # random2 keeps as many as b2 would
            branches: dict[int, list[float]] = {}
            for query in queries:
                if query["round"] == row["round"]:
                    branches.setdefault(query["group_id"], []).append(query["advantage"])
            best, worst = config.wrapper.best, config.wrapper.worst
            assert len(kept) == sum((max(of) >= best) + (min(of) < worst) for of in branches.values())
        interval = config.wrapper.interval(row["round"], 2, STEPS)
        assert (row["interval_start"], row["interval_stop"]) == (interval.start, interval.stop)
        edges = edges_of(config.wrapper, SAMPLES, interval)
        share = 1 if edges is None else tree_share(config.algorithm, edges)
        steps = max(1, round(len(kept) * len(interval) * share / TRANSITIONS))
        if config.settings.updates_per_round:  # a step on each sample of its policy, whose ratio is 1
            assert bool(kept) <= row["optimizer_steps"] <= config.draws(row["round"])
            assert (row["approx_kl"] < 1e-9 or algorithm == "draft1") if kept else row["optimizer_steps"] == 0
        else:
            assert row["optimizer_steps"] == (steps if kept else 0)
        assert row["denoiser_calls_sampling"] == expected_calls(wrapper, config, row["round"])
        assert (row["denoiser_calls_training"] > 0) == bool(kept)
    if (
        isinstance(config.wrapper, Independent)
        and not isinstance(config.wrapper, Extremes)
        and not config.algorithm.pairs
    ):
        assert all(query["kept"] for query in queries)

    same_numbers(f"{algorithm}/{wrapper}", numbers_of(found))

    # The weights are those of an adapter that has learned, if there was anything to learn from.
    assert found.weights.is_file()
    learned = any(row["kept"] for row in rounds)
    moved = any(
        bool(tensor.any()) for name, tensor in load_file(found.weights).items() if "lora_B" in name or "up" in name
    )
    assert moved == learned
    other = StableDiffusion(copy.deepcopy(pocket_pipeline), num_steps=STEPS, eta=1.0, guidance=config.settings.guidance)
    other.load_lora(found.weights)
    cond, x, step = other.encode(["a cat", "a dog"]), torch.ones(2, *other.latent_shape), torch.tensor([0, 2])
    with torch.no_grad():
        adapted = other.noise(cond, x, step)
        with other.reference():
            assert torch.equal(other.noise(cond, x, step), adapted) != learned


def numbers_of(found: Finished) -> dict[str, list[float]]:
    """Return rewards and gradients of a run, and what it learned: the adapter's second factors, which begin at 0, as
    their norm and four projections of fixed directions.
    """
    tensors = load_file(found.weights)
    learned = torch.cat([tensors[name].double().flatten() for name in sorted(tensors) if "lora_B" in name])
    directions = torch.randn(4, len(learned), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    adapter = [float(learned.norm()), *(directions @ learned).tolist()]
    return {
        "rewards": [row["reward"] for row in found.queries],
        "gradients": [row["grad_norm"] or 0.0 for row in found.rounds],
        "adapter": adapter,
    }


def same_numbers(cell: str, found: dict[str, list[float]]) -> None:
    """Compare with what was written down for this benchmark version; a cell of a new plugin has nothing there yet.

    Another order of sums, as another CPU has it, moves rewards by 1e-6, gradients by 1e-5 and the adapter by 1e-3 of
    its size (measured with and without oneDNN). A learning rate that is 1% higher moves the adapter by 1%.
    """
    known = json.loads(NUMBERS.read_text(encoding="utf-8"))
    if os.environ.get("B2BENCH_GOLDEN"):  # with -n0: every cell writes the whole file
        rounded = {name: [float(f"{value:.7g}") for value in values] for name, values in found.items()}
        of_version = known["cells"] if known["benchmark_version"] == BENCHMARK_VERSION else {}
        known = {
            "benchmark_version": BENCHMARK_VERSION,
            "cells": {cell: rounded} | of_version,
        }  # never over a known one
        lines = [f"  {json.dumps(name)}: {json.dumps(values)}" for name, values in sorted(known["cells"].items())]
        text = f'{{"benchmark_version": {BENCHMARK_VERSION}, "cells": {{\n' + ",\n".join(lines) + "\n}}\n"
        NUMBERS.write_text(text, encoding="utf-8")
    assert known["benchmark_version"] == BENCHMARK_VERSION, f"B2BENCH_GOLDEN=1 writes {NUMBERS.name} anew"
    if (wanted := known["cells"].get(cell)) is None:
        return
    said = f"{cell} gives other numbers than benchmark version {BENCHMARK_VERSION} did: raise it, or find out why"
    assert found["rewards"] == pytest.approx(wanted["rewards"], abs=1e-4), said
    assert found["gradients"] == pytest.approx(wanted["gradients"], rel=1e-3, abs=1e-6), said
    assert found["adapter"] == pytest.approx(wanted["adapter"], abs=4e-3 * wanted["adapter"][0]), said


def test_the_numbers_are_of_these_cells() -> None:
    known = json.loads(NUMBERS.read_text(encoding="utf-8"))["cells"]
    assert {f"{algorithm}/{wrapper}" for algorithm in PAPER for wrapper in ("vanilla", "b2")} <= known.keys()
    assert {f"{algorithm}/{wrapper}" for algorithm, wrapper in CELLS} >= known.keys()
    assert len(known) >= 37


# -- the same again ---------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_same_seed_gives_the_same_rows_and_weights(finish: Callable[..., Finished]) -> None:
    algorithm, wrapper = "dpok", "b2"
    torch.manual_seed(1)
    one = finish(choose(algorithm, wrapper))
    torch.manual_seed(2)  # a run draws nothing from the global generator
    two, other = finish(choose(algorithm, wrapper)), finish(choose(algorithm, wrapper, seed=1))
    assert one.summary.run_id != two.summary.run_id
    assert one.results() == two.results()
    assert one.weights.read_bytes() == two.weights.read_bytes()
    assert one.run["config_hash"] == two.run["config_hash"] == other.run["config_hash"]
    assert one.results()["queries"] != other.results()["queries"]
    assert one.weights.read_bytes() != other.weights.read_bytes()


@pytest.mark.slow
def test_wrappers_that_are_switched_off_train_as_vanilla_bit_for_bit(finish: Callable[..., Finished]) -> None:
    one = {"samples": 1, "draws": 4, "queries": 8, "steps": 3}
    vanilla = finish(choose("ddpo", "vanilla", **one))
    assert any(row["kept"] for row in vanilla.rounds)
    for wrapper, switches in (("bpt", {"tau_start": 1.0}), ("bs", {"keep": "all"})):
        found = finish(choose("ddpo", wrapper, **one, **switches))
        assert found.results() == vanilla.results(), wrapper
        assert found.weights.read_bytes() == vanilla.weights.read_bytes(), wrapper


@pytest.mark.slow
def test_cells_differ_in_one_thing(finish: Callable[..., Finished]) -> None:
    """Prompts are the same in every cell of a seed; evaluation noise and the pretrained model in every run."""
    cells = (("ddpo", "vanilla", 0), ("dpo", "b2", 0), ("dpo", "b2", 1))
    hearing = Hearing()
    runs = [finish(choose(*cell, queries=9, steps=3), hearing) for cell in cells]
    assert [text for text in hearing.heard if "tau" in text] == 2 * [
        f"b2: {B2().notice(choose('dpo', 'b2', queries=9).rounds, 3)}"
    ]
    prompts = [[row["prompt"] for row in run.queries] for run in runs]
    assert prompts[0] == prompts[1] != prompts[2]
    for table in ("evals", "images"):
        first = [[row for row in run.results()[table] if row["queries"] == "0"] for run in runs]
        assert first[0] == first[1] == first[2] != []


# -- the first evaluation, taken over ---------------------------------------------------------------------

STARTED = {"steps": 3, "eval_images": 9, "eval_train_images": 2, "kl_images": 1, "sample_images": 8}


@pytest.mark.slow
def test_a_run_that_takes_the_first_evaluation_over_ends_as_one_that_makes_it(
    finish: Callable[..., Finished], scored: list[int], tmp_path: Path
) -> None:
    first = finish(choose("ddpo", "vanilla", **STARTED))
    made = len(scored)
    taken = finish(choose("dpok", "b2", seed=1, **STARTED))
    assert scored[made:][0] == ROUNDS[0]  # of a round: nothing was evaluated before it
    third = finish(choose("pg", "vanilla", **STARTED, lora_rank=4, lr=1e-4))
    store = Store(tmp_path / "alone.duckdb")
    summary = runs.start(choose("dpok", "b2", seed=1, **STARTED), store, tmp_path / "alone", None, Silent())
    own = Finished(summary, store, tmp_path / "alone" / summary.run_id)
    assert taken.results() == own.results()
    assert taken.weights.read_bytes() == own.weights.read_bytes()

    def sources(run: Finished) -> set[tuple[int, str | None]]:
        evals = run.store.evals(run.summary.run_id)
        return {(row["queries"], row["settings"].get("reused_from")) for row in evals}

    whose = first.summary.run_id
    assert sources(first) == sources(own) == {(0, None), (QUERIES, None)}
    assert sources(taken) == sources(third) == {(0, whose), (QUERIES, None)}
    # its files are its own, of the same images
    query = "SELECT path FROM images WHERE run_id = ? AND queries = 0 AND path IS NOT NULL"
    files = [row["path"] for row in store.sql(query, [summary.run_id])]
    assert len(files) == 8
    for name in files:
        assert (taken.folder / name).read_bytes() == (own.folder / name).read_bytes()


@pytest.mark.slow
def test_a_plugin_reward_whose_file_has_changed_is_measured_again(
    finish: Callable[..., Finished], tmp_path: Path
) -> None:
    file = tmp_path / "mine.py"
    source = (
        "from b2bench.registry import reward\n\n\n@reward\nclass Mine:\n    properties = {}\n\n"
        "    def __call__(self, images, prompts):\n        return images.flatten(1).mean(1)\n"
    )
    starts = []
    for text in (source, source, source + "# as before\n"):
        file.write_text(text)
        config = resolve(
            algorithm="pg", wrapper="vanilla", reward="mine", backbone="pocket", prompts="template1", queries=3, seed=0,
            values={**SETTINGS, "steps": 1, "draws": 1, "kl_images": 0, "sample_images": 2}, plugins=(file,),
        )  # fmt: skip
        run = finish(config)
        starts.append(next(row["settings"].get("reused_from") for row in run.store.evals(run.summary.run_id)))
    assert [start is None for start in starts] == [True, False, True]


# -- resuming ---------------------------------------------------------------------------------------------


class Stop(Exception):
    """What kills a run in a test."""


class Interrupting(Silent):
    """A listener that stops a run after its first round."""

    def round_done(self, round: int, *_: Any) -> None:
        raise KeyboardInterrupt


# Three rounds with a history of prompts, a second network, and an evaluation after the second round.
RESUMED = {"queries": 18, "draws": 2, "steps": 3, "eval_points": 3, "value_net": True, "sample_images": 2}


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], bytes]:
    folder = tmp_path_factory.mktemp("uninterrupted")
    store = Store(folder / "b2bench.duckdb")
    summary = runs.start(choose("dpok", "bpt", **RESUMED), store, folder / "runs", None, Silent())
    found = Finished(summary, store, folder / "runs" / summary.run_id)
    assert len(found.rounds) == 3
    assert {row["queries"] for row in store.evals(summary.run_id)} == {0, 12, 18}
    return found.results(), found.weights.read_bytes()


@pytest.mark.slow
def test_a_run_that_is_interrupted_resumes_to_the_same_rows_and_weights(
    uninterrupted: Any, finish: Callable[..., Finished], tmp_path: Path
) -> None:
    with pytest.raises(KeyboardInterrupt):
        finish(choose("dpok", "bpt", **RESUMED), Interrupting())
    store = Store(tmp_path / "b2bench.duckdb")
    [run] = store.runs()
    assert run["status"] == "interrupted"
    assert len(store.rounds(run["run_id"])) == 1
    check_resumed(store, run["run_id"], tmp_path, uninterrupted)


@pytest.mark.slow
def test_a_noisy_run_of_many_updates_a_round_resumes_to_the_same_rows_and_weights(
    finish: Callable[..., Finished], tmp_path: Path
) -> None:
    """What a draw brings, by which the next round is cut, is in the checkpoint; noise of a reward is drawn again."""
    values = {name: value for name, value in RESUMED.items() if name != "value_net"}
    values |= {"transitions_per_step": 5, "reward_noise": 0.1}
    whole = finish(choose("pg", "b2", **values))
    with pytest.raises(KeyboardInterrupt):
        finish(choose("pg", "b2", **values), Interrupting())
    store = Store(tmp_path / "b2bench.duckdb")
    [run] = [row for row in store.runs() if row["status"] == "interrupted"]
    check_resumed(store, run["run_id"], tmp_path, (whole.results(), whole.weights.read_bytes()))


@pytest.mark.slow
@pytest.mark.parametrize("when", ["before the first checkpoint", "between a round's rows and its checkpoint"])
def test_a_run_that_is_killed_at_a_bad_moment_writes_no_row_twice(
    when: str, uninterrupted: Any, finish: Callable[..., Finished], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save, last = trainer.save_checkpoint, 0 if "first" in when else 1

    def failing(folder: Path, round: int, state: dict[str, Any]) -> Path:
        if round > last:
            raise Stop
        return save(folder, round, state)

    with monkeypatch.context() as patch:
        patch.setattr(trainer, "save_checkpoint", failing)
        with pytest.raises(RunFailed, match="Stop"):
            finish(choose("dpok", "bpt", **RESUMED))
    store = Store(tmp_path / "b2bench.duckdb")
    [run] = store.runs()
    assert run["status"] == "failed"
    assert "Stop" in run["error"]
    assert len(store.rounds(run["run_id"])) == last + 1
    check_resumed(store, run["run_id"], tmp_path, uninterrupted)


def check_resumed(store: Store, run_id: str, folder: Path, uninterrupted: tuple[dict[str, Any], bytes]) -> None:
    torch.manual_seed(5)
    summary = runs.resume(run_id, store, folder / "runs", Silent())
    found = Finished(summary, store, folder / "runs" / run_id)
    assert (found.run["status"], found.run["error"]) == ("done", None)
    rows, weights = uninterrupted
    results = found.results()
    for table, expected in rows.items():
        assert results[table] == expected, table
    assert found.weights.read_bytes() == weights


# -- noise on the reward, and a sparse one ----------------------------------------------------------------


@pytest.mark.slow
def test_noise_is_on_every_training_query_and_on_no_evaluation(
    finish: Callable[..., Finished], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(CLIPScore, "__call__", lambda self, images, prompts: torch.full((len(images),), 0.25))
    found = finish(choose("pg", "vanilla", steps=1, reward_noise=0.5))
    rewards = [row["reward"] for row in found.queries]
    expected = [query_noise(0, 0, 0, ROUNDS[0]), query_noise(0, 1, *ROUNDS)]
    assert rewards == (0.25 + 0.5 * torch.cat(expected)).tolist()
    assert len(set(rewards)) == QUERIES
    assert {json.loads(row["scores"])["clipscore"] for row in found.queries} == {0.25}  # without the noise
    assert any(row["advantage"] for row in found.queries)  # with it
    evaluated = [row["value"] for row in found.store.evals(found.summary.run_id) if row["metric"] == "clipscore"]
    assert evaluated == [0.25, 0.25]
    assert {row["score"] for row in found.store.sql("SELECT score FROM images")} == {0.25}


def test_noise_of_queries_is_standard_normal_and_their_own() -> None:
    draws = query_noise(0, 3, 0, 10_000)
    assert abs(draws.mean()) < 4 / len(draws) ** 0.5
    assert abs(draws.var() - 1) < 4 * (2 / len(draws)) ** 0.5
    assert torch.equal(query_noise(0, 3, 600, 5), draws[600:605])  # whatever stands before it in a batch
    others = [query_noise(*key, 0, 100) for key in ((0, 3), (1, 3), (0, 4))]
    assert len({float(noise[0]) for noise in others}) == 3
    assert len(set(draws.tolist())) > 9_990


@pytest.mark.slow
def test_without_noise_none_is_drawn(finish: Callable[..., Finished], monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> Tensor:
        raise AssertionError("noise was drawn")

    monkeypatch.setattr(trainer, "query_noise", refuse)
    found = finish(choose("pg", "vanilla", steps=1, queries=3, draws=1))
    assert [json.loads(row["scores"])["clipscore"] for row in found.queries] == [row["reward"] for row in found.queries]
    with pytest.raises(RunFailed, match="noise was drawn"):
        finish(choose("pg", "vanilla", steps=1, queries=3, draws=1, reward_noise=0.1))


@pytest.mark.slow
def test_a_run_on_the_binary_reward(finish: Callable[..., Finished]) -> None:
    found = finish(choose("ddpo", "vanilla", reward="success", steps=10, draws=3, queries=15))
    assert (found.run["status"], found.run["reward"]) == ("done", "success")
    rewards = [row["reward"] for row in found.queries]
    assert set(rewards) == {0.0, 1.0}
    metrics = {row["metric"] for row in found.store.evals(found.summary.run_id)}
    assert {"success", "clipscore", "clipscore_heldout"} <= metrics
    # A prompt whose images all got the same answer teaches nothing. In the first round; later its history counts.
    first = [row for row in found.queries if row["round"] == 0]
    for row in first:
        same = {other["reward"] for other in first if other["prompt"] == row["prompt"]}
        assert (row["advantage"] == 0) == (len(same) == 1)


# -- what ends a run --------------------------------------------------------------------------------------


def after(calls: int, answer: Callable[[Tensor], Any]) -> Callable[..., Any]:
    """A reward that is sound for ``calls`` calls, and then is not. The first call is an evaluation."""
    made: list[int] = []

    def reward(self: CLIPScore, images: Tensor, prompts: Sequence[str]) -> Any:
        made.append(len(images))
        scores = images.mean((1, 2, 3))
        return scores if len(made) <= calls else answer(scores)

    return reward


BAD: dict[str, tuple[Callable[[Tensor], Any], str]] = {
    "nan": (
        lambda scores: scores * torch.tensor([float("nan")] + [1.0] * (len(scores) - 1)),
        "1 scores that are not finite",
    ),
    "infinite": (lambda scores: scores / 0, "not finite"),
    "column": (lambda scores: scores[:, None], "shape"),
    "one too few": (lambda scores: scores[1:], "shape"),
    "scalar": (lambda scores: scores.mean(), "shape"),
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("bad", "calls"),
    [*((bad, 1) for bad in BAD), ("nan", 0), ("one too few", 0), ("column", 0), ("nan", 2)],
    ids=lambda value: ("at the start", "in round 0", "in round 1")[value] if isinstance(value, int) else value,
)
def test_a_broken_reward_ends_the_run_with_its_reason(
    bad: str, calls: int, finish: Callable[..., Finished], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer, reason = BAD[bad]
    monkeypatch.setattr(CLIPScore, "__call__", after(calls, answer))
    with pytest.raises(RunFailed, match=reason):
        finish(choose("pg", "vanilla", steps=2, draws=1, queries=6, eval_images=2))
    store = Store(tmp_path / "b2bench.duckdb")
    [run] = store.runs()
    assert run["status"] == "failed"
    assert reason in run["error"]
    assert run["finished"] is not None
    done = max(calls - 1, 0)
    assert len(store.rounds(run["run_id"])) == done
    assert store.sql("SELECT count(*) AS n FROM queries")[0]["n"] == 3 * done
    # No number in the results comes of a broken answer.
    values = [row["value"] for row in store.evals(run["run_id"]) if row["metric"] == "clipscore"]
    assert len(values) == min(calls, 1)
    assert all(0 < value < 1 for value in values)


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", ["ddpo", "dpo"])
def test_a_reward_that_tells_nothing_apart_trains_nothing_and_ends_well(
    algorithm: str, finish: Callable[..., Finished], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(CLIPScore, "__call__", lambda self, images, prompts: torch.full((len(images),), 0.3))
    found = finish(choose(algorithm, "b2", steps=2))
    assert found.run["status"] == "done"
    assert [(row["kept"], row["optimizer_steps"], row["denoiser_calls_training"]) for row in found.rounds] == [
        (0, 0, 0)
    ] * 2
    assert {row["advantage"] for row in found.queries} == {0.0}
    assert len(found.queries) == QUERIES
