"""What the environment may say of a process, and what cannot be meant."""

import pytest

from b2bench.engine import Engine
from b2bench.environment import OF_LAUNCHERS, OF_MPI, check_launcher, forget_launcher, place, threads
from b2bench.errors import UserError


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
