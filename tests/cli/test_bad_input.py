"""Bad input gives one clear line and exit code 2, and leaves every file as it was."""

import json
import os
import pickle
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pytest
from store_rows import run_row

from b2bench.cli.main import at_home
from b2bench.pocket.paths import POCKET_WEIGHTS
from b2bench.store.schema import SCHEMA_VERSION
from b2bench.store.store import Store

RUN = ("run", "--algo", "ddpo", "--queries", "10")
LONG = "x" * 300


def plugin(base: str, body: str) -> str:
    return f"from b2bench.registry import algorithm, reward, wrapper\n\n\n{base}\n{body}"


BATCHED = plugin(
    "@algorithm", "class Batched:\n    pairs = False\n    batch: int = 1\n    def loss(self, policy, batch): ...\n"
)
FILES: dict[str, str | bytes] = {
    "empty.txt": "",
    "comments.txt": "# nothing\n\n   \n",
    "latin1.txt": "a photo of a caf\u00e9".encode("latin-1"),
    "zebra-crossing.txt": "a photo of a zebra crossing\n",
    "syntax.py": "def broken(:\n    pass\n",
    "null.py": b"x = 1\x00\n",
    "import_error.py": "import a_module_that_is_not_there\n",
    "raises.py": "raise RuntimeError('two\\nlines')\n",
    "exits.py": "import sys\nsys.exit(0)\n",
    "nothing.py": "class Unmarked:\n    pass\n",
    "ddpo.py": plugin("@algorithm", "class DDPO:\n    pairs = False\n    def loss(self, policy, batch): ...\n"),
    "vanilla.py": plugin("@algorithm", "class Vanilla:\n    pairs = False\n    def loss(self, policy, batch): ...\n"),
    "batched.py": BATCHED,
    "baseline.py": plugin("@algorithm", "class Baseline:\n    pairs = False\n    def loss(self, policy, batch): ...\n"),
    "required.py": plugin(
        "@algorithm", "class Required:\n    pairs = False\n    x: float\n    def loss(self, policy, batch): ...\n"
    ),
    "untyped.py": plugin(
        "@algorithm", "class Untyped:\n    pairs = False\n    x: 'Flaot' = 1.0\n    def loss(self, p, b): ...\n"
    ),
    "raising.py": plugin(
        "@algorithm",
        "class Raising:\n    pairs = False\n    x: float = 1.0\n    def __post_init__(self):\n        {}['a key']\n"
        "    def loss(self, policy, batch): ...\n",
    ),
    "pathlike.py": "from pathlib import Path\n"
    + plugin("@reward", "class Pathlike:\n    file: Path = Path('x')\n    def __call__(self, images, prompts): ...\n"),
    "divides.py": plugin(
        "@algorithm", "class Divides:\n    pairs = False\n    x: '1 / 0' = 1.0\n    def loss(self, p, b): ...\n"
    ),
    "grave.py": "raise GeneratorExit('over')\n",
    "wordless.py": "class Wordless(Exception):\n    def __str__(self):\n        {}[0]\n\n\nraise Wordless\n",
    "unsaid.py": plugin("@algorithm", "class Unsaid:\n    def loss(self, policy, batch): ...\n"),
    "lossless.py": plugin("@algorithm", "class Lossless:\n    pairs = False\n"),
    "mute.py": plugin("@reward", "class Mute:\n    pass\n"),
    "quits.py": plugin(
        "@algorithm",
        "class Quits:\n    pairs = False\n    def __post_init__(self):\n        raise SystemExit(0)\n"
        "    def loss(self, p, b): ...\n",
    ),
    "halves.py": plugin(
        "@algorithm", "class Halves:\n    pairs = False\n    x: str = '\\udc80'\n    def loss(self, p, b): ...\n"
    ),
    "jumps.py": "from b2bench.wrappers import Branching\n"
    + plugin("@wrapper", "class Jumps(Branching):\n    def interval(self, *_):\n        {}['a key']\n"),
    "numbers.py": plugin(
        "@wrapper",
        "class Numbers:\n    def interval(self, *_): return 3\n    def leaves(self, n): return 1\n    select = 1\n",
    ),
    "escape.py": "raise RuntimeError('\\x1b[31mred')\n",
    "deep.toml": f"algo = {'[' * 30_000}",
    "notes.txt": "not Python",
    "broken.toml": "algo = 'ddpo'\nqueries =\n",
    "latin1.toml": "algo = '\u00e9'".encode("latin-1"),
    "unknown.toml": "algo = 'ddpo'\nquerys = 10\n",
    "type.toml": "algo = 'ddpo'\nqueries = '10'\n",
    "flag.toml": "algo = 'ddpo'\nseed = true\n",
    "flat.toml": "algo = 'ddpo'\nset = 3\n",
    "value.toml": "algo = 'ddpo'\n[set]\nlr = [1, 2]\n",
    "huge.toml": f"algo = 'ddpo'\n[set]\nlr = 1{'0' * 400}\n",
    "misspelt.toml": "algo = 'ddpo'\n[set]\nstpes = 4\n",
}

