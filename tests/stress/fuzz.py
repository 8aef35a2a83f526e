"""Does bad input end well? Thousands of bad inputs, and how each command ended: ``python tests/stress/fuzz.py``.

Each input is a command in a folder of its own: a command line with wrong words, or a right one that reads a damaged
configuration, prompt file, plugin, store, export, checkpoint, LoRA or pipeline (:mod:`bad_inputs`). The command must
end with exit code 1 or 2 and one line that says what is wrong; no traceback, nothing that was there changed, nothing
left behind. An input that the command can use after all ends with 0 and does not count. The same seed gives the same
inputs; ``--only 17`` does one of them again and keeps its folder.

In this process each command is a fork, which calls what the console script calls. ``--commands`` does so many of those
that were refused again as commands of the shell: they must say the same. Linux and macOS.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import functools
import gc
import hashlib
import io
import multiprocessing
import os
import pickle
import re
import resource
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

os.environ.setdefault("OMP_NUM_THREADS", "1")  # a fork does not inherit threads
os.environ |= {"HF_HUB_OFFLINE": "1", "COLUMNS": "80"}  # nothing is fetched

import torch
import typer.main
from bad_inputs import make
from bad_inputs.made import Input
from bad_inputs.place import make_place
from bad_inputs.side_effects import SAID
from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from b2bench.backbones import stable_diffusion
from b2bench.cli import main as cli
from b2bench.cli.app import app
from b2bench.describe import doctor
from b2bench.estimate import estimate
from b2bench.plugins import check_algorithm
from b2bench.store.store import Store
from b2bench.sweep import local as sweep
from b2bench.training import launch, setup

for name in (  # all else that commands import when they run, once, before the forks
    "describe.description",
    "describe.doctor",
    "leaderboard.figures",
    "leaderboard.html",
    "leaderboard.terminal",
    "leaderboard.written",
    "plugins.check",
    "store.parquet",
    "studies.baselines",
    "training.runs",
):
    import_module(f"b2bench.{name}")

try:  # the extra pocket
    from b2bench.pocket.build import art, command, verify
except ImportError:
    BUILDING: tuple[Any, ...] = ()
else:
    BUILDING = (art, command, verify)

SECONDS = 120  # a command that takes longer hangs
MEMORY = 6 * 2**30  # bytes beyond what a fork has: who asks for more is refused, as on a small machine
LONGEST = 1100  # characters of one clear message
ON_STDOUT = ("check", "doctor")  # whose findings are their result


class Accepted(BaseException):
    """The command would load weights now: it has found nothing wrong."""


@dataclass
class Ended:
    """How a command ended, and what is wrong with that."""

    input: Input
    code: int | None = None  # None: it did not end by itself
    stdout: str = ""
    stderr: str = ""
    seconds: float = 0.0
    wrong: list[str] = field(default_factory=list)

    @property
    def refused(self) -> bool:
        return self.code in (1, 2)


# -- one command -----------------------------------------------------------------------------------------


def without_override() -> None:
    """Let modes bind this process though its user be root (Linux): it gives up overriding them."""
    if os.geteuid() != 0 or not sys.platform.startswith("linux"):
        return
    libc = ctypes.CDLL(None)
    for capability in (1, 2):  # DAC_OVERRIDE, DAC_READ_SEARCH; from what a program that it starts may have
        libc.prctl(24, capability, 0, 0, 0)
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    sets = (ctypes.c_uint32 * 6)()
    libc.capget(header, sets)
    for i in range(3):
        sets[i] &= ~0b110
    libc.capset(header, sets)


def stop_at_weights() -> None:
    """From now on, in this process, a command that would load weights or start others is :class:`Accepted`."""

    def stop(*_: Any, **__: Any) -> NoReturn:
        raise Accepted

    for owner, name in (
        (setup, "load_parts"),
        (stable_diffusion, "load_pipeline"),
        (stable_diffusion, "load_parts"),
        (sweep.Sweep, "run"),
        (launch, "launch"),
        (estimate, "estimate"),
    ):
        setattr(owner, name, stop)
    check_algorithm._check_toy_task = lambda _: None
    doctor._convolution_seconds = lambda *_: 1.0  # what it measures takes ten seconds, and no input of it is bad
    for module in BUILDING:
        module.load_art = stop


def contents(folder: Path) -> dict[str, Any]:
    """What every path of a folder is, but for Python's caches: a hash of a file's content, or what is known without."""
    found: dict[str, Any] = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if "__pycache__" in path.parts:
            continue
        if path.is_symlink():
            found[name] = os.readlink(path)
        elif path.is_dir():
            found[name] = "folder"
        elif os.access(path, os.R_OK):
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
        else:
            found[name] = path.stat().st_size
    return found


def rows(store: Path) -> dict[str, str]:
    """A hash of all rows of each run."""
    own = Store(store)
    return {
        run["run_id"]: hashlib.sha256(repr(own.whole_run(run["run_id"])).encode()).hexdigest() for run in own.runs()
    }


def call(command: list[str]) -> tuple[int | None, str, str, list[str]]:
    """What the console script does with these words, in this process: exit code, stdout, stderr, what is wrong."""
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True) for _ in range(2))
    sys.argv = ["b2bench", *command]
    code, wrong = None, []
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            cli.main()
        except SystemExit as ended:
            code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
        except Accepted:
            code = 0
        except BaseException:
            wrong = ["traceback", traceback.format_exc()]
    text = [stream.buffer.getvalue().decode(errors="replace") for stream in (out, err)]
    return code, *text, wrong


def _address_space() -> int:
    """Bytes that this process has mapped; 0 where the system does not say."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    except OSError:
        return 0


