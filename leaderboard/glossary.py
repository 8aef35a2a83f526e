"""What the words in a report's tables mean: tooltips of columns, and a glossary at the end."""

from __future__ import annotations

from b2bench.metrics import DISTANCE, IS_CLIP, IS_INCEPTION, IS_STYLE, IS_SUBJECT, METRICS, STYLE_ENTROPY

GLOSSARY = {
    "area of gain": "Mean over the budget of the score above the start, for each seed. The primary endpoint.",
    "against pretrained": "The gain over the pretrained model on the same test images.",
    "against vanilla": "The difference to the same algorithm without a wrapper, paired by seed.",
    "held-out": "A second scorer that no run trains on, on the same test images. If it falls while the trained reward "
    "rises, the run exploits its reward.",
    "held-out gain": "The gain of the held-out score over the pretrained model.",
    "headroom": "Share of the way from the pretrained model (0) to the oracle (1), which draws what the prompt says.",
    "success": "Share of test images in which a classifier sees what the prompt says.",
    "rank": "The ranks that a cell may have among all, by comparison with the best.",
    "queries to target": "Reward queries until a seed first gained half of the largest mean gain of the table.",
    "queries": "Reward queries: how often the reward was asked about a training image.",
    "denoiser calls": "Calls of the denoising network a run, in sampling and in training.",
    "forward-equivalents": "Denoiser calls, of which one with a backward pass counts as three.",
    "matched": "Diversity at equal alignment: where a run first had the same gain over its own start.",
    "optimizer steps": "Steps of the optimizer in a run: fewer where less is kept, each of as many transitions.",
    "seeds": "Training seeds, the unit of replication. A dagger counts failed runs.",
    "collapsed": "Runs that ended below the pretrained model by 0.02, or a quarter of the spread of another reward.",
    "least effect": "The smallest true difference that these seeds would have shown in four experiments of five.",
    "method": "Where the error of a contrast comes from: its own spread over seeds, or that of a block of wrappers.",
    "noise of images": "Standard deviation of a contrast of one seed that its images alone cause.",
    "spread of seeds": "Standard deviation of a contrast over seeds that training alone causes.",
    "images needed": "Test images that would bring the noise of images to a quarter of the variance of seeds.",
    "error of prompts": "Standard error of a contrast over test prompts: other prompts would move it by about so much.",
    "control": "A wrapper that stands in for a part of another one. It has no rank.",
    "vanilla": "The algorithm without a wrapper: all steps are trained, and no rollout branches.",
    "bpt": "Backward progressive training: the last steps are trained first, then more and more of them.",
    "bs": "Branch-based sampling: each rollout is copied at a step, and the best and worst copies are trained on.",
    "b2": "bpt and bs together: the method of the paper.",
    IS_STYLE: "Inception score on the classes of pocket's style classifier: it falls if all images get one style.",
    IS_SUBJECT: "Inception score on the classes of pocket's subject classifier.",
    IS_CLIP: "Inception score on CLIP embeddings, as in the paper's tables.",
    IS_INCEPTION: "Inception score on Inception-v3 classes.",
    METRICS[STYLE_ENTROPY].described: "Entropy of the styles that a classifier sees in the images of a prompt.",
    METRICS[DISTANCE].described: "Mean distance between the images of one prompt.",
}


def explained(name: str) -> str:
    """Return what a column's name means, or "" if it says so itself; of "x, matched" it is what x means."""
    return GLOSSARY.get(name.lower(), "") or GLOSSARY.get(name.partition(",")[0].lower(), "")


def glossary(text: str) -> dict[str, str]:
    """Return the words among those of a report's ``text``, with what they mean, by name."""
    lowered = text.lower()
    return {name: meaning for name, meaning in sorted(GLOSSARY.items()) if name in lowered}
