"""Modules that wait (``b2bench/deferred.py``) in a process that runs more than one command."""

import subprocess
import sys

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
