"""Files of text: configurations, presets, plans of sweeps, prompts."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

from bad_inputs.made import Input, cut, flipped, misplace, tiny

# -- TOML ------------------------------------------------------------------------------------------------


def _scalar(drawn: random.Random) -> str:
    return drawn.choice(
        (
            "true", "1979-05-27T07:32:00Z", "nan", "-inf", "1e400", str(10**drawn.randrange(19, 400)), "-1",
            "0", "0.1", "''", "'\U0001f4a5'", '"\\u0000"', '"a\\nb"', '"\\u001b[31m"', "[]", "[[]]", "[1, 'a']", "{}",
            "{a = 1}", "{value = 1}", "{value = 1, source = ''}", "{value = {}, source = 'x'}", "'x/y'", "'../..'",
            "'/'", "'notes.txt'", "'folder'", "'loop'", f"'{'x' * 300}'", f"'{'x' * 9000}'", "'ddpo'",
            "'all'", "'0-99999'", "'~'", "07:32:00",
        )
    )  # fmt: skip


def _key(drawn: random.Random) -> str:
    return drawn.choice(
        (
            "algo", "wrapper", "backbone", "reward", "prompts", "queries", "seed", "seeds", "set", "set.lr",
            "set.steps", "set.eta", "set.ddpo", "set.dpok.kl_weight", "''", "'\U0001f4a5'", "querys", "about", "notes",
            "choices",
            "options", "options.queries", "algorithm", "algorithm.ddpo", "wrapper.b2", "'a b'", "name", "plugin",
        )
    )  # fmt: skip


def _broken(drawn: random.Random, good: str) -> tuple[bytes, str]:
    """The content of a TOML file that holds a mistake; which."""
    raw = good.encode()
    lines = good.splitlines()
    place = drawn.randrange(len(lines))
    ways: dict[str, Callable[[], bytes]] = {
        "wrong value": lambda: f"{_key(drawn)} = {_scalar(drawn)}\n{good}".encode(),
        "only a wrong value": lambda: f"{_key(drawn)} = {_scalar(drawn)}\n".encode(),
        "value replaced": lambda: "\n".join(
            f"{line.partition('=')[0]}= {_scalar(drawn)}" if i == place and "=" in line else line
            for i, line in enumerate(lines)
        ).encode(),
        "key replaced": lambda: "\n".join(
            f"{_key(drawn)} ={line.partition('=')[2]}" if i == place and "=" in line else line
            for i, line in enumerate(lines)
        ).encode(),
        "line doubled": lambda: "\n".join([*lines[: place + 1], *lines[place:]]).encode(),
        "nested arrays": lambda: f"algo = {'[' * (n := drawn.choice((50, 1000, 30_000)))}{']' * n}".encode(),
        "nested tables": lambda: f"[{'.'.join(['a'] * drawn.choice((50, 2000)))}]\nx = 1".encode(),
        "nested in set": lambda: f"{good}\n[set.{'.'.join('abcdefgh' * drawn.choice((1, 40)))}]\nx = 1\n".encode(),
        "random bytes": lambda: drawn.randbytes(drawn.choice((1, 40, 2000))),
        "Latin-1": lambda: good.encode() + "\n# caf\u00e9".encode("latin-1"),
        "UTF-16": lambda: good.encode("utf-16"),
        "mark": lambda: b"\xef\xbb\xbf" + raw,
        "cut": lambda: cut(drawn, raw),
        "flipped": lambda: flipped(drawn, raw, drawn.choice((1, 3))),
        "NUL": lambda: raw[: len(raw) // 2] + b"\x00" + raw[len(raw) // 2 :],
        "long key": lambda: f"{'k' * 20_000} = 1\n{good}".encode(),
        "many keys": lambda: "".join(f"k{i} = {i}\n" for i in range(3000)).encode(),
        "not closed": lambda: raw + b"\nx = '''",
    }
    name = drawn.choice([*ways])
    return ways[name](), name


def _toml(drawn: random.Random, folder: Path, file: str, command: list[str]) -> Input:
    path = folder / file
    if drawn.random() < 0.1:
        what, mode = misplace(drawn, path)
        return Input(command, [file], what, unreadable=mode)
    good = path.read_text(encoding="utf-8")
    content, what = _broken(drawn, good)
    path.write_bytes(content)
    # a value that fits its type is judged as that of the option would be, by its name
    told = [file, *{part.strip(" []'\"") for line in good.splitlines() for part in line.split("=")[:1]}]
    told += [
        "--algo",
        "algorithm",
        "wrapper",
        "lr",
        "steps",
        "eta",
        "kl_weight",
        "ddpo",
        "backbone",
        "prompts",
        "seeds",
    ]
    return Input(command, told, f"{file}: {what}")


def configs(drawn: random.Random, folder: Path) -> Input:
    verb = drawn.choice(("run", "run", "run", "estimate"))
    return _toml(drawn, folder, "config.toml", [verb, "--config", "config.toml"])


def sweeps(drawn: random.Random, folder: Path) -> Input:
    return _toml(drawn, folder, "sweep.toml", ["sweep", "--config", "sweep.toml", "--dry-run"])


def presets(drawn: random.Random, folder: Path) -> Input:
    name = drawn.choice(("preset.toml", "preset.toml", "preset.toml:other", "preset.toml:gone", "./preset.toml"))
    verb = drawn.choice((["run"], ["run"], ["sweep", "--dry-run"], ["show"]))
    command = [*verb, f"preset:{name}"] if verb == ["show"] else [*verb, "--preset", name, "--algo", "ddpo"]
    return _toml(drawn, folder, "preset.toml", command)


# -- prompts ---------------------------------------------------------------------------------------------


def prompts(drawn: random.Random, folder: Path) -> Input:
    file = folder / drawn.choice(("mine.txt", "set/train.txt", "set/test.txt", "set/card.toml"))
    if file.parent != folder:
        file.parent.mkdir()
        (file.parent / "train.txt").write_text("a cat playing chess\n", encoding="utf-8")
        (file.parent / "test.txt").write_text("a dog playing chess\n", encoding="utf-8")
    given = "mine.txt" if file.parent == folder else "set"
    verb = drawn.choice(
        (
            ["run", "--algo", "ddpo", "--prompts", given],
            ["evaluate", "lora.safetensors", "--queries", "10", "--prompts", given],
            ["profile", "--prompts", given],
            ["baseline", "--kind", "best-of", "--prompts", given],
            ["sweep", "--algo", "ddpo", "--prompts", given, "--dry-run"],
            ["pocket", "gallery", "--out", "grid.png", "--prompts", given],
        )
    )
    if drawn.random() < 0.15:
        what, mode = misplace(drawn, file)
        return Input(verb, [file.name, given], what, unreadable=mode)
    good = b"a cat playing chess\na dog washing dishes\n"
    if file.name == "card.toml":
        content, what = _broken(drawn, "name = 'mine'\ndepicted_by = ['pocket']\nlicence = 'none'\n")
    else:
        ways: dict[str, Callable[[], bytes]] = {
            "random bytes": lambda: drawn.randbytes(drawn.choice((1, 30, 3000))),
            "empty": lambda: b"",
            "mark alone": lambda: b"\xef\xbb\xbf",
            "mark twice": lambda: b"\xef\xbb\xbf" * 2 + good,
            "Latin-1": lambda: "a caf\u00e9\n".encode("latin-1"),
            "UTF-16": lambda: good.decode().encode("utf-16"),
            "a million characters": lambda: b"a cat " * 170_000,
            "a long line": lambda: good + b"a" * drawn.choice((1001, 20_000)),
            "blank lines": lambda: b"\n \n\t\n\r\n" * 1000,
            "comments": lambda: b"# one\n#two\n" * drawn.randint(1, 9),
            "control characters": lambda: good + f"a cat{chr(drawn.choice((0, 7, 27, 127, 155)))}[31m\n".encode(),
            "right to left": lambda: good + "a \u202ecat\n".encode(),
            "surrogate": lambda: good + b"\xed\xa0\x80\n",
            "twice": lambda: good + good,
            "separator": lambda: "a cat\u2028a dog\n".encode(),
            "other words": lambda: (
                good + f"a photo of a {drawn.choice(('zebra', 'CAT', '[red]', '%s', '1', ''))}\n".encode()
            ),
            "old Macintosh": lambda: good.replace(b"\n", b"\r"),
            "NUL": lambda: good + b"\x00",
            "flipped": lambda: flipped(drawn, good, 2),
            "picture": lambda: b"\x89PNG\r\n\x1a\n" + drawn.randbytes(500),
        }
        name = drawn.choice([*ways])
        content, what = ways[name](), name
    file.write_bytes(content)
    # a prompt that is not in pocket's vocabulary is named itself
    return Input(
        [*verb, *(tiny() if verb[0] == "run" else ())], [file.name, given, "cat", "depict"], f"{file.name}: {what}"
    )
