"""The command line in this process, as the shell would see it."""

import functools
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import typer.main

from b2bench.cli import main as cli


@dataclass(frozen=True)
class Result:
    """What a command left behind."""

    code: int
    stdout: str
    stderr: str


# A process runs one command; here a hundred share one, and what Typer makes of the functions is the same for all.
get_command = functools.cache(typer.main.get_command)


@pytest.fixture
def b2bench(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Result]:
    """``b2bench("run", "--algo", "ddpo")``: exit code, stdout, stderr. Any other exception goes through."""
    # main() is what the console script calls; the signal handler it sets is no business of the tests' process.
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(typer.main, "get_command", get_command)

    def run(*arguments: object) -> Result:
        monkeypatch.setattr(sys, "argv", ["b2bench", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            cli.main()
        captured = capsys.readouterr()
        code = stop.value.code
        assert code is None or isinstance(code, int)
        return Result(code or 0, captured.out, captured.err)

    return run
