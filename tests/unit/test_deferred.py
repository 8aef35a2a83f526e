"""Modules that wait (``b2bench/deferred.py``) in a process that runs more than one command."""

import subprocess
import sys
from pathlib import Path

import pytest

TWICE = """
from b2bench.deferred import defer, is_imported
defer()
import scipy.stats
assert not is_imported("scipy.stats")
defer()
assert not is_imported("scipy.stats")
assert getattr(scipy.stats, "__file__", None) is None
assert scipy.stats.norm.cdf(0) == 0.5
assert is_imported("scipy.stats")
defer()
assert scipy.stats.norm.cdf(0) == 0.5
"""


def test_what_waits_goes_on_waiting_when_a_second_command_runs() -> None:
    subprocess.run([sys.executable, "-c", TWICE], check=True)


def package(folder: Path, name: str, init: str) -> None:
    """Write a package whose ``__init__`` is ``init``, with a module ``below``."""
    (folder / name).mkdir()
    (folder / name / "__init__.py").write_text(init)
    (folder / name / "below.py").write_text("value = 1\n")


PLAIN = """
print("runs")
__version__ = "1.0"
known = 2
from {name} import below, known as again
def __getattr__(name):
    if name == "computed":
        return 3
    raise AttributeError(name)
"""
REPLACED = """
import sys
print("runs")
from types import ModuleType
other = ModuleType(__name__)
other.__path__, other.__spec__, other.known = __path__, __spec__, 4
sys.modules[__name__] = other
"""
WAITING = """
import sys
sys.path.insert(0, {folder!r})
from b2bench import deferred
deferred.PACKAGES = ("{name}",)
deferred.defer()
import importlib.util
assert importlib.util.find_spec("{name}").origin.endswith("__init__.py")
import {name}.below
import {name} as package
assert {name}.below.value == 1 and package.__file__.endswith("__init__.py")
print("waits")
{then}
"""


def printed(folder: Path, name: str, then: str) -> list[str]:
    """Import the package in a process where it waits, do something with it, and return the lines it printed."""
    code = WAITING.format(folder=str(folder), name=name, then=then)
    made = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert made.returncode == 0, made.stderr
    return made.stdout.splitlines()


@pytest.mark.parametrize(
    "then",
    [
        "assert package.known == package.again == 2 and package.computed == 3",
        "from plain import known; assert known == 2",
        "from plain import *; assert known == 2 and below.value == 1",
        "assert 'known' in dir(package)",
        "assert package.__version__ == '1.0'",
    ],
)
def test_a_package_begins_when_something_is_taken_from_it(tmp_path: Path, then: str) -> None:
    package(tmp_path, "plain", PLAIN.format(name="plain"))
    assert printed(tmp_path, "plain", "assert not hasattr(package, '__wrapped__')") == ["waits"]
    assert printed(tmp_path, "plain", then) == ["waits", "runs"]


def test_a_package_has_no_more_than_its_init_gives(tmp_path: Path) -> None:
    package(tmp_path, "plain", PLAIN.format(name="plain"))
    then = "assert not hasattr(package, 'unknown') and not hasattr(package, 'unknown')"
    assert printed(tmp_path, "plain", then) == ["waits", "runs"]


def test_a_package_may_put_another_module_in_its_place(tmp_path: Path) -> None:
    package(tmp_path, "lazy", REPLACED)
    then = "assert package.known == 4\nimport sys\nassert sys.modules['lazy'] is not package and package.known == 4"
    assert printed(tmp_path, "lazy", then) == ["waits", "runs"]


def test_a_package_that_cannot_begin_says_so_each_time(tmp_path: Path) -> None:
    package(tmp_path, "broken", "print('runs')\nraise ImportError('no such thing')\n")
    again = "try:\n    package.known\nexcept ImportError as error:\n    assert 'no such thing' in str(error)\n"
    assert printed(tmp_path, "broken", again + again) == ["waits", "runs", "runs"]
