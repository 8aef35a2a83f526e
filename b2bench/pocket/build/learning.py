"""Whether reinforcement learning finds work on pocket: bars that finished runs of a store show."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import mean, stdev
from typing import Any

from b2bench.config.resolve import resolve
from b2bench.config.settings import Settings
from b2bench.errors import UserError
from b2bench.leaderboard.evaluations import comparable
from b2bench.pocket.build.bars import Bar
from b2bench.store.store import Store
from b2bench.version import benchmark_version

PROMPTS = {1: "template1", 2: "pocket-template2", 3: "pocket-template3"}
QUERIES = 2_400
STRONGER = 3  # times the learning rate or the budget: a setting strong enough to lose diversity

# Gain of the trained reward, image by image: the first and the last evaluation have prompts and noise in common.
PAIRED = """
SELECT avg(b.score - a.score) / (stddev_samp(b.score - a.score) / sqrt(count(*))) AS errors
FROM images a JOIN images b USING (run_id, prompt, noise_index)
WHERE run_id = ? AND a.queries = 0 AND b.queries = ?
"""


@dataclass(frozen=True)
class Learned:
    """What a finished run changed on test prompts, from 0 queries to its last; ``values`` are pairs by metric."""

    seed: int
    algorithm: str
    wrapper: str
    values: Mapping[str, tuple[float, float]]
    paired_errors: float  # CLIPScore gained, in standard errors over images

    def gain(self, metric: str) -> float:
        start, end = self.values[metric]
        return end - start

    @property
    def nats(self) -> float:
        """KL from the pretrained model at the end."""
        return self.values["kl_pretrained"][1]

    @property
    def entropy_lost(self) -> float:
        """Share of the style entropy that is gone."""
        start, end = self.values["style_entropy"]
        return 1 - end / start


def learned(store: Store, row: Mapping[str, Any]) -> Learned:
    """Return what the run of this row of table ``runs`` changed."""
    run = row["run_id"]
    rows = [e for e in comparable(store.evals([run])) if e["split"] == "test"]
    last = max(e["queries"] for e in rows)
    at = {(e["queries"], e["metric"]): e["value"] for e in rows}
    pairs = {metric: (at[0, metric], value) for (queries, metric), value in at.items() if queries == last}
    errors = store.sql(PAIRED, [run, last])[0]["errors"]
    return Learned(row["seed"], row["algorithm"], row["wrapper"], pairs, float("nan") if errors is None else errors)


def not_default(row: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the values of a run of table ``runs`` that are not its cell's defaults, also those that its algorithm
    declares; None of what is no training run, or of a plugin that is not here.
    """
    if row["algorithm"] in ("baseline", "external"):
        return None
    given = {part: row[part] for part in ("algorithm", "wrapper", "reward", "backbone", "prompts", "seed")}
    try:
        usual = resolve(**given, queries=row["budget"], values={}).as_dict()
    except UserError:
        return None
    return {
        name: value
        for part in ("settings", "algorithm", "wrapper")
        for name, value in row["config"].get(part, {}).items()
        if value != usual[part].get(name)
    }


def find_runs(store: Store, prompts: str, changed: Callable[[Mapping[str, Any], int], bool]) -> list[Learned]:
    """Finished runs on pocket, rewarded by CLIPScore, of which ``changed`` takes what is not at default, and budget."""
    found = []
    for row in store.runs(
        backbone="pocket", reward="clipscore", prompts=prompts, status="done", benchmark_version=benchmark_version()
    ):
        different = not_default(row)
        if different is not None and changed(different, row["budget"]):
            found.append(learned(store, row))
    return sorted(found, key=lambda run: (run.algorithm, run.wrapper, run.seed))


