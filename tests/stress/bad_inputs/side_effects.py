"""Plugins that change the process they run in, and then fail: their words are no result, and nothing stays changed."""

from __future__ import annotations

import random
from pathlib import Path

from bad_inputs.made import Input, tiny

SAID = "said by a plugin"
EFFECTS = (
    f"print({SAID!r})", f"sys.stdout.write({SAID!r} + chr(10))", f"os.system('echo {SAID}')",
    f"os.write(1, b'{SAID}\\n')", f"subprocess.run(['echo', {SAID!r}])",
    "torch.set_grad_enabled(False)", "torch.set_default_dtype(torch.float64)", "torch.manual_seed(0)",
    "random.seed(0)", "numpy.random.seed(0)", "os.chdir('/')", "os.chdir('folder')",
    "torch.use_deterministic_algorithms(True)", "torch.set_default_device('meta')", "sys.stdout.close()",
)  # fmt: skip
FAILURES = ("raise RuntimeError('no subject')", "return None", "return [float('nan')] * 99", "return 'subject'")
HEAD = "import os, random, subprocess, sys\n\nimport numpy, torch\n\nfrom b2bench.registry import reward\n\n\n"


def side_effects(drawn: random.Random, folder: Path) -> Input:
    effects = drawn.sample(EFFECTS, drawn.randint(1, 3))
    lines = {"import": "", "prepare": "", "call": ""}
    for effect in effects:
        place = drawn.choice(("import", "prepare", "call", "call"))
        lines[place] += effect + "\n" if place == "import" else f"        {effect}\n"
    source = (
        f"{HEAD}{lines['import']}\n\n@reward\nclass Subject:\n"
        f"    def prepare(self, device):\n{lines['prepare'] or '        pass'}\n"
        f"    def __call__(self, images, prompts):\n{lines['call']}        images.zero_()\n"
        f"        {drawn.choice(FAILURES)}\n"
    )
    (folder / "subject.py").write_text(source, encoding="utf-8")
    run = ["run", "--algo", "ddpo", "--reward", "subject", "--plugin", "subject.py", "--queries", "2", *tiny()]
    command = drawn.choice((run, [*run, "--json"], ["check", "subject.py"]))
    return Input(command, ["subject"], "; ".join(effects), loads=True)
