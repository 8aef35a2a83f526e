"""``b2bench check``: what is built in passes, and each way to break the contract fails where it should."""

import functools
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants

from b2bench.errors import UserError
from b2bench.plugins import check_algorithm
from b2bench.plugins.check import check_file
from b2bench.plugins.check_algorithm import MARGIN, toy_gain
from b2bench.plugins.contract import CheckResult
from b2bench.plugins.toy import ToyPolicy
from b2bench.registry import Registry
from b2bench.rollout import rollout, round_noise
from b2bench.types import Interval

ROOT = Path(__file__).parents[3]
EXAMPLE = ROOT / "examples" / "awr.py"

ALGORITHM = '''
import torch
from typing import ClassVar
from b2bench.registry import algorithm


@algorithm
class Broken:
    """A loss that breaks the contract in one way."""

    pairs: ClassVar[bool] = {pairs}
    weight: float = 1.0
    """Weight"""

    def loss(self, policy, batch):
        def log_prob(rows):
            return policy.transition(rows.cond, rows.latents, rows.step).log_prob(rows.next_latents)

{body}
'''

SEARCHED = "what it has searched can be"
REFUSES = "refuses with a reason, or not at all"
GOOD = "return -(batch.advantage * log_prob(batch)).mean(), {}"


def broken(folder: Path, body: str, pairs: bool = False) -> list[CheckResult]:
    """Results of an algorithm with this body of ``loss``."""
    lines = "\n".join(f"        {line}" for line in body.splitlines())
    return check_source(folder, ALGORITHM.format(body=lines, pairs=pairs))


def check_source(folder: Path, source: str) -> list[CheckResult]:
    path = folder / "broken.py"
    path.write_text(source)
    return check_file(path)


def failures(results: list[CheckResult]) -> dict[str, str]:
    return {result.name: result.reason for result in results if not result.passed}


