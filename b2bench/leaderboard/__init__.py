"""The modules of the top-level folder ``leaderboard``."""

from b2bench.layout import plugin_path

__path__ = plugin_path(__path__, __name__)
