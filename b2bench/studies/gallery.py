"""Prompts x seeds in one picture, for people who would rather look than read."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from b2bench.backbones.specs import find_backbone
from b2bench.errors import UserError

MARGIN, LABEL, SCALE = 4, 14, 2


def image_grid(images: Tensor, labels: Sequence[str], columns: int) -> Image.Image:
    """Return rows of ``columns`` images [N, 3, h, w] in [0, 1], enlarged twice, a label above each row."""
    height, width = images.shape[-2] * SCALE, images.shape[-1] * SCALE
    rows = len(labels)
    size = (columns * (width + MARGIN) + MARGIN, rows * (height + LABEL + MARGIN) + MARGIN)
    sheet = Image.new("RGB", size, "white")
    pen = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(size=11)
    pixels = (images * 255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
    for row, label in enumerate(labels):
        top = MARGIN + row * (height + LABEL + MARGIN)
        pen.text((MARGIN, top), label, fill="black", font=font)
        for column in range(columns):
            tile = Image.fromarray(pixels[row * columns + column]).resize((width, height), Image.Resampling.NEAREST)
            sheet.paste(tile, (MARGIN + column * (width + MARGIN), top + LABEL))
    return sheet


def side_by_side(sheets: Sequence[Image.Image], headings: Sequence[str]) -> Image.Image:
    """Pictures of equal height in a row, a heading above each."""
    gap, head = 24, 22
    font = ImageFont.load_default(size=16)
    width = sum(sheet.width for sheet in sheets) + gap * (len(sheets) - 1)
    wide = Image.new("RGB", (width, sheets[0].height + head), "white")
    left = 0
    for sheet, heading in zip(sheets, headings, strict=True):
        ImageDraw.Draw(wide).text((left + MARGIN, 2), heading, fill="black", font=font)
        wide.paste(sheet, (left, head))
        left += sheet.width + gap
    return wide


def draw_gallery(
    out: Path, prompts: Sequence[str], seeds: int, rows: int, guidance: float | None, lora: Path | None, seed: int
) -> None:
    """Sample ``rows`` test prompts of each prompt set with ``seeds`` noises each and write a PNG.

    With a LoRA, what the pretrained model draws stands beside what it draws with the LoRA, from the same noise.

    Raises:
        UserError: the file cannot be written, or the LoRA does not fit.
    """
    from b2bench.backbones.stable_diffusion import StableDiffusion, load_pipeline
    from b2bench.config.prompt_sets import load_prompts
    from b2bench.evaluation.evaluate import eval_noise
    from b2bench.rollout import sample

    if out.suffix.lower() != ".png":
        raise UserError(f"--out {out}: the gallery is a PNG file; try a name that ends in .png")
    if not out.parent.is_dir():
        raise UserError(f"--out {out}: the folder {out.parent} does not exist; try creating it")
    if guidance is not None and not (math.isfinite(guidance) and guidance > 0):
        raise UserError(
            f"--guidance {guidance:g} is not above 0; try 1, which is no guidance, or 3, the default of runs"
        )
    if lora is not None and len(prompts) > 1:
        raise UserError(
            f"--lora with --prompts {','.join(prompts)}: pocket has a network for each template, and a LoRA is of one; "
            "try the prompts that it was trained on"
        )
    backbone = find_backbone("pocket")
    labels: list[str] = []
    drawn: dict[str, list[Tensor]] = {}
    for name in prompts:
        test = load_prompts(name).test
        count = min(rows, len(test))
        chosen = [test[i * len(test) // count] for i in range(count)]
        spec = backbone.drawing(chosen)
        policies = {
            heading: StableDiffusion(
                load_pipeline(spec), num_steps=20, eta=1.0, guidance=spec.guidance if guidance is None else guidance
            )
            for heading in ("pretrained", *([] if lora is None else ["with the LoRA, the same noise"]))
        }
        if lora is not None:
            list(policies.values())[1].load_lora(lora)  # before anything is drawn: it may not fit
        pairs = [(row, noise) for row in range(len(chosen)) for noise in range(seeds)]
        for heading, policy in policies.items():
            noise = eval_noise(policy, seed, "gallery", pairs)
            drawn.setdefault(heading, []).append(sample(policy, [chosen[row] for row, _ in pairs], noise))
        labels += chosen
    sheets = [image_grid(torch.cat(parts), labels, seeds) for parts in drawn.values()]
    (sheets[0] if lora is None else side_by_side(sheets, list(drawn))).save(out)