def in_process(
    seed: int, number: int, place: Path, folder: Path, expected: dict[str, str], light: bool = False
) -> Ended:
    """Make an input and give it to its command. To be called in a process of its own. ``light``: none loads weights."""
    given = make(seed, number, place, folder)
    if given.unreadable:
        without_override()
    os.chdir(folder)
    before = contents(folder)
    if light or not given.loads:
        stop_at_weights()
    size = _address_space()
    if size:
        resource.setrlimit(resource.RLIMIT_AS, (size + MEMORY, size + MEMORY))
    os.environ |= given.environment
    started = time.monotonic()
    with beside() as written:
        code, stdout, stderr, wrong = call(given.command)
    found = Ended(given, code, stdout + written(), stderr, time.monotonic() - started, wrong)
    found.wrong += [*faults(found, before, folder, expected), *changed(folder)]
    return found


@contextlib.contextmanager
def beside() -> Iterator[Callable[[], str]]:
    """Catch what goes to the file descriptors 1 and 2 themselves; the function returns what went to stdout's."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        kept = [os.dup(number) for number in (1, 2)]
        for number, file in ((1, out), (2, err)):
            os.dup2(file.fileno(), number)

        def written() -> str:
            out.seek(0)
            return out.read().decode(errors="replace")

        text = ""
        try:
            yield lambda: text
        finally:
            text = written()
            for number, old in zip((1, 2), kept, strict=True):
                os.dup2(old, number)
                os.close(old)


def changed(folder: Path) -> Iterator[str]:
    """What a command has left changed of the process that it ran in."""
    if os.getcwd() != str(folder.resolve()):
        yield f"the working folder is {os.getcwd()}"
    if not torch.is_grad_enabled():
        yield "gradients are switched off"
    if torch.get_default_dtype() != torch.float32 or torch.get_default_device() != torch.device("cpu"):
        yield f"tensors are {torch.get_default_dtype()} on {torch.get_default_device()}"


def faults(ended: Ended, before: dict[str, Any], folder: Path, expected: dict[str, str]) -> list[str]:
    """What is wrong with how a command ended. ``expected``: the rows of the good store."""
    if ended.wrong:
        return []
    if ended.code not in (0, 1, 2):
        return [f"exit code {ended.code}"]
    return [*_message(ended), *_lost(ended, before, folder, expected)]


def _message(ended: Ended) -> Iterator[str]:
    command = ended.input.command
    said = ended.stderr + (ended.stdout if command and command[0] in ON_STDOUT else "")
    if "Traceback (most recent call last)" in said:
        yield "traceback in the message"
    if match := re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", ended.stdout.replace("\r\n", "\n") + ended.stderr):
        yield f"control character {match[0]!r} for a terminal"
    if not ended.refused:
        return
    if SAID in ended.stdout and command[0] not in ON_STDOUT:
        yield "a plugin's words are on stdout"
    lines = [line for line in ended.stderr.splitlines() if line.strip() and SAID not in line]
    messages = [line for line in lines if line.startswith(("error: ", "run failed: ", "interrupted"))]
    if "Usage: b2bench" in ended.stdout and not lines:
        return  # no command at all: the help is the message
    if ended.code == 2 and (len(lines) != 1 or not messages):
        yield f"{len(lines)} lines on stderr, {len(messages)} of them messages"
    if not said.strip():
        yield "no message"
    for line in messages:
        reason = line.partition(": ")[2].strip()
        if len(line) > LONGEST:
            yield f"a message of {len(line)} characters"
        if not line.startswith("interrupted") and re.fullmatch(
            r"\W*|['\"]?\w+['\"]?|<.*>|\w*(Error|Exception)\b.{0,12}", reason
        ):
            yield f"a message that says nothing: {reason!r}"
    plain = " ".join(said.split())
    told = [text for text in ended.input.culprits if text]
    pieces = [
        piece
        for text in told
        for piece in (text.strip(), text[:12].strip(), repr(text)[1:-1][:12].strip(), text.lstrip("-"))
    ]
    if told and not any(piece in plain for piece in pieces if piece):
        yield f"names none of {', '.join(map(ascii, (text[:30] for text in told[:6])))}"


def _lost(ended: Ended, before: dict[str, Any], folder: Path, expected: dict[str, str]) -> Iterator[str]:
    after = contents(folder)
    resumes = "--resume" in ended.input.command and ended.code != 2
    for name, content in before.items():
        if resumes and name.startswith("runs/half/"):
            continue  # it goes on
        if name not in after:
            yield f"{name} is gone"
        elif after[name] != content:
            if name.endswith(".duckdb") and name.startswith("b2bench"):
                found = rows(folder / name)
                kept = {run: found.get(run) for run in expected}
                mine = ("half",) if resumes else ()
                if lost := [run for run in expected if run not in mine and kept[run] != expected[run]]:
                    yield f"{name} has lost {', '.join(lost)}"
            elif ended.code == 2:
                yield f"{name} has changed"
    if ended.code == 2:
        for name in after.keys() - before.keys():
            if ".duckdb.schema-" in name:
                continue  # a copy of a store before it was lifted
            if not name.endswith(".lock"):
                yield f"{name} was left behind"
            elif name.removesuffix(".lock") not in after:
                yield f"{name} was left behind, and there is no such store"


# -- many ------------------------------------------------------------------------------------------------


def forked(work: Callable[[], Any], seconds: float) -> Any:
    """What ``work`` returns, done by a fork of this process; a text where it died or hung."""
    context = multiprocessing.get_context("fork")
    reader, writer = context.Pipe(duplex=False)

    def child() -> None:
        os.setsid()
        try:
            answer: Any = pickle.dumps(work())
        except BaseException:
            answer = pickle.dumps(f"the fuzz itself failed: {traceback.format_exc()}")
        writer.send_bytes(answer)
        os._exit(0)

    process = context.Process(target=child)
    process.start()
    writer.close()
    try:
        return pickle.loads(reader.recv_bytes()) if reader.poll(seconds) else f"no end within {seconds:g} s"
    except EOFError:
        process.join()
        code = process.exitcode or 0
        return f"died of {signal.Signals(-code).name}" if code < 0 else f"left by os._exit({code})"
    finally:
        if process.is_alive():
            process.kill()
        process.join()
        reader.close()


def as_command(seed: int, number: int, place: Path, folder: Path, expected: dict[str, str]) -> Ended:
    """The same as a command of the shell."""

    def prepare() -> Any:
        given = make(seed, number, place, folder)
        if given.unreadable:
            without_override()
        return given, contents(folder)

    given, before = forked(prepare, SECONDS)
    started = time.monotonic()
    ended = subprocess.run(
        # -P: the working folder is no place to import from, as with the console script
        [sys.executable, "-P", "-m", "b2bench", *(os.fsencode(word) for word in given.command)],
        cwd=folder,
        capture_output=True,
        stdin=subprocess.DEVNULL,
        timeout=3 * SECONDS,
        preexec_fn=without_override if given.unreadable else None,
        env=os.environ | given.environment,
    )
    out, err = (text.decode(errors="replace") for text in (ended.stdout, ended.stderr))
    found = Ended(given, ended.returncode, out, err, time.monotonic() - started)

    def judge() -> list[str]:
        if given.unreadable:
            without_override()
        return faults(found, before, folder, expected)

    found.wrong = forked(judge, SECONDS)
    return found


def remove(folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_dir() and not path.is_symlink():
            path.chmod(0o700)
    shutil.rmtree(folder, ignore_errors=True)


def told(number: int, ended: Ended) -> str:
    """A finding, with all that it takes to see it again."""
    words = shlex.join(
        word if len(word) < 100 else f"{word[:40]}...({len(word)} characters)" for word in ended.input.command
    )
    output = [line[:400] for line in (ended.stderr or ended.stdout).strip().splitlines()[-6:]]
    wrong = [line for text in ended.wrong for line in text.strip().splitlines()]
    lines = [f"input {number}, {ended.input.kind}: {ascii(ended.input.what)[:200]}", f"$ b2bench {ascii(words)[1:-1]}"]
    return "\n    ".join(
        [*lines, *wrong[:2], *(line[:300] for line in wrong[2:][-12:]), f"exit code {ended.code}", *map(ascii, output)]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=2000, help="bad inputs: those that are refused")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--commands", type=int, default=0, help="so many of them again, as commands")
    parser.add_argument("--light", action="store_true", help="stop commands where they would load weights")
    parser.add_argument("--only", type=int, nargs="*", help="these numbers alone; their folders are kept")
    options = parser.parse_args()
    torch.set_num_threads(1)
    console = Console(highlight=False, markup=False, emoji=False, soft_wrap=True)
    work = Path(tempfile.mkdtemp(prefix="fuzz-"))
    place = work / "place"
    problem = forked(lambda: make_place(place), 600)
    if isinstance(problem, str):
        raise SystemExit(problem)
    expected = forked(lambda: rows(place / "b2bench.duckdb"), SECONDS)
    for lock in place.glob("*.lock"):
        lock.unlink()
    # what Typer makes of the functions is the same in every fork, and half of what a refused command takes
    typer.main.get_command = functools.cache(typer.main.get_command)
    typer.main.get_command(app)
    call(["show", "none of this name"])  # what Typer and the registries import and read at their first use, as well
    gc.collect()
    gc.freeze()  # or each fork would copy what it collects
    started = time.monotonic()
    bad: list[tuple[int, Ended]] = []
    findings: list[tuple[int, Ended]] = []
    kinds: dict[str, Counter[Any]] = {}
    with Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn(),
        console=Console(stderr=True),
    ) as progress:  # fmt: skip
        numbers = iter(options.only if options.only is not None else range(10**9))
        task = progress.add_task("bad inputs", total=None if options.only else options.count)
        for number in numbers:
            if options.only is None and len(bad) >= options.count:
                break
            folder = work / str(number)
            ended = forked(
                lambda n=number, f=folder: in_process(options.seed, n, place, f, expected, options.light), SECONDS
            )
            if isinstance(ended, str):  # the input is made again for its name
                again = work / f"{number}-again"
                given = forked(lambda n=number, f=again: make(options.seed, n, place, f), SECONDS)
                remove(again)
                ended = Ended(given if isinstance(given, Input) else Input([], [], str(given), kind="?"), wrong=[ended])
            kinds.setdefault(ended.input.kind, Counter())[ended.code] += 1
            if ended.refused:
                bad.append((number, ended))
                progress.advance(task)
            if ended.wrong:
                findings.append((number, ended))
                console.print(told(number, ended))
            if options.only is None:
                remove(folder)
            else:
                console.print(f"{number}: {ended.input.kind}: {ended.input.what!a}")
                console.print(f"$ {ascii(shlex.join(ended.input.command))[:500]}")
                console.print(f"{folder}, exit code {ended.code}, {ended.seconds:.1f} s\n{ended.stdout}{ended.stderr}")
        step = max(1, len(bad) // options.commands) if options.commands else 1
        chosen = bad[::step][: options.commands]
        task = progress.add_task("as commands", total=len(chosen))
        different = 0
        codes: Counter[Any] = Counter()
        for number, inside in chosen:
            folder = work / str(number)
            outside = as_command(options.seed, number, place, folder, expected)
            codes[outside.code] += 1
            if (outside.code, _comparable(outside)) != (inside.code, _comparable(inside)):
                different += 1
                outside.wrong.append(f"in process it said, with exit code {inside.code}: {inside.stderr[-300:]!a}")
            if outside.wrong:
                findings.append((number, outside))
                console.print(told(number, outside))
            remove(folder)
            progress.advance(task)
    table = Table("kind", "inputs", "exit code 2", "exit code 1", "could be used", "other", box=box.SIMPLE)
    total: Counter[Any] = Counter()
    for kind, counted in [*sorted(kinds.items()), ("all", total)]:
        known = [counted[code] for code in (2, 1, 0)]
        table.add_row(kind, f"{counted.total():,}", *(f"{n:,}" for n in known), str(counted.total() - sum(known)))
        total += counted if kind != "all" else Counter()
    console.print(table)
    if chosen:
        console.print(f"as commands: {len(chosen)}, exit codes {dict(codes)}; {different} said something else")
    seconds = time.monotonic() - started
    console.print(f"seed {options.seed}: {len(bad):,} bad inputs refused, {len(findings)} findings, {seconds:.0f} s")
    if options.only is None:
        remove(work)
    gc.unfreeze()  # or DuckDB's bindings complain
    raise SystemExit(bool(findings))


def _comparable(ended: Ended) -> str:
    """What it said, without what is of one process: addresses, run ids, folders; of a message that is cut, its head."""
    said = ended.stderr.replace("python -m b2bench", "b2bench")
    said = re.sub(r" \[\.\.\. [\d,]+ characters \.\.\.\] .*", " [...]", said)
    text = re.sub(r"fuzz-\w+|0x[0-9a-f]+|\d{8}T\d{6}-[0-9a-f]{4}|[0-9a-f]{8,}", "", " ".join(said.split()))
    return re.sub(r"\(PID \d+\)|\d+\.\d+ s", "", text)


if __name__ == "__main__":
    main()