@pytest.mark.slow
@pytest.mark.parametrize("name", [*Registry("algorithm").names(), *Registry("wrapper").names()])
def test_what_is_built_in_passes(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """And an algorithm learns the toy task with every seed of five; the check trains three of them, once."""
    gains = functools.cache(toy_gain)
    monkeypatch.setattr(check_algorithm, "toy_gain", gains)
    results = check_file(Path(name))
    assert {result.plugin for result in results} == {name}
    assert failures(results) == {}
    if name in Registry("algorithm").names():
        assert min(gains(Registry("algorithm").get(name), seed) for seed in range(5)) > MARGIN
        assert gains.cache_info().misses == 5


@pytest.mark.slow
@pytest.mark.parametrize("name", Registry("reward").names())
def test_built_in_rewards_pass(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those whose weights are not here say so; tests/unit/rewards checks them with small models."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    failed = failures(check_file(Path(name)))
    if name in ("aesthetic", "hpsv2", "imagereward", "pickscore"):
        assert list(failed) == ["prepares on the CPU"]
        assert f"{name} needs " in failed["prepares on the CPU"]
        assert "hf download" in failed["prepares on the CPU"]
    else:
        assert failed == {}


@pytest.mark.slow
def test_the_example_passes_and_is_short() -> None:
    results = check_file(EXAMPLE)
    assert {result.plugin for result in results} == {"awr"}
    assert failures(results) == {}
    assert results[-1].name == "improves a toy task"
    assert len(EXAMPLE.read_text().splitlines()) < 60


@pytest.mark.slow
def test_the_frame_of_the_broken_ones_passes(tmp_path: Path) -> None:
    assert failures(broken(tmp_path, GOOD)) == {}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("body", "check", "message"),
    [
        (
            "return (log_prob(batch) / batch.advantage).mean(), {}",
            "loss is a finite scalar",
            "on a batch whose advantages are all 0",
        ),
        (
            "a = batch.advantage\nreturn -((a - a.mean()) / a.std() * log_prob(batch)).mean(), {}",
            "loss is a finite scalar",
            "the loss is nan on a batch of one row",
        ),
        (
            "return (log_prob(batch) * float('inf')).mean(), {}",
            "loss is a finite scalar",
            "on a round's first batch",
        ),
        ("return log_prob(batch), {}", "loss is a finite scalar", "has shape (80,); return a scalar"),
        ("return log_prob(batch).mean()", "loss is a finite scalar", "return (loss, metrics)"),
        ("return 1.0, {}", "loss is a finite scalar", "the loss is a float"),
        (
            "raise KeyError('no such thing')",
            "loss is a finite scalar",
            "KeyError: 'no such thing' (broken.py, line 19)",
        ),
        (
            "return -(batch.advantage * log_prob(batch).detach()).mean(), {}",
            "loss requires grad",
            "does not depend on the adapter",
        ),
        (
            "return -(batch.advantage * batch.log_prob * torch.ones(1, requires_grad=True)).mean(), {}",
            "gradient reaches the adapter",
            "the loss ignores the adapter",
        ),
        (
            "loss = -(batch.advantage * log_prob(batch)).mean()\npolicy.enabled = False\nreturn loss, {}",
            "gradient reaches nothing but the adapter",
            "the adapter is off after the loss",
        ),
        (
            "with torch.no_grad():\n    next(iter(policy.parameters())).mul_(1.1)\n" + GOOD,
            "gradient reaches nothing but the adapter",
            "the loss changed the weight adapter A",
        ),
        (
            "with policy.reference():\n    old = log_prob(batch)\nnew = log_prob(batch)\n"
            "return -(batch.advantage * new).mean(), {'log_ratio': (new - old).detach()}",
            "ratio is 1 at the behaviour policy",
            "expected 0",
        ),
        (
            "batch.advantage.clamp_(-1, 1)\n" + GOOD,
            "batch is not mutated",
            "the loss changed batch.advantage in place",
        ),
        (
            "batch.cond.table.mul_(2)\n" + GOOD,
            "batch is not mutated",
            "the loss changed batch.cond.table in place",
        ),
        (
            "noise = 1 + 0.1 * torch.randn(len(batch))\nreturn -(noise * batch.advantage * log_prob(batch)).mean(), {}",
            "loss is deterministic",
            "draws no random numbers",
        ),
        (
            "x = log_prob(batch)\nkeep = torch.rand(len(batch)) < 0.5\n"
            "x = torch.where(keep, x, x.detach())\nreturn -(batch.advantage * x).mean(), {}",
            "loss is deterministic",
            "two different gradients",
        ),
        (
            "x = log_prob(batch)\nreturn -(batch.advantage * x).mean(), {'height': x.new_zeros(3)}",
            "metrics are finite",
            "metric height has shape (3,)",
        ),
        (
            "x = log_prob(batch)\nreturn -(batch.advantage * x).mean(), {'worst': x.detach().mean() * float('nan')}",
            "metrics are finite",
            "metric worst is not finite",
        ),
        (
            "x = log_prob(batch)\nreturn -(batch.advantage * x).mean(), {'approx_kl': x.detach()}",
            "metrics are finite",
            "metric approx_kl: b2bench computes it of log_ratio",
        ),
        (
            "return -(batch.advantage * log_prob(batch)).sum(), {}",
            "loss is a mean over rows",
            "micro-batches would change the result",
        ),
        (
            "return (batch.advantage * log_prob(batch)).mean(), {}",
            "improves a toy task",
            "Does the loss fall where a high advantage becomes more likely?",
        ),
        ("return -log_prob(batch).mean(), {}", "improves a toy task", "expected above"),
    ],
)
def test_each_way_to_break_the_contract_is_named(body: str, check: str, message: str, tmp_path: Path) -> None:
    found = failures(broken(tmp_path, body))
    assert check in found
    assert message in found[check]
    assert "\n" not in found[check]


def test_one_fault_fails_one_check(tmp_path: Path) -> None:
    assert list(failures(broken(tmp_path, "batch.advantage.clamp_(-1, 1)\n" + GOOD))) == ["batch is not mutated"]
    drawn = "return -((1 + 0.01 * torch.randn(len(batch))) * batch.advantage * log_prob(batch)).mean(), {}"
    # Two halves draw two noises, so that their mean differs as well: of nearly every draw, and of this one.
    torch.manual_seed(0)
    assert set(failures(broken(tmp_path, drawn))) == {"loss is deterministic", "loss is a mean over rows"}


def test_what_cannot_go_on_says_so(tmp_path: Path) -> None:
    results = broken(tmp_path, "raise KeyError('x')")
    assert results[-1].reason.endswith("The checks after this one were left out.")
    assert [result.passed for result in results] == [True] * 5 + [False]


@pytest.mark.slow
def test_a_loss_on_pairs_must_tell_winner_from_loser(tmp_path: Path) -> None:
    blind = "return (log_prob(batch.winner) + log_prob(batch.loser)).square().mean(), {}"
    assert "swapping winner and loser" in failures(broken(tmp_path, blind, pairs=True))["works on pairs"]
    sighted = "return (log_prob(batch.loser) - log_prob(batch.winner)).exp().mean(), {}"
    assert failures(broken(tmp_path, sighted, pairs=True)) == {}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("told", "reason"),
    [
        ("(1, 0)", None),
        ("(1, 1)", "makes 1 denoiser calls for a row with a gradient and 0 without"),
        ("3", "row_calls is 3"),
    ],
)
def test_the_calls_that_a_loss_declares_are_those_that_it_makes(told: str, reason: str | None, tmp_path: Path) -> None:
    source = ALGORITHM.format(body=f"        {GOOD}", pairs=False).replace(
        "    weight: float", f"    row_calls: ClassVar[object] = {told}\n    weight: float"
    )
    found = failures(check_source(tmp_path, source))
    assert list(found) == (["row_calls are those of the loss"] if reason else [])
    assert reason is None or reason in found["row_calls are those of the loss"]


