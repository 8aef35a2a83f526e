"""A signal to stop is one line and exit code 1, at whatever moment it comes."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from b2bench.cli.interrupts import Interrupts

# The command line, which gets a signal when it imports a module for the first time.
STOPPED_AT = """
import os, signal, sys

class Stop:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            sys.meta_path.remove(self)
            os.kill(os.getpid(), signal.{number})

signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # nohup, and what runs in the background, may have the tests ignore it
sys.meta_path.insert(0, Stop())
sys.argv = ["b2bench", *{arguments}]
from b2bench.__main__ import main
main()
"""
RUN = ("run", "--algo", "ddpo", "--queries", "10")


def stopped_at(module: str, folder: Path, *arguments: str, number: str = "SIGINT") -> subprocess.CompletedProcess[str]:
    code = STOPPED_AT.format(module=module, arguments=arguments, number=number)
    return subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, timeout=100)


@pytest.mark.parametrize("module", ["b2bench.cli.main", "typer", "b2bench.config.run", "torch"])
def test_a_run_that_has_not_begun_ends_at_once(module: str, tmp_path: Path) -> None:
    ended = stopped_at(module, tmp_path, *RUN)
    assert (ended.returncode, ended.stdout) == (1, "")
    early = module in ("b2bench.cli.main", "typer")
    assert ended.stderr == ("interrupted\n" if early else "interrupted before the run began; nothing of it is stored\n")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("number", ["SIGHUP", "SIGUSR1"])
def test_other_commands_say_so_too(number: str, tmp_path: Path) -> None:
    ended = stopped_at("duckdb", tmp_path, "report", number=number)
    assert (ended.returncode, ended.stdout, ended.stderr) == (1, "", "interrupted\n")


def test_a_run_that_goes_on_says_how(tmp_path: Path) -> None:
    ended = stopped_at("duckdb", tmp_path, "run", "--resume", "weekend")
    assert ended.returncode == 1
    assert ended.stderr.endswith("Continue with: b2bench run --resume weekend --db b2bench.duckdb --out runs\n")


def test_what_is_ignored_stays_ignored(tmp_path: Path) -> None:
    """As nohup has it."""
    code = (
        "import os, signal; from b2bench.cli.interrupts import Interrupts\n"
        "signal.signal(signal.SIGHUP, signal.SIG_IGN); Interrupts().end_at_once(); os.kill(os.getpid(), signal.SIGHUP)"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0


@pytest.fixture
def handlers(monkeypatch: pytest.MonkeyPatch) -> dict[int, Any]:
    """Handlers of signals that are set in the test, and not in pytest's process."""
    found: dict[int, Any] = {}
    monkeypatch.setattr(signal, "signal", found.__setitem__)
    monkeypatch.setattr(signal, "getsignal", lambda number: found.get(number, signal.SIG_DFL))
    return found


def test_what_a_scheduler_announces_the_end_with_stops_a_run(handlers: dict[int, Any]) -> None:
    found = Interrupts()
    for change, handler in (
        (found.end_at_once, found._end),
        (found.raise_them, found._raise),
        (found.ignore, signal.SIG_IGN),
    ):
        change()
        assert {handlers[number] for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGXCPU)} == {
            handler
        }


def test_a_signal_that_a_library_has_stays_its_own(handlers: dict[int, Any]) -> None:
    def dump(*_: object) -> None: ...

    handlers[signal.SIGUSR1] = dump
    handlers[signal.SIGUSR2] = None  # set from C, as faulthandler does
    found = Interrupts()
    for change in (found.end_at_once, found.raise_them, found.ignore):
        change()
    assert (handlers[signal.SIGUSR1], handlers[signal.SIGUSR2]) == (dump, None)
    assert handlers[signal.SIGXCPU] == signal.SIG_IGN


def test_one_that_got_lost_is_raised_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signal, "signal", lambda *_: None)  # pytest keeps its own
    found = Interrupts()
    found.raise_them()
    found.check()
    with pytest.raises(KeyboardInterrupt):  # a finalizer, say, would swallow it
        found._raise(signal.SIGINT, None)
    found._raise(signal.SIGINT, None)  # the terminal's, after the launcher's: the same
    with pytest.raises(KeyboardInterrupt):
        found.check()


def test_of_several_processes_one_speaks(tmp_path: Path) -> None:
    code = STOPPED_AT.format(module="typer", arguments=RUN, number="SIGTERM")
    environment = os.environ | {"WORLD_SIZE": "2", "RANK": "1"}
    ended = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, timeout=60)
    assert (ended.returncode, ended.stderr) == (1, b"")
