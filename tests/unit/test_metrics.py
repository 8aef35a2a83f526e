"""The one list of metrics."""

import subprocess
import sys

from b2bench.leaderboard.document import document
from synthetic import Rows

from b2bench.metrics import METRICS, is_style_share, is_taken, label, of_kind, style_share
from b2bench.pocket.world import STYLES
from b2bench.registry import Registry


def test_labels_have_units_and_a_plugins_reward_its_own_name() -> None:
    assert label("style_entropy") == "style entropy (nats)"
    assert label("success") == "success (every fact of the prompt in the image)"
    assert label("mine") == "mine"


def test_kinds_keep_the_order_of_tables() -> None:
    assert of_kind("inception") == ("is_style", "is_subject", "is_clip", "is_inception", "inception_score")
    assert of_kind("diversity") == ("style_entropy", "pairwise_distance")


def test_built_in_rewards_are_the_metrics_that_may_be_trained_on() -> None:
    assert {name for name, metric in METRICS.items() if metric.reward} == set(Registry("reward").names())


def test_names_of_metrics_and_of_style_shares_are_taken() -> None:
    assert all(is_style_share(style_share(style)) and is_taken(style_share(style)) for style in STYLES)
    assert not is_style_share("style_entropy")
    assert is_taken("style_entropy")
    assert not is_taken("clipscore")
    assert not is_taken("stylish")
    # an entry point's name may have capitals; tables would show these two like the metrics themselves
    assert is_taken("CLIPScore")
    assert is_taken("Style_Flat")
    assert is_taken("held-out")


def test_a_reward_has_no_name_of_a_column_beside_it() -> None:
    rows = Rows()
    rows.add("ddpo", "vanilla", 0, {0: 0.5, 1000: 0.6})
    [board] = [grid for grid in document(rows.tables())[0].grids if grid.key == "leaderboard"]
    beside = [column.name for column in board.columns if column.name != "clipscore"]
    assert len(beside) > 5
    assert all(is_taken(name) for name in [*beside, "warning", "headroom"])


def test_metrics_are_known_without_torch() -> None:
    code = "import sys, b2bench.metrics; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