CASES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    # what is chosen
    "algorithm": (("run", "--algo", "ddop"), ("unknown algorithm 'ddop'", "Did you mean ddpo?")),
    "no algorithm": (("run",), ("--algo", "dpok")),
    "wrapper": ((*RUN, "--wrapper", "vanila"), ("unknown wrapper 'vanila'", "Did you mean vanilla?")),
    "reward": ((*RUN, "--reward", "clipscor"), ("unknown reward 'clipscor'", "Did you mean clipscore?")),
    "backbone": ((*RUN, "--backbone", "poket"), ("unknown backbone 'poket'", "Did you mean pocket?")),
    "prompts": ((*RUN, "--prompts", "tempalte1"), ("unknown prompts 'tempalte1'", "Did you mean 'template1'?")),
    "option": ((*RUN, "--qeries", "5"), ("--qeries", "--queries", "run --help")),
    "command": (("rnu",), ("'rnu'",)),
    # hyperparameters
    "hyperparameter": ((*RUN, "--set", "stpes=4"), ("unknown hyperparameter 'stpes'", "Did you mean steps?")),
    "owner": ((*RUN, "--set", "dpok.eps=4"), ("unknown hyperparameter 'dpok.eps'",)),
    "ambiguous": (
        ("run", "--algo", "batched", "--plugin", "batched.py", "--set", "batch=2"),
        ("'batch' is ambiguous", "batched.batch or clipscore.batch"),
    ),
    "word for a number": ((*RUN, "--set", "lr=fast"), ("lr = 'fast' is not of type float", "0.001")),
    "fraction for a whole number": ((*RUN, "--set", "draws=2.5"), ("draws = '2.5' is not of type int",)),
    "no choice": ((*RUN, "--set", "precision=fp8"), ("precision = 'fp8'", "fp32")),
    "nan": ((*RUN, "--set", "lr=nan"), ("lr = 'nan'",)),
    "infinity": ((*RUN, "--set", "guidance=inf"), ("guidance = 'inf'",)),
    "zero": ((*RUN, "--set", "draws=0"), ("draws = 0 is below 1",)),
    "negative": ((*RUN, "--set", "lr=-1e-3"), ("lr = -0.001 is not above 0",)),
    "guidance": ((*RUN, "--set", "guidance=0"), ("guidance = 0.0 is not above 0",)),
    "eta": ((*RUN, "--set", "eta=1.5"), ("eta = 1.5 is outside [0, 1]",)),
    "one evaluation": ((*RUN, "--set", "eval_points=1"), ("eval_points = 1",)),
    "wrapper's own": ((*RUN, "--wrapper", "bpt", "--set", "tau_start=2"), ("tau_start = 2.0 is outside (0, 1]",)),
    "no assignment": ((*RUN, "--set", "lr"), ("--set 'lr' is not of the form name=value",)),
    "no name": ((*RUN, "--set", "=3"), ("--set '=3' is not of the form name=value",)),
    "twice": ((*RUN, "--set", "lr=1", "--set", "lr=2"), ("--set lr is given twice",)),
    # budget and seed
    "zero budget": (("run", "--algo", "ddpo", "--queries", "0"), ("queries = 0", "at least 5")),
    "negative budget": (("run", "--algo", "ddpo", "--queries", "-5"), ("queries = -5", "at least 5")),
    "unknown preset": (("run", "--preset", "papr"), ("unknown preset 'papr'", "Did you mean", "paper")),
    "unknown choice of a preset": (("run", "--preset", "paper:1x1"), ("no choice '1x1'", "100x256")),
    "preset without an algorithm": (("run", "--preset", "paper"), ("preset paper", "--algo")),
    "preset and resume": (("run", "--preset", "paper", "--resume", "x"), ("--resume", "--preset")),
    "uneven budget": (("run", "--algo", "ddpo", "--queries", "12"), ("not a multiple of samples = 5", "try 10")),
    "huge budget": (("run", "--algo", "ddpo", "--queries", "5" + "0" * 30), ("2^31",)),
    "word for a budget": (("run", "--algo", "ddpo", "--queries", "many"), ("--queries", "integer", "run --help")),
    "negative seed": ((*RUN, "--seed", "-1"), ("seed = -1",)),
    "no threads": ((*RUN, "--threads", "0"), ("--threads",)),
    "option without value": (("run", "--algo"), ("--algo",)),
    # prompts
    "empty prompts": ((*RUN, "--prompts", "empty.txt"), ("empty.txt holds no prompt",)),
    "prompts of comments": ((*RUN, "--prompts", "comments.txt"), ("comments.txt holds no prompt",)),
    "Latin-1 prompts": ((*RUN, "--prompts", "latin1.txt"), ("latin1.txt is not UTF-8", "line 1")),
    "outside the vocabulary": ((*RUN, "--prompts", "zebra-crossing.txt"), ("a photo of a zebra crossing",)),
    "template of another backbone": ((*RUN, "--prompts", "template2"), ("pocket",)),
    # plugins
    "plugin missing": ((*RUN, "--plugin", "gone.py"), ("plugin gone.py is not a file",)),
    "plugin of no .py": ((*RUN, "--plugin", "notes.txt"), ("notes.txt is not a Python file",)),
    "plugin syntax": ((*RUN, "--plugin", "syntax.py"), ("syntax.py, line 1",)),
    "plugin null byte": ((*RUN, "--plugin", "null.py"), ("null.py",)),
    "plugin import": ((*RUN, "--plugin", "import_error.py"), ("ModuleNotFoundError", "a_module_that_is_not_there")),
    "plugin raises": ((*RUN, "--plugin", "raises.py"), ("RuntimeError: two lines",)),
    "plugin exits": ((*RUN, "--plugin", "exits.py"), ("exits.py does not import: SystemExit",)),
    "plugin unmarked": ((*RUN, "--plugin", "nothing.py"), ("defines no algorithm",)),
    "plugin duplicate": ((*RUN, "--plugin", "ddpo.py"), ("named 'ddpo'", "built in and ddpo.py")),
    "plugin twice": ((*RUN, "--plugin", "batched.py", "--plugin", "batched.py"), ("named 'batched'",)),
    "plugin like the wrapper": (("run", "--algo", "vanilla", "--plugin", "vanilla.py"), ("a name of its own",)),
    "plugin like what is stored": (
        ("run", "--algo", "baseline", "--plugin", "baseline.py", "--queries", "10"),
        ("baseline is a name", "another name for your algorithm"),
    ),
    "plugin without default": (("run", "--algo", "required", "--plugin", "required.py"), ("required", "'x'")),
    "plugin with unknown type": (("run", "--algo", "untyped", "--plugin", "untyped.py"), ("untyped", "Flaot")),
    "plugin that raises on building": (
        ("run", "--algo", "raising", "--plugin", "raising.py", "--queries", "10"),
        ("raising: KeyError: 'a key'",),
    ),
    "plugin with a path": ((*RUN, "--reward", "pathlike", "--plugin", "pathlike.py"), ("pathlike: file", "type Path")),
    "plugin type that raises": (
        ("run", "--algo", "divides", "--plugin", "divides.py"),
        ("divides: the type of a field", "ZeroDivisionError"),
    ),
    "plugin beyond Exception": ((*RUN, "--plugin", "grave.py"), ("grave.py does not import: GeneratorExit: over",)),
    "plugin without words": ((*RUN, "--plugin", "wordless.py"), ("wordless.py does not import: Wordless",)),
    "plugin without loss": (("run", "--algo", "lossless", "--plugin", "lossless.py"), ("lossless has no method loss",)),
    "plugin without pairs": (
        ("run", "--algo", "unsaid", "--plugin", "unsaid.py"),
        ("algorithm unsaid does not say what it learns from", "pairs: ClassVar[bool] = False"),
    ),
    "plugin that scores nothing": ((*RUN, "--reward", "mute", "--plugin", "mute.py"), ("mute has no method __call__",)),
    "plugin that exits on building": (
        ("run", "--algo", "quits", "--plugin", "quits.py", "--queries", "10"),
        ("quits: SystemExit: 0",),
    ),
    "plugin with half a letter": (("run", "--algo", "halves", "--plugin", "halves.py"), ("halves: x", "not UTF-8")),
    "plugin that raises when asked": (
        ("sweep", "--algo", "ddpo", "--wrapper", "jumps", "--plugin", "jumps.py", "--dry-run"),
        ("jumps", "KeyError: 'a key'"),
    ),
    "plugin that answers nonsense": (
        ("sweep", "--algo", "ddpo", "--wrapper", "numbers", "--plugin", "numbers.py", "--dry-run"),
        ("wrapper numbers cannot be counted", "b2bench check"),
    ),
    "plugin that colours": ((*RUN, "--plugin", "escape.py"), ("RuntimeError: \\x1b[31mred",)),
    # config files
    "config depth": (("run", "--config", "deep.toml"), ("deep.toml", "nested too deeply")),
    "preset depth": (("run", "--preset", "deep.toml"), ("deep.toml", "nested too deeply")),
    "config missing": (("run", "--config", "gone.toml"), ("config file gone.toml does not exist",)),
    "config folder": (("run", "--config", "folder"), ("config file folder cannot be read",)),
    "config below a file": (("run", "--config", "notes.txt/a.toml"), ("notes.txt/a.toml cannot be read",)),
    "config syntax": (("run", "--config", "broken.toml"), ("broken.toml is not TOML", "line 2")),
    "config encoding": (("run", "--config", "latin1.toml"), ("latin1.toml is not TOML",)),
    "config option": (("run", "--config", "unknown.toml"), ("unknown option 'querys'", "Did you mean queries?")),
    "config type": (("run", "--config", "type.toml"), ("queries = '10' is not of type int",)),
    "config flag": (("run", "--config", "flag.toml"), ("seed = True is not of type int",)),
    "config set": (("run", "--config", "flat.toml"), ("'set' is not a table",)),
    "config value": (("run", "--config", "value.toml"), ("lr = [1, 2] is not of type float",)),
    "config overflow": (("run", "--config", "huge.toml"), ("lr = 1000", "is not of type float")),
    "config hyperparameter": (("run", "--config", "misspelt.toml"), ("'stpes'", "Did you mean steps?")),
    # places
    "pipeline": ((*RUN, "--backbone", "folder"), ("backbone folder folder is not a diffusers pipeline", "model_index")),
    "pipeline file": ((*RUN, "--backbone", "notes.txt"), ("notes.txt is not a .safetensors file", "pickle")),
    "success elsewhere": ((*RUN, "--backbone", "sd14", "--reward", "success"), ("pocket", "try clipscore")),
    "database folder": ((*RUN, "--db", "folder"), ("database folder is a folder",)),
    "database root": (("ls", "runs", "--db", "/"), ("database / is a folder",)),
    "database behind a link": ((*RUN, "--db", "dangling.duckdb"), ("dangling.duckdb is a link to nothing",)),
    "name of half a letter": ((*RUN, "--name", "a\udcff"), ("--name 'a\\udcff' is not UTF-8",)),
    "database nowhere": ((*RUN, "--db", "gone/x.duckdb"), ("gone/x.duckdb", "folder does not exist")),
    # the other commands
    "report nowhere": (("report", "--db", "gone.duckdb"), ("database gone.duckdb does not exist",)),
    "report of text": (("report", "--db", "notes.txt"), ("notes.txt is not a DuckDB file",)),
    "evaluate missing": (("evaluate", "gone.safetensors"), ("gone.safetensors does not exist",)),
    "evaluate budget": (("evaluate", "--queries", "-1"), ("--queries",)),
    "evaluate no images": (("evaluate", "--eval-images", "0"), ("--eval-images",)),
    "profile step too many": (("profile", "--taus", "20,21"), ("tau = 21 is outside 1 to 20", "--taus")),
    "profile step 0": (("profile", "--taus", "0", "--set", "steps=5"), ("tau = 0 is outside 1 to 5",)),
    "profile no steps": (("profile", "--taus", "14;3"), ("--taus '14;3'", "20,14,6")),
    "profile one leaf": (("profile", "--leaves", "1"), ("--leaves",)),
    "profile one branch": (("profile", "--branches", "1"), ("--branches",)),
    "profile no split": (("profile", "--split", "dev"), ("--split", "dev")),
    "profile figure": (("profile", "--out", "figure.pdf"), ("figure.pdf", ".png")),
    "profile figure nowhere": (("profile", "--out", "gone/a.png"), ("folder gone does not exist",)),
    "profile of a setting of training": (("profile", "--set", "lr=1e-3"), ("does not use lr", "guidance")),
    "profile of the algorithm": (("profile", "--set", "clip_nats=1"), ("does not use clip_nats",)),
    "profile twice": (("profile", "--prompts", "template1,template1"), ("two sets have the same name",)),
    "profile of no prompts": (("profile", "--prompts", "template1,tmplate2"), ("unknown prompts 'tmplate2'",)),
    "profile lora": (("profile", "--lora", "gone.safetensors"), ("gone.safetensors does not exist",)),
    "baseline of what": (("baseline",), ("--kind", "baseline --help")),
    "baseline kind": (("baseline", "--kind", "guidance,orcale"), ("unknown kind 'orcale'", "Did you mean oracle?")),
    "baseline training": (("baseline", "--kind", "guidance", "--set", "lr=1"), ("lr", "eval_images")),
    "baseline without images": (("baseline", "--kind", "guidance", "--set", "eval_images=0"), ("eval_images = 0",)),
    "baseline nowhere": (("baseline", "--kind", "guidance", "--db", "gone/x.duckdb"), ("folder does not exist",)),
    "oracle elsewhere": (("baseline", "--kind", "oracle", "--backbone", "sd14"), ("pocket only", "sd14")),
    "oracle without art": (("baseline", "--kind", "oracle", "--art", "gone"), ("--art gone is no folder", "npm")),
    "oracle of no art": (("baseline", "--kind", "oracle", "--art", "folder"), ("iconify", "is missing")),
    "art without oracle": (
        ("baseline", "--kind", "guidance", "--art", "folder"),
        ("--art is only used by --kind oracle",),
    ),
    "ls without what": (("ls",), ("what", "ls --help")),
    # texts that a terminal would obey, or that fill it
    "colour": (("profile", "--out", "\x1b[31m.pdf"), ("\\x1b[31m.pdf",)),
    "tabulator": (("check", "\t"), ("\\t is neither a file",)),
    "right to left": ((*RUN, "--plugin", "\u202eyp.x"), ("\\u202eyp.x",)),
    "flood": (("report", "--where", "x" * 20_000), ("--where 'xxx", "19,", "characters", "budget")),
    # names that the file system refuses
    "long database": ((*RUN, "--db", LONG), (LONG, "File name too long")),
    "long plugin": ((*RUN, "--plugin", LONG), (LONG, "File name too long")),
    "long backbone": ((*RUN, "--backbone", LONG), (LONG, "File name too long")),
    "check of a long name": (("check", LONG), (LONG, "File name too long")),
    "evaluate of a long name": (("evaluate", LONG), (LONG, "File name too long")),
    "report of a long name": (("report", "--db", LONG), (LONG, "File name too long")),
    "ls in a long name": (("ls", "runs", "--db", LONG), (LONG, "File name too long")),
}


