"""``b2bench run --track``."""

import json
from pathlib import Path
from typing import Any

import pytest

from b2bench.store.store import Store


@pytest.mark.slow
def test_trackers_that_fail_change_no_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, b2bench: Any) -> None:
    """One whose server is down, and one that raises: the rows are those of a run that nobody tracks."""
    (tmp_path / "lib").mkdir()
    down = "def init(**options):\n    import urllib.request\n    urllib.request.urlopen('http://127.0.0.1:9')\n"
    raises = "class Settings:\n    def __init__(self, **options): pass\ndef init(**options): raise OSError('no')\n"
    (tmp_path / "lib" / "trackio.py").write_text(down)
    (tmp_path / "lib" / "wandb.py").write_text(raises)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "lib"))
    monkeypatch.syspath_prepend(str(tmp_path / "lib"))
    monkeypatch.chdir(tmp_path)
    wanted = ["run", "--algo", "ddpo", "--queries", "10", "--set", "draws=1", "--set", "steps=2", "--set"]
    wanted += ["eval_images=4", "--set", "eval_train_images=2", "--json"]
    rows = []
    for name, tracked in (("alone", ()), ("told", ("--track", "trackio", "--track", "wandb"))):
        done = b2bench(*wanted, "--db", f"{name}.duckdb", *tracked)
        assert done.code == 0, done.stderr
        json.loads(done.stdout)
        store = Store(f"{name}.duckdb")
        tables = ("queries", "evals", "images")
        found = [store.sql(f"SELECT * EXCLUDE (run_id) FROM {table} ORDER BY ALL") for table in tables]
        rounds = "SELECT * EXCLUDE (run_id, seconds, peak_mb) FROM rounds ORDER BY round"
        rows.append(repr([*found, store.sql(rounds)]))
        said = [f"--track {tracker} stopped" in done.stderr for tracker in ("trackio", "wandb")]
        assert said == [bool(tracked)] * 2
    assert rows[0] == rows[1]
    slip = b2bench(*wanted, "--track", "wandb,wandbb")
    assert (slip.code, "no such tracker" in slip.stderr) == (2, True)
