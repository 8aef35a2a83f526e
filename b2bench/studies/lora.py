"""Somebody's LoRA, measured as a run measures its own."""

from __future__ import annotations

import hashlib
import json
import secrets
import unicodedata
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from b2bench.backbones.lora_files import peft_config
from b2bench.backbones.stable_diffusion import lora_file
from b2bench.config.prompt_sets import load_prompts
from b2bench.config.run import RunConfig, cell_hash
from b2bench.engine import accelerator
from b2bench.errors import UserError
from b2bench.evaluation.evaluate import Evaluation, evaluate
from b2bench.store.database import FOR_HOURS
from b2bench.store.store import Store
from b2bench.training.provenance import run_row
from b2bench.training.setup import load


def evaluate_lora(
    config: RunConfig,
    lora: Path | None,
    queries: int | None,
    store: Store,
    name: str | None,
    progress: Callable[[str], None],
) -> tuple[str, Evaluation]:
    """Measure somebody's LoRA (None: the pretrained model) by the protocol of runs, into the store.

    It becomes a run of algorithm ``external`` whose only evaluation stands at ``queries``, the reward queries
    that its owner says it cost, among the runs of that budget. The pretrained model cost none, and stands among
    the runs of budget ``queries``. The LoRA's hash is part of its cell's identity and of its name.

    Raises:
        UserError: the LoRA does not fit the backbone, nobody says what it cost, or the store cannot be used.
    """
    file = None if lora is None else lora_file(lora)
    if file is not None and not queries:
        raise UserError(
            f"the reward queries that {lora} cost are not known, and tables compare equal budgets; try --queries N"
        )
    if file is not None:
        check_network(file, config)
    store.check()
    settings, budget = config.settings, queries or config.queries
    images = replace(config, queries=budget).images_at(budget)
    policy, judges = load(config, accelerator().device, progress, lora=file)
    result = evaluate(
        policy,
        judges,
        {"test": config.prompts.test, "train": config.prompts.train},
        images.splits,
        settings.eval_seed,
        settings.micro_batch,
        lambda split: progress(f"evaluating on {split} prompts"),
        kl_images=images.kl,
        pretrained=file is None,
    )
    label, code = "pretrained", None
    if lora is not None and file is not None:
        label, code = lora_identity(lora, file)
    run_id = f"external-{label}-s{config.seed}-{secrets.token_hex(4)}"
    row = run_row(config, run_id, name or label, policy)
    # the name that was given heads its row in reports; what tells it from others is in its configuration
    row |= {"algorithm": "external", "wrapper": name or label, "budget": budget}
    row["config"] = row["config"] | {
        "algorithm": {"name": "external", "lora": label, "code": code},
        "wrapper": {"name": label},
        "queries": budget,
    }
    row["config_hash"] = cell_hash(row["config"])
    spent = 0 if lora is None else budget
    with store.waiting(FOR_HOURS):
        store.start_run(row)
        store.record_evals(run_id, result.metric_rows(spent), result.image_rows(spent, config.reward_name))
        store.finish_run(run_id, "done")
    return run_id, result


def check_network(file: Path, config: RunConfig) -> None:
    """Refuse a LoRA of a run of pocket whose prompts another of pocket's networks draws.

    A file does not say which network it is of, and fits all of them. Nothing is refused of a file that does not lie
    beside the ``config.json`` of a run, or of a run whose prompts are not found here.

    Raises:
        UserError: the LoRA is of the network of another template.
    """
    if not config.backbone.is_pocket:
        return
    try:
        named = json.loads(file.with_name("config.json").read_text(encoding="utf-8"))["prompts"]
        trained = load_prompts(named["name"])
        network = config.backbone.drawing([*trained.train, *trained.test]).source
    except (OSError, ValueError, LookupError, TypeError, UserError):
        return
    if network == config.backbone.source or trained.content_hash != named["hash"]:
        return
    raise UserError(
        f"{file} was trained on {trained.name}, and pocket has a network for each template: it would change the one of "
        f"{config.prompts.name}, for which it was not made; try --prompts {trained.name}"
    )


def lora_identity(given: Path, file: Path) -> tuple[str, str]:
    """Return a name that tells a LoRA from others of the same file name, and its hash."""
    config = peft_config(file)  # which has its alpha
    code = hashlib.sha256(file.read_bytes() + (config.read_bytes() if config else b"")).hexdigest()[:16]
    path = given.resolve()  # "." has no name
    name = path.name if path.is_dir() else path.stem
    return f"{unicodedata.normalize('NFC', name)}-{code[:6]}", code
