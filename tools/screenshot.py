"""A terminal session as SVG, the real output: ``uv run --with pyte python tools/screenshot.py OUT.svg COMMAND ...``.

Each COMMAND is one shell line. It runs in a pseudo-terminal of 100 columns, a terminal emulator (pyte) keeps
what would be on the screen at the end, colours included, and rich draws it.
"""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys

import pyte
from rich.console import Console
from rich.text import Text

COLUMNS, LINES = 100, 400


def on_screen(command: str) -> list[Text]:
    """The lines that a command leaves on a terminal."""
    screen = pyte.Screen(COLUMNS, LINES)
    stream = pyte.ByteStream(screen)
    master, slave = pty.openpty()
    environment = {**os.environ, "COLUMNS": str(COLUMNS), "LINES": "50", "TERM": "xterm-256color"}
    process = subprocess.Popen(command, shell=True, stdout=slave, stderr=slave, stdin=slave, env=environment)
    os.close(slave)
    while True:
        try:
            data = os.read(master, 65536)
        except OSError:  # the other end is closed
            break
        if not data:
            break
        stream.feed(data.replace(b"\n", b"\r\n"))
    process.wait()
    lines = []
    for row in range(LINES):
        line = Text()
        for column in range(COLUMNS):
            cell = screen.buffer[row][column]
            colour = "" if cell.fg == "default" else cell.fg.replace("brown", "yellow")
            colour = f"#{colour}" if re.fullmatch("[0-9a-f]{6}", colour) else colour
            line.append(cell.data, f"{'bold ' if cell.bold else ''}{colour}".strip() or None)
        line.rstrip()
        lines.append(line)
    while lines and not lines[-1].plain:
        lines.pop()
    return lines


def main() -> None:
    out, *commands = sys.argv[1:]
    console = Console(record=True, width=COLUMNS, file=open(os.devnull, "w"), force_terminal=True)  # noqa: SIM115
    for command in commands:
        console.print(Text(f"$ {command}", "bold green"))
        for line in on_screen(command):
            console.print(line)
    console.save_svg(out, title="b2bench")
    with open(out, encoding="utf-8") as file:
        svg = file.read()
    # Without the web fonts: the picture must not fetch anything.
    svg = re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.S)
    with open(out, "w", encoding="utf-8") as file:
        file.write(svg)


if __name__ == "__main__":
    main()
