"""What the commands import: torch takes seconds, and its compiler, sympy and scipy.stats as long again."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from b2bench.store.store import Store

HEAVY = ("torch", "sympy", "scipy.stats", "scipy.optimize", "matplotlib", "diffusers", "transformers", "timm")
LISTED = (
    "import json, sys\n"
    "from b2bench.deferred import is_imported\n"
    "from b2bench.cli.main import main\n"
    "try:\n    main()\n"
    "except SystemExit as end:\n    code = end.code\n"
    "print('\\n' + json.dumps([code or 0, [name for name in %r if is_imported(name)]]))\n"
)


@pytest.fixture(scope="module")
def db(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("imports") / "some.duckdb"
    store = Store(path)
    for seed in range(3):
        shared = {"backbone": "pocket", "reward": "clipscore", "prompts": "template1", "prompts_hash": "0" * 16}
        names = {"run_id": f"r{seed}", "name": f"r{seed}", "algorithm": "ddpo", "wrapper": "b2", "seed": seed}
        config = {"algorithm": {"name": "ddpo"}, "wrapper": {"name": "b2"}, "settings": {"lr": 1e-3, "eval_seed": 0}}
        rest = {"benchmark_version": "0", "budget": 10, "config_hash": "ddpo-b2", "config": config}
        store.start_run(shared | names | rest)
        values = ((0, 0.6), (10, 0.6 + 0.01 * seed))
        store.record_evals(
            f"r{seed}",
            [
                {"queries": n, "split": "test", "metric": "clipscore", "n": 9, "value": value, "settings": {}}
                for n, value in values
            ],
        )
        images = [{"prompt": "a cat", "noise_index": noise, "score": 0.6 + 0.01 * noise * seed} for noise in range(9)]
        store.record_evals(f"r{seed}", [], [{"queries": 10, "path": None, **image} for image in images])
        store.finish_run(f"r{seed}", "done")
    return path


@pytest.mark.slow
@pytest.mark.parametrize(
    "command",
    [
        "ls algorithms",
        "ls rewards",
        "ls runs --db {db}",
        "show dpok",
        "show bertscore",
        "show r0 --db {db}",
        "sweep --algo ddpo,dpok --seeds 0-1 --queries 240 --dry-run --db {db}",
        "report --db {db}",
        "report --format json --db {db}",
        "report --format markdown --db {db}",
        "compare r0 r1 --db {db}",
        "merge {db} --into {db}2",
    ],
)
def test_what_computes_nothing_needs_no_torch(command: str, db: Path) -> None:
    arguments = command.format(db=db).split()
    made = subprocess.run(
        [sys.executable, "-c", LISTED % (HEAVY,), *arguments], capture_output=True, text=True, cwd=db.parent
    )
    code, imported = json.loads(made.stdout.splitlines()[-1])
    assert code == 0, made.stderr
    assert imported == []


OF_A_RUN = """
import sys
from b2bench.deferred import defer, is_imported
defer()
from b2bench.registry import load_registries
load_registries()["algorithm"].get("dpok"), load_registries()["reward"].get("clipscore")
assert not is_imported("torch")
from b2bench.training import runs
from b2bench.config.resolve import resolve
from b2bench.training.setup import load
import torch, torch.nn.functional as F
options = {"algorithm": "ddpo", "wrapper": "b2", "reward": "clipscore", "backbone": "pocket"}
config = resolve(**options, queries=30, seed=0, values={})
policy, judges = load(config, torch.device("cpu"), lambda text: None, trained=True)
latents, step = torch.zeros(2, *policy.latent_shape), torch.zeros(2, dtype=torch.long)
out = policy.noise(policy.encode([config.prompts.train[0]] * 2), latents, step)
out.sum().backward()
torch.optim.AdamW(policy.parameters()).step()
unwanted = ["torch._dynamo", "sympy", "scipy.stats", "scipy.optimize", "timm", "matplotlib", "diffusers.pipelines"]
unwanted += ["diffusers.models.transformers", "torchvision.models", "transformers.models"]
unwanted += ["transformers", "transformers.processing_utils", "peft", "peft.tuners", "open_clip.hf_model"]
unwanted += ["diffusers.hooks", "jinja2", "requests"]
print([name for name in unwanted if is_imported(name)])

