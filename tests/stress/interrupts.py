"""Starts of ``b2bench run`` that get a signal at random instants: each must end with one line and exit code 1.

    python tests/stress/interrupts.py --count 200 --seconds 6

A signal before Python runs a line of b2bench is Python's own affair, and counted apart. Prints the counts, and whatever
ended otherwise; exit code 1 if anything did.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter

SIGNALS = (signal.SIGINT, signal.SIGINT, signal.SIGTERM, signal.SIGHUP)  # half of them Ctrl-C
RUN = ("run", "--algo", "ddpo", "--queries", "4000", "--set", "steps=2", "--set", "eval_images=2")
# Says on stdout that b2bench's own first line is reached; what is measured is what a user's command does.
START = "import os, b2bench.__main__ as m; m.INTERRUPTS.end_at_once(); os.write(1, b'started'); m.main()"


def as_from_a_terminal() -> None:
    """Undo what nohup and a shell's & do: a process that was told to ignore a signal goes on ignoring it."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_DFL)


def start_and_stop(folder: str, number: signal.Signals, seconds: float) -> tuple[str, str]:
    """Stop one after ``seconds``: how it ended, in a few words, and what it said."""
    process = subprocess.Popen(
        [sys.executable, "-c", START, *RUN], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        preexec_fn=as_from_a_terminal,
    )  # fmt: skip
    time.sleep(seconds)
    process.send_signal(number)
    try:
        out, err = process.communicate(timeout=120)
    except subprocess.TimeoutExpired:
        process.kill()
        return "lost", process.communicate()[1]
    last = err.rstrip("\n").rpartition("\n")[2]
    if "started" not in out:
        return "before Python had started", err
    if process.returncode == 1 and last.startswith("interrupted") and "Traceback" not in err and "ignored" not in err:
        return "one line", err
    return f"exit code {process.returncode}", err


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=6.0, help="the latest instant of a signal")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    drawn, counts = random.Random(given.seed), Counter[str]()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(given.count):
            number = drawn.choice(SIGNALS)
            seconds = drawn.uniform(0, given.seconds)
            how, text = start_and_stop(folder, number, seconds)
            counts[how] += 1
            if how not in ("one line", "before Python had started"):
                print(f"{number.name} after {seconds:.3f} s: {how}\n{text}", flush=True)
    print(dict(counts))
    sys.exit(counts.total() > counts["one line"] + counts["before Python had started"])


if __name__ == "__main__":
    main()
