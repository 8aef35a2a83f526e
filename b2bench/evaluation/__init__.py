"""Judging images: rewards' scorers, metrics, and the evaluation of a policy."""
