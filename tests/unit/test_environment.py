"""What the environment may say of a process, and what cannot be meant."""

import subprocess
import sys
from pathlib import Path

import pytest

from b2bench.engine import Engine, accelerator
from b2bench.environment import OF_LAUNCHERS, OF_MPI, check_launcher, forget_launcher, place, python, threads
from b2bench.errors import UserError

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*OF_LAUNCHERS, *OF_MPI, "OMP_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("variables", "found"),
    [
        ({}, (0, 1)),
        ({"WORLD_SIZE": "1"}, (0, 1)),
        ({"RANK": "0"}, (0, 1)),
        ({"WORLD_SIZE": "1", "RANK": "0", "LOCAL_RANK": "0"}, (0, 1)),  # torchrun with one process
        ({"WORLD_SIZE": "2", "RANK": "1", "LOCAL_RANK": "0"}, (1, 2)),  # on two nodes
    ],
)
def test_a_place_among_processes(
    variables: dict[str, str], found: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert place() == found
    check_launcher()
    forget_launcher()
    assert place() == (0, 1)


@pytest.mark.parametrize(
    ("variables", "reason"),
    [
        ({"WORLD_SIZE": ""}, "WORLD_SIZE is set to ''"),
        ({"WORLD_SIZE": "two", "RANK": "0"}, "WORLD_SIZE is set to 'two'"),
        ({"WORLD_SIZE": "0"}, "at least 1"),
        ({"WORLD_SIZE": "9" * 5000, "RANK": "0"}, r"WORLD_SIZE is set to '9+ \[\.\.\. 4,9\d\d characters"),
        ({"WORLD_SIZE": "2", "RANK": "-1"}, "RANK is set to '-1'"),
        ({"WORLD_SIZE": "2", "RANK": "2"}, "RANK = 2 is not below WORLD_SIZE = 2"),
        ({"WORLD_SIZE": "2"}, "RANK is not set"),
        ({"RANK": "1"}, "WORLD_SIZE is not set"),
        ({"LOCAL_RANK": "0"}, "WORLD_SIZE is not set"),
        ({"LOCAL_RANK": ""}, "LOCAL_RANK is set to ''"),
        ({"OMPI_COMM_WORLD_SIZE": "2"}, "MPI started several"),
        ({"ACCELERATE_USE_DEEPSPEED": "true"}, "unset ACCELERATE_USE_DEEPSPEED"),
        ({"ACCELERATE_USE_FSDP": "True"}, "ACCELERATE_USE_FSDP is set"),
    ],
)
def test_what_no_launcher_means_is_refused(
    variables: dict[str, str], reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=reason):
        check_launcher()
    with pytest.raises(UserError, match=reason):
        Engine()


@pytest.mark.parametrize(
    ("name", "value"), [("ACCELERATE_TORCH_DEVICE", "gpu7"), ("ACCELERATE_DEBUG_MODE", "maybe"), ("FORK_LAUNCHED", "")]
)
@pytest.mark.usefixtures("accelerate_state")
def test_what_accelerate_refuses_is_one_line(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match="accelerate cannot start") as error:
        Engine()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("text", "found"), [("", None), ("0", None), ("4", 4), ("2,1", 2), (" 2 , 1", 2)])
def test_openmps_threads(text: str, found: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    assert threads() is None
    monkeypatch.setenv("OMP_NUM_THREADS", text)
    assert threads() == found


def test_threads_that_are_no_number_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "auto")
    with pytest.raises(UserError, match="OMP_NUM_THREADS is set to 'auto'"):
        threads()


def test_a_plugin_may_be_called_like_a_module_of_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "random.py").write_text("raise SystemExit('imported by name')")
    monkeypatch.chdir(tmp_path)
    assert "-P" in python("b2bench")
    for command in (python("b2bench"), [sys.executable, "-m", "b2bench"]):
        done = subprocess.run([*command, "show", "random.py"], capture_output=True, text=True)
        assert "imported by name" not in done.stderr.replace("random.py does not import: SystemExit: imported", "")
        assert done.returncode == 2


def test_a_checkout_that_is_not_installed_runs_its_own_modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "b2bench").mkdir()
    (tmp_path / "b2bench" / "__main__.py").touch()
    monkeypatch.chdir(tmp_path)
    assert "-P" not in python("b2bench")


def test_python_without_docstrings_is_refused() -> None:
    done = subprocess.run([sys.executable, "-OO", "-m", "b2bench", "--version"], capture_output=True, text=True)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "PYTHONOPTIMIZE" in done.stderr


def test_the_precision_of_a_launcher_is_not_a_runs(accelerate_state: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """accelerate launch hands its own to every process, and accelerate allows one in a process."""
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "fp16")
    assert accelerator().mixed_precision == "no"
    assert accelerator().device == Engine().device
    monkeypatch.setenv("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "four")
    with pytest.raises(UserError, match="accelerate cannot start as the environment tells it to: ValueError"):
        accelerator()
    made = [file.name for file in (ROOT / "b2bench").rglob("*.py") if "Accelerator(" in file.read_text("utf-8")]
    assert made == ["engine.py"]
