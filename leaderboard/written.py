"""A report as Markdown, LaTeX or CSV. Whatever a store holds arrives as text: nothing in it is markup."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from dataclasses import replace
from urllib.parse import quote

from b2bench.leaderboard.curves import LEARNING
from b2bench.leaderboard.grid import SYMBOLS, Answer, Cell, Grid, Picture, Section

from b2bench.errors import UserError
from b2bench.text import suggestion

BEGIN, END = "<!-- b2bench report -->", "<!-- end of b2bench report -->"
NOTHING = "No runs yet. Start one: b2bench run --algo dpok --wrapper b2"


# -- Markdown -------------------------------------------------------------------------------------------

_MARKUP = re.compile(r"([\\`*_{}\[\]<>#!|~&$^@]|(?<=www)\.|:(?=//))", re.IGNORECASE)


def markdown_text(text: str) -> str:
    """Plain text as Markdown in which nothing is markup, links, mentions and HTML included, on one line."""
    return _MARKUP.sub(_entity, " ".join(text.split()))


def _entity(match: re.Match[str]) -> str:
    character = match[0]
    # GitHub makes links of bare addresses and names, which no backslash stops.
    return f"&#{ord(character)};" if character in "<>|&`@.:" else f"\\{character}"


def markdown(sections: Sequence[Section], heading: str = "") -> str:
    """Write all sections as GitHub's Markdown; the same rows give the same text."""
    parts = [f"# {markdown_text(heading)}\n"] if heading else []
    if not sections:
        parts.append(f"{NOTHING}\n")
    for section in sections:
        parts.append(f"## {markdown_text(section.title)}\n")
        parts += ["".join(_markdown_answer(answer) for answer in section.answers)] if section.answers else []
        parts += [f"> {markdown_text(note)}\n" for note in section.notes]
        parts += [markdown_grid(grid) for grid in section.opened]
        shown = [p for p in section.pictures if section.answers and p.caption.startswith(LEARNING)]
        parts += [_markdown_picture(picture) for picture in shown]
        parts += [_folded(grid.title, markdown_grid(grid, titled=False)) for grid in section.folded]
        others = [_markdown_picture(picture) for picture in section.pictures if picture not in shown]
        parts += [_folded("Figures", "\n".join(others))] if section.answers and others else others
        parts.append(f"{markdown_text(' · '.join(section.facts))}\n")
    return "\n".join(parts)


def _markdown_answer(answer: Answer) -> str:
    return f"- {SYMBOLS.get(answer.kind, '')} **{markdown_text(answer.about)}:** {markdown_text(answer.text)}\n"


def _markdown_picture(picture: Picture) -> str:
    return f"![{markdown_text(picture.caption)}]({quote(picture.stem)}.svg)\n"


def _folded(title: str, text: str) -> str:
    """Return what is shown on demand, as GitHub does it."""
    return f"<details><summary>{markdown_text(title)}</summary>\n\n{text}\n</details>\n"


def markdown_grid(grid: Grid, *, titled: bool = True) -> str:
    """Return a table as GitHub's Markdown, with its legend, and with a heading if ``titled``."""
    head = f"### {markdown_text(grid.title)}\n\n" if titled else ""
    if not grid.rows:
        return f"{head}{markdown_text('; '.join(grid.legend))}\n"
    rows = [[column.name for column in grid.columns], *(map(whole_text, row) for row in grid.rows)]
    lines = ["| " + " | ".join(markdown_text(text) for text in row) + " |" for row in rows]
    lines.insert(1, "|" + "|".join("---:" if column.right else "---" for column in grid.columns) + "|")
    legend = "".join(f"\n{markdown_text('; '.join(grid.legend))}\n" if grid.legend else "")
    return head + "\n".join(lines) + f"\n{legend}"


def whole_text(cell: Cell) -> str:
    """Return what a cell says on one line."""
    return f"{cell.text} ({cell.note})" if cell.note else cell.text


def between_markers(text: str, report: str) -> str:
    """``text`` with what stands between the two markers replaced by ``report``.

    Raises:
        ValueError: a marker is missing, or the first does not come first.
    """
    start, stop = text.find(BEGIN), text.find(END)
    if start < 0 or stop < start:
        raise ValueError(
            f"it has no line {BEGIN} followed by a line {END}, between which the report is written; try adding them"
        )
    return f"{text[: start + len(BEGIN)]}\n{report}{text[stop:]}"


