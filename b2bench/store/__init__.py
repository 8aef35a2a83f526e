"""The runs of a DuckDB file: ``from b2bench.store import Store``."""

from b2bench.store.store import Store as Store
