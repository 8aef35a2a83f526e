"""The short form of ``tests/stress/fuzz.py``, as a command."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

FUZZ = Path(__file__).parents[1] / "stress" / "fuzz.py"


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="each input is given to a fork of a process")
def test_bad_input_ends_in_one_line_and_changes_nothing() -> None:
    command = [sys.executable, str(FUZZ), "--count", "150", "--seed", "1", "--light"]
    ended = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"COLUMNS": "120"})
    assert ended.returncode == 0, ended.stdout[-5000:] + ended.stderr[-2000:]
    assert re.search(r"seed 1: 150 bad inputs refused, 0 findings", ended.stdout)
