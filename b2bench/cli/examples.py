"""Examples that help shows of each command; tests/unit/cli/test_examples.py reads each as the command line does."""

from __future__ import annotations

EXAMPLES: dict[str, tuple[str, ...]] = {
    "run": (
        "b2bench run --algo dpok --wrapper b2",
        "b2bench run --algo ddpo --quick",
        "b2bench run --algo ddpo --seed 1 --queries 2400 --set lr=5e-4 --name first",
        "b2bench run --resume first",
    ),
    "report": (
        "b2bench report --where algorithm=ddpo,dpok",
        "b2bench report --format html --out report.html",
        "b2bench report --format latex --columns rank,clipscore,headroom --out tables.tex",
    ),
    "compare": ("b2bench compare ddpo/vanilla ddpo/b2 --out compare.html", "b2bench compare pretrained first"),
    "validity": ("b2bench validity --where prompts=template1",),
    "evaluate": ("b2bench evaluate lora.safetensors --queries 2400 --name theirs",),
    "baseline": ("b2bench baseline --kind guidance,best-of",),
    "profile": ("b2bench profile --prompts template1 --out open.png",),
    "ls": ("b2bench ls algorithms", "b2bench ls runs --json"),
    "show": ("b2bench show dpok", "b2bench show settings", "b2bench show preset:paper"),
    "estimate": ("b2bench estimate --preset paper --vram 24", "b2bench estimate --algo ddpo --wrapper b2 --tune"),
    "new": ("b2bench new algorithm mine",),
    "check": ("b2bench check mine.py",),
    "sweep": (
        "b2bench sweep --algo paper --wrapper vanilla,b2 --seeds 0-4 --jobs 2",
        "b2bench sweep --algo paper --seeds 0-9 --looks 2",
    ),
    "tune": ("b2bench tune --algo ddpo --wrapper b2 --dry-run",),
    "merge": ("b2bench merge a.duckdb b.duckdb --into all.duckdb",),
    "export": (
        "b2bench export results --where algorithm=ddpo",
        "b2bench export results --csv",
        "b2bench export --card first --out card",
    ),
    "import": ("b2bench import results --db all.duckdb",),
    "leaderboard": ("b2bench leaderboard", "b2bench leaderboard --check"),
    "vote make": ("b2bench vote make --cells pretrained,ddpo/b2 --out votes.html",),
    "vote add": ("b2bench vote add votes-*.json",),
}
"""Command -> lines that a reader may copy."""


def epilog(command: str) -> str | None:
    """Return what stands at the end of a command's help, as click leaves it alone; None without examples."""
    lines = EXAMPLES.get(command)
    return None if lines is None else "\b\n" + "\n".join(["Examples:", *(f"  {line}" for line in lines)])
