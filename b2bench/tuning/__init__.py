"""Choosing settings for a cell: the same points for every cell, in two stages (docs/tuning.md)."""
