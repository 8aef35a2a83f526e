"""Command lines that were right before one or two of their words were changed."""

from __future__ import annotations

import random
from pathlib import Path

from bad_inputs.made import Input, tiny

# Each is accepted as it stands. Their options are changed, left out, repeated and misspelt.
LINES: tuple[tuple[int, tuple[str, ...]], ...] = (
    (4, ("run", "--algo", "dpok", "--wrapper", "b2", "--queries", "10", "--seed", "1", "--db", "b2bench.duckdb")),
    (4, ("run", "--algo", "ddpo", "--prompts", "prompts.txt", "--reward", "clipscore", "--set", "lr=1e-3")),
    (3, ("run", "--config", "config.toml", "--out", "runs", "--name", "mine", "--threads", "1")),
    (2, ("run", "--preset", "pocket", "--algo", "pg", "--vram", "24", "--backbone", "pocket")),
    (2, ("run", "--algo", "awr", "--plugin", "awr.py", "--set", "temperature=1")),
    (2, ("run", "--resume", "half", "--db", "b2bench.duckdb", "--out", "runs")),
    (1, ("run", "--algo", "ddpo", "--processes", "2", "--queries", "10")),
    (4, ("sweep", "--algo", "ddpo,dpok", "--wrapper", "all", "--seeds", "0-2", "--queries", "10,20", "--dry-run")),
    (2, ("sweep", "--config", "sweep.toml", "--jobs", "2", "--db", "b2bench.duckdb", "--out", "runs", "--dry-run")),
    (
        4,
        ("report", "--db", "b2bench.duckdb", "--format", "markdown", "--out", "report.md", "--where", "algorithm=ddpo"),
    ),
    (2, ("report", "--margin", "0.02", "--runs", "runs", "--format", "html", "--out", "report.html")),
    (3, ("merge", "b2bench.duckdb", "--into", "all.duckdb")),
    (3, ("export", "exported", "--db", "b2bench.duckdb", "--where", "wrapper=b2")),
    (3, ("import", "results", "--db", "other.duckdb")),
    (3, ("ls", "algorithms", "--plugin", "awr.py")),
    (2, ("ls", "runs", "--db", "b2bench.duckdb")),
    (3, ("show", "dpok", "--db", "b2bench.duckdb", "--plugin", "awr.py")),
    (2, ("show", "half", "--db", "b2bench.duckdb")),
    (1, ("doctor", "--db", "b2bench.duckdb")),
    (2, ("estimate", "--algo", "ddpo", "--wrapper", "b2", "--vram", "24", "--margin", "0.1", "--throughput", "100")),
    (1, ("estimate", "--preset", "pocket", "--algo", "ddpo", "--wrapper", "b2", "--queries", "10", "--seeds", "2")),
    (2, ("check", "awr.py")),
    (4, ("new", "algorithm", "fresh")),
    (4, ("evaluate", "lora.safetensors", "--queries", "10", "--seed", "0", "--eval-images", "1", "--name", "theirs")),
    (4, ("profile", "--taus", "20,6", "--leaves", "2", "--branches", "2", "--split", "test", "--out", "open.png")),
    (2, ("profile", "--lora", "lora.safetensors", "--prompts", "template1,prompts.txt", "--set", "guidance=2")),
    (3, ("baseline", "--kind", "guidance,best-of", "--prompts", "prompts.txt", "--set", "eval_images=1")),
    (1, ("baseline", "--kind", "oracle", "--art", "folder", "--db", "b2bench.duckdb")),
    (2, ("pocket", "gallery", "--out", "grid.png", "--prompts", "template1", "--seeds", "1", "--rows", "1")),
    (1, ("pocket", "build", "--work", "built", "--stage", "bert", "--jobs", "1", "--variant", "none")),
    (1, ("pocket", "verify", "--art", "folder", "--images", "3", "--out", "bars.json")),
)