# what waits is the real thing once somebody uses it
import scipy.stats, numpy
from transformers.loss import loss_for_object_detection
assert scipy.stats.norm.cdf(0) == 0.5
assert loss_for_object_detection.linear_sum_assignment(numpy.eye(2))[0].tolist() == [0, 1]
from open_clip import timm_model
assert timm_model.timm.__version__ and timm_model.to_2tuple(3) == (3, 3)
from b2bench import types
assert isinstance(torch.zeros(1), types.Tensor) and not isinstance(1, types.Tensor)
from diffusers.models.attention_processor import Attention
assert torch.compile(lambda x: x + 1, backend="eager")(torch.ones(1)) == 2
assert is_imported("torch._dynamo")
from torchvision.models import ResNet
assert issubclass(ResNet, torch.nn.Module)
from diffusers.models.transformers import Transformer2DModel
import diffusers, transformers
assert diffusers.Transformer2DModel is Transformer2DModel
assert transformers.AutoModel is transformers.models.auto.AutoModel and transformers.models.bert.BertModel
assert is_imported("transformers.models") and is_imported("diffusers.models.transformers")
assert is_imported("transformers") and transformers.CLIPTextModel is type(policy.text_encoder)
from transformers.utils.chat_template_utils import render_jinja_template
chat = [[{"role": "user", "content": "a cat"}]]
assert render_jinja_template(chat, chat_template="{% for m in messages %}{{ m.content }}{% endfor %}")[0] == ["a cat"]
from diffusers.utils import loading_utils
assert loading_utils.requests.Session and is_imported("requests")
import open_clip, peft
before = peft.LoraConfig
assert not is_imported("peft") and peft.LoHaConfig.__name__ == "LoHaConfig" and is_imported("peft")
assert peft.LoraConfig is before and peft.LoraModel is peft.tuners.LoraModel
assert not isinstance(policy, open_clip.CoCa) and not is_imported("open_clip.coca_model")
class Mine(open_clip.CoCa): ...
assert issubclass(Mine, torch.nn.Module) and is_imported("open_clip.coca_model")
from b2bench.deferred import FOUND_IN
import importlib
for module in FOUND_IN:
    getattr(importlib.import_module(module), "logger", None)  # not among the names: imports the module
    assert is_imported(module), module
for module, names in FOUND_IN.items():
    for name, where in names.items():
        assert getattr(sys.modules[module], name) is getattr(importlib.import_module(where), name), (module, name)
assert id(Attention) in torch._dynamo.trace_rules._allowed_callable_ids.function_ids
"""


@pytest.mark.slow
def test_a_run_imports_what_it_uses() -> None:
    made = subprocess.run([sys.executable, "-c", OF_A_RUN], capture_output=True, text=True)
    assert made.returncode == 0, made.stderr
    assert made.stdout.splitlines()[0] == "[]"


OF_A_PLUGIN = """
import sys
from unittest import mock
from b2bench.deferred import defer, is_imported
defer()
import requests, transformers, torch, open_clip
assert not is_imported("requests") and not is_imported("transformers")
with mock.patch("requests.get") as get:
    import requests.api
    assert requests.get is get and sys.modules["requests"].get is get
assert requests.get is requests.api.get
from transformers.tokenization_utils import PreTrainedTokenizer  # a former name: its __init__ serves it
assert is_imported("transformers") and issubclass(transformers.BertTokenizer, transformers.PreTrainedTokenizerBase)
assert open_clip.CoCa.__name__ == "CoCa" and issubclass(open_clip.CoCa, torch.nn.Module)
assert transformers.AutoImageProcessor.__name__ == "AutoImageProcessor"
"""
SET_BY_HAND = """
from b2bench.deferred import defer, is_imported
defer()
import transformers
assert not is_imported("transformers")
transformers.AdamW = int
from transformers import AdamW, BertModel
assert AdamW is int
"""


@pytest.mark.slow
@pytest.mark.parametrize("script", [OF_A_PLUGIN, SET_BY_HAND])
def test_what_a_plugin_may_do_with_what_waits(script: str) -> None:
    made = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert made.returncode == 0, made.stderr
