import math
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from b2bench.training import peak

LARGE = 400  # MiB
ASKED = "from b2bench.training.peak import process_peak; print(process_peak())"


def test_a_process_has_at_least_what_it_holds() -> None:
    """In a process of its own, which has not held more before."""
    code = f"{ASKED}\nheld = bytearray({LARGE} * 2**20)\nheld[::4096] = b'x' * len(held[::4096])\n{ASKED}"
    asked = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    before, after = map(float, asked.stdout.split())
    assert 0 < before < LARGE < after - before + 8 < 2 * LARGE  # the system counts in lots


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="others than Linux start a process at nothing")
def test_what_started_a_process_does_not_count() -> None:
    held = bytearray(LARGE * 2**20)
    held[::4096] = b"x" * len(held[::4096])  # touched, or the system would not give it
    asked = subprocess.run([sys.executable, "-c", ASKED], capture_output=True, text=True, check=True)
    assert 0 < float(asked.stdout) < LARGE / 2


def test_without_the_systems_file_the_usage_is_asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(peak, "STATUS", tmp_path / "none")
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
    assert peak.process_peak() == pytest.approx(used, rel=0.05)
    monkeypatch.setattr(peak, "resource", None)
    assert math.isnan(peak.process_peak())
