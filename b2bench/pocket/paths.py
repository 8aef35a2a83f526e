"""Where the weights of the embedded world are."""

from __future__ import annotations

from pathlib import Path

POCKET_WEIGHTS = Path(__file__).with_name("weights")
# Pipeline folders, each for one template: a network for all three had too much to learn (docs/pocket.md).
NETWORKS = ("pipeline", "pipeline-template2", "pipeline-template3")
