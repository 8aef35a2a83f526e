"""Where the weights of the embedded world are."""

from __future__ import annotations

from pathlib import Path

POCKET_WEIGHTS = Path(__file__).with_name("weights")