@pytest.mark.parametrize(
    ("field", "message"),
    [
        ("weight: float", "weight has no default"),
        ("weight: float = 1.0\n    other: int = 3", "weight has no doc"),
        ('weight: list = None\n    """Weights"""', "cannot be set from the command line"),
        ('weight: float = "one"\n    """Weight"""', "cannot be set from the command line"),
        ('weight: float = field(default_factory=float)\n    """Weight"""', "weight has a default_factory"),
    ],
)
def test_hyperparameters_need_a_default_and_a_doc(field: str, message: str, tmp_path: Path) -> None:
    source = ALGORITHM.format(body=f"        {GOOD}", pairs=False)
    source = "from dataclasses import field\n" + source.replace('weight: float = 1.0\n    """Weight"""', field)
    results = check_source(tmp_path, source)
    assert message in failures(results)["hyperparameters have defaults and docs"]


@pytest.mark.slow
def test_setup_is_called_and_networks_may_be_trained(tmp_path: Path) -> None:
    source = ALGORITHM.format(body="        value = self.net(batch.latents.flatten(1)).squeeze(1)", pairs=False)
    source += """
        gain = ((batch.advantage - value.detach()) * log_prob(batch)).mean()
        return (value - batch.advantage).square().mean() - gain, {}

    def setup(self, policy, generator):
        self.net = torch.nn.Linear(policy.latent_size, 1)
        with torch.no_grad():
            self.net.weight.normal_(generator=generator)

    def networks(self):
        return [(self.net, 1e-3)]
"""
    assert failures(check_source(tmp_path, source)) == {}