def files(folder: Path) -> dict[str, bytes]:
    """Every file by its path; what a command must leave as it was."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder without a store."""
    for name, content in FILES.items():
        (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    (tmp_path / "folder").mkdir()
    (tmp_path / "dangling.duckdb").symlink_to("nowhere.duckdb")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def earlier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a store of one run, to be copied."""
    folder = tmp_path_factory.mktemp("earlier")
    Store(folder / "b2bench.duckdb").start_run(run_row("earlier"))
    return folder


@pytest.fixture
def refused(b2bench: Callable[..., Any], place: Path) -> Callable[..., str]:
    """Run a command that must be refused; its one line."""

    def check(*arguments: object) -> str:
        before = files(place)
        result = b2bench(*arguments)
        assert "Traceback" not in result.stderr
        lines = [line for line in result.stderr.splitlines() if line.strip()]
        assert len(lines) == 1, result.stderr
        assert lines[0].startswith("error: ")
        assert lines[0].isprintable()
        assert len(lines[0]) < 1100
        assert result.stdout == ""
        assert result.code == 2
        assert files(place) == before
        return lines[0]

    return check


@pytest.mark.parametrize("stored", [False, True], ids=["no store", "store"])
@pytest.mark.parametrize("case", CASES)
def test_refused_in_one_line(case: str, stored: bool, refused: Callable[..., str], earlier: Path) -> None:
    if stored:
        shutil.copytree(earlier, ".", dirs_exist_ok=True)
    arguments, parts = CASES[case]
    line = refused(*arguments)
    for part in parts:
        assert part in line


def test_an_oracle_without_npm(refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("resvg_py")
    monkeypatch.setenv("PATH", "")
    assert "npm is not installed" in refused("baseline", "--kind", "oracle")


# -- the store -------------------------------------------------------------------------------------


COMMANDS = {"run": RUN, "report": ("report",), "ls": ("ls", "runs"), "show": ("show", "earlier")}


@pytest.mark.parametrize("command", COMMANDS)
def test_a_file_that_is_no_database(command: str, refused: Callable[..., str]) -> None:
    Path("b2bench.duckdb").write_text("id,reward\n1,0.5\n" * 1000)
    assert "b2bench.duckdb is not a DuckDB file" in refused(*COMMANDS[command])


@pytest.mark.parametrize("command", COMMANDS)
def test_a_database_of_somebody_else(command: str, refused: Callable[..., str]) -> None:
    with duckdb.connect("b2bench.duckdb") as con:
        con.execute("CREATE TABLE runs (x INTEGER)")
    assert "not a b2bench store" in refused(*COMMANDS[command])


@pytest.mark.parametrize("command", COMMANDS)
def test_a_newer_schema(command: str, refused: Callable[..., str]) -> None:
    Store("b2bench.duckdb").start_run(run_row("earlier"))
    with duckdb.connect("b2bench.duckdb") as con:
        con.execute('UPDATE "schema" SET version = ?', [SCHEMA_VERSION + 1])
    line = refused(*COMMANDS[command])
    assert f"schema version {SCHEMA_VERSION + 1}" in line
    assert "try a newer b2bench" in line


def test_an_error_of_the_database_says_which(refused: Callable[..., str]) -> None:
    Store("b2bench.duckdb").start_run(run_row("earlier"))
    with duckdb.connect("b2bench.duckdb") as con:
        con.execute("ALTER TABLE runs RENAME COLUMN started TO begun")
    line = refused("report")
    assert "database b2bench.duckdb" in line
    assert "started" in line


DAMAGE = {
    "column": "ALTER TABLE rounds RENAME COLUMN approx_kl TO kl",
    "new column": "ALTER TABLE runs ADD COLUMN mood VARCHAR",
    "type": "ALTER TABLE evals ALTER n TYPE VARCHAR",
    "null": "ALTER TABLE runs ALTER reward DROP NOT NULL",
    "no object": "UPDATE runs SET config = '[1]'",
    "no object in it": """UPDATE runs SET config = '{"settings": 3}'""",
    "deep": f"UPDATE runs SET versions = '{'[' * 20_000}{']' * 20_000}'",
}


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("command", ["report", "ls", "show", "export", "resume"])
def test_a_store_that_was_changed_by_hand(damage: str, command: str, refused: Callable[..., str]) -> None:
    Store("b2bench.duckdb").start_run(run_row("earlier"))
    with duckdb.connect("b2bench.duckdb") as con:
        con.execute(DAMAGE[damage])
    more = {"export": ("export", "exported"), "resume": ("run", "--resume", "earlier")}
    assert "database b2bench.duckdb is damaged, or was changed by hand" in refused(*(COMMANDS | more)[command])
    assert not Path("exported").exists()


def test_an_interrupt_is_said(b2bench: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Store, "together", interrupted)
    result = b2bench("report")
    assert (result.code, result.stderr) == (1, "interrupted\n")


def test_an_error_of_the_program_is_not_hidden(b2bench: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise LookupError("a bug")

    monkeypatch.setattr(Store, "together", broken)
    with pytest.raises(LookupError, match="a bug"):
        b2bench("report")


@pytest.mark.parametrize("command", ["report", "ls", "show"])
def test_reading_makes_no_store(command: str, refused: Callable[..., str]) -> None:
    assert "b2bench.duckdb" in refused(*COMMANDS[command])


def test_ls_of_an_unknown_thing(refused: Callable[..., str]) -> None:
    assert "algorithms" in refused("ls", "algoritms")


def test_show_of_an_unknown_name(refused: Callable[..., str]) -> None:
    assert "dppo" in refused("show", "dppo")
    Store("b2bench.duckdb").start_run(run_row("earlier"))
    assert "dppo" in refused("show", "dppo")


def test_a_home_folder_behind_an_equals_sign(monkeypatch: pytest.MonkeyPatch) -> None:
    """The shell does it for ``--out ~/runs`` alone, and ``~`` would become the name of a folder."""
    monkeypatch.setenv("HOME", "/home/me")
    assert at_home("--out=~/runs") == "--out=/home/me/runs"
    for word in ("--out=runs", "--name=~", "~/runs", "--set", "lr=~/x"):
        assert at_home(word) == word


def test_a_run_that_is_called_like_an_algorithm_is_told_of(b2bench: Callable[..., Any], place: Path) -> None:
    Store("b2bench.duckdb").start_run(run_row("earlier", name="ddpo"))
    shown = b2bench("show", "ddpo")
    assert (shown.code, shown.stderr) == (0, "a run has this name, too: b2bench show run:ddpo prints it\n")


def test_check_of_a_missing_file(refused: Callable[..., str]) -> None:
    assert "gone.py" in refused("check", "gone.py")


def test_check_of_a_broken_file(refused: Callable[..., str]) -> None:
    assert "syntax.py, line 1" in refused("check", "syntax.py")


@pytest.mark.parametrize(
    ("arguments", "part"), [(("optimizer", "adam"), "optimizer"), (("algorithm", "9 lives"), "9 lives")]
)
def test_new_of_an_unknown_kind_or_no_name(arguments: tuple[str, ...], part: str, refused: Callable[..., str]) -> None:
    assert part in refused("new", *arguments)


# -- resuming --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "option",
    [("--algo", "ddpo"), ("--queries", "10"), ("--seed", "0"), ("--set", "lr=1"), ("--plugin", "batched.py")],
    ids=lambda option: option[0],
)
def test_resume_takes_no_other_choice(option: tuple[str, str], refused: Callable[..., str]) -> None:
    Store("b2bench.duckdb").start_run(run_row("earlier"))
    line = refused("run", "--resume", "earlier", *option)
    assert "try without" in line
    assert option[0] in line


def test_resume_of_an_unknown_run(refused: Callable[..., str]) -> None:
    assert "database b2bench.duckdb does not exist" in refused("run", "--resume", "earlier")
    Store("b2bench.duckdb").start_run(run_row("earlier"))
    assert "no run 'later'" in refused("run", "--resume", "later")


def test_resume_of_a_finished_run(refused: Callable[..., str]) -> None:
    store = Store("b2bench.duckdb")
    store.start_run(run_row("earlier"))
    store.finish_run("earlier", "done")
    assert "run earlier is finished" in refused("run", "--resume", "earlier")


def test_resume_of_a_run_of_another_version(refused: Callable[..., str]) -> None:
    Store("b2bench.duckdb").start_run(run_row("earlier", benchmark_version="0.0.1"))
    assert "is of benchmark version 0.0.1" in refused("run", "--resume", "earlier")


# -- what is found out on loading ------------------------------------------------------------------


@pytest.fixture
def pipeline(place: Path) -> Path:
    """A copy of the pocket pipeline, to be damaged."""
    return Path(shutil.copytree(POCKET_WEIGHTS / "pipeline", place / "pipe"))


def cut_weights(folder: Path) -> None:
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])


def remove_unet(folder: Path) -> None:
    shutil.rmtree(folder / "unet")


def break_index(folder: Path) -> None:
    (folder / "model_index.json").write_text("{")


def list_as_index(folder: Path) -> None:
    (folder / "model_index.json").write_text("[]")


def other_class(folder: Path) -> None:
    (folder / "model_index.json").write_text('{"_class_name": "FluxPipeline"}')


def other_shapes(folder: Path) -> None:
    config = folder / "unet" / "config.json"
    content = json.loads(config.read_text())
    config.write_text(json.dumps(content | {"cross_attention_dim": content["cross_attention_dim"] * 2}))


def sample_prediction(folder: Path) -> None:
    config = folder / "scheduler" / "scheduler_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"prediction_type": "sample"}))


def odd_spacing(folder: Path) -> None:
    config = folder / "scheduler" / "scheduler_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"timestep_spacing": 10**12}))


def other_attention(folder: Path) -> None:
    config = folder / "vae" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"mid_block_add_attention": -1}))


def endless_padding(folder: Path) -> None:
    config = folder / "tokenizer" / "tokenizer_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"model_max_length": 10**12}))


AS_CONFIGURED = "backbone pipe cannot be used as it is configured"
IN_USE = {sample_prediction: "v_prediction", odd_spacing: AS_CONFIGURED, other_attention: "the weights of its vae lack"}


@pytest.mark.parametrize(
    "damage",
    [
        cut_weights,
        remove_unet,
        break_index,
        list_as_index,
        other_class,
        other_shapes,
        sample_prediction,
        odd_spacing,
        other_attention,
        endless_padding,
    ],
)
def test_a_damaged_pipeline(damage: Callable[[Path], None], pipeline: Path, refused: Callable[..., str]) -> None:
    damage(pipeline)
    line = refused(*RUN, "--backbone", "pipe")
    assert IN_USE.get(damage, f"backbone folder {pipeline.resolve()}") in line


def test_a_prompt_that_only_a_late_round_would_draw(place: Path, pipeline: Path, refused: Callable[..., str]) -> None:
    prompts = [f"a {'cat ' * n}riding a bike" for n in range(1, 11)] + ["a bee " * 16, "a fox " * 14]
    Path("long.txt").write_text("# twelve\n" + "\n".join(prompts) + "\n")
    line = refused(*RUN, "--backbone", "pipe", "--prompts", "long.txt")
    assert "long.txt, line 12: the prompt 'a bee a bee" in line
    assert "has 34 tokens, and the backbone reads 16" in line
    assert "(2 prompts of this set cannot be read whole)" in line
    for split, text in (("train", prompts[0]), ("test", f"{prompts[0]}s\n{prompts[-1]}")):
        Path(f"folder/{split}.txt").write_text(text)
    assert "folder/test.txt, line 2: the prompt" in refused(*RUN, "--backbone", "pipe", "--prompts", "folder")


@pytest.mark.parametrize(
    ("assignment", "part"),
    [
        ("steps=2000", "steps = 2000 is outside"),
        ("eta=0", "eta 0"),
        ("precision=fp16", "precision = fp16 needs a GPU"),
        ("precision=int8", "precision = 'int8' is not one of fp32"),
    ],
)
def test_a_setting_that_the_backbone_refuses(assignment: str, part: str, refused: Callable[..., str]) -> None:
    assert part in refused(*RUN, "--set", assignment)


@pytest.mark.slow
def test_an_unknown_checkpoint_of_a_reward(refused: Callable[..., str]) -> None:
    assert "'nowhere'" in refused(*RUN, "--set", "checkpoint=nowhere")
    assert "'nowhere'" in refused(*RUN, "--reward", "bertscore", "--set", "checkpoint=nowhere")


def test_an_out_folder_that_is_a_file(refused: Callable[..., str]) -> None:
    assert "try another --out" in refused(*RUN, "--out", "notes.txt")


def test_a_lora_that_is_none(place: Path, refused: Callable[..., str]) -> None:
    import torch
    from safetensors.torch import save_file

    save_file({"weight": torch.zeros(2, 2)}, place / "other.safetensors")
    assert "other.safetensors" in refused("evaluate", "other.safetensors")
    (place / "text.safetensors").write_text("no safetensors")
    assert "text.safetensors" in refused("evaluate", "text.safetensors")


class Bomb:
    def __reduce__(self) -> Any:
        return os.mkdir, ("opened",)


def test_a_pickle_is_never_opened(place: Path, refused: Callable[..., str]) -> None:
    (place / "lora.bin").write_bytes(pickle.dumps(Bomb()))
    shutil.copy("lora.bin", "folder/pytorch_lora_weights.bin")
    assert "lora.bin is not a .safetensors file" in refused("evaluate", "lora.bin", "--queries", "10")
    assert "folder holds 0 safetensors files" in refused("evaluate", "folder", "--queries", "10")
    assert not Path("opened").exists()


def test_weights_in_a_file(refused: Callable[..., str]) -> None:
    pytest.importorskip("resvg_py")
    assert "notes.txt: File exists" in refused("pocket", "build", "--work", "notes.txt")


def test_gallery_in_a_missing_folder(refused: Callable[..., str]) -> None:
    assert "the folder gone does not exist" in refused("pocket", "gallery", "--out", "gone/grid.png")
    assert "ends in .png" in refused("pocket", "gallery", "--out", "grid.jpg")
    assert "gone.safetensors" in refused("pocket", "gallery", "--out", "grid.png", "--lora", "gone.safetensors")


FULL_SIZE = {
    "clipscore": (("--set", "checkpoint=paper"), ("ViT-H-14 laion2b_s32b_b79k", "3.9 GB", "download laion/CLIP-ViT-H")),
    "bertscore": (
        ("--reward", "bertscore", "--set", "checkpoint=paper"),
        ("llava-hf/llava-1.5-7b-hf", "14 GB", "download llava-hf/llava-1.5-7b-hf"),
    ),
    "sd14": (
        ("--backbone", "sd14"),
        ("CompVis/stable-diffusion-v1-4", "about 4 GB", "download CompVis/stable-diffusion-v1-4"),
    ),
}


@pytest.mark.parametrize("checkpoint", FULL_SIZE)
def test_a_full_size_checkpoint_that_is_not_here(
    checkpoint: str, place: Path, refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    # As on a machine without network that never fetched it, whatever this one has.
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(place / "cache"))
    arguments, parts = FULL_SIZE[checkpoint]
    started = time.monotonic()
    line = refused(*RUN, *arguments)
    assert time.monotonic() - started < 30
    for part in parts:
        assert part in line


@pytest.mark.parametrize("variables", [{"WORLD_SIZE": ""}, {"WORLD_SIZE": "2", "RANK": "1"}])
def test_only_a_run_is_one_of_several(
    variables: dict[str, str], b2bench: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A shell may have a launcher's variables left, or a job script set them for another program."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    refused = b2bench("run", "--algo", "ddpo", "--prompts", "nowhere", "--db", tmp_path / "runs.duckdb")
    assert refused.code == 2
    assert bool(refused.stderr) == (variables["WORLD_SIZE"] == "")  # of several the first one says it
    spoken = b2bench("report", "--db", tmp_path / "runs.duckdb")
    assert spoken.code == 2
    assert spoken.stderr.startswith("error: ")


@pytest.mark.parametrize("command", ["run", "sweep"])
def test_a_number_of_threads_is_checked(
    command: str, b2bench: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "auto")
    options = ("--processes", 2) if command == "run" else ("--jobs", 2, "--dry-run")
    refused = b2bench(command, "--algo", "ddpo", "--db", tmp_path / "runs.duckdb", *options)
    assert refused.code == 2
    assert "OMP_NUM_THREADS is set to 'auto'" in refused.stderr
