"""How much memory this process has taken at most. It needs no torch: benchmarks of the store ask, too."""

from __future__ import annotations

import math
import sys
from pathlib import Path

try:
    import resource
except ImportError:  # Windows has none
    resource = None  # type: ignore[assignment]

STATUS = Path("/proc/self/status")


def process_peak() -> float:
    """Return the peak resident memory of this process so far in MiB; nan where nobody knows.

    Linux's ru_maxrss is that of the process that started this one, where that was larger: a run from a notebook that
    holds 20 GB would have taken 20 GB.
    """
    try:
        for line in STATUS.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 2**10
    except OSError:  # no Linux
        pass
    if resource is None:
        return math.nan
    # Linux counts in KiB, macOS in bytes.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
