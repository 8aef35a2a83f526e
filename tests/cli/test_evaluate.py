"""``b2bench evaluate``: LoRAs of one's own beside runs, each under its own identity; and one process a run."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from filelock import FileLock

from b2bench.store.store import Store

SMALL = (
    "draws=1",
    "samples=5",
    "steps=2",
    "transitions_per_step=1000",
    "eval_points=2",
    "eval_images=3",
    "eval_train_images=0",
)
SET = tuple(word for text in SMALL for word in ("--set", text))


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make_policy: Callable[..., Any]) -> Path:
    """A working folder with two different LoRAs of the same file name."""
    monkeypatch.chdir(tmp_path)
    for seed in (1, 2):
        make_policy(rank=2, seed=seed, moved=0.5).save_lora(tmp_path / f"lora{seed}")
    return tmp_path


def rows(place: Path) -> list[dict[str, Any]]:
    return Store(place / "b2bench.duckdb").runs()


@pytest.mark.slow
def test_two_loras_are_two_rows_and_no_pretrained_model(place: Path, b2bench: Callable[..., Any]) -> None:
    for seed in (1, 2):
        done = b2bench("evaluate", f"lora{seed}", "--queries", 100, "--eval-images", 3, "--json")
        assert done.code == 0, done.stderr
        assert {"clipscore", "success"} <= {metric["name"] for metric in json.loads(done.stdout)["metrics"]}
    first, second = rows(place)
    assert first["config_hash"] != second["config_hash"]
    assert first["wrapper"] != second["wrapper"]
    assert {row["budget"] for row in rows(place)} == {100}
    (table,) = json.loads(b2bench("report", "--json").stdout)
    shown = table["leaderboard"]
    assert len(shown) == 2
    assert not any(row["reference"] for row in shown)
    assert all(row["gain"] is None or row["gain"]["mean"] is None for row in shown)


RED = """
from b2bench import reward

@reward
class Red:
    \"\"\"How red an image is.\"\"\"
    gain: float = 1.0

    def __call__(self, images, prompts):
        return self.gain * images[:, 0].flatten(1).mean(1)
