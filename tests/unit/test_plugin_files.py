"""A plugin in several files: what lies beside it is imported and is part of its identity."""

import sys
from pathlib import Path

import pytest

from b2bench.config.run import code_hash
from b2bench.errors import UserError
from b2bench.plugin_files import beside, content_hash, sources
from b2bench.registry import import_plugin

PLUGIN = """
{imports}
from b2bench import reward

@reward
class Mine:
    def __call__(self, images, prompts):
        {late}
        return value()
"""


def plugin(folder: Path, imports: str, late: str = "pass") -> type:
    (folder / "my.plugin.py").write_text(PLUGIN.format(imports=imports, late=late))
    (found,) = import_plugin(folder / "my.plugin.py")
    return found


@pytest.mark.parametrize(
    ("imports", "late"),
    [
        ("from {name} import value", "pass"),
        ("import {name}; value = {name}.value", "pass"),
        ("from .{name} import value", "pass"),
        ("from . import {name}; value = {name}.value", "pass"),
        ("", "from {name} import value"),
        ("", "from .{name} import value"),
    ],
)
@pytest.mark.parametrize("package", [False, True])
def test_what_lies_beside_is_imported_and_hashed(imports: str, late: str, package: bool, tmp_path: Path) -> None:
    name = f"near_{abs(hash((imports, late, package)))}"  # each test has modules of its own
    part = tmp_path / name / "__init__.py" if package else tmp_path / f"{name}.py"
    part.parent.mkdir(exist_ok=True)
    part.write_text("def value():\n    return 3\n")
    cls = plugin(tmp_path, imports.format(name=name), late.format(name=name))
    assert cls()(None, None) == 3
    was = code_hash(cls)
    part.write_text("def value():\n    return 4\n")
    assert code_hash(cls) != was


@pytest.mark.parametrize(
    "imports", ["from edited_{tag} import value", "from .edited_{tag} import value", "from other_{tag} import value"]
)
def test_what_was_changed_since_is_imported_anew(imports: str, tmp_path: Path) -> None:
    """As in a notebook, whose process outlives the edits; what is stored of a run is the hash of the files."""
    tag = abs(hash(imports))
    part = tmp_path / f"edited_{tag}.py"
    (tmp_path / f"other_{tag}.py").write_text(f"from edited_{tag} import value\n")
    for answer in (3, 33, 333):
        part.write_text(f"def value():\n    return {answer}\n")
        assert plugin(tmp_path, imports.format(tag=tag))()(None, None) == answer


def test_what_has_not_changed_stays_the_module_it_was(tmp_path: Path) -> None:
    (tmp_path / "kept_part.py").write_text("def value(): ...\n")
    plugin(tmp_path, "from kept_part import value")
    first = sys.modules["kept_part"]
    plugin(tmp_path, "from kept_part import value")
    assert sys.modules["kept_part"] is first


def test_what_the_parts_import_is_a_part_and_what_is_installed_is_not(tmp_path: Path) -> None:
    (tmp_path / "one_part.py").write_text("import two_part\n")
    for name in ("two_part", "random", "torch", "unused"):
        (tmp_path / f"{name}.py").touch()
    (tmp_path / "mine.py").write_text("import one_part, random, torch, mine\nfrom b2bench import reward\n")
    assert list(beside(tmp_path / "mine.py")) == ["one_part", "two_part"]


def test_a_plugin_of_one_file_has_the_hash_of_that_file(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("import torch\n")
    assert content_hash(tmp_path / "mine.py") == "b91a3bc5e2064d02"


def test_two_plugins_with_different_parts_of_one_name(tmp_path: Path) -> None:
    for folder in (tmp_path / "a", tmp_path / "b"):
        folder.mkdir()
        (folder / "shared_name.py").write_text("def value(): ...\n")
    plugin(tmp_path / "a", "from shared_name import value")
    plugin(tmp_path / "a", "from shared_name import value")  # the same once more
    with pytest.raises(
        UserError,
        match="shared_name lies beside it, and another plugin has imported",
    ):
        plugin(tmp_path / "b", "from shared_name import value")


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not import: ModuleNotFoundError: No module named 'not_there'"):
        plugin(tmp_path, "import not_there")


def test_a_folder_without_an_init_is_a_part(tmp_path: Path) -> None:
    folder = tmp_path / "folder_part"
    folder.mkdir()
    (folder / "core.py").write_text("def value(): return 1\n")
    plugin(tmp_path, "from folder_part.core import value")
    path = tmp_path / "my.plugin.py"
    first = content_hash(path)
    assert [source.name for source in sources(path)] == ["my.plugin.py", "core.py"]
    (folder / "core.py").write_text("def value(): return 2\n")
    assert content_hash(path) != first
    (tmp_path / "folder_part.py").touch()  # comes first, as for Python
    assert [source.name for source in sources(path)] == ["my.plugin.py", "folder_part.py"]


def test_a_package_that_names_itself_is_hashed_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "own_package"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "losses.py").write_text("SCALE = 1.0\n")
    (package / "mine.py").write_text("from own_package.losses import SCALE\n")
    monkeypatch.syspath_prepend(str(tmp_path))  # as if it were installed
    first = content_hash(package / "mine.py")
    assert sorted(source.name for source in sources(package / "mine.py")) == ["__init__.py", "losses.py", "mine.py"]
    (package / "losses.py").write_text("SCALE = 7.0\n")
    assert content_hash(package / "mine.py") != first
