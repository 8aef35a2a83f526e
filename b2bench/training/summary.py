"""What is said of a run at its end."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from b2bench.layout import PICTURE
from b2bench.leaderboard.evaluations import comparable
from b2bench.store.rows import utc_now
from b2bench.training.health import equal_rewards, findings

if TYPE_CHECKING:  # the door has Summary without DuckDB
    from b2bench.store.store import Store

LORA_FILE = "pytorch_lora_weights.safetensors"
"""Name of the trained weights in a run's folder; diffusers' ``load_lora_weights`` looks for it"""

PAIRED = """
SELECT avg(b.score - a.score) AS gain, stddev_samp(b.score - a.score) / sqrt(count(*)) AS error, count(*) AS images
FROM images a JOIN images b USING (run_id, prompt, noise_index)
WHERE run_id = ? AND a.queries = ? AND b.queries = ?
"""


@dataclass(frozen=True)
class Summary:
    """What a finished run says of itself, as ``b2bench run --json`` prints it.

    ``before`` and ``after`` map metric -> value on test prompts, at the first evaluation and at the last; a value is
    nan where there were too few images for it. ``gain`` is that of the trained reward, ``reward``, image by image: both
    evaluations draw the same prompts from the same noise, of which ``images`` are compared; ``gain_error`` is the
    standard error over these images (nan of fewer than two). It says whether this run moved, not whether another seed
    would. ``queries`` are the reward queries of the whole run; ``seconds`` and
    ``queries_per_second`` are of the process that finished it, which may have resumed it. ``weights`` is the file of
    the LoRA weights, ``db`` that of the store, ``picture`` that of test images before and after, if there is one.
    ``findings`` is what is conspicuous in the run by the rules of docs/health.md.
    """

    run_id: str
    queries: int
    seconds: float
    queries_per_second: float
    before: Mapping[str, float]
    after: Mapping[str, float]
    weights: str
    db: str
    reward: str = ""
    gain: float = math.nan
    gain_error: float = math.nan
    images: int = 0
    picture: str = ""
    findings: tuple[str, ...] = ()

    @property
    def verdict(self) -> str:
        """Say in words whether the trained reward moved, by its 95% interval over images."""
        if not self.gain_error > 0:
            return f"too few images to say whether {self.reward} moved" if self.images else "nothing was compared"
        low, high = self.gain - 1.96 * self.gain_error, self.gain + 1.96 * self.gain_error
        found = f"{self.reward} {self.gain:+.4f} ± {self.gain_error:.4f} (standard error over {self.images} images)"
        if low > 0:
            return f"learned: {found}"
        return f"got worse: {found}" if high < 0 else f"cannot be told: {found}, and the 95% interval includes zero"


def paired_gain(store: Store, run_id: str, first: int, last: int) -> tuple[float, float, int]:
    """Return by how much the trained reward of a run's test images rose from ``first`` to ``last`` reward queries.

    The mean over the images that both evaluations drew, its standard error over images, and their number.
    """
    found = store.sql(PAIRED, [run_id, first, last])[0]
    gain, error = (math.nan if found[name] is None else float(found[name]) for name in ("gain", "error"))
    return gain, error, int(found["images"])


def summary(store: Store, run_id: str, folder: Path, *, queries: int, made: int, seconds: float) -> Summary:
    """Return the summary of a run that has ended, from its evaluations in the store.

    ``folder`` is the run's, ``queries`` are its reward queries, and ``made`` those of them that took ``seconds``.
    """

    def read() -> Summary:
        rows = [row for row in store.evals([run_id]) if row["split"] == "test"]
        points = sorted({row["queries"] for row in rows}) or [0]
        gain, error, images = paired_gain(store, run_id, points[0], points[-1])
        run = store.find_run(run_id)
        shown = findings(run, store.rounds(run_id), comparable(rows), equal_rewards(store, run_id), utc_now())

        def at(queries: int) -> dict[str, float]:
            return {row["metric"]: row["value"] for row in rows if row["queries"] == queries}

        return Summary(
            run_id=run_id,
            queries=queries,
            seconds=seconds,
            queries_per_second=made / seconds if seconds else math.nan,
            before=at(points[0]),
            after=at(points[-1]),
            weights=str(folder / LORA_FILE),
            db=str(store.path),
            reward=str(run["reward"]),
            gain=gain,
            gain_error=error,
            images=images,
            picture=str(folder / PICTURE) if (folder / PICTURE).is_file() else "",
            findings=tuple(one.text for one in shown),
        )

    return store.together(read)


def summary_again(store: Store, run: Mapping[str, Any], out: Path) -> Summary:
    """Return the summary of a run that was finished before, by its row of table ``runs``.

    Its seconds are those between its start and its end, pauses included. ``out`` is the folder of the run folders.
    """
    seconds = (run["finished"] - run["started"]).total_seconds()
    run_id, queries = run["run_id"], run["budget"]
    return summary(store, run_id, out / run_id, queries=queries, made=queries, seconds=seconds)
