"""The import graph: no circle, no arrow that runs back up, and no more floors than there are."""

import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TOOL = ROOT / "tools" / "floors.py"


@pytest.fixture(scope="module")
def tool():
    return runpy.run_path(str(TOOL))


def test_floors_and_circles_of_a_small_graph(tool):
    arrows = {"top": {"left", "right"}, "left": {"right", "base"}, "right": {"left"}, "base": set(), "alone": set()}
    assert tool["floors"](arrows) == {"base": 0, "alone": 0, "left": 1, "right": 1, "top": 2}
    assert [circle for circle in tool["components"](arrows) if len(circle) > 1] == [["left", "right"]]


def test_an_arrow_to_a_higher_line_runs_back_up(tool):
    modules = {"b2bench.cli.app": {"b2bench.store.rows"}, "b2bench.store.rows": {"b2bench.cli.app"}}
    found = tool["House"](modules, {"b2bench.cli": 1, "b2bench.store": 0}, set())
    assert found.back == [("b2bench.store.rows", "b2bench.cli.app")]
    assert found.circles == [["b2bench.cli", "b2bench.store"], ["b2bench.cli.app", "b2bench.store.rows"]]


def test_the_house_has_no_circle_and_no_arrow_back_up():
    # in a process of its own: grimp looks for the package where this process has imported it from
    done = subprocess.run([sys.executable, str(TOOL)], capture_output=True, text=True, check=True)
    assert "\n0 circles, 0 arrows back up\n" in done.stdout
    assert int(re.search(r"rooms, \d+ arrows, (\d+) floors", done.stdout)[1]) <= 9
    assert int(re.search(r"to the store: (\d+) floors", done.stdout)[1]) <= 24
