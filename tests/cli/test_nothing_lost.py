"""Short forms of ``tests/stress/kills.py`` and ``tests/stress/writers.py``, as commands."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

STRESS = Path(__file__).parents[1] / "stress"


def run(script: str, *arguments: str) -> str:
    command = [sys.executable, str(STRESS / script), *arguments]
    ended = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"COLUMNS": "120"})
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills forks of a process")
def test_killed_runs_resume_to_the_same_rows_and_weights() -> None:
    text = run("kills.py", "--kills", "6", "--seed", "1")  # one in each phase
    assert "6 of 6 identical" in text
    for phase in ("sampling", "reward", "update", "store", "checkpoint", "evaluation"):
        assert f"in {phase}: identical" in text


@pytest.mark.slow
def test_many_writers_lose_no_row() -> None:
    text = run("writers.py", "--writers", "4", "--rounds", "4")
    assert "0 errors" in text
    assert "3,840" in text
