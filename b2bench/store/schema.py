"""The tables of a store: columns, types, comments and keys; and the steps from older versions."""

from __future__ import annotations

from pathlib import Path

SCHEMA_VERSION = 7

# table -> column -> (type and constraints, comment, with units)
TABLES: dict[str, dict[str, tuple[str, str]]] = {
    "runs": {
        "run_id": ("VARCHAR PRIMARY KEY", "unique name of the run, across machines"),
        "name": ("VARCHAR", "the name that people type; the run folder's"),
        "benchmark_version": (
            "VARCHAR NOT NULL",
            "version of the benchmark, a whole number; results of different versions don't mix"
            "; of older runs the version of b2bench, such as 0.2.0.dev5",
        ),
        "algorithm": ("VARCHAR", "registry key: ddpo, pg, dpo, dpok or a plugin's; or external, or baseline"),
        "wrapper": (
            "VARCHAR",
            "registry key: vanilla, bpt, bs or b2; of a baseline, which: guidance-2, best-of-4, oracle",
        ),
        "backbone": ("VARCHAR NOT NULL", "pocket, sd14, or a folder or hub id"),
        "reward": ("VARCHAR NOT NULL", "registry key of the reward that is trained on"),
        "prompts": ("VARCHAR NOT NULL", "prompt set: template1, ... or a file"),
        "prompts_hash": ("VARCHAR", "content hash of the prompt set"),
        "seed": ("BIGINT NOT NULL", "training seed, the replicate of all statistics"),
        "budget": ("BIGINT", "reward queries that the run may use"),
        "config": ("JSON", "every setting of the run"),
        "config_hash": ("VARCHAR NOT NULL", "hash of config without the seed; equal within a cell"),
        "versions": ("JSON", "package -> version; b2bench's own among them"),
        "commit": ("VARCHAR", "git commit of the code, with -dirty if it had local changes"),
        "device": ("VARCHAR", "cpu, cuda, ..."),
        "threads": ("INTEGER", "CPU threads of the process"),
        "started": ("TIMESTAMP NOT NULL", "UTC"),
        "finished": ("TIMESTAMP", "UTC; null while the run is running"),
        "heartbeat": ("TIMESTAMP NOT NULL", "UTC; last time the run wrote"),
        "status": (
            "VARCHAR NOT NULL CHECK (status IN ('running', 'done', 'failed', 'interrupted'))",
            "running, done, failed or interrupted; running with an old heartbeat was killed",
        ),
        "error": ("VARCHAR", "why the run failed"),
    },
    "queries": {
        "run_id": ("VARCHAR NOT NULL", "runs.run_id"),
        "query_index": ("BIGINT NOT NULL", "0-based number of the reward query within the run"),
        "round": ("INTEGER NOT NULL", "0-based round"),
        "prompt": ("VARCHAR NOT NULL", "the prompt of the image"),
        "group_id": ("INTEGER", "prompt draw or branch point, 0-based within the round"),
        "leaf": ("INTEGER", "0-based place of the rollout within its group"),
        "reward": ("DOUBLE", "the reward as the algorithm saw it, with its noise if reward_noise asked for any"),
        "scores": ("JSON", "score -> value, what was measured on the image; the reward's without noise"),
        "advantage": ("DOUBLE", "standard deviations: per-prompt z-score of the reward"),
        "kept": (
            "BOOLEAN",
            "whether the wrapper passed the rollout on to the loss",
        ),
    },
    "rounds": {
        "run_id": ("VARCHAR NOT NULL", "runs.run_id"),
        "round": ("INTEGER NOT NULL", "0-based round"),
        "queries": ("BIGINT NOT NULL", "reward queries of the run up to and with this round"),
        "interval_start": ("INTEGER", "first trained denoising step, 0 is the noisiest"),
        "interval_stop": ("INTEGER", "step after the last trained one"),
        "kept": ("INTEGER", "rollouts that reached the loss"),
        "optimizer_steps": ("INTEGER", "optimizer steps of the round"),
        "loss": ("DOUBLE", "mean loss of the round"),
        "ratio_mean": ("DOUBLE", "mean probability ratio of policy and behaviour policy"),
        "approx_kl": (
            "DOUBLE",
            "nats per latent dimension: half the mean squared change of log-prob"
            ", an estimate of KL(behaviour || policy)",
        ),
        "clip_fraction": ("DOUBLE", "share of transitions whose ratio was clipped"),
        "grad_norm": ("DOUBLE", "mean L2 norm of the gradient before clipping"),
        "denoiser_calls_sampling": (
            "BIGINT",
            "denoiser calls of the round for rollouts, one per row and step",
        ),
        "denoiser_calls_training": ("BIGINT", "denoiser calls of the round for the loss"),
        "seconds": ("DOUBLE", "wall-clock seconds of the round"),
        "peak_mb": ("DOUBLE", "peak memory in 2^20 bytes, of the device or else the process"),
        "off_policy": (
            "DOUBLE",
            "nats: the largest change of a transition's log-prob before the first optimizer step of the round"
            ", which only rounding should make differ from 0",
        ),
        "denoiser_calls_gradient": (
            "BIGINT",
            "those of denoiser_calls_training that have a backward pass, as much work as three calls without",
        ),
        "metrics": ("JSON", "what else the loss reported, by its own names: means of the round; null if nothing"),
    },
    "evals": {
        "run_id": ("VARCHAR NOT NULL", "runs.run_id"),
        "queries": ("BIGINT NOT NULL", "reward queries before the evaluation; 0 is the pretrained model"),
        "split": ("VARCHAR NOT NULL", "train or test prompts"),
        "metric": ("VARCHAR NOT NULL", "what was measured; the trained reward goes by its own name"),
        "value": ("DOUBLE", "mean over the images, in the metric's unit"),
        "n": ("BIGINT", "images"),
        "settings": ("JSON", "what else defines the number, as N and splits of an inception score"),
    },
    "images": {
        "run_id": ("VARCHAR NOT NULL", "runs.run_id"),
        "queries": ("BIGINT NOT NULL", "reward queries before the evaluation"),
        "prompt": ("VARCHAR NOT NULL", "the prompt of the image"),
        "noise_index": ("INTEGER NOT NULL", "number of the noise, the same in every run of an eval_seed"),
        "score": ("DOUBLE", "the trained reward on the image"),
        "path": ("VARCHAR", "file, relative to the run folder; null: this image is not kept"),
    },
    "profiles": {
        "profile_id": ("VARCHAR NOT NULL", "unique name of the profile, across machines"),
        "started": ("TIMESTAMP NOT NULL", "UTC"),
        "benchmark_version": ("VARCHAR NOT NULL", "version of the benchmark, as in runs"),
        "backbone": ("VARCHAR NOT NULL", "pocket, sd14, or a folder or hub id"),
        "lora": ("VARCHAR", "file name and hash of the LoRA; null for the pretrained model"),
        "reward": ("VARCHAR NOT NULL", "registry key of the reward"),
        "prompts": ("VARCHAR NOT NULL", "prompt set: template1, ... or a file"),
        "prompts_hash": ("VARCHAR", "content hash of the prompt set"),
        "split": ("VARCHAR NOT NULL", "train or test prompts"),
        "seed": ("BIGINT NOT NULL", "seed of prompts, noise and bootstrap"),
        "settings": ("JSON", "what else defines the numbers: steps, eta, guidance, the reward's settings, resamples"),
        "tau": ("INTEGER NOT NULL", "steps to go where the branches were made, of settings.steps"),
        "metric": ("VARCHAR NOT NULL", "open_share, within_sd, total_sd, range or same_style"),
        "value": ("DOUBLE", "share, or in the reward's unit; NaN where the rewards do not vary"),
        "low": ("DOUBLE", "lower end of the 95% bootstrap interval over branches"),
        "high": ("DOUBLE", "upper end"),
        "branches": ("BIGINT", "branches at this tau"),
        "leaves": ("BIGINT", "leaves of a branch"),
        "queries": ("BIGINT", "reward queries of the whole profile, over all tau"),
    },
    "refusals": {
        "benchmark_version": ("VARCHAR NOT NULL", "version of the benchmark, as in runs"),
        "algorithm": ("VARCHAR NOT NULL", "registry key"),
        "wrapper": ("VARCHAR NOT NULL", "registry key"),
        "backbone": ("VARCHAR NOT NULL", "pocket, sd14, or a folder or hub id"),
        "reward": ("VARCHAR NOT NULL", "registry key of the reward"),
        "prompts": ("VARCHAR NOT NULL", "prompt set: template1, ... or a file"),
        "prompts_hash": ("VARCHAR NOT NULL", "content hash of the prompt set"),
        "budget": ("BIGINT NOT NULL", "reward queries that a run would have used"),
        "reason": ("VARCHAR NOT NULL", "why, in the words of the algorithm or the wrapper"),
    },
    "polls": {
        "poll_id": ("VARCHAR NOT NULL", "unique name of the preference test, across machines"),
        "made": ("TIMESTAMP NOT NULL", "UTC"),
        "benchmark_version": ("VARCHAR NOT NULL", "version of the benchmark, as in runs"),
        "backbone": ("VARCHAR NOT NULL", "pocket, sd14, or a folder or hub id"),
        "prompts": ("VARCHAR NOT NULL", "prompt set of the cells: template1, ... or a file"),
        "prompts_hash": ("VARCHAR", "content hash of the prompt set"),
        "eval_seed": ("BIGINT NOT NULL", "seed of the noise, that of evaluations"),
        "seed": ("BIGINT NOT NULL", "seed of the choice of comparisons, and of orders and sides"),
        "question": ("VARCHAR NOT NULL", "what raters were asked"),
        "cells": ("JSON NOT NULL", "cell -> its runs, their seeds and config_hash; none of the pretrained model"),
        "comparisons": (
            "JSON NOT NULL",
            "id on the page -> kind, prompt, noise_index, repeat_of, and images: id on the page -> cell",
        ),
    },
    "votes": {
        "poll_id": ("VARCHAR NOT NULL", "polls.poll_id"),
        "rater": ("VARCHAR NOT NULL", "random id that the page drew; it names nobody"),
        "comparison": ("VARCHAR NOT NULL", "key in polls.comparisons"),
        "kind": (
            "VARCHAR NOT NULL",
            "cells: a comparison of cells; or a check: identical (one image twice), repeat (places changed)",
        ),
        "repeat_of": ("VARCHAR", "of a repeat: the comparison that was shown before"),
        "prompt": ("VARCHAR NOT NULL", "the prompt of the images"),
        "noise_index": ("INTEGER NOT NULL", "number of the noise, as in images"),
        "shown": ("JSON NOT NULL", "place from the left, 0-based -> cell"),
        "chosen": ("VARCHAR", "cell of the preferred image; null: no preference"),
        "place": ("INTEGER", "its place from the left, 0-based; null: no preference"),
        "position": ("INTEGER NOT NULL", "0-based place of the comparison in the rater's order"),
        "milliseconds": ("BIGINT", "from when the images were shown to the answer"),
    },
}
KEYS: dict[str, tuple[str, ...]] = {
    "queries": ("run_id", "query_index"),
    "rounds": ("run_id", "round"),
    "evals": ("run_id", "queries", "split", "metric"),
    "images": ("run_id", "queries", "prompt", "noise_index"),
    "profiles": ("profile_id", "tau", "metric"),
    "refusals": ("benchmark_version", "algorithm", "wrapper", "backbone", "reward", "prompts_hash", "budget"),
    "polls": ("poll_id",),
    "votes": ("poll_id", "rater", "comparison"),
}
RUN_TABLES = tuple(table for table, columns in TABLES.items() if "run_id" in columns)
"""Tables that say something of a run, ``runs`` first."""


