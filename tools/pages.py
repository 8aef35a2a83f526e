"""Hooks of mkdocs: pages made from the code, pages that lie outside of docs/, and the leaderboard of the start page.

What is said in a docstring, an option's help or the schema is said there alone, and stands on the site as it is.
"""

from __future__ import annotations

import html
import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import typer

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))
OUTSIDE = {
    "readme.md": "README.md",
    "changelog.md": "CHANGELOG.md",
    "contributing.md": "CONTRIBUTING.md",
    "examples.md": "examples/README.md",
    "leaderboard.md": "leaderboard/README.md",
    "model_card.md": "b2bench/pocket/weights/MODEL_CARD.md",
}
"""Page of the site -> the file that it is"""
LEADERBOARD = "<!-- leaderboard -->"
LINK = re.compile(r"(\]\()(?!https?:|#|mailto:)([^)#\s]+)((?:#[^)]*)?\))")


# -- hooks ----------------------------------------------------------------------------------------------


def on_files(files: Any, config: Any) -> Any:
    """Add the pages that are no files of docs/."""
    from mkdocs.structure.files import File

    made = {page: (ROOT / name).read_text(encoding="utf-8") for page, name in OUTSIDE.items()}
    for name, page in MADE.items():
        made[f"reference/{name}.md"] = page()
    for uri, text in made.items():
        files.append(File.generated(config, uri, content=text))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Turn links between files of the repository into links between pages, and write the leaderboard."""
    if LEADERBOARD in markdown:
        markdown = markdown.replace(LEADERBOARD, leaderboard())
    markdown = markdown.replace("<details>", '<details markdown="1">')  # or what is folded would stay as it is written
    uri = page.file.src_uri
    place = ROOT / OUTSIDE[uri] if uri in OUTSIDE else ROOT / "docs" / uri
    depth = "../" * uri.count("/")

    def turned(match: re.Match[str]) -> str:
        target = (place.parent / match[2]).resolve()
        if not target.is_relative_to(ROOT):
            return match[0]
        name = target.relative_to(ROOT).as_posix()
        pages = {file: page for page, file in OUTSIDE.items()}
        if name in pages:
            return f"{match[1]}{depth}{pages[name]}{match[3]}"
        if name.startswith("docs/"):
            return f"{match[1]}{depth}{name.removeprefix('docs/')}{match[3]}"
        if (target.exists() and uri in OUTSIDE) or (name.startswith(("examples/", "b2bench/")) and target.exists()):
            return f"]({depth}readme.md)" if name == "." else f"]({depth}readme.md#development)"
        return match[0]  # whatever is wrong with it, mkdocs says

    return LINK.sub(turned, markdown)


# -- pages ----------------------------------------------------------------------------------------------


def commands() -> str:
    """Every command with its options, from Typer."""
    from b2bench.cli.app import app

    parts = ["# Commands", "Made from the command line itself; `b2bench COMMAND -h` prints the same."]
    for name, command in walked(typer.main.get_command(app), "b2bench"):
        text, *rest = inspect.cleandoc(command.help or "").partition("\n\n")
        parts += [f"## {name}", _text(text), *(_text(part) for part in rest if part.strip())]
        context = click.Context(command, info_name=name)  # type: ignore[arg-type]
        rows = [record for param in command.get_params(context) if (record := param.get_help_record(context))]
        parts.append(_table(("option", "what it does"), [(_code(option), _text(about)) for option, about in rows]))
        if command.epilog:
            lines = command.epilog.replace("\b\n", "").splitlines()[1:]
            parts.append("```sh\n" + "\n".join(line.strip() for line in lines) + "\n```")
    return "\n\n".join(parts) + "\n"


def walked(command: Any, name: str) -> Iterator[tuple[str, Any]]:
    """Commands below ``command`` that are no groups, by their whole name."""
    if not hasattr(command, "commands"):
        yield name, command
        return
    for each, below in command.commands.items():
        yield from walked(below, f"{name} {each}")


def hyperparameters() -> str:
    """Settings of the harness, and what every plugin has, from the classes."""
    from b2bench.describe.description import description
    from b2bench.registry import KINDS, load_registries

    nowhere = ROOT / "no.duckdb"
    parts = [
        "# Hyperparameters",
        "Made from the classes; `b2bench show NAME` prints the same. `--set name=value` sets one.",
    ]
    found = [("settings", description("settings", nowhere, []))]
    registries = load_registries([])
    for kind in KINDS:
        for name in registries[kind].names():
            found.append((f"{kind} {name}", description(name, nowhere, [])))
    for name, about in found:
        parts += [f"## {name}", _docstring(about["doc"])]
        rows = [
            (f"`{row['name']}`", f"{row['type']} {row['range']}".strip(), str(row["default"]), _text(row["doc"]))
            for row in about["hyperparameters"]
        ]
        if rows:
            parts.append(_table(("name", "type", "default", "what it is"), rows))
    return "\n\n".join(parts) + "\n"


def python() -> str:
    """Everything that can be imported from ``b2bench``, from the docstrings."""
    import b2bench

    parts = [
        "# Python",
        "Made from the docstrings of all that `b2bench` exports. [api.md](../api.md) is the guide to it.",
    ]
    for name in sorted(b2bench.__all__):
        thing = getattr(b2bench, name)
        if name.startswith("__"):
            continue
        parts.append(f"## {name}")
        if not callable(thing):
            parts.append(f"`{name} = {thing!r}`")
            continue
        parts.append(f"```python\n{_signature(name, thing)}\n```")
        parts.append(_docstring(inspect.getdoc(thing) or ""))
        if inspect.isclass(thing):
            for each, method in inspect.getmembers_static(thing, inspect.isfunction):
                if each.startswith("_") or each not in thing.__dict__ or not inspect.getdoc(method):
                    continue
                said = _docstring(inspect.getdoc(method) or "").partition("\n\n")[0]
                parts.append(f"- `{each}{_plain(method)}`: {said}")
    return "\n\n".join(parts) + "\n"


def schema() -> str:
    """Tables and columns of the store, from its schema."""
    from b2bench.store.schema import KEYS, SCHEMA_VERSION, TABLES

    head = f"Made from `b2bench/store/schema.py`, version {SCHEMA_VERSION}. [store.md](../store.md) says more."
    parts = ["# Schema of the store", head]
    for table, columns in TABLES.items():
        keys = KEYS.get(table)
        parts += [f"## {table}"] + ([f"Primary key: {', '.join(f'`{key}`' for key in keys)}."] if keys else [])
        rows = [(f"`{name}`", kind.partition(" CHECK")[0], _text(about)) for name, (kind, about) in columns.items()]
        parts.append(_table(("column", "type", "meaning"), rows))
    return "\n\n".join(parts) + "\n"


def leaderboard() -> str:
    """The report of the results that are published with the code, as the leaderboard's page has it, without figures.

    A test holds that page against the results.
    """
    from b2bench.leaderboard.page import NOTHING

    page = (ROOT / "leaderboard" / "README.md").read_text(encoding="utf-8")
    sections = [part for part in re.split(r"^(?=## )", page, flags=re.MULTILINE) if part.startswith("## b2bench, ")]
    if not sections and NOTHING not in page:
        raise ValueError("leaderboard/README.md has no section that begins with '## b2bench, '")
    if not sections:
        return (
            "No results of this benchmark version are published yet. `b2bench sweep --algo paper --wrapper paper "
            "--seeds 0-4` makes them, and `b2bench report` prints them."
        )
    told = re.sub(r"^!\[.*\]\(figures/.*\)\n+", "", "".join(sections), flags=re.MULTILINE)
    told = re.sub(r"<details><summary>[^<]*</summary>\s*</details>\n*", "", told)
    return re.sub(r"^#", "##", told, flags=re.MULTILINE)


MADE = {"commands": commands, "hyperparameters": hyperparameters, "python": python, "schema": schema}
"""Page of the reference -> what makes it"""


# -- text -----------------------------------------------------------------------------------------------


def _text(text: str) -> str:
    """A line of plain text as Markdown: names in double backticks as code, nothing else as markup."""
    text = re.sub(r":\w+:`~?([^`]*)`", r"`\1`", " ".join(text.split())).replace("``", "`")
    parts = re.split(r"(`[^`]*`)", text)
    escaped = [part if part.startswith("`") else re.sub(r"([*_<\[\]|])", r"\\\1", part) for part in parts]
    return "".join(escaped).replace("\\|", "&#124;")


def _docstring(doc: str) -> str:
    """A docstring as Markdown: paragraphs as text, and what is indented or drawn as it stands."""
    found = []
    for part in doc.split("\n\n"):
        lines = part.splitlines()
        if lines and lines[0].rstrip() in ("Raises:", "Returns:"):
            items = [_text(line) for line in re.split(r"\n    (?=\S)", "\n".join(lines[1:])) if line.strip()]
            found.append(f"*{lines[0].rstrip(':')}*\n\n" + "\n".join(f"- {item}" for item in items))
        elif lines and lines[0].startswith("- "):
            found.append("\n".join(f"- {_text(item)}" for item in re.split(r"(?:^|\n)- ", part) if item.strip()))
        elif any(line[:1] in (" ", "|") for line in lines):
            found.append("```text\n" + part + "\n```")
        else:
            found.append(_text(part))
    return "\n\n".join(found)


def _signature(name: str, thing: Any) -> str:
    if getattr(thing, "_is_protocol", False):
        return f"class {name}(Protocol)"
    try:
        return f"{name}{_plain(thing)}"
    except (TypeError, ValueError):
        return name


def _plain(thing: Any) -> str:
    """A signature without the quotes that postponed annotations have, and without addresses of functions."""

    class Shown:
        def __init__(self, text: str) -> None:
            self.text = text

        def __repr__(self) -> str:
            return self.text

    def shown(value: Any) -> Any:
        empty = value is inspect.Parameter.empty
        return value if empty or not isinstance(value, str) else Shown(value)

    signature = inspect.signature(thing)
    parameters = [
        one.replace(
            annotation=shown(one.annotation),
            default=Shown("...") if inspect.isroutine(one.default) else one.default,
        )
        for one in signature.parameters.values()
    ]
    return str(signature.replace(parameters=parameters, return_annotation=shown(signature.return_annotation)))


def _code(text: str) -> str:
    """Code for the cell of a table, where a bar would end the cell."""
    return f"<code>{html.escape(text).replace('|', '&#124;')}</code>"


def _table(heads: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    return "\n".join(lines + ["| " + " | ".join(cell.replace("|", "&#124;") for cell in row) + " |" for row in rows])