@pytest.mark.slow
def test_what_a_plugin_prints_while_it_is_made_is_no_result(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    talks = "\n    def setup(self, policy, generator):\n        print('made')\n        torch.set_grad_enabled(False)\n"
    check_source(tmp_path, ALGORITHM.format(body=f"        {GOOD}", pairs=False) + talks)
    assert torch.is_grad_enabled()
    check_source(tmp_path, WRAPPER.format(**GOOD_WRAPPER) + "\n    def __post_init__(self):\n        print('made')\n")
    out, err = capfd.readouterr()
    assert "made" not in out
    assert err.count("made") > 2


@pytest.mark.slow
def test_a_loss_that_follows_the_rewards_gradient_declares_its_pace(tmp_path: Path) -> None:
    source = ALGORITHM.format(body=f"        {GOOD}", pairs=False).replace(
        "    weight: float", "    reward_gradient: ClassVar[bool] = True\n    weight: float"
    )
    found = failures(check_source(tmp_path, source))
    assert "{'updates_per_round': 1}" in found["declares defaults of settings that are its to declare"]


def test_an_interrupt_is_not_a_failed_check(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        broken(tmp_path, "raise KeyboardInterrupt")


WRAPPER = """
import torch
from b2bench.registry import wrapper
from b2bench.types import Interval


@wrapper
class Broken:
    \"\"\"A wrapper that breaks the contract in one way.\"\"\"

    def interval(self, round, rounds, num_steps):
        return {interval}

    def leaves(self, samples):
        return {leaves}

    def select(self, trajectories):
        return {select}
"""
GOOD_WRAPPER = {
    "interval": "Interval(0, num_steps)",
    "leaves": "1",
    "select": "torch.ones(len(trajectories), dtype=torch.bool)",
}


@pytest.mark.parametrize(
    ("change", "check", "message"),
    [
        ({}, "", ""),
        ({"interval": "Interval(0, num_steps + 1)"}, "interval lies within the steps", "must lie within [0, 1)"),
        ({"interval": "Interval(round, num_steps)"}, "interval lies within the steps", "ValueError"),
        ({"interval": "(0, num_steps)"}, "interval lies within the steps", "is a tuple"),
        ({"interval": "Interval(0.0, num_steps)"}, "interval lies within the steps", "both ends are whole numbers"),
        ({"leaves": "4"}, "leaves divide the samples", "divides 1"),
        ({"select": "trajectories.reward"}, "select gives one bool per rollout", "torch.float32"),
        ({"select": "trajectories.reward > 1e9"}, "select keeps rollouts", "nothing would be trained on"),
        (
            {"select": "trajectories.reward.zero_() == 0"},
            "trajectories are not mutated",
            "changed trajectories.reward",
        ),
        (
            {"select": "torch.rand(len(trajectories)) < 0.5"},
            "wrapper is deterministic",
            "draws from the generator that its select takes",
        ),
    ],
)
def test_wrappers(change: dict[str, str], check: str, message: str, tmp_path: Path) -> None:
    found = failures(check_source(tmp_path, WRAPPER.format(**GOOD_WRAPPER | change)))
    assert (list(found) == [check] and message in found[check]) if change else found == {}


@pytest.mark.parametrize(
    ("method", "check", "message"),
    [
        ("step_weights(self, std):\n        return std", "", ""),
        ("step_weights(self, std):\n        return std[:-1]", "step weights are a number a step", "has shape (0,)"),
        ("step_weights(self, std):\n        return std / 0", "step weights are a number a step", "are not finite"),
        ("refuses(self, algorithm):\n        return 'no' if algorithm.pairs else None", "", ""),
        ("refuses(self, algorithm):\n        return 3", "what it says is text", "refuses(ddpo) answers 3"),
        ("refuses(self, algorithm):\n        return False", "what it says is text", "refuses(ddpo) answers False"),
        ("notice(self, rounds, num_steps):\n        return 1 / 0", "what it says is text", "ZeroDivisionError"),
        ("notice(self, rounds, num_steps):\n        return True", "what it says is text", "notice(1, 1) answers True"),
    ],
)
def test_what_a_wrapper_may_have(method: str, check: str, message: str, tmp_path: Path) -> None:
    found = failures(check_source(tmp_path, f"{WRAPPER.format(**GOOD_WRAPPER)}\n    def {method}\n"))
    assert (list(found) == [check] and message in found[check]) if check else found == {}


@pytest.mark.parametrize(
    ("declared", "message"),
    [
        ('{"lr": 1e-3, "updates_per_round": None}', ""),
        ('{"updates_per_round": 1.5}', "updates_per_round = 1.5; it must be a whole number above 0, or None"),
        ('{"lr": None}', "lr = None; it must be a number above 0"),
    ],
)
def test_defaults_that_no_run_takes(declared: str, message: str, tmp_path: Path) -> None:
    source = ALGORITHM.format(body=f"        {GOOD}", pairs=False)
    source = source.replace("    weight: float", f"    defaults: ClassVar = {declared}\n    weight: float")
    found = failures(check_source(tmp_path, source))
    if message:
        assert message in found["declares defaults of settings that are its to declare"]
    else:
        assert found == {}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("weight: Annotated[float, Search(0.1, 9.0)] = 1.0", ""),
        ("weight: Annotated[float, Gt(0.5), Search(0.1, 9.0)] = 1.0", "leaves its range: weight = 0.1 is not above"),
        ('weight: Annotated[str, Search(0.1, 9.0)] = "a"', "is of type str, and a Search is of numbers"),
        ("search: ClassVar = {'eta': Search(0.1, 1.0)}\n    weight: float = 1.0", "search has 'eta'"),
        (
            "search: ClassVar = {'transitions_per_step': Search(8, 99)}\n"
            "    weight: Annotated[float, Search(0.1, 9.0)] = 1.0\n"
            '    """Doc."""\n'
            "    other: Annotated[float, Search(0.1, 9.0)] = 1.0",
            "lr, transitions_per_step, weight, other are searched",
        ),
    ],
)
def test_a_search_that_tune_refuses_is_found(line: str, message: str, tmp_path: Path) -> None:
    source = ALGORITHM.format(body=f"        {GOOD}", pairs=False).replace("weight: float = 1.0", line)
    imports = "from typing import Annotated\nfrom annotated_types import Gt\nfrom b2bench.search import Search\n"
    source = imports + source
    found = failures(check_source(tmp_path, source))
    assert (list(found) == [SEARCHED] and message in found[SEARCHED]) if message else found == {}


