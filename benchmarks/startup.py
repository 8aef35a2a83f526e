"""CPU seconds and peak memory from a command to its first denoiser call: ``uv run python benchmarks/startup.py``.

``b2bench run`` up to the call, ``import torch`` alone, and commands that compute nothing. Each is a process of its own,
user and system time together, on one thread; the best of ``--repetitions``, after one that does not count: it compiles
byte code. ``--beside FOLDER`` is a checkout of another commit, whose commands take turns with these, so that both meet
the same machine. Both then make a short run to its end, and whether its LoRA weights are the same to the bit is said.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table
from safetensors.numpy import load_file

HERE = Path(__file__).parents[1]
# The call ends the process: what comes after it is not start-up.
RUN = """
import os, sys
def stop():
    from b2bench.backbones.stable_diffusion import StableDiffusion
    StableDiffusion.noise = lambda *_, **__: os._exit(0)
class Stop:
    def find_spec(self, name, path=None, target=None):
        if name == "b2bench.training.runs":
            sys.meta_path.remove(self)
            stop()
sys.meta_path.insert(0, Stop())
if "b2bench.training.runs" in sys.modules:
    stop()
from b2bench.__main__ import main
main()
"""
WARM = "from b2bench.cli import warmed\nwarmed.warm()\n"
FORK = """
import os, sys
if child := os.fork():
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
A_RUN = "run, to its first denoiser call"
COMMANDS = {
    A_RUN: ["run", "--algo", "ddpo", "--queries", "45", "--threads", "1"],
    "sweep --dry-run, 12 runs": [
        "sweep",
        "--algo",
        "ddpo,dpok",
        "--wrapper",
        "vanilla,b2",
        "--seeds",
        "0-2",
        "--dry-run",
    ],
    "--help": ["--help"],
    "ls algorithms": ["ls", "algorithms"],
    "show dpok": ["show", "dpok"],
}
TO_ITS_END = ["-m", "b2bench", *COMMANDS[A_RUN], "--set", "eval_images=24"]
MEASURE = """
import json, resource, subprocess, sys
code = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
if code.returncode:
    sys.exit(code.stderr.decode())
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(json.dumps([used.ru_utime + used.ru_stime, used.ru_maxrss]))
"""


def measured(arguments: list[str], checkout: Path, folder: Path | None = None) -> tuple[float, float]:
    """CPU seconds and peak MiB of Python with these arguments in ``folder``, which finds b2bench in ``checkout``."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(checkout)}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # as users have it: byte code is kept from the first run
    with tempfile.TemporaryDirectory() as made:
        found = subprocess.run(
            [sys.executable, "-c", MEASURE, sys.executable, *arguments],
            capture_output=True, text=True, env=environment, cwd=folder or made, check=False,
        )  # fmt: skip
    if found.returncode:
        sys.exit(f"{' '.join(arguments[-8:])} failed: {found.stderr.strip()}")
    seconds, peak = json.loads(found.stdout)
    return seconds, peak / (2**20 if sys.platform == "darwin" else 2**10)


def same_weights(checkouts: list[Path]) -> bool:
    """Whether the LoRA weights of a short run of each checkout are the same to the bit."""
    found = []
    for checkout in checkouts:
        with tempfile.TemporaryDirectory() as folder:
            measured(TO_ITS_END, checkout, Path(folder))
            (file,) = Path(folder).glob("runs/*/pytorch_lora_weights.safetensors")
            found.append({name: weights.tobytes() for name, weights in load_file(file).items()})
    return all(weights == found[0] for weights in found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--beside", type=Path, help="checkout of another commit, to compare with")
    options = parser.parse_args()
    ways = {"import torch": ["-c", "import torch"]}
    ways |= {
        name: ["-c", RUN, *words] if words[0] == "run" else ["-m", "b2bench", *words]
        for name, words in COMMANDS.items()
    }
    ways["the process whose forks the runs of a sweep are"] = ["-c", f"{WARM}import os\nos._exit(0)"]
    ways["that, its fork, and a run to its first denoiser call"] = ["-c", WARM + FORK + RUN, *COMMANDS[A_RUN]]
    checkouts = [path.resolve() for path in (HERE, options.beside) if path is not None]
    table = Table("", *(f"{path.name}: CPU s" for path in checkouts), *(f"{path.name}: MiB" for path in checkouts))
    table.box = box.SIMPLE
    for name, arguments in ways.items():
        found: dict[Path, list[tuple[float, float]]] = {path: [] for path in checkouts}
        # older commits have no process that forks
        have = [path for path in checkouts if WARM not in arguments[1] or (path / "b2bench/cli/warmed.py").exists()]
        for repetition in range(options.repetitions + 1):
            for path in have[:: 1 if repetition % 2 else -1]:
                used = measured(arguments, path)
                found[path] += [used] * (repetition > 0)
        table.add_row(
            name,
            *(f"{min(seconds for seconds, _ in each):.2f}" if each else "-" for each in found.values()),
            *(f"{max(peak for _, peak in each):.0f}" if each else "-" for each in found.values()),
        )
    Console(width=100).print(table)
    if options.beside:
        same = "the same to the bit" if same_weights(checkouts) else "not the same"
        print(f"LoRA weights of `b2bench {' '.join(TO_ITS_END[2:])}`: {same}")


if __name__ == "__main__":
    main()
