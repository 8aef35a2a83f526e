"""The page of a preference test: one HTML file that works offline and does not tell which image is whose."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from jinja2 import Environment, StrictUndefined

from b2bench.studies.poll import Poll

PAGE = Path(__file__).with_name("page")


def page(poll: Poll, urls: Mapping[str, str], title: str) -> str:
    """Return the whole file. ``urls`` are the images by their id.

    Its policy allows the script and the style in it, by their hashes, and images in it; nothing is fetched or sent.
    """
    style, script = (PAGE.joinpath(name).read_text(encoding="utf-8") for name in ("poll.css", "poll.js"))
    policy = "; ".join(
        (
            "default-src 'none'",
            "img-src data:",
            f"script-src '{_hash(script)}'",
            f"style-src '{_hash(style)}'",
            "base-uri 'none'",
            "form-action 'none'",
        )
    )
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=False)
    return environment.from_string(PAGE.joinpath("poll.html").read_text(encoding="utf-8")).render(
        title=title,
        question=poll.question,
        size="two" if poll.size == 2 else "three",
        number=poll.size,
        keys=[str(place + 1) for place in range(poll.size)],
        arrows=poll.size == 2,
        policy=policy,
        style=style,
        script=script,
        poll=_data(poll, urls),
    )


def _hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _data(poll: Poll, urls: Mapping[str, str]) -> str:
    """Return what the script reads: by random ids, in their order, so that no place in it tells a cell."""
    prompts = sorted({one.prompt for one in poll.comparisons})
    comparisons = [
        {"id": one.id, "prompt": prompts.index(one.prompt), "images": one.images, "repeat_of": one.repeat_of}
        for one in poll.comparisons
    ]
    content = {
        "id": poll.poll_id,
        "seed": poll.seed,
        "size": poll.size,
        "prompts": prompts,
        "comparisons": comparisons,
        "images": {image: urls[image] for image in sorted(urls)},
    }
    # in a script element nothing is escaped; only < could end it
    return json.dumps(content).replace("<", "\\u003c")
