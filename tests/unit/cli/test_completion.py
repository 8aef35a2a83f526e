"""What a shell is told to complete, asked as the shell asks."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from b2bench.cli import completion


def completed(line: str, **environment: str) -> list[str]:
    """Completions of the last word of a command line, by the protocol of bash."""
    words = f"b2bench {line}"
    asked = {"_B2BENCH_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
    code = "import sys; sys.argv[0] = 'b2bench'; from b2bench.cli.main import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **asked, **environment}, capture_output=True, text=True
    )
    assert done.stderr == ""
    return done.stdout.split()


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("re", ["report"]),
        ("run --wra", ["--wrapper"]),
        ("run --algo dpo", ["dpo", "dpok"]),
        ("run --wrapper b", ["bpt", "bs", "b2"]),
        ("run --prompts pocket", ["pocket-template2", "pocket-template3"]),
        ("run --preset d", ["d3po", "ddpo-pytorch", "dpok"]),
        ("run --reward clip", ["clipscore"]),
    ],
)
def test_names_are_completed(line: str, words: list[str]) -> None:
    assert completed(line) == words


def test_a_shell_learns_it(tmp_path: Path) -> None:
    code = (
        "import sys; sys.argv = ['b2bench', '--install-completion', 'bash']; from b2bench.cli.main import main; main()"
    )
    # the shell is named instead of detected: a test has no shell for a parent
    environment = {**os.environ, "HOME": str(tmp_path), "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    [script] = tmp_path.rglob("*.sh")
    assert "_B2BENCH_COMPLETE" in script.read_text(encoding="utf-8")


def test_a_broken_plugin_does_not_break_a_shell(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> dict[str, object]:
        raise RuntimeError

    monkeypatch.setattr("b2bench.registry.load_registries", broken)
    assert completion.algorithms("d") == []