@pytest.mark.parametrize("said", ["False", "True", "'pairs'", "None"])
def test_an_algorithm_refuses_with_a_text(said: str, tmp_path: Path) -> None:
    source = ALGORITHM.format(body=f"        {GOOD}", pairs=False)
    found = failures(check_source(tmp_path, f"{source}\n    def refuses(self, wrapper):\n        return {said}\n"))
    wrong = said in ("False", "True")
    assert found == ({REFUSES: f"refuses(vanilla) answers {said}; return a reason, or None"} if wrong else {})


def test_a_name_that_another_plugin_has_is_found(tmp_path: Path) -> None:
    source = ALGORITHM.format(body=f"        {GOOD}", pairs=False)
    taken = failures(check_source(tmp_path, source.replace("class Broken", "class DDPO")))
    assert "two algorithms are named 'ddpo': built in and" in taken["its name is free"]
    twice = source + source[source.index("@algorithm") :].replace("class Broken", "class BROKEN")
    assert "two algorithms are named 'broken'" in failures(check_source(tmp_path, twice))["its name is free"]


def test_a_whole_number_as_a_floats_default_would_be_two_cells(tmp_path: Path) -> None:
    source = ALGORITHM.format(body=f"        {GOOD}", pairs=False).replace("= 1.0", "= 1")
    [reason] = failures(check_source(tmp_path, source)).values()
    assert "write 1.0" in reason


REWARD = """
import torch
from b2bench.registry import reward


@reward
class Broken:
    \"\"\"A reward that breaks the contract in one way.\"\"\"

    def __call__(self, images, prompts):
        mean = images.flatten(1).mean(1)
        {body}
"""


@pytest.mark.parametrize(
    ("body", "checks", "message"),
    [
        ("return mean", [], ""),
        ("return mean.mean()", ["scores are finite, one per image"], "expected (6,)"),
        ("return mean / 0", ["scores are finite, one per image"], "6 of 6 scores are not finite"),
        ("torch.set_grad_enabled(False); return mean", ["the process stays"], "torch.set_grad_enabled"),
        ("torch.set_default_dtype(torch.float64); return mean", ["the process stays"], "torch.set_default_dtype"),
        ("torch.manual_seed(0); return mean", ["the process stays"], "torch's seed"),
        ("import os; os.chdir('/'); return mean", ["the process stays"], "the working folder"),
        ("print(len(mean)); return mean", ["the process stays"], "printed to stdout"),
        ("import os; os.system('echo scored'); return mean", ["the process stays"], "printed to stdout"),
        ("return images.mul_(2).flatten(1).mean(1)", ["images are not mutated"], "changed the images"),
        ("prompts.sort(); return mean", ["images are not mutated"], "changed the list of prompts"),
        ("return mean * torch.linspace(0, 1, 6)[: len(mean)]", ["order of", "batch size"], "another order"),
        ("return mean - mean.mean()", ["batch size does not matter"], "one by one"),
        ("return mean.float() * 0 + float('nan')", ["scores are finite, one per image"], "not finite"),
        ("return 3000 + 1000 * mean + 0.03 * len(images)", [], ""),  # which float32 rounds to 0.0002
        ("return mean + 0.01 * len(images)", ["batch size does not matter"], "one by one"),
    ],
)
def test_rewards(body: str, checks: list[str], message: str, tmp_path: Path) -> None:
    found = failures(check_source(tmp_path, REWARD.format(body=body)))
    assert len(found) == len(checks)
    for (name, reason), check in zip(found.items(), checks, strict=True):
        assert name.startswith(check)
        assert message in reason or name != next(iter(found))