def create_table(table: str) -> list[str]:
    """SQL that makes a table with its key and its comments."""
    columns = TABLES[table]
    body = [f"{name} {kind}" for name, (kind, _) in columns.items()]
    if table in KEYS:
        body.append(f"PRIMARY KEY ({', '.join(KEYS[table])})")
    return [f"CREATE TABLE {table} ({', '.join(body)})", *(_comment(table, name) for name in columns)]


def _comment(table: str, column: str) -> str:
    # a COMMENT takes no parameter; the text is the constant above
    text = TABLES[table][column][1].replace("'", "''")
    return f"COMMENT ON COLUMN {table}.{column} IS '{text}'"


MIGRATIONS: dict[int, str] = {
    step: (Path(__file__).parent / "migrations" / f"{step}.sql").read_text(encoding="utf-8")
    for step in range(2, SCHEMA_VERSION + 1)
}
"""SQL that lifts a file to this version from the one before it, run in one transaction.

Files of text, and none is changed once it was used: what is made from the tables above is made from tomorrow's tables
when tomorrow's b2bench meets an old file, and a column that a later step adds would be there already.
"""


def column_type(table: str, column: str) -> str:
    return TABLES[table][column][0].split()[0]


def column_shape(table: str, column: str) -> tuple[str, bool, bool] | None:
    """Type, whether it is never null, and whether it is of the key; None for no column of the table."""
    if column not in TABLES[table]:
        return None
    kind = TABLES[table][column][0]
    key = "PRIMARY KEY" in kind or column in KEYS.get(table, ())
    return kind.split()[0], key or "NOT NULL" in kind, key
