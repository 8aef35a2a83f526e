"""Files of votes, as the page of a preference test writes them: checked against the store, then rows of ``votes``."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from b2bench.errors import UserError
from b2bench.text import visible

Row = dict[str, Any]
FORMAT, VERSION = "b2bench votes", 1
LARGEST = 20_000_000  # bytes: a hundred raters of a thousand comparisons write less
RATER = re.compile(r"[0-9a-f]{8,64}")


def read_votes(path: Path, polls: Mapping[str, Row], store: Path) -> list[Row]:
    """Read the rows of ``votes`` of a file; ``polls`` are rows of the store at ``store``, by their id.

    Raises:
        UserError: the file cannot be read, is not of a page of votes, is damaged, or is of a test of another store.
    """
    content = _content(path)
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise UserError(f"{path} is not a file of votes; try the file that a page of b2bench vote make downloads")
    if content.get("version") != VERSION:
        raise UserError(
            f"{path} has version {content.get('version')!r} of files of votes, this b2bench reads {VERSION}"
        )
    name = content.get("poll")
    if not isinstance(name, str) or name not in polls:
        raise UserError(
            f"{path} has votes of the preference test {visible(str(name))[:40]}, which {store} does not hold; "
            "try --db with the store that b2bench vote make used"
        )
    raters = content.get("raters")
    if not isinstance(raters, list):
        raise _damaged(path, "it has no list of raters")
    try:
        return [row for rater in raters for row in _rows(path, polls[name], rater)]
    except (KeyError, TypeError, AttributeError):  # who wrote the store wrote what it says of the test
        raise UserError(f"{store} says of the preference test {name} what no b2bench wrote; try another --db") from None


def _content(path: Path) -> Any:
    try:
        with path.open("rb") as file:
            data = file.read(LARGEST + 1)
        if len(data) > LARGEST:
            raise UserError(f"{path} is larger than {LARGEST // 1_000_000} MB, so it is not a file of votes")
        return json.loads(data.decode("utf-8-sig"))
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UserError(f"{path} is not a file of votes: it is not text") from None
    except (ValueError, RecursionError):
        raise UserError(f"{path} is not a file of votes, or a part of one: it is not JSON") from None


def _damaged(path: Path, reason: str) -> UserError:
    return UserError(
        f"{path} is damaged, or was changed by hand: {reason}; nothing was added. Try downloading it again"
    )


def _rows(path: Path, poll: Row, rater: Any) -> list[Row]:
    if not isinstance(rater, dict) or not isinstance(rater.get("votes"), list):
        raise _damaged(path, "a rater has no list of votes")
    name = rater.get("rater")
    if not isinstance(name, str) or not RATER.fullmatch(name):
        raise _damaged(path, "a rater's id is not one that the page draws")
    rows = [_row(path, poll, name, vote) for vote in rater["votes"]]
    if len({row["comparison"] for row in rows}) < len(rows):
        raise _damaged(path, f"rater {name[:8]} answered a comparison twice")
    return rows


def _row(path: Path, poll: Row, rater: str, vote: Any) -> Row:
    """Return a vote with what the key of the test says of its images."""
    if not isinstance(vote, dict):
        raise _damaged(path, "a vote is not an object")
    key = vote.get("comparison")
    known = poll["comparisons"].get(key) if isinstance(key, str) else None
    if known is None:
        raise _damaged(path, f"the test has no comparison {visible(str(key))[:20]}")
    shown: Any = vote.get("shown")
    place: Any = vote.get("place")
    position: Any = vote.get("position")
    milliseconds: Any = vote.get("milliseconds")
    whose: dict[str, str] = known["images"]
    if not _are_shown(shown, whose, known["kind"]):
        raise _damaged(path, f"comparison {key} shows other images than the test")
    if place is not None and not (_count(place) and place < len(shown)):
        raise _damaged(path, f"the answer to comparison {key} is none of its images")
    if not _count(position) or not _count(milliseconds):
        raise _damaged(path, f"comparison {key} has no position, or no time")
    return {
        "poll_id": poll["poll_id"],
        "rater": rater,
        "comparison": key,
        "kind": known["kind"],
        "repeat_of": known["repeat_of"],
        "prompt": known["prompt"],
        "noise_index": known["noise_index"],
        "shown": {str(i): whose[image] for i, image in enumerate(shown)},
        "chosen": None if place is None else whose[shown[place]],
        "place": place,
        "position": min(position, 2**31 - 1),
        "milliseconds": min(milliseconds, 2**62),
    }


def _are_shown(shown: Any, whose: Mapping[str, str], kind: str) -> bool:
    """Tell if ``shown`` are a comparison's images, each once; of an identical one, one image two or three times."""
    if not isinstance(shown, list) or not all(isinstance(image, str) for image in shown):
        return False
    if kind == "identical":
        return len(shown) in (2, 3) and set(shown) == set(whose)
    return sorted(shown) == sorted(whose)


def _count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def differing(rows: Sequence[Row], stored: Sequence[Row]) -> int:
    """How many of the votes were stored before with another answer, which stays."""
    keys = ("poll_id", "rater", "comparison")
    before = {tuple(row[key] for key in keys): row["place"] for row in stored}
    return sum(before.get(key, row["place"]) != row["place"] for row in rows for key in [tuple(row[k] for k in keys)])
