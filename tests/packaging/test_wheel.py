"""The wheel holds what it should and nothing else, and its imports obey the design."""

import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PLUGIN_FOLDERS = ("algorithms", "leaderboard", "prompts", "rewards")

pytestmark = pytest.mark.slow


def run(*command, cwd, path=""):
    # The environment stays a local variable: pytest prints arguments, and logs are public.
    variables = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"} | ({"PYTHONPATH": str(path)} if path else {})
    done = subprocess.run(command, cwd=cwd, env=variables, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def build(target, source, out):
    run(sys.executable, "-m", "hatchling", "build", "-t", target, "-d", out, cwd=source)
    (built,) = out.iterdir()
    return built


def names(wheel):
    with zipfile.ZipFile(wheel) as archive:
        return sorted(archive.namelist())


def files(folder):
    """Files that belong into the wheel, relative to ``folder``."""
    found = (path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {path.relative_to(folder).as_posix() for path in found}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    return build("wheel", ROOT, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def unpacked(wheel, tmp_path_factory):
    folder = tmp_path_factory.mktemp("unpacked")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


def test_no_generic_name_lands_in_site_packages(wheel):
    top = {name.split("/")[0] for name in names(wheel)}
    assert {name for name in top if not name.endswith(".dist-info")} == {"b2bench"}
    assert len(top) == 2


def test_every_file_is_in_the_wheel(unpacked):
    mapped = {f"{folder}/{file}" for folder in PLUGIN_FOLDERS for file in files(ROOT / folder)}
    assert files(unpacked / "b2bench") == files(ROOT / "b2bench") | mapped
    for folder in PLUGIN_FOLDERS:
        assert (unpacked / "b2bench" / folder / "__init__.py").exists()
        assert not (ROOT / folder / "__init__.py").exists()


def test_type_checkers_read_the_types_of_the_wheel(wheel):
    assert "b2bench/py.typed" in names(wheel)


def test_folders_that_git_could_ignore_are_in_the_wheel(unpacked):
    package = unpacked / "b2bench" / "pocket"
    assert (package / "build" / "__init__.py").exists()  # .gitignore excludes other folders called build
    weights = ROOT / "b2bench" / "pocket" / "weights"
    assert list(package.rglob("*.safetensors")) or not weights.exists()


def test_wheel_of_the_sdist_is_the_wheel_of_the_checkout(wheel, tmp_path):
    sdist = build("sdist", ROOT, tmp_path / "sdist")
    with tarfile.open(sdist) as archive:
        members = archive.getnames()
        archive.extractall(tmp_path / "source", filter="data")
    (source,) = (tmp_path / "source").iterdir()
    inside = {member.partition("/")[2] for member in members}
    assert {"LICENSE", "README.md", "pyproject.toml", "tests/packaging/test_wheel.py"} <= inside
    assert not [name for name in inside if "__pycache__" in name or name == "uv.lock"]
    assert names(build("wheel", source, tmp_path / "wheel")) == names(wheel)


def test_prompts_and_plugins_are_found_in_the_wheel(unpacked):
    code = (
        "import b2bench.algorithms as a, b2bench.prompts as p\n"
        "print(len(list(a.__path__)), a.__file__, p.load_prompts('template1').train[0])"
    )
    found = run(sys.executable, "-c", code, cwd=unpacked, path=unpacked).strip()
    assert found == f"1 {unpacked / 'b2bench' / 'algorithms' / '__init__.py'} a cat washing dishes"


@pytest.mark.lint
def test_imports_obey_the_contracts_of_pyproject(unpacked):
    tool = Path(sys.executable).with_name("lint-imports")
    run(tool, "--no-cache", "--config", ROOT / "pyproject.toml", cwd=unpacked, path=unpacked)


@pytest.mark.lint
def test_types_under_the_names_that_modules_have_once_installed(unpacked):
    config = ("--config-file", ROOT / "pyproject.toml", "--cache-dir", ROOT / ".mypy_cache")
    run(sys.executable, "-m", "mypy", *config, "-p", "b2bench", cwd=unpacked)
