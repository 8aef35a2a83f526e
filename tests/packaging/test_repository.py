"""What holds for the files of the repository themselves."""

import ast
import copy
import re
import runpy
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))

# Where packages come from is for each machine to say: a mirror, a proxy, a cache.
PACKAGE_HOST = re.compile(
    rb"pypi\.org|pythonhosted\.org|npmjs\.(org|com)|yarnpkg\.com|unpkg\.com|jsdelivr\.net|anaconda\.org"
    rb"|conda-forge\.org|download\.pytorch\.org|crates\.io|rubygems\.org|proxy\.golang\.org"
    rb"|https?://[^\s\"'<>]+/simple\b"
)


def repository_files():
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        listed = subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout.decode()
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout")
    return [ROOT / name for name in listed.split("\0") if name and (ROOT / name).is_file()]


def tool(*command):
    done = subprocess.run([sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_no_file_names_a_package_host():
    named = {
        str(path.relative_to(ROOT)): match[0].decode()
        for path in repository_files()
        if (match := PACKAGE_HOST.search(path.read_bytes()))
    }
    assert not named


def test_no_lock_file_is_committed():
    assert ROOT / "uv.lock" not in repository_files()


def test_every_pin_is_exact_and_every_dependency_pinned():
    pins = PYPROJECT["tool"]["uv"]["constraint-dependencies"]
    assert all(re.fullmatch(r"[a-z0-9-]+==[^ =<>*]+( ; python_version .*)?", pin) for pin in pins)
    project = PYPROJECT["project"]
    optional = [*project["optional-dependencies"].values(), *PYPROJECT["dependency-groups"].values()]
    asked = [*project["dependencies"], *(name for names in optional for name in names)]
    wanted = {re.match(r"[\w-]+", name)[0].lower().replace("_", "-") for name in asked}
    assert wanted <= {pin.partition("==")[0] for pin in pins}


def test_pins_are_the_whole_resolved_set():
    lock = ROOT / "uv.lock"
    if not lock.exists():
        pytest.skip("no uv.lock: not run by uv")
    pins = runpy.run_path(str(ROOT / "tools" / "pin.py"))["pins"]
    assert pins(tomllib.loads(lock.read_text())) == PYPROJECT["tool"]["uv"]["constraint-dependencies"]


LONGEST_FUNCTION, LONGEST_FILE = 80, 600


def test_functions_and_files_are_short_or_say_why():
    """A function beyond 80 lines has a comment in it that says why, and begins "More than 80 lines"."""
    long = []
    for folder in ("b2bench", "algorithms", "rewards", "leaderboard"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            text = path.read_text(encoding="utf-8")
            lines = text.splitlines()
            if len(lines) > LONGEST_FILE:
                long.append(f"{path.relative_to(ROOT)}: {len(lines)} lines")
            for node in ast.walk(ast.parse(text)):
                if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                    own = lines[node.lineno - 1 : node.end_lineno]
                    if len(own) > LONGEST_FUNCTION and "# More than 80 lines: " not in "\n".join(own):
                        long.append(f"{path.relative_to(ROOT)}:{node.lineno} {node.name}: {len(own)} lines")
    assert not long


@pytest.mark.lint
@pytest.mark.parametrize("command", [("check",), ("format", "--check")], ids=["check", "format"])
def test_ruff(command):
    tool("ruff", *command)


@pytest.mark.lint
@pytest.mark.slow
def test_mypy():
    tool("mypy")


def test_tuned_presets_of_an_algorithm_are_of_one_search() -> None:
    """A default may change between two cells; then what was tried differs, and so do the tunings."""
    presets = [tomllib.loads(path.read_text("utf-8")) for path in (ROOT / "leaderboard" / "tuned").glob("*.toml")]
    assert presets
    assert not of_other_searches(presets)
    other = copy.deepcopy(presets[0])
    other["tuning"]["space"]["run.lr"]["default"] *= 2
    assert len(of_other_searches([*presets, other])) == 1


def of_other_searches(presets: list[dict[str, Any]]) -> list[str]:
    """Name the presets that were not searched for as the first one of their algorithm was."""
    found: dict[str, dict[str, Any]] = {}
    unlike = []
    for preset in presets:
        space = {name: axis for name, axis in preset["tuning"]["space"].items() if not name.startswith("wrapper.")}
        searched = {"space": space} | {name: preset["tuning"][name] for name in ("seeds", "points_seed", "on")}
        if found.setdefault(preset["options"]["algo"]["value"], searched) != searched:
            unlike.append(preset["about"])
    return unlike
