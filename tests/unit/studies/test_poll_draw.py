"""Images of a preference test that are drawn: those of an evaluation, with the weights of the run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from store_rows import run_row

from b2bench.backbones.stable_diffusion import StableDiffusion
from b2bench.config.choices import Choices, resolved, with_file
from b2bench.evaluation.evaluate import eval_noise
from b2bench.rollout import sample
from b2bench.store.store import Store
from b2bench.studies.poll import chosen_cells, make_poll
from b2bench.studies.poll_images import check_weights, draw, to_draw


@pytest.mark.slow
def test_images_are_drawn_as_an_evaluation_draws_them(
    make_policy: Callable[..., StableDiffusion], tmp_path: Path
) -> None:
    config = resolved(with_file(Choices(algo="ddpo"), None, ["eval_seed=3"]))
    trained = make_policy(moved=0.1)
    (tmp_path / "a1").mkdir()
    trained.save_lora(tmp_path / "a1")
    store = Store(tmp_path / "runs.duckdb")
    store.start_run(run_row(config=config.as_dict(), prompts_hash=config.prompts.content_hash))
    store.finish_run("a1", "done")
    cells = chosen_cells(store, ["pretrained", "ddpo/b2"], {})
    check_weights(cells, tmp_path)
    shown = to_draw(cells, 2, 2)
    texts = config.prompts.test
    assert shown == [(prompt, noise) for prompt in (texts[0], texts[len(texts) // 2]) for noise in (0, 1)]
    poll = make_poll(cells, shown, checks=1)
    found = draw(poll, tmp_path, lambda text: None)
    assert len(found) == 8
    pairs = [(texts.index(prompt), noise) for prompt, noise in shown]
    expected = {}
    for name, policy in (("ddpo b2", trained), ("pretrained", make_policy(moved=0.0))):
        images = sample(policy, [prompt for prompt, _ in shown], eval_noise(policy, 3, "test", pairs))
        expected |= {(name, *each): image for each, image in zip(shown, images, strict=True)}
    for image, shot in poll.images.items():
        wanted = (expected[shot.cell, shot.prompt, shot.noise] * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
        assert isinstance(found[image], Image.Image)
        assert np.abs(np.asarray(found[image]).astype(int) - wanted).max() <= 2  # rounding, at most
    one, other = (np.asarray(expected[name, *shown[0]]) for name in ("ddpo b2", "pretrained"))
    assert np.abs(one - other).max() > 0.1