WORDS = (
    "", " ", "-", "--", "---", "nan", "inf", "-inf", "1e309", "-1", "0", "-0.0", "2147483648", "9" * 30, "9" * 5000,
    "1e3",
    "0x10", "1_000", "１２", "²", "½", "💥", "\u202edaer", "\x1b[31mred\x1b[0m", "a\nb", "\t", "\r", "\x07", "\udcff",
    "caf\udce9.toml", "\ufeff", "e\u0301", "x" * 300, "x" * 20_000, "x/" * 3000, "..", "../..", "/", ".", "folder",
    "notes.txt", "notes.txt/deeper", "loop", "dangling", "gone", "gone/deeper", "sealed.txt", "sealed", "/dev/null",
    "%s%n", "{}", "{0.__class__}", "[bold]x[/bold]", "[/]", "';DROP TABLE runs;--", "None", "true", "1,2", ",", ",,",
    "=",
    "a=b", "=b", "a=", "lr=", "lr=nan", "lr=-1", "steps=0", "steps=1e9", "draws=99999999999999999999", "eta=2", "==",
    "~",
    "~nobody/x", "*", "?", "a:b", ":", "pocket:gone", "paper:1x1", "ddpo\n", "DDPO", "dpok ", "run", "http://x/y",
    "x/y/z",
    "-5-", "5-1", "0-99999", "0--1", "1e-400", "0.5", "b2bench.duckdb", "prompts.txt", "config.toml", "awr.py", "con",
    "results", "lora.safetensors", "other.duckdb", "results/runs.parquet",
)  # fmt: skip


def arguments(drawn: random.Random, folder: Path) -> Input:
    line = list(drawn.choices([line for _, line in LINES], [weight for weight, _ in LINES])[0])
    if line[0] == "run" and "--resume" not in line:
        line += tiny()[: drawn.choice((0, 0, 2))]
    told, what = [], []
    for _ in range(drawn.choice((1, 1, 1, 2))):
        change = drawn.choices((_value, _misspelt, _unknown, _bare, _twice, _extra, _command), (12, 2, 1, 1, 1, 1, 1))[
            0
        ]
        told += change(drawn, line)
        what.append(change.__name__.strip("_"))
    return Input(line, told, f"{' and '.join(what)} in {line[0] if line else ''}", unreadable=True)


def _options(line: list[str]) -> list[int]:
    return [i for i, word in enumerate(line) if word.startswith("--") and len(word) > 2]


def _value(drawn: random.Random, line: list[str]) -> list[str]:
    """Another value of an option, or of an argument."""
    places = [i for i in range(1, len(line)) if not line[i].startswith("--")] or [0]
    place = drawn.choice(places)
    old, line[place] = line[place], drawn.choice(WORDS)
    option = line[place - 1] if line[place - 1].startswith("--") else ""
    if drawn.random() < 0.2 and option == "--set":
        line[place] = f"{old.partition('=')[0]}={line[place]}"
    return [
        option,
        line[place],
        old.partition("=")[0],
        repr(line[place].partition("=")[0]),
        line[place][:2],
        line[place].rpartition(":")[2],
        "depict",
        "--algo",  # which an empty file leaves open
    ]


def _misspelt(drawn: random.Random, line: list[str]) -> list[str]:
    """An option with a letter too few, too many, or in another's place."""
    place = drawn.choice(_options(line) or [0])
    word = line[place]
    at = drawn.randrange(2, max(3, len(word)))
    line[place] = drawn.choice(
        (word[:at] + word[at + 1 :], word[:at] + drawn.choice("abcxyz-_é") + word[at:], word[:at] + word[at:].upper())
    )
    return [line[place], word]


def _unknown(drawn: random.Random, line: list[str]) -> list[str]:
    word = drawn.choice(("--unknown", "--unknown=1", "-z", "--verbose", "--lr", "-1", "--\u00e9", "--db2"))
    place = drawn.randint(1, len(line))
    line.insert(place, word)
    # it may be taken for the value of the option before it, whose own is then too many
    return [word.partition("=")[0], *line[place - 1 : place + 2]]


def _bare(drawn: random.Random, line: list[str]) -> list[str]:
    """An option without its value."""
    if not (places := [i for i in _options(line) if i + 1 < len(line)]):
        return []
    place = drawn.choice(places)
    del line[place + 1]
    return [*line[place : place + 2], *line[1:]]


def _twice(drawn: random.Random, line: list[str]) -> list[str]:
    if not (places := [i for i in _options(line) if i + 1 < len(line)]):
        return []
    place = drawn.choice(places)
    line += [line[place], drawn.choice((line[place + 1], drawn.choice(WORDS)))]
    return [*line[-2:], line[-1].partition("=")[0]]


def _extra(drawn: random.Random, line: list[str]) -> list[str]:
    line.append(drawn.choice(WORDS))
    return [line[-1], line[-1][:2], "unexpected extra argument"]


def _command(drawn: random.Random, line: list[str]) -> list[str]:
    """Another command, with these words."""
    others = (
        "run",
        "sweep",
        "report",
        "merge",
        "export",
        "import",
        "ls",
        "show",
        "new",
        "check",
        "pocket",
        "rnu",
        "",
        "💥",
    )
    line[0] = drawn.choice(others)
    return [*line, "No such command"]
