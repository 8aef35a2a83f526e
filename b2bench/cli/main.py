"""The command line. It imports no torch until a command needs it, so that --help is instant."""

from __future__ import annotations

import io
import os
import sys

import typer

from b2bench.cli.app import app
from b2bench.cli.complain import complain
from b2bench.cli.interrupts import INTERRUPTS
from b2bench.deferred import defer
from b2bench.environment import forget_launcher
from b2bench.errors import RunFailed, UserError
from b2bench.installed import read_distributions_late
from b2bench.text import refused


def at_home(word: str) -> str:
    """Expand the ``~`` of ``--out=~/runs`` as shells do that of ``--out ~/runs``: it would be a folder of this name."""
    option, _, value = word.partition("=")
    return f"{option}={os.path.expanduser(value)}" if option.startswith("--") and value.startswith("~/") else word


def main() -> None:
    """Entry point: a user's mistake is one line on stderr and exit code 2, a failed run 1."""
    # Threads that spin at barriers made two of them 50 times slower than one on a busy machine; OpenMP
    # reads this when torch is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    defer()
    read_distributions_late()
    os.environ["MPLBACKEND"] = "agg"  # figures are files, and a window system that is not there is not looked for
    if sys.argv[1:2] == ["run"]:
        INTERRUPTS.end_at_once()  # it says when it begins
    else:
        INTERRUPTS.raise_them()
        forget_launcher()  # no other command shares its work, or may leave it to another to say what it did
    sys.argv[1:] = [at_home(word) for word in sys.argv[1:]]
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal in ASCII, or a path that is not UTF-8
            stream.reconfigure(errors="replace")
    try:
        if sys.flags.optimize > 1:
            raise UserError(
                "Python runs without docstrings (-OO, or PYTHONOPTIMIZE=2), which transformers reads when it is "
                "imported; try unset PYTHONOPTIMIZE"
            )
        code = app(standalone_mode=False)
        if code == 130:  # typer caught a KeyboardInterrupt
            raise KeyboardInterrupt
        sys.exit(code)
    except UserError as error:
        complain("error", error)
        sys.exit(2)
    except typer.TyperException as error:
        if type(error).__name__ == "NoArgsIsHelpError":  # its message is the help
            typer.echo(error.format_message())
        elif message := error.format_message().strip():
            context = getattr(error, "ctx", None)
            hint = f"; {context.command_path} --help lists what there is" if context else ""
            complain("error", message.rstrip(".") + hint)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        complain("interrupted")
        sys.exit(1)
    except RunFailed as error:
        complain("run failed", error)
        sys.exit(1)
    except BaseException as error:
        reason = refused(error)
        if reason is None:
            raise
        complain("error", reason)
        sys.exit(2)


if __name__ == "__main__":
    main()