@pytest.mark.parametrize(
    ("kind", "name", "method"), [("reward", "Style_Flat", "__call__"), ("algorithm", "Baseline", "loss")]
)
def test_a_name_that_no_run_could_have_is_found(kind: str, name: str, method: str, tmp_path: Path) -> None:
    body = f"class {name}:\n    def {method}(self, a, b):\n        raise ValueError\n"
    source = f"from b2bench import {kind}\n\n@{kind}\n{body}"
    assert "another name for your" in failures(check_source(tmp_path, source))["its name is free"]


OPTIONAL = """
    def with_gradient(self, images, prompts):
        return {scores}

    def refuses(self, backbone):
        return {refuses}

    def models(self):
        return {models}
"""
GOOD_OPTIONAL = {"scores": "images.flatten(1).mean(1)", "refuses": "None", "models": "[]"}


@pytest.mark.parametrize(
    ("change", "check", "message"),
    [
        ({}, "", ""),
        ({"scores": "images.flatten(1).mean(1) + 1"}, "the gradient is of the same scores", "differ by 1 from"),
        ({"scores": "images.mean()"}, "the gradient is of the same scores", "expected (6,)"),
        ({"scores": "images.detach().flatten(1).mean(1)"}, "the gradient is of the same scores", "has no gradient"),
        ({"scores": "0 * images.flatten(1).mean(1) + images.detach().flatten(1).mean(1)"},
         "the gradient is of the same scores", "zero everywhere"),
        ({"scores": "images.flatten(1).mean(1) + (0 * images.flatten(1).mean(1)).abs().pow(0.5)"},
         "the gradient is of the same scores", "not finite"),
        ({"refuses": "False"}, "refusals are texts", "refuses(pocket) is False"),
        ({"models": "['CLIP']"}, "models have sizes", "must be a ModelSize"),
        ({"models": "1 / 0"}, "models have sizes", "ZeroDivisionError"),
    ],
)  # fmt: skip
def test_what_a_reward_may_offer(change: dict[str, str], check: str, message: str, tmp_path: Path) -> None:
    source = REWARD.format(body="return mean") + OPTIONAL.format(**GOOD_OPTIONAL | change)
    found = failures(check_source(tmp_path, source))
    assert (list(found) == [check] and message in found[check]) if change else found == {}


def test_its_own_checkpoint_is_used(tmp_path: Path) -> None:
    body = REWARD.replace(
        "    def __call__",
        """    checkpoint: str = "auto"
    \"\"\"Which\"\"\"

    @classmethod
    def own_checkpoint(cls, backbone):
        return f"mine for {{backbone.name}}"

    def prepare(self, device):
        assert self.checkpoint == "mine for pocket", self.checkpoint

    def __call__""",
    ).format(body="return mean")
    assert failures(check_source(tmp_path, body)) == {}


def test_a_random_reward_is_caught(tmp_path: Path) -> None:
    found = failures(check_source(tmp_path, REWARD.format(body="return mean + torch.rand(len(mean))")))
    assert "draws no random numbers" in found["scores are deterministic"]


@pytest.mark.slow
def test_checks_leave_the_global_generators_alone(tmp_path: Path) -> None:
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    broken(tmp_path, GOOD)
    assert torch.equal(torch.rand(2), expected)


def test_neither_file_nor_name() -> None:
    with pytest.raises(UserError, match=r"Did you mean ddpo\?"):
        check_file(Path("dddpo"))
    with pytest.raises(UserError, match="is not a file"):
        check_file(Path("no/such.py"))


def test_the_toy_policy_is_a_backbone_in_small() -> None:
    policy = ToyPolicy(0)
    cond, noise = policy.encode(["a", "b", "a"]), round_noise(policy, 0, 0)
    latents, step = noise([0, 1, 2], -1), torch.tensor([0, 1, 3])
    fresh = policy.noise(cond, latents, step)
    with policy.reference():
        assert torch.equal(policy.noise(cond, latents, step), fresh)  # B is zero at first
    policy.move(0.1, "test")
    assert not torch.equal(policy.noise(cond, latents, step), fresh)
    with policy.reference():
        assert torch.equal(policy.noise(cond, latents, step), fresh)
    images = rollout(policy, ["a"], samples=64, leaves=1, interval=Interval(0, 4), noise=noise).images
    assert images.min() >= 0
    assert images.max() <= 1
    assert images.std() > 0.1