# -- LaTeX ----------------------------------------------------------------------------------------------

_LATEX = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "%": r"\%",
    "_": r"\_",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "\u2212": r"$-$",
    "\u2013": "--",
    "±": r"$\pm$",
    "·": r"$\cdot$",
    "≈": r"$\approx$",
    "≥": r"$\geq$",
    "▲": r"$\blacktriangle$",
    "▼": r"$\blacktriangledown$",
    "✗": r"$\times$",
    "…": r"\dots{}",
    "⊘": r"$\oslash$",
    "◇": r"$\diamond$",
    "†": r"\dag{}",
    "Δ": r"$\Delta$",
    "“": "``",
    "”": "''",
    "‘": "`",
    "’": "'",
}


_NO_LATEX = "ĦħĸĿŀŉŦŧſ"
"""Letters below U+0180 that the font encoding T1 lacks."""


def latex_text(text: str) -> str:
    """Plain text as LaTeX; a letter that pdflatex may not have becomes a question mark."""
    found = []
    for character in " ".join(text.split()):
        known = _LATEX.get(character, character)
        there = known != character or (ord(character) < 0x180 and character not in _NO_LATEX)
        found.append(known if there else "?")
    return "".join(found)


PACKAGES = "amssymb,booktabs,graphicx,textcomp"
PREAMBLE = (
    r"\documentclass{article}",
    r"\usepackage[T1]{fontenc}",
    r"\usepackage[utf8]{inputenc}",
    rf"\usepackage{{{PACKAGES}}}",
    r"\usepackage[margin=2cm,landscape]{geometry}",
    r"\setlength{\parindent}{0pt}",
    r"\begin{document}",
)


def latex(sections: Sequence[Section], heading: str = "", *, standalone: bool = False) -> str:
    r"""Tables and figures to ``\input`` into a paper, each with a label; or a whole document.

    Labels are ``tab:leaderboard`` and ``fig:1``, and of several sections ``tab:1-leaderboard``. The legend of a
    table is a note below it. ``standalone``: a document of its own, with what stands above the tables of a section.
    Paths of pictures must hold no character that TeX reads as a command.
    """
    lines = [*PREAMBLE] if standalone else [rf"% b2bench report; it needs \usepackage{{{PACKAGES}}}"]
    if heading:
        lines.append(rf"{{\LARGE {latex_text(heading)}\par}}" if standalone else f"% {latex_text(heading)}")
    if not sections:
        lines.append(latex_text(NOTHING))
    for place, section in enumerate(sections, 1):
        head, facts = latex_text(section.title), latex_text(" · ".join(section.facts))
        notes = [latex_text(note) for note in section.notes]
        said = [(latex_text(answer.about), latex_text(answer.text)) for answer in section.answers]
        if standalone:
            items = [rf"\item \textbf{{{about}:}} {text}" for about, text in said]
            lines += [rf"\section*{{{head}}}", facts, ""]
            lines += [r"\begin{itemize}", *items, r"\end{itemize}"] if items else []
            lines += [rf"\emph{{{note}}}\par" for note in notes]
        else:
            said_too = [f"{about}: {text}" for about, text in said]
            lines += ["", *(f"% {text}" for text in (head, facts, *said_too, *notes)), ""]
        mark = f"{place}-" if len(sections) > 1 else ""
        for grid in section.grids:
            # a line of characters as a curve is for a terminal and a page
            lines += _latex_grid(grid, f"{mark}{grid.key}") if grid.key != "learning" else []
        for number, picture in enumerate(section.pictures, 1):
            lines += _latex_picture(picture, f"{mark}{number}")
        if standalone:
            lines.append(r"\clearpage")  # LaTeX keeps no more than a few dozen tables and figures waiting
    return "\n".join([*lines, *([r"\end{document}"] if standalone else []), ""])


def with_columns(sections: Sequence[Section], wanted: Sequence[str]) -> list[Section]:
    """Keep the columns ``wanted`` of every table, in this order, behind its first; tables with none of them go.

    Raises:
        UserError: no table has a column of this name.
    """
    known = dict.fromkeys(column.name for section in sections for grid in section.grids for column in grid.columns)
    for name in wanted:
        if sections and name not in known:
            close = suggestion(name, known)
            raise UserError(f"--columns: no table has a column {name!r}.{close} There are: {', '.join(known)}")
    found = []
    for section in sections:
        grids = [_only(grid, wanted) for grid in section.grids]
        found.append(replace(section, grids=tuple(grid for grid in grids if len(grid.columns) > 1)))
    return found


