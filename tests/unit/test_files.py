"""Files whole or not at all, and values for JSON."""

import json
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from b2bench.files import finite, replaced, write_whole


def test_a_file_is_replaced_at_the_end_of_the_block(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_text("old")
    with replaced(path, durable=True) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path: Path, error: type[BaseException]) -> None:
    path = tmp_path / "a"
    path.write_text("old")

    def write_half() -> None:
        with replaced(path, tmp_path / "half") as temporary:
            temporary.write_text("ne")
            raise error

    with pytest.raises(error):
        write_half()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_written_file_follows_links_and_replaces_no_device(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "there")
    write_whole(tmp_path / "link", b"text")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "there").read_bytes() == b"text"
    write_whole(Path("/dev/null"), b"text")
    assert Path("/dev/null").is_char_device()
    with pytest.raises(OSError, match="directory"):
        write_whole(tmp_path, b"text")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(OSError, match="symbolic links"):
        write_whole(tmp_path / "loop", b"text")


@dataclass
class Pair:
    left: float
    right: object


def test_what_is_not_finite_is_null() -> None:
    value = {1: math.nan, "b": [math.inf, 2, True, None], "c": Pair(-math.inf, np.array([1.5, math.nan])), "d": "nan"}
    found = {"1": None, "b": [None, 2, True, None], "c": {"left": None, "right": [1.5, None]}, "d": "nan"}
    assert finite(value) == found
    assert json.loads(json.dumps(finite(value), allow_nan=False)) == found


def test_other_values_are_asked_for() -> None:
    assert finite({"at": Path("a")}, str) == {"at": "a"}
    assert finite(np.float32(0.5)) == 0.5