def default_bars(runs: Sequence[Learned]) -> list[Bar]:
    """Return the bars of learnability: of runs of ``ddpo`` ``vanilla`` that differ in their seeds alone."""
    if not runs:
        return []
    seeds = "seeds " + ", ".join(str(run.seed) for run in runs)
    success = [run.gain("success") for run in runs]
    bars = [
        Bar("ddpo vanilla: success gained, least of all seeds", min(success), low=0.15, note=seeds),
        Bar(
            "ddpo vanilla: CLIPScore gained, in paired standard errors, least of all seeds",
            min(run.paired_errors for run in runs),
            low=5.0,
            note=seeds,
        ),
        Bar(
            "ddpo vanilla: held-out CLIPScore gained, least of all seeds",
            min(run.gain("clipscore_heldout") for run in runs),
            low=1e-9,
            note=seeds,
        ),
    ]
    if len(runs) > 1:
        spread = stdev(success) / mean(success) if mean(success) > 0 else float("inf")
        note = f"{mean(success):.3f} +- {stdev(success):.3f}"
        bars.append(Bar("ddpo vanilla: success gained, SD over seeds / mean", spread, high=1 / 3, note=note))
    return bars


def cost_bars(runs: Sequence[Learned]) -> list[Bar]:
    """Return what each cell pays for its gain.

    KL from the pretrained model, and CLIPScore gained per square root of it.
    """
    bars = []
    for cell in sorted({(run.algorithm, run.wrapper) for run in runs}):
        same = [run for run in runs if (run.algorithm, run.wrapper) == cell]
        name, note = " ".join(cell), f"stated; {len(same)} seeds"
        bars.append(Bar(f"{name}: KL from pretrained, nats", mean(run.nats for run in same), note=note))
        per_root = mean(run.gain("clipscore") / run.nats**0.5 if run.nats > 0 else 0.0 for run in same)
        bars.append(Bar(f"{name}: CLIPScore gained per sqrt(nat)", per_root, note=note))
    return bars


def learning_bars(store: Store) -> dict[str, list[Bar]]:
    """Bars by heading: of each template, and of all of them."""
    bars: dict[str, list[Bar]] = {}
    collapsed: list[tuple[float, str]] = []
    lr = Settings().lr
    for template, prompts in PROMPTS.items():
        default = find_runs(store, prompts, lambda changed, budget: not changed and budget == QUERIES)
        vanilla = [run for run in default if (run.algorithm, run.wrapper) == ("ddpo", "vanilla")]
        bars[f"template {template}"] = [*default_bars(vanilla), *cost_bars(default)]
        stronger = find_runs(
            store,
            prompts,
            lambda changed, budget: (
                (changed == {"lr": STRONGER * lr} and budget == QUERIES)
                or (not changed and budget == STRONGER * QUERIES)
            ),
        )
        for run in stronger:
            if (run.algorithm, run.wrapper) == ("ddpo", "vanilla"):
                collapsed.append((run.entropy_lost, f"{prompts}, seed {run.seed}"))
    if collapsed:
        most, where = max(collapsed)
        name = (
            f"ddpo vanilla, {STRONGER} times the rate or the budget: share of style entropy lost, most of the templates"
        )
        bars["all"] = [Bar(name, most, low=0.25, note=where)]
    return bars


def time_bars(store: Store) -> list[Bar]:
    """Return what a default run of ``ddpo`` ``vanilla`` took by the clock, and the share of it that was evaluation."""
    bars = []
    version = benchmark_version()
    for row in store.runs(
        algorithm="ddpo", wrapper="vanilla", backbone="pocket", status="done", benchmark_version=version
    ):
        if not_default(row) != {} or row["budget"] != QUERIES:  # more images cost more
            continue
        minutes = (row["finished"] - row["started"]).total_seconds() / 60
        training = sum(r["seconds"] for r in store.rounds(row["run_id"])) / 60
        note = f"{row['prompts']}, seed {row['seed']}, {row['threads']} threads"
        bars.append(Bar("default run: minutes", minutes, note=note))
        bars.append(Bar("default run: share that is evaluation", 1 - training / minutes, high=0.15, note=note))
    return bars
