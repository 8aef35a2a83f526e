"""Plugin files that do not import, that are no plugins, and whose classes break the contract."""

from __future__ import annotations

import random
import textwrap
from pathlib import Path

from bad_inputs.made import Input, damage_bytes, misplace, tiny
from bad_inputs.side_effects import SAID

HEAD = "from b2bench.registry import algorithm, reward, wrapper\n"

# What made-up plugins raise, as source text: every kind of exception must end in one line, NotImplementedError too.
RAISED = (
    "RuntimeError('two\\nlines')", "ValueError()", "KeyError('k')", "SystemExit(0)", "SystemExit('words')",
    "KeyboardInterrupt()",
    "MemoryError()", "OSError(2, 'No such file')", "StopIteration()", "GeneratorExit()", "Silent()", "Unprintable()",
    "Grave('base')", "RecursionError()", "ImportError('x')", "UnicodeDecodeError('utf-8', b'x', 0, 1, 'bad')",
    "AssertionError()", "Exception('\\x1b[31m')", "Exception('x' * 100_000)", "NotImplementedError", "SyntaxError('s')",
)  # fmt: skip
ERRORS = """
class Silent(Exception): pass
class Grave(BaseException): pass
class Unprintable(Exception):
    def __str__(self): raise ValueError("no text")
"""

IMPORTS = (
    "def broken(:\n", "x = (\n", "\tx = 1\n  y = 2\n", "import a_module_that_is_not_there\n",
    "from b2bench import nothing\n",
    "from b2bench.registry import algorythm\n", "import sys\nsys.exit(3)\n", "import sys\nsys.exit()\n", "1 / 0\n",
    "raise\n",
    "def f(): f()\nf()\n", "x = []\nfor _ in range(100_000): x = [x]\nrepr(x)\n", f"print({SAID!r})\n", "", "\ufeff",
    "'doc'\n",
    "class C: pass\n", "# -*- coding: klingon -*-\n", "x = 1\x00\n", "exec('raise SystemExit')\n",
    "from awr import *\n",
    "import subject\n", "from . import x\n", "await x\n", "return\n", "assert False\n",
    "x = " + "(" * 3000 + ")" * 3000 + "\n",
    "x = " + "-" * 50_000 + "1\n", "del __name__\n", "__name__ = 3\n", "import sys\nsys.modules[__name__] = None\n",
    "import os\nos.chdir('gone')\n", "__class__ = 3\nx: undefined = 1\n",
    "import threading\nraise threading.BrokenBarrierError\n",
)  # fmt: skip

LOSS = """
    pairs = False
    def loss(self, policy, batch):
        return policy.transition(batch.cond, batch.latents, batch.step).log_prob(batch.next_latents).mean(), {{}}
"""

# (class body, or whole definition); {raised} is an exception
ALGORITHMS = (
    "    pass\n", "    pairs = False\n", "    loss = 3\n    pairs = False\n",
    "    pairs = 'no'\n    def loss(self, p, b): ...\n",
    "    pairs = False\n    def loss(self): ...\n", "    pairs = False\n    def loss(self, p, b): return 1\n",
    "    pairs = False\n    def loss(self, p, b): return None, {}\n",
    "    pairs = False\n    def loss(self, p, b): raise {raised}\n",
    "    pairs = False\n    def loss(self, p, b): return b.advantage.sum(), {}\n",
    "    pairs = False\n    def loss(self, p, b): return b.advantage, {}\n",
    "    pairs = False\n    def loss(self, p, b): return b.advantage.sum() * float('nan'), None\n",
    "    pairs = True\n    def loss(self, p, b): return b.latents.sum(), {}\n", LOSS + "    def setup(self): ...\n",
    LOSS + "    def setup(self, p, g): raise {raised}\n", LOSS + "    def networks(self): return 3\n",
    LOSS + "    def networks(self): return [1]\n", LOSS + "    def networks(self): raise {raised}\n",
    LOSS + "    def __post_init__(self): raise {raised}\n", LOSS + "    def __post_init__(self): self.x = object()\n",
    LOSS + "    def __init__(self): pass\n    x: int = 1\n", LOSS + "    def __init__(self, a): pass\n",
    LOSS + "    x: int\n",
    LOSS + "    x: int = 'a'\n", LOSS + "    x: list = []\n", LOSS + "    x: dict = None\n",
    LOSS + "    x: 'Flaot' = 1\n",
    LOSS + "    x: '1 +' = 1\n", LOSS + "    x: '1 / 0' = 1\n", LOSS + "    x: 5 = 1\n",
    LOSS + "    x: int | str = 1\n",
    LOSS + "    x: 'a.b.c' = 1\n", LOSS + "    x: float = float('nan')\n", LOSS + "    x: float = 10**400\n",
    LOSS + "    from typing import Literal\n    x: Literal[1, 2] = 1\n", LOSS + "    name: str = 'x'\n",
    LOSS + "    code: str = 'x'\n",
    LOSS + "    lr: float = 1.0\n", LOSS + "    x: str = '\\udc80'\n", LOSS + "    x: int = 10**5000\n",
    LOSS + "    properties = 3\n", LOSS + "    properties = {{3: object()}}\n",
    LOSS + "    __slots__ = ('x',)\n    x: int = 1\n",
    LOSS + "    def __getattribute__(self, n): raise {raised}\n", LOSS + "    def __eq__(self, o): raise {raised}\n",
    LOSS + "    def __setattr__(self, n, v): raise {raised}\n    x: int = 1\n", LOSS + "    __doc__ = 3\n",
)  # fmt: skip
WRAPPERS = (
    "    pass\n", "    def interval(self, *a): return 3\n", "    def leaves(self, n): return 0\n",
    "    def leaves(self, n): return 'a'\n",
    "    def leaves(self, n): return 3\n", "    def select(self, t): return None\n",
    "    def select(self, t): return t.reward\n",
    "    def select(self, t): return t.reward[:0] > 0\n", "    def select(self, t): raise {raised}\n",
    "    def interval(self, r, n, s): raise {raised}\n",
    "    def interval(self, r, n, s):\n        from b2bench.types import Interval\n"
    "        return Interval(5, 2)\n", "    def interval(self, r, n, s):\n        from b2bench.types import Interval\n"
    "        return Interval(-1, 99)\n",
)  # fmt: skip
REWARDS = (
    "    pass\n", "    def __call__(self): ...\n", "    def __call__(self, images, prompts): return None\n",
    "    def __call__(self, images, prompts): return 'text'\n",
    "    def __call__(self, images, prompts): return [float('nan')] * len(prompts)\n",
    "    def __call__(self, images, prompts): return images\n", "    def __call__(self, images, prompts): return []\n",
    "    def __call__(self, images, prompts): raise {raised}\n",
    "    def prepare(self, device): raise {raised}\n    def __call__(self, i, p): ...\n",
    "    prepare = 3\n    def __call__(self, i, p): ...\n",
    "    checkpoint: str = 'auto'\n    def __call__(self, i, p): return 3\n",
    "    def __call__(self, images, prompts): return [10.0**38 * 10] * len(prompts)\n",
    "    def __call__(self, i, p): return [True, 'x', None]\n",
)  # fmt: skip
NAMES = (
    "Subject",
    "DDPO",
    "Vanilla",
    "Clipscore",
    "Run",
    "Baseline",
    "External",
    "Ÿ",
    "A" * 300,
    "Settings",
    "All",
    "Is_Style",
    "CON",
)


