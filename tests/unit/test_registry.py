"""Plugins of other packages, and plugins that cannot be built."""

import re
import sys
from collections.abc import Callable
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any, Literal

import pytest

from b2bench import registry
from b2bench.describe.listing import listing
from b2bench.errors import UserError
from b2bench.hyperparameters import build
from b2bench.registry import Registry, reward

GOOD = "from b2bench.registry import algorithm\n\n\n@algorithm\nclass Good:\n    def loss(self, p, b): ...\n"


@pytest.fixture
def entry_points(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Install algorithms as another package would: name and content of their modules."""
    monkeypatch.syspath_prepend(tmp_path)

    def install(**modules: str) -> None:
        found = []
        for name, content in modules.items():
            (tmp_path / f"other_{name}.py").write_text(content)
            monkeypatch.delitem(sys.modules, f"other_{name}", raising=False)
            found.append(EntryPoint(name, f"other_{name}:{name.capitalize()}", "b2bench.algorithms"))
        monkeypatch.setattr(registry, "entry_points", lambda group: [e for e in found if e.group == group])

    return install


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("import a_module_that_is_not_there\n", "ModuleNotFoundError: No module named 'a_module_that_is_not_there'"),
        ("def broken(:\n", "SyntaxError"),
        ("import sys\nsys.exit()\n", "SystemExit"),
        ("Other = 1\n", "has no attribute 'Odd'"),
        ("Odd = 1\n", "is not a class marked with @algorithm"),
        (GOOD.replace("algorithm", "reward").replace("Good", "Odd"), "is not a class marked with @algorithm"),
    ],
    ids=["import", "syntax", "exit", "attribute", "no class", "kind"],
)
def test_a_broken_entry_point_is_named_and_hides_no_other(
    content: str, reason: str, entry_points: Callable[..., None], tmp_path: Path
) -> None:
    entry_points(odd=content, good=GOOD)
    found = Registry("algorithm")
    with pytest.raises(UserError, match=rf"entry point odd = other_odd:Odd .*{re.escape(reason)}"):
        found.get("odd")
    assert found.get("good").__name__ == "Good"
    rows: dict[str, Any] = {row["name"]: row for row in listing("algorithms", tmp_path, [])}
    assert reason in rows["odd"]["summary"]
    assert "hyperparameters" in rows["good"]
    assert "hyperparameters" in rows["ddpo"]


@pytest.mark.parametrize(
    ("kind", "default"),
    [(bool, True), (int, 1), (float, 0.5), (str, "a"), (float | None, None), (Literal["a", "b"], "a")],
    ids=str,
)
def test_a_hyperparameter_of_a_plain_type_is_taken(kind: Any, default: Any) -> None:
    made = reward(type("Made", (), {"__annotations__": {"x": kind}, "x": default}))
    assert build(made, {}).x == default


@pytest.mark.parametrize(
    "kind", [Path, list[int], dict[str, int], int | str, int | str | None, Literal[1, 2], Any, None], ids=str
)
def test_a_hyperparameter_of_another_type_is_refused(kind: Any) -> None:
    made = reward(type("Made", (), {"__annotations__": {"x": kind}, "x": None}))
    with pytest.raises(UserError, match=r"made: x is of type .*; a hyperparameter is a bool"):
        build(made, {})


def test_a_value_that_no_store_can_hold_is_refused() -> None:
    @reward
    class Made:
        file: str = "a"

        def __post_init__(self) -> None:
            self.file = Path(self.file)  # type: ignore[assignment]

    with pytest.raises(UserError, match=r"made: file = \w+Path\('b'\) is of type"):
        build(Made, {"file": "b"})


@pytest.mark.parametrize(
    ("error", "text"),
    [(KeyError("k"), "KeyError: 'k'"), (ValueError("no x"), "made: no x"), (OSError("gone"), "OSError: gone")],
)
def test_what_a_constructor_raises_is_told(error: Exception, text: str) -> None:
    @reward
    class Made:
        def __post_init__(self) -> None:
            raise error

    with pytest.raises(UserError, match=text):
        build(Made, {})
