"""The door: what ``import b2bench`` offers, that it costs nothing until it is used, and that older paths stay open."""

import ast
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import b2bench
from b2bench.plugins.scaffold import write_plugin

ROOT = Path(__file__).parents[2]
HEAVY = ("torch", "diffusers", "transformers", "duckdb", "numpy", "scipy", "matplotlib", "pandas", "rich", "typer")


def imported_by(code: str, cwd: Path = ROOT) -> set[str]:
    """Which of the heavy packages a new process has imported once it has run ``code``."""
    ending = f"\nimport sys\nprint(*({set(HEAVY)} & sys.modules.keys()))"
    path = f"import sys\nsys.path.insert(0, {str(ROOT)!r})\n"
    command = [sys.executable, "-c", path + code + ending]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


def test_every_name_is_there_and_listed() -> None:
    for name in b2bench.__all__:
        assert getattr(b2bench, name) is not None
    assert set(b2bench.__all__) <= set(dir(b2bench))
    assert len(set(b2bench.__all__)) == len(b2bench.__all__)


def test_type_checkers_read_the_names_that_are_imported() -> None:
    tree = ast.parse(Path(b2bench.__file__).read_text(encoding="utf-8"))
    [block] = [node for node in tree.body if isinstance(node, ast.If)]
    read = {
        alias.asname: f"{node.module}.{alias.name}"
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    homes: dict[str, str] = vars(b2bench)["_HOMES"]
    assert read == {name: f"{module}.{name}" for name, module in homes.items()}
    assert read.keys() <= set(b2bench.__all__)
    own = {"BENCHMARK_VERSION", "__version__", "benchmark_version", "both_versions"}
    assert set(b2bench.__all__) - read.keys() == own


@pytest.mark.slow
def test_nothing_within_imports_the_door() -> None:
    """What import-linter cannot see in a checkout: pyproject.toml leaves the door's own imports out of the layers."""
    for folder in ("b2bench", "leaderboard", "algorithms", "rewards"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.ImportFrom) and node.module == "b2bench":
                    # a folder of the package is no name of the door
                    assert not {alias.name for alias in node.names} & set(b2bench.__all__), path
                if isinstance(node, ast.Import):
                    assert "b2bench" not in [alias.name for alias in node.names], path


def test_an_unknown_name_is_no_attribute() -> None:
    with pytest.raises(AttributeError, match="module 'b2bench' has no attribute 'algoritm'"):
        b2bench.algoritm  # type: ignore[attr-defined]  # noqa: B018
    with pytest.raises(ImportError, match="cannot import name 'algoritm'"):
        from b2bench import algoritm  # type: ignore[attr-defined]  # noqa: F401


def test_the_door_is_open_without_anything_heavy() -> None:
    assert imported_by("import b2bench") == set()
    assert imported_by("from b2bench import UserError, algorithm, load_results, report, reward, run, wrapper") == set()


@pytest.mark.slow
def test_a_store_is_read_without_torch(tmp_path: Path) -> None:
    code = (
        "from pathlib import Path\nimport b2bench\n"
        "b2bench.Store('b2bench.duckdb').record_refusals([])\n"
        "assert b2bench.report() == []\n"
        "try:\n    b2bench.load_results()\nexcept b2bench.UserError:\n    pass\n"  # pandas may not be installed
    )
    assert "torch" not in imported_by(code, tmp_path)


# Documented before there was the door; plugins of others import from here.
DOCUMENTED = {
    "b2bench.registry": ("algorithm", "wrapper", "reward"),
    "b2bench.types": ("Conditioning", "Gaussian", "Interval", "Pair", "Trajectories", "Transitions"),
    "b2bench.protocols": ("Algorithm", "Policy", "Reward", "Wrapper"),
    "b2bench.wrappers": ("BackwardProgressive", "Branching", "FullInterval", "Independent"),
    "b2bench.store": ("Store",),
    "b2bench.store.store": ("Store",),
    "b2bench.prompts": ("PromptSet",),
    "b2bench.backbones": ("Backbone",),
    "b2bench.errors": ("UserError", "RunFailed"),
    "b2bench": ("__version__", "BENCHMARK_VERSION", "benchmark_version", "both_versions"),
}


@pytest.mark.parametrize("module", DOCUMENTED)
def test_documented_paths_lead_to_the_same_objects(module: str) -> None:
    for name in DOCUMENTED[module]:
        assert getattr(import_module(module), name) is getattr(b2bench, name)


@pytest.mark.lint
@pytest.mark.slow
def test_a_plugin_that_uses_the_door_is_type_checked(tmp_path: Path) -> None:
    files = [write_plugin(kind, f"my{kind}", tmp_path) for kind in ("algorithm", "wrapper", "reward")]
    wrong = tmp_path / "wrong.py"
    wrong.write_text("from b2bench import Interval, algoritm\n\nInterval(start='0', stop=1)\n", encoding="utf-8")
    command = [sys.executable, "-m", "mypy", *map(str, [*files, wrong])]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
    errors = [line.partition(": ")[2] for line in done.stdout.splitlines() if "error:" in line]
    assert len(errors) == 2, done.stdout
    assert 'has no attribute "algoritm"' in errors[0]
    assert 'has incompatible type "str"; expected "int"' in errors[1]