def _only(grid: Grid, wanted: Sequence[str]) -> Grid:
    names = [column.name for column in grid.columns]
    places = [0, *(names.index(name) for name in wanted if name in names[1:])] if names else []
    gone = tuple(f"{name}:" for place, name in enumerate(names) if place not in places)
    return replace(
        grid,
        columns=tuple(grid.columns[place] for place in places),
        rows=tuple(tuple(row[place] for place in places) for row in grid.rows),
        legend=tuple(line for line in grid.legend if not line.startswith(gone)),
    )


def _label(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9-]+", "-", text)


def _latex_grid(grid: Grid, label: str) -> list[str]:
    def row(texts: Sequence[str]) -> str:
        # {}: a row that begins with [ or * would be an argument of the command before it
        return "{}" + " & ".join(latex_text(text) for text in texts) + r" \\"

    if not grid.rows:
        return [rf"\textbf{{{latex_text(grid.title)}}}: {latex_text('; '.join(grid.legend))}\par", ""]
    return [
        r"\begin{table}[h!]",
        r"\centering",
        rf"\caption{{{latex_text(grid.title)}}}",
        rf"\label{{tab:{_label(label)}}}",
        r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%",
        rf"\begin{{tabular}}{{{''.join('r' if column.right else 'l' for column in grid.columns)}}}",
        r"\toprule",
        row([column.name for column in grid.columns]),
        r"\midrule",
        *(row([whole_text(cell) for cell in cells]) for cells in grid.rows),
        r"\bottomrule",
        r"\end{tabular}}",
        *([rf"\par\smallskip{{\footnotesize {latex_text('; '.join(grid.legend))}\par}}"] if grid.legend else []),
        r"\end{table}",
        "",
    ]


def _latex_picture(picture: Picture, number: str) -> list[str]:
    return [
        r"\begin{figure}[h!]",
        r"\centering",
        rf"\includegraphics[width=.7\linewidth,height=.8\textheight,keepaspectratio]{{\detokenize{{{picture.stem}.pdf}}}}",
        rf"\caption{{{latex_text(picture.caption)}}}",
        rf"\label{{fig:{_label(number)}}}",
        r"\end{figure}",
        "",
    ]


# -- CSV ------------------------------------------------------------------------------------------------


def csv_text(sections: Sequence[Section]) -> str:
    """One line for each cell of each table, with its numbers and what it says.

    What stands above the tables is table ``head``, with rows ``fact`` and ``note``; what stands below one, its row
    ``legend``. ``p`` is that of a t-test, ``p_adjusted`` after Holm, ``verdict`` what the tables colour, and
    ``detectable`` the smallest difference that the seeds would have shown.
    """
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["context", "table", "row", "column", *NUMBERS, "verdict", "text"])
    for section in sections:

        def line(*where: str, numbers: Sequence[object] = ("",) * len(NUMBERS), verdict: str = "", text: str) -> None:
            writer.writerow([*map(_safe, (section.title, *where)), *numbers, verdict, _safe(text)])  # noqa: B023

        for answer in section.answers:
            line("answers", answer.about, "", verdict=answer.kind, text=answer.text)
        for kind, texts in (("fact", section.facts), ("note", section.notes)):
            for text in texts:
                line("head", kind, "", text=text)
        for grid in section.grids:
            for row in grid.rows:
                name = " ".join(cell.text for cell in row[: grid.names])
                for column, cell in list(zip(grid.columns, row, strict=True))[grid.names :]:
                    line(
                        grid.key,
                        name,
                        column.name,
                        numbers=_numbers(cell),
                        verdict=cell.kind,
                        text=whole_text(cell),
                    )
            for text in grid.legend:
                line(grid.key, "legend", "", text=text)
    return out.getvalue()


NUMBERS = ("mean", "low", "high", "n", "p", "p_adjusted", "detectable")


def _numbers(cell: Cell) -> list[object]:
    of = cell.estimate
    found = {name: getattr(of, name, None) for name in NUMBERS} | {"detectable": cell.detectable}
    if of is None:
        found["mean"] = cell.sort
    return ["" if value is None else value for value in found.values()]


def _safe(text: str) -> str:
    """Return a text that no spreadsheet takes for a formula."""
    return f"'{text}" if text[:1] in ("=", "+", "@", "\t", "\r") or (text[:1] == "-" and text != "-") else text