"""


@pytest.mark.slow
def test_a_lora_is_measured_by_a_reward_and_settings_of_ones_own(place: Path, b2bench: Callable[..., Any]) -> None:
    (place / "red.py").write_text(RED)
    given = ("evaluate", "lora1", "--queries", 100, "--eval-images", 2, "--plugin", "red.py", "--reward", "red")
    few = ("--set", "steps=2", "--set", "eval_train_images=0", "--set", "kl_images=0")
    values = []
    for more in (("--set", "guidance=1.5"), ("--set", "guidance=1.5", "--set", "gain=2"), ("--set", "guidance=4")):
        done = b2bench(*given, *few, *more, "--json")
        assert done.code == 0, done.stderr
        values.append({m["name"]: m["value"] for m in json.loads(done.stdout)["metrics"]}["red"])
    assert values[1] == pytest.approx(2 * values[0], rel=1e-6)
    assert abs(values[2] - values[0]) > 1e-4
    found = rows(place)
    assert len({row["config_hash"] for row in found}) == 3
    assert {(row["config"]["settings"]["steps"], row["reward"]) for row in found} == {(2, "red")}
    refused = b2bench(*given, "--set", "lr=1")
    assert refused.code == 2
    assert "an evaluation trains nothing and does not use lr; try one of" in refused.stderr
    assert len(rows(place)) == 3


def test_a_lora_without_some_weights_is_refused(place: Path, b2bench: Callable[..., Any]) -> None:
    from safetensors.torch import load_file, save_file

    file = place / "lora1" / "pytorch_lora_weights.safetensors"
    save_file(dict([*load_file(file).items()][:3]), file)  # both factors of a layer, and one of another
    done = b2bench("evaluate", "lora1", "--queries", 100)
    assert done.code == 2
    assert "pytorch_lora_weights.safetensors is not a LoRA for this backbone: it lacks weights" in done.stderr


def test_a_lora_of_no_finite_numbers_is_refused(place: Path, b2bench: Callable[..., Any]) -> None:
    from safetensors.torch import load_file, save_file

    file = place / "lora1" / "pytorch_lora_weights.safetensors"
    save_file({name: weight * float("nan") for name, weight in load_file(file).items()}, file)
    done = b2bench("evaluate", "lora1", "--queries", 100)
    assert done.code == 2
    assert "pytorch_lora_weights.safetensors holds LoRA weights that are not finite" in done.stderr
    assert not (place / "b2bench.duckdb").exists()


@pytest.mark.slow
def test_the_pretrained_model_is_what_the_loras_of_a_budget_are_measured_against(
    place: Path, b2bench: Callable[..., Any]
) -> None:
    assert b2bench("evaluate", "--queries", 100, "--eval-images", 3).code == 0
    assert b2bench("evaluate", "lora1", "--queries", 100, "--eval-images", 3).code == 0
    (table,) = json.loads(b2bench("report", "--json").stdout)
    (lora,) = [row for row in table["leaderboard"] if row["wrapper"].startswith("lora1-")]
    store = Store(place / "b2bench.duckdb")
    score = {
        row["run_id"]: row["value"] for row in store.evals() if (row["split"], row["metric"]) == ("test", "clipscore")
    }
    pretrained, evaluated = (score[row["run_id"]] for row in sorted(rows(place), key=lambda row: row["started"]))
    assert lora["gain"]["mean"] == pytest.approx(evaluated - pretrained, abs=1e-6)
    assert evaluated != pretrained


def test_a_lora_without_its_cost_is_refused(place: Path, b2bench: Callable[..., Any]) -> None:
    done = b2bench("evaluate", "lora1")
    assert done.code == 2
    assert "--queries" in done.stderr
    assert not (place / "b2bench.duckdb").exists()


@pytest.mark.slow
def test_a_run_that_is_running_is_not_resumed(place: Path, b2bench: Callable[..., Any]) -> None:
    assert b2bench("run", "--algo", "ddpo", "--queries", 5, "--name", "mine", *SET).code == 0
    (run,) = rows(place)
    store = Store(place / "b2bench.duckdb")
    store.restart_run(run["run_id"])
    with FileLock(place / "runs" / run["run_id"] / "lock"):
        done = b2bench("run", "--resume", "mine")
    assert done.code == 2
    assert "running in another process" in done.stderr
    assert rows(place)[0]["status"] == "running"
    assert len(store.rounds(run["run_id"])) == 1
    assert b2bench("run", "--resume", "mine").code == 0
    assert rows(place)[0]["status"] == "done"


REWARD = '''
from b2bench.registry import reward

@reward
class Broken:
    """Cannot be prepared."""

    def prepare(self, device):
        raise RuntimeError("no such sensor")

    def __call__(self, images, prompts):
        return images.flatten(1).mean(1)
'''
ALGORITHM = '''
from b2bench.registry import algorithm

@algorithm
class Broken:
    """Cannot be set up."""
    pairs = False

    def setup(self, policy, generator):
        raise ValueError("no such layer")

    def loss(self, policy, batch):
        return policy.transition(batch.cond, batch.latents, batch.step).mean.mean(), {}
'''


@pytest.mark.slow
@pytest.mark.parametrize(
    ("source", "options", "reason"),
    [
        (REWARD, ("--algo", "ddpo", "--reward", "broken"), "no such sensor"),
        (ALGORITHM, ("--algo", "broken"), "no such layer"),
    ],
    ids=["prepare", "setup"],
)
def test_a_plugin_that_cannot_be_set_up_is_one_line(
    place: Path, b2bench: Callable[..., Any], source: str, options: tuple[str, ...], reason: str
) -> None:
    (place / "broken.py").write_text(source)
    done = b2bench("run", *options, "--plugin", "broken.py", "--queries", 5, *SET)
    assert done.code == 2
    assert reason in done.stderr
    assert "broken.py, line" in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr
    assert not (place / "b2bench.duckdb").exists()
    assert torch.get_num_threads() == 1
