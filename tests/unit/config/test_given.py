"""What a person gives: names of runs and TOML files."""

from pathlib import Path

import pytest

from b2bench.config.given import LONGEST_NAME, read_config_file, run_name
from b2bench.errors import UserError


@pytest.mark.parametrize(
    ("given", "stored"),
    [
        (None, None),
        ("first", "first"),
        (" a, b? ", "a, b?"),
        ("cafe\u0301", "caf\u00e9"),
        ("-#%=[bold]/\U0001f600", "-#%=[bold]/\U0001f600"),
        ("x" * LONGEST_NAME, "x" * LONGEST_NAME),
    ],
)
def test_a_name_is_stored_as_it_will_be_asked_for(given: str | None, stored: str | None) -> None:
    assert run_name(given) == stored


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("", "empty"),
        (" \n", "empty"),
        ("a\nb", r"control character '\\n'"),
        ("\x1b[31mred", "control"),
        ("x" * 5000, "5,000 characters"),
        ("\udcff", "not UTF-8"),
    ],
)
def test_what_is_no_name_is_refused(name: str, reason: str) -> None:
    with pytest.raises(UserError, match=reason):
        run_name(name)


def test_a_file_may_begin_with_a_mark(tmp_path: Path) -> None:
    file = tmp_path / "sweep.toml"
    file.write_bytes(b'\xef\xbb\xbfalgo = "ddpo"\n')
    assert read_config_file(file) == {"algo": "ddpo"}