def _class(drawn: random.Random) -> tuple[str, str, str]:
    """Source of a plugin, its kind, and the name of its class."""
    kind, bodies = drawn.choice(
        (("algorithm", ALGORITHMS), ("algorithm", ALGORITHMS), ("wrapper", WRAPPERS), ("reward", REWARDS))
    )
    body = drawn.choice(bodies).replace("{raised}", drawn.choice(RAISED)).replace("{{", "{").replace("}}", "}")
    name = "Subject" if drawn.random() < 0.75 else drawn.choice(NAMES)
    base = "(Independent)" if kind == "wrapper" and drawn.random() < 0.8 else ""
    head = HEAD + ("from b2bench.wrappers import Independent\n" if base else "") + ERRORS
    future = "from __future__ import annotations\n" if drawn.random() < 0.3 else ""
    source = f"{future}{head}\n@{kind}\nclass {name}{base}:\n{body}"
    if drawn.random() < 0.05:
        source += f"\n@{kind}\nclass {name.upper()}:\n{body}"
    return source, kind, name


def plugins(drawn: random.Random, folder: Path) -> Input:
    file = folder / "subject.py"
    name, kind = "subject", "algorithm"
    way = drawn.random()
    if way < 0.25:
        source = drawn.choice(IMPORTS) + (HEAD if drawn.random() < 0.3 else "")
        file.write_bytes(source.encode())
        what = textwrap.shorten(source, 40)
    elif way < 0.35:
        source = ERRORS + f"raise {drawn.choice(RAISED)}\n"
        file.write_text(source, encoding="utf-8")
        what = source.splitlines()[-1]
    elif way < 0.45:
        file.write_bytes((folder / "awr.py").read_bytes())
        what, name = damage_bytes(drawn, file), "awr"
    elif way < 0.5:
        what, mode = misplace(drawn, file)
        return Input(_command(drawn, name, kind), ["subject.py"], what, unreadable=mode)
    else:
        source, kind, name = _class(drawn)
        file.write_text(source, encoding="utf-8", errors="surrogateescape")
        what = f"{kind} {name[:20]}: {textwrap.shorten(source.partition('class ')[2].rpartition('class ')[2], 60)}"
    return Input(
        _command(drawn, name.lower(), kind), ["subject", name.lower(), "interrupted"], f"plugin {what}", loads=True
    )


def _command(drawn: random.Random, name: str, kind: str) -> list[str]:
    option = {"algorithm": ["--algo", name], "wrapper": ["--wrapper", name], "reward": ["--reward", name]}[kind]
    algorithm = [] if kind == "algorithm" else ["--algo", "ddpo"]
    choice = [*algorithm, *option, "--plugin", "subject.py"]
    return drawn.choice(
        (
            ["run", *choice, "--queries", "2", *tiny()],
            ["run", *choice, "--queries", "2", *tiny()],
            ["check", "subject.py"],
            ["check", "subject.py"],
            ["ls", f"{kind}s", "--plugin", "subject.py"],
            ["show", name, "--plugin", "subject.py"],
            ["sweep", *choice, "--dry-run"],
            ["estimate", *choice, *([] if kind == "wrapper" else ["--wrapper", "vanilla"])],
        )
    )
