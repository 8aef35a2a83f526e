"""``b2bench new``: what it writes works as it is, and it writes over nothing."""

from pathlib import Path

import pytest

from b2bench.describe.listing import properties_of
from b2bench.errors import UserError
from b2bench.plugins.check import check_file
from b2bench.plugins.scaffold import BATCHES, write_plugin
from b2bench.registry import import_plugin, key_of, kind_of


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mine2", "my_own_2"])
@pytest.mark.parametrize(
    ("kind", "batch"),
    [("algorithm", None), *(("algorithm", batch) for batch in BATCHES), ("wrapper", None), ("reward", None)],
)
def test_a_new_plugin_has_the_name_asked_for_and_passes_every_check(
    kind: str, batch: str | None, name: str, tmp_path: Path
) -> None:
    path = write_plugin(kind, name, tmp_path, batch)
    assert path == tmp_path / f"{name}.py"
    (cls,) = import_plugin(path)
    assert (kind_of(cls), key_of(cls)) == (kind, name)
    if kind == "algorithm":
        assert properties_of(cls)["batch"].removeprefix("pairs of ") == (
            "finals" if batch == "finals" else "transitions"
        )
    results = check_file(path)
    assert len(results) > 5
    assert [(result.name, result.reason) for result in results if not result.passed] == []


@pytest.mark.parametrize(
    ("kind", "name", "message"),
    [
        ("algoritm", "mine", "Did you mean algorithm?"),
        ("algorithm", "ddpo", "exists already (built in)"),
        ("reward", "clipscore", "exists already (built in)"),
        ("algorithm", "Mine", "such as mine"),
        ("algorithm", "my-loss", "such as my_loss"),
        ("algorithm", "_loss_", "such as loss"),
        ("algorithm", "../mine", "such as mine"),
        ("algorithm", "2nd", "such as nd"),
        ("algorithm", "mine\n", "such as mine"),
        ("algorithm", "", "such as mine"),
        ("algorithm", "random", "hide Python's own module"),
    ],
)
def test_bad_input_is_one_clear_line_and_writes_nothing(kind: str, name: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        write_plugin(kind, name, tmp_path)
    assert message in str(caught.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("kind", "batch", "message"), [("algorithm", "final", "mean finals"), ("reward", "pairs", "no batch")]
)
def test_a_batch_is_known_and_an_algorithms(kind: str, batch: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        write_plugin(kind, "mine", tmp_path, batch)
    assert not list(tmp_path.iterdir())


def test_an_existing_file_stays_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("precious")
    with pytest.raises(UserError, match="stays as it is"):
        write_plugin("algorithm", "mine", tmp_path)
    assert (tmp_path / "mine.py").read_text() == "precious"


def test_a_missing_folder_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be written"):
        write_plugin("algorithm", "mine", tmp_path / "no")
