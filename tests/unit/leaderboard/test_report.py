"""A report in every written format: what it says, and that nothing a store holds is markup."""

import base64
import csv
import io
import math
import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from b2bench.leaderboard.document import document
from b2bench.leaderboard.drawn import written_figure
from b2bench.leaderboard.figures import _window, colours, draw_samples, looks, pareto, report_figures
from b2bench.leaderboard.files import write_figures
from b2bench.leaderboard.grid import Cell, Column, Grid, Picture, Section
from b2bench.leaderboard.grids import Sample, SampleGrid
from b2bench.leaderboard.html import html
from b2bench.leaderboard.paper import paper_grids
from b2bench.leaderboard.rows import Context
from b2bench.leaderboard.selection import check_held, parse_where, problems, select
from b2bench.leaderboard.tables import tables
from b2bench.leaderboard.terminal import render, to_json
from b2bench.leaderboard.written import (
    BEGIN,
    END,
    between_markers,
    csv_text,
    latex,
    latex_text,
    markdown,
    markdown_text,
)
from PIL import Image
from rich.console import Console
from synthetic import Rows

from b2bench.errors import UserError
from b2bench.registry import Registry
from b2bench.text import visible

NOISE = [0.001, -0.001, 0.0005, -0.0005, 0.0]
HOSTILE = [
    "<script>alert(1)</script>",
    "a|b\n| c | d |",
    "[x](javascript:alert(1)) ![i](http://a.b/c.png) `code` **bold** <!-- c -->",
    r"\input{/etc/passwd} $x$ 50% #1 {a} ^~_&",
    "\x1b[31mred\x1b[0m\x07\x9b2J",
    "=HYPERLINK(1)",
    "${jndi:x} {{7*7}} {% raw %}",
]
LATEX_LETTERS = {"textbackslash", "textasciitilde", "textasciicircum", "textless", "textgreater", "textbar", "dots"}


@pytest.fixture
def rows() -> Rows:
    return Rows()


@pytest.fixture
def known(rows: Rows) -> Rows:
    """Effects that are known: vanilla gains 0.05, BPT adds 0.04, BS takes 0.04, B2 is vanilla again; dpo failed."""
    for seed in range(5):
        start, jitter = 0.6 + 0.01 * seed, NOISE[seed]
        for wrapper, gain in (("vanilla", 0.05), ("bpt", 0.09), ("bs", 0.01), ("b2", 0.05)):
            noise = jitter if wrapper == "vanilla" else -jitter
            rows.add("ddpo", wrapper, seed, {0: start, 500: start + gain / 2, 1000: start + gain + noise})
        rows.add("dpo", "bs", seed, {0: start}, status="failed", error="the loss is nan")
    rows.add("dpok", "b2", 0, {0: 0.6}, status="running")
    return rows


def grid(sections: list[Section], key: str) -> Grid:
    return next(g for section in sections for g in section.grids if g.key == key)


def column(found: Grid, name: str) -> dict[str, str]:
    place = [c.name for c in found.columns].index(name)
    return {row[0].text: row[place].text for row in found.rows}


def test_what_the_tables_say_of_known_effects(known: Rows) -> None:
    sections = document(known.tables())
    board = grid(sections, "leaderboard")
    assert column(board, "against pretrained")["ddpo bpt"].startswith("+0.090 ±")
    assert column(board, "rank") == {
        "ddpo bpt": "1", "ddpo vanilla": "2–5", "ddpo b2": "2–5", "ddpo bs": "2–5", "dpo bs": "2–5", "pretrained": "-",
    }  # fmt: skip
    # half of the largest gain over each seed's own start, which a rise of 0.045 in 500 reaches there
    assert column(board, "queries to target")["ddpo bpt"] == "500 (5/5)"
    assert column(board, "area of gain")["ddpo bpt"].startswith("+0.0450 ±")
    assert column(board, "seeds")["dpo bs"] == "5 (5†)"
    contrasts = grid(sections, "contrasts")
    of = {row[1].text: row[2].text for row in contrasts.rows}
    assert of["bpt − vanilla"].startswith("+0.0200 ±")
    assert of["b2 − bpt − bs + vanilla"].startswith("+0.0000 ±")
    compatibility = grid(sections, "compatibility")
    assert column(compatibility, "bpt")["ddpo"].startswith("▲ +0.0200 5/5")
    assert column(compatibility, "bs")["ddpo"].startswith("▼")
    assert column(compatibility, "b2")["ddpo"].startswith("=")  # shown to be within a quarter of vanilla's 0.025
    assert any("within 25% of what vanilla gained" in line for line in compatibility.legend)
    words = column(grid(sections, "verdicts"), "in words")
    assert words["ddpo vanilla"] == "learned"
    assert words["ddpo b2"].startswith("learned; equal to vanilla in trained reward")
    assert words["dpo bs"] == "every run failed"
    assert column(grid(sections, "diversity"), "alignment gained")["ddpo bs"].startswith("+0.010 ±")
    assert [row[1].text for row in grid(sections, "incomplete").rows] == ["dpok b2"]


def test_a_smaller_margin_leaves_it_open(known: Rows) -> None:
    found = document(tables(known.runs, known.evals, known.rounds, margin=0.0001))
    text = column(grid(found, "compatibility"), "b2")["ddpo"]
    assert text.startswith("≈")
    assert "(from 0.00" in text  # the smallest difference that would have shown


def test_generalisation_compares_training_and_unseen_prompts(rows: Rows) -> None:
    for seed in range(3):
        rows.add("ddpo", "vanilla", seed, {0: 0.6, 1000: 0.62 + NOISE[seed]}, seen={0: 0.6, 1000: 0.7})
    found = grid(document(rows.tables()), "generalisation")
    assert column(found, "gain on training prompts")["ddpo vanilla"] == "+0.100 ±0.000"
    assert column(found, "unseen − training")["ddpo vanilla"].startswith("−0.080 ±")


def test_over_optimisation_is_flagged(rows: Rows) -> None:
    for seed in range(3):
        rows.add("ddpo", "vanilla", seed, {0: 0.6, 1000: 0.7 + NOISE[seed]}, heldout={0: 0.5, 1000: 0.4 + NOISE[seed]})
        rows.add("ddpo", "b2", seed, {0: 0.6, 1000: 0.7 + NOISE[seed]})
    found = grid(document(rows.tables()), "leaderboard")
    warned = column(found, "warning")
    assert (warned["ddpo vanilla"], warned["ddpo b2"]) == ("over-optimised", "")
    assert not any("signs" in line for line in found.legend)
    rows.add("pg", "vanilla", 0, {0: 0.6, 1000: 0.601}, heldout={0: 0.5, 1000: 0.499})
    found = grid(document(rows.tables()), "leaderboard")
    assert column(found, "warning")["pg vanilla"] == "over-optimised?"  # one seed has no interval
    assert any("by the signs alone" in line for line in found.legend)


def test_a_cell_that_gained_nothing_takes_no_other_its_matched_diversity(rows: Rows) -> None:
    for seed in range(3):
        rows.add("ddpo", "vanilla", seed, {0: 0.6, 1000: 0.7}, entropy={0: 1.4, 1000: 1.2})
        rows.add("ddpo", "b2", seed, {0: 0.6, 1000: 0.65}, entropy={0: 1.4, 1000: 1.3})
        rows.add("pg", "vanilla", seed, {0: 0.6, 1000: 0.4})
        rows.add("dpo", "vanilla", seed, {0: 0.6, 1000: 0.601})
    found = grid(document(rows.tables()), "diversity")
    assert column(found, "style entropy (nats), matched") == {
        "ddpo vanilla": "1.300 ±0.000", "ddpo b2": "1.300 ±0.000", "dpo vanilla": "-", "pg vanilla": "-",
    }  # fmt: skip
    assert any("first had +0.050 over its own start" in line for line in found.legend)


def test_a_seed_that_never_had_the_matched_gain_leaves_its_cell_without_a_number(rows: Rows) -> None:
    """At its end, at another gain, it would not be compared at equal alignment."""
    for seed, (one, other) in enumerate(((0.7, 0.66), (0.7, 0.66), (0.64, 0.6))):
        rows.add("ddpo", "vanilla", seed, {0: 0.6, 1000: one}, entropy={0: 1.4, 1000: 1.4 - 2 * (one - 0.6)})
        rows.add("ddpo", "b2", seed, {0: 0.6, 1000: other}, entropy={0: 1.4, 1000: 1.3})
    found = grid(document(rows.tables()), "diversity")
    assert column(found, "style entropy (nats), matched") == {"ddpo vanilla": "1.320 ±0.000", "ddpo b2": "-"}
    assert any("first had +0.040 over its own start" in line for line in found.legend)


def test_queries_to_target_are_a_bound_where_a_seed_never_had_it(rows: Rows) -> None:
    for seed, end in enumerate((0.7, 0.7, 0.61)):
        rows.add("ddpo", "vanilla", seed, {0: 0.6, 1000: end})
        rows.add("ddpo", "b2", seed, {0: 0.6, 1000: 0.66})
        rows.add("pg", "vanilla", seed, {0: 0.6, 1000: 0.6})
    found = grid(document(rows.tables()), "leaderboard")  # to 0.6 + 0.07 / 2
    assert column(found, "queries to target") == {
        "ddpo vanilla": "≥567 (2/3)", "ddpo b2": "583 (3/3)", "pg vanilla": "never (0/3)", "pretrained": "-",
    }  # fmt: skip
    place = [c.name for c in found.columns].index("queries to target")
    assert [row[place].sort for row in found.rows[:3]] == pytest.approx([1700 / 3, 1750 / 3, 1000])
    assert any("no gain is beyond its interval" in line for line in found.legend) is False


def test_diversity_is_compared_at_the_same_alignment(rows: Rows) -> None:
    """One cell gains twice as much and loses twice the entropy: at the other's alignment both lost the same."""
    for seed in range(3):
        rows.add("ddpo", "vanilla", seed, {0: 0.6, 1000: 0.7}, entropy={0: 1.4, 1000: 1.2})
        rows.add("ddpo", "b2", seed, {0: 0.6, 1000: 0.65}, entropy={0: 1.4, 1000: 1.3})
    found = grid(document(rows.tables()), "diversity")
    assert column(found, "style entropy (nats), change")["ddpo vanilla"].startswith("−0.200")
    matched = column(found, "style entropy (nats), matched")
    assert matched["ddpo vanilla"] == matched["ddpo b2"] == "1.300 ±0.000"
    axes = report_figures(rows.one())["alignment and diversity"].axes[0]
    hollow = [line for line in axes.lines if line.get_markerfacecolor() == "none"]
    assert len(hollow) == 2
    for line in hollow:
        assert line.get_xydata()[0].tolist() == pytest.approx([1.3, 0.65])


# -- hostile text -----------------------------------------------------------------------------------------


def hostile_tables(text: str) -> Any:
    rows = Rows()
    for seed in range(3):
        rows.add(
            text, "vanilla", seed, {0: 0.6, 1000: 0.7 + NOISE[seed]}, backbone=text, prompts=text, error=text,
            config={"set": text}, versions={text: text},
        )  # fmt: skip
    rows.add(text, text, 3, {0: 0.6}, status="running")
    return rows.tables()


class Reader(HTMLParser):
    """Tags, attributes and text of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.text: list[str] = []
        self.attributes: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_data(self, data: str) -> None:
        self.text.append(data)


@pytest.mark.slow
@pytest.mark.parametrize("text", HOSTILE)
def test_in_html_it_is_text(text: str) -> None:
    page, plain = Reader(), Reader()
    page.feed(html(hostile_tables(text)))
    plain.feed(html(hostile_tables("harmless")))
    assert sorted(page.tags) == sorted(plain.tags)
    assert page.attributes == plain.attributes
    assert not [name for name in page.attributes if name.startswith("on")]
    if text.isprintable():
        assert any(text in data for data in page.text)


@pytest.mark.slow
@pytest.mark.parametrize("text", HOSTILE)
def test_in_no_format_is_there_a_control_character(text: str) -> None:
    found = hostile_tables(text)
    screen = io.StringIO()
    render(found, Console(file=screen, width=200, force_terminal=False))
    sections = document(found)
    for written in (screen.getvalue(), markdown(sections), latex(sections), csv_text(sections), html(found)):
        assert not [c for c in written if not c.isprintable() and c != "\n"]
    assert "\x1b" not in str(to_json(found))


@pytest.mark.parametrize("text", HOSTILE)
def test_in_markdown_it_makes_no_cell_link_or_tag(text: str) -> None:
    found = markdown(document(hostile_tables(text)))
    plain = markdown(document(hostile_tables("harmless")))
    assert found.count("\n") == plain.count("\n")
    unescaped = re.sub(r"\\.", "", found)
    folds = "<details><summary>", "</summary>", "</details>"
    assert [found.count(tag) for tag in folds] == [plain.count(tag) for tag in folds]
    assert "<" not in re.sub("|".join((*folds, BEGIN)), "", unescaped)
    assert "](" not in unescaped
    assert "`" not in unescaped
    assert unescaped.count("|") == plain.count("|")


@pytest.mark.parametrize("text", HOSTILE)
def test_in_a_caption_it_is_text(rows: Rows, text: str) -> None:
    rows.add("ddpo", "vanilla", 0, {0: 0.6, 1000: 0.7})
    of, plain = (document(rows.tables(), [[Picture(caption, "a")]]) for caption in (visible(text), "harmless"))
    for written in (markdown, latex):
        assert written(of).count("\n") == written(plain).count("\n")
    (line,) = [line for line in markdown(of).splitlines() if line.endswith("](a.svg)")]
    assert not re.search(r"[<`|\x1b]|\]\(", re.sub(r"\\.", "", line).removesuffix("](a.svg)"))
    known = set(re.findall(r"\\([a-zA-Z]+)", latex(plain)))
    assert set(re.findall(r"\\([a-zA-Z]+)", latex(of))) - known <= LATEX_LETTERS


@pytest.mark.parametrize("text", HOSTILE)
def test_in_latex_it_is_no_command(text: str) -> None:
    found, plain = (latex(document(hostile_tables(t))) for t in (text, "harmless"))
    commands = set(re.findall(r"\\([a-zA-Z]+)", found)) - set(re.findall(r"\\([a-zA-Z]+)", plain))
    assert commands <= LATEX_LETTERS
    for line in found.splitlines():
        bare = re.sub(r"\\.", "", line)
        assert bare.count("{") == bare.count("}") or line.startswith(
            (r"\begin{tabular}", r"\end{tabular}", r"\resizebox")
        )
        assert bare.count("$") % 2 == 0


@pytest.mark.parametrize("text", HOSTILE)
def test_in_csv_it_is_no_formula(text: str) -> None:
    lines = list(csv.reader(io.StringIO(csv_text(document(hostile_tables(text))))))
    assert {len(line) for line in lines} == {13}
    for line in lines[1:]:
        assert not [field for field in (*line[:4], *line[11:]) if field[:1] in ("=", "+", "@")]


# -- written files ------------------------------------------------------------------------------------------


def test_markdown_is_the_same_for_the_same_rows_and_goes_between_markers(known: Rows) -> None:
    report = markdown(document(known.tables()))
    assert report == markdown(document(known.tables()))
    page = f"# Mine\n\n{BEGIN}\nformerly\n{END}\nafter\n"
    written = between_markers(page, report)
    assert written.startswith("# Mine\n")
    assert written.endswith(f"{END}\nafter\n")
    assert "formerly" not in written
    assert between_markers(written, report) == written
    with pytest.raises(ValueError, match="no line"):
        between_markers("# Mine\n", report)


def test_markdown_text() -> None:
    assert markdown_text("a_b *c* <d>\n| e") == r"a\_b \*c\* &#60;d&#62; &#124; e"
    assert markdown_text("+0.1 ±0.2 (3/5), 12:30") == "+0.1 ±0.2 (3/5), 12:30"
    assert markdown_text("https://a.b/c WWW.a.b @you") == "https&#58;//a.b/c WWW&#46;a.b &#64;you"


def test_a_latex_row_is_no_argument_of_the_line_before(rows: Rows) -> None:
    rows.add("[1cm]", "vanilla", 0, {0: 0.6, 1000: 0.7})
    found = latex(document(rows.tables()))
    assert "{}[1cm] vanilla &" in found
    assert not re.search(r"^\s*[\[*]", found, re.MULTILINE)
    assert latex_text("ŉ Ħ é ő") == "? ? é ő"


def test_csv_holds_the_numbers(known: Rows) -> None:
    lines = list(csv.DictReader(io.StringIO(csv_text(document(known.tables())))))
    (found,) = [
        line
        for line in lines
        if (line["table"], line["row"], line["column"]) == ("leaderboard", "ddpo bpt", "against pretrained")
    ]
    assert float(found["mean"]) == pytest.approx(0.09)
    assert float(found["low"]) < 0.09 < float(found["high"])
    assert found["n"] == "5"
    assert float(found["p"]) < 0.001
    verdicts = {line["column"]: line for line in lines if (line["table"], line["row"]) == ("compatibility", "ddpo")}
    assert {name: line["verdict"] for name, line in verdicts.items()} == {
        "vanilla": "gain", "bpt": "gain", "bs": "loss", "b2": "equivalent",
    }  # fmt: skip
    assert float(verdicts["bpt"]["p"]) < float(verdicts["bpt"]["p_adjusted"])
    assert float(verdicts["b2"]["detectable"]) > 0
    heads = [line["text"] for line in lines if (line["table"], line["row"]) == ("head", "fact")]
    assert "is_style N=270 splits=1 (pocket classifier, style)" in heads
    assert any("tests at 5%, Holm over all of them" in line["text"] for line in lines if line["row"] == "legend")


@pytest.mark.parametrize("make", [lambda t: markdown(document(t)), lambda t: latex(document(t)), html])
def test_an_empty_store_says_how_to_begin(make: Callable[[Any], str]) -> None:
    assert "b2bench run --algo dpok --wrapper b2" in make([])


@pytest.mark.slow
def test_thin_stores_give_no_flattering_number(rows: Rows) -> None:
    rows.add("ddpo", "vanilla", 0, {0: 0.6, 1000: None})
    rows.add("pg", "vanilla", 0, {}, status="failed")
    rows.add("dpo", "b2", 1, {0: 0.6, 1000: 0.7}, benchmark_version="4")
    found = rows.tables()
    assert len(found) == 2
    for written in (markdown(document(found)), latex(document(found)), csv_text(document(found)), html(found)):
        assert "nan" not in re.sub("inance|NaN", "", written).lower()
    assert column(grid(document(found), "leaderboard"), "seeds")["ddpo vanilla"] == "1"


# -- the paper ----------------------------------------------------------------------------------------------


def context(**values: Any) -> Context:
    plain = Context("3", "sd14", "clipscore", "template1", "", 25_600)
    return replace(plain, **values)


def test_the_papers_numbers_stand_beside_its_own_backbone_only() -> None:
    found = {g.key: {row[0].text: row[1].text for row in g.rows} for g in paper_grids(context())}
    assert found["paper_table1"] == {"SD": "1.3179", "DDPO": "1.2886", "DDPO+B2": "1.3127"}
    assert found["paper_table2"]["PG+B2"] == "1.2896"
    assert found["paper_table3"]["DDPO+B2"] == "0.3748"
    assert [g.key for g in paper_grids(context(prompts="template2"))] == ["paper_table1", "paper_table3"]
    assert all("paper's" in g.title for g in paper_grids(context()))
    for other in ({"backbone": "pocket"}, {"reward": "bertscore"}, {"prompts": "mine"}, {"reward_settings": "code=a"}):
        assert paper_grids(context(**other)) == []


# -- figures ------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_every_figure_is_drawn_and_the_same_each_time(known: Rows) -> None:
    (group,) = known.tables()
    figures = report_figures(group)
    assert list(figures) == [
        "learning of ddpo",
        "alignment against reward queries",
        "alignment against denoiser calls",
        "differences to vanilla",
        "alignment and diversity",
        "planned contrasts",
    ]
    for name, figure in report_figures(group).items():
        assert written_figure(figure, "svg") == written_figure(figures[name], "svg")
        assert written_figure(figure, "pdf").startswith(b"%PDF")


def test_a_curve_has_a_thin_line_for_each_seed_and_a_band(known: Rows) -> None:
    (group,) = known.tables()
    figure = report_figures(group)["alignment against reward queries"]
    (axes,) = figure.axes
    written = written_figure(figure, "svg")
    assert len(re.findall(rb"""stroke-width: 0\.6[;"]""", written)) == 20
    assert [line.get_linewidth() for line in axes.lines].count(1.8) == 4
    assert len(axes.collections) == 4
    thick = next(line for line in axes.lines if line.get_label() == "ddpo bpt")
    assert list(thick.get_xdata()) == [0, 500, 1000]
    assert list(thick.get_ydata()) == pytest.approx([0.62, 0.665, 0.71])


@pytest.mark.slow
def test_a_collapsed_cell_does_not_press_the_others_into_a_line(known: Rows) -> None:
    for seed in range(5):
        known.add("pg", "vanilla", seed, {0: 0.6, 500: 0.3, 1000: -40.0}, entropy={0: 1.3, 1000: 0.1})
        known.add("dpo", "vanilla", seed, {0: 0.6, 500: 0.62, 1000: 0.63 + NOISE[seed]})
    (group,) = known.tables()
    figures = report_figures(group)
    whole, part = figures["alignment against reward queries"].axes
    assert whole.get_ylim()[0] < -40
    low, high = part.get_ylim()
    assert 0.2 < low < 0.6
    assert 0.71 < high < 0.8
    labels = [[line.get_label() for line in axes.lines] for axes in (whole, part)]
    assert labels[0] == labels[1]  # nothing is left out
    whole, part = figures["differences to vanilla"].axes
    assert whole.get_xlim()[0] < -10  # a quarter of it, over the budget
    assert -1 < part.get_xlim()[0] < part.get_xlim()[1] < 1
    assert len(figures["planned contrasts"].axes) == 1


def test_an_interval_that_is_no_outlier_needs_no_second_panel() -> None:
    assert _window([0.6, 0.61, 0.62, 0.7]) is None
    assert _window([0.6] * 20 + [0.7]) is None  # of nothing but one value there is no scale
    assert _window([math.nan, 0.6, 0.7]) is None
    low, high = _window([0.6, 0.61, 0.62, 0.63, 0.64, 9.0]) or (0.0, 0.0)
    assert (low, high) == pytest.approx((0.5976, 0.6424))


@pytest.mark.slow
def test_figures_in_files_are_named_after_what_they_show(known: Rows, tmp_path: Path) -> None:
    pictures = write_figures(known.tables(), tmp_path / "report" / "figures", beside=tmp_path / "report")
    assert [p.stem for p in pictures[0]] == [
        "figures/learning-of-ddpo",
        "figures/alignment-against-reward-queries",
        "figures/alignment-against-denoiser-calls",
        "figures/differences-to-vanilla",
        "figures/alignment-and-diversity",
        "figures/planned-contrasts",
    ]
    written = {path.name: path.read_bytes() for path in (tmp_path / "report" / "figures").iterdir()}
    assert sorted(written) == sorted(f"{Path(p.stem).name}.{kind}" for p in pictures[0] for kind in ("pdf", "svg"))
    for name, content in written.items():
        assert content.startswith(b"%PDF" if name.endswith("pdf") else b"<?xml")
    write_figures(known.tables(), tmp_path / "report" / "figures")
    assert {path.name: path.read_bytes() for path in (tmp_path / "report" / "figures").iterdir()} == written
    sections = document(known.tables(), pictures)
    assert markdown(sections).count("](figures/") == 6
    assert "![differences to vanilla](figures/differences-to-vanilla.svg)" in markdown(sections)
    assert r"{\detokenize{figures/differences-to-vanilla.pdf}}" in latex(sections)


@pytest.mark.slow
def test_figures_of_several_contexts_do_not_overwrite_each_other(known: Rows, tmp_path: Path) -> None:
    known.add("pg", "vanilla", 0, {0: 0.6, 1000: 0.7}, prompts="others")
    first, second = write_figures(known.tables(), tmp_path)
    assert {Path(p.stem).name[:2] for p in first} == {"1-"}
    assert {Path(p.stem).name[:2] for p in second} == {"2-"}


@pytest.mark.slow
def test_a_heading_is_text(known: Rows) -> None:
    sections = document(known.tables())
    assert markdown(sections, "a <b> *c*").startswith("# a &#60;b&#62; \\*c\\*\n\n## b2bench")
    assert r"{\LARGE 50\% \#1\par}" in latex(sections, "50% #1", standalone=True)
    assert "<h1>a &lt;b&gt;</h1>" in html(known.tables(), heading="a <b>")
    assert "a" in markdown([], "a")


def sample(content: bytes) -> Sample:
    return Sample(base64.b64encode(content).decode(), "0.700")


def png(width: int, height: int) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (width, height), "red").save(out, "PNG")
    return out.getvalue()


def test_the_sample_grid_as_a_figure() -> None:
    here = sample(png(8, 8))
    found = SampleGrid(0, ("pretrained", "$ddpo$"), (("a $cat$ {", (here, here)), ("dog", (here, None))))
    figure = draw_samples(found)
    assert len(figure.axes) == 4
    assert [len(axes.images) for axes in figure.axes] == [1, 1, 1, 0]
    assert [axes.get_xlabel() for axes in figure.axes] == ["0.700", "0.700", "0.700", ""]
    assert [axes.get_title() for axes in figure.axes[:2]] == ["pretrained", r"\$ddpo\$"]
    assert written_figure(figure, "svg").startswith(b"<?xml")


def test_a_page_says_where_its_samples_have_scores_alone() -> None:
    """Runs that were imported have no folder here."""
    here, gone = sample(png(8, 8)), Sample("", "0.700")
    assert SampleGrid(0, ("ddpo",), (("cat", (here, gone)), ("dog", (None, gone)))).pictures
    assert not SampleGrid(0, ("ddpo",), (("cat", (gone, None)),)).pictures


def test_a_sample_image_that_is_none_is_left_out() -> None:
    """What lies in a run folder may be a stranger's: damaged, cut off, or of a size to fill the memory."""
    bomb = png(8, 8).replace((8).to_bytes(4) * 2, (60_000).to_bytes(4) * 2, 1)
    assert int.from_bytes(bomb[16:20]) == 60_000
    for content in (png(8, 8)[:20], png(8, 8)[:45], b"\x89PNG\r\n\x1a\n", bomb):
        assert draw_samples(SampleGrid(0, ("ddpo",), (("cat", (sample(content),)),))) is None


def test_contrasts_that_cannot_be_say_why(rows: Rows) -> None:
    for seed in range(3):
        rows.add("ddpo", "vanilla", seed, {0: 0.6, 1000: 0.7})
    found = rows.tables()
    sections = document(found)
    text = "ddpo: not run: bpt, bs, b2"
    screen = io.StringIO()
    render(found, Console(file=screen, width=200))
    for written in (screen.getvalue(), markdown(sections), latex(sections), csv_text(sections), html(found)):
        assert text in written


def test_nothing_to_show_is_no_figure(rows: Rows) -> None:
    rows.add("ddpo", "vanilla", 0, {}, status="failed")
    assert report_figures(rows.one()) == {}


@pytest.mark.slow
def test_runs_that_share_no_evaluation_have_no_mean_curve(rows: Rows) -> None:
    rows.add("external", "mine", 0, {1000: 0.7})
    rows.add("external", "mine", 1, {900: 0.7})
    rows.add("ddpo", "vanilla", 0, {0: math.nan, 1000: math.nan})
    assert "alignment against reward queries" in report_figures(rows.one())
    assert html(rows.tables())


def test_a_lora_of_others_is_in_the_leaderboard_and_no_row_of_the_compatibility_table(rows: Rows) -> None:
    rows.add("external", "theirs", 0, {1000: 0.7})
    rows.add("ddpo", "vanilla", 0, {0: 0.6, 1000: 0.7})
    found = rows.one()
    assert ("external", "theirs") in [(row.algorithm, row.wrapper) for row in found.leaderboard]
    assert [row.algorithm for row in found.compatibility] == ["ddpo"]
    assert "theirs" not in [cell.wrapper for cell in found.compatibility[0].cells]


def test_an_algorithm_has_one_colour_everywhere() -> None:
    assert colours(["dpo", "mine"])["dpo"] == colours(["yours", "dpo", "ddpo"])["dpo"]
    built_in = Registry("algorithm").names()
    assert len({colours(built_in)[name] for name in built_in}) == len(built_in)
    some = ["a", "b", "c", "d", "ddpo", "awm"]
    assert len({colours(some)[name] for name in some}) == len(some)


def test_cells_that_would_look_alike_have_other_markers() -> None:
    cells = [(f"mine{i}", "vanilla", "") for i in range(20)]
    cells += [("ddpo", wrapper, label) for wrapper in ("vanilla", "b2", "tree") for label in ("", "lr=1", "lr=2")]
    drawn = looks(cells)
    assert len({tuple(look.values()) for look in drawn.values()}) == len(cells)
    assert drawn["ddpo", "b2", ""] == {"color": "#0072b2", "linestyle": "-.", "marker": "D"}


def test_pareto_front() -> None:
    points = [(1.0, 0.5), (0.5, 1.0), (0.4, 0.9), (1.0, 0.4), (0.8, 0.8)]
    assert pareto(points) == [(0.5, 1.0), (0.8, 0.8), (1.0, 0.5)]
    assert pareto([]) == []


# -- which part, and whether it is whole ----------------------------------------------------------------------


def test_a_filter_leaves_out_rows_and_changes_no_number(known: Rows) -> None:
    whole = known.tables()
    part = select(whole, parse_where(["algorithm=ddpo", "wrapper=b2,bs"]))
    assert {(row.algorithm, row.wrapper) for row in part[0].leaderboard} == {
        ("ddpo", "b2"), ("ddpo", "bs"), ("pretrained", "-"),
    }  # fmt: skip
    assert [[cell.wrapper for cell in row.cells] for row in part[0].compatibility] == [["bs", "b2"]]
    p = {cell.wrapper: cell.delta.p_adjusted for cell in whole[0].compatibility[0].cells if cell.delta}
    assert all(cell.delta.p_adjusted == p[cell.wrapper] for cell in part[0].compatibility[0].cells if cell.delta)
    assert select(whole, parse_where(["prompts=other"])) == []
    assert select(whole, parse_where(["budget=1000"])) == whole
    assert "a,b-c0ffee" in parse_where(["wrapper=a,b-c0ffee"])["wrapper"]  # a LoRA's


def test_a_condition_is_on_one_value_or_on_a_list_and_each_is_looked_for(known: Rows) -> None:
    known.add("external", "a,b-c0ffee", 0, {1000: 0.9})
    groups = known.tables()
    for condition in ("wrapper=b2,bs", "wrapper=b2", "wrapper=a,b-c0ffee"):
        check_held(groups, parse_where([condition]))
    for condition, words in (
        ("wrapper=b2,b3", "--where wrapper=b3: no run"),
        ("wrapper=nope", "--where wrapper=nope: no run"),
        ("algorithm=dpo2,ddpo", "--where algorithm=dpo2: no run"),
    ):
        with pytest.raises(UserError, match=words):
            check_held(groups, parse_where([condition]))


@pytest.mark.parametrize("condition", ["algorithm", "color=red", "wrapper="])
def test_a_condition_that_says_nothing_is_refused(condition: str) -> None:
    with pytest.raises(UserError, match="--where"):
        parse_where([condition])


def test_problems_are_named(known: Rows) -> None:
    found = " | ".join(problems(known.tables()))
    assert "dpo bs has 5 failed runs" in found
    assert "is running" in found
    other = Rows()
    for seed in range(3):
        other.add("ddpo", "vanilla", seed, {0: 0.6, 1000: 0.7})
    assert problems(other.tables()) == []
    other.add("ddpo", "b2", 0, {0: 0.6, 1000: 0.7})
    other.add("ddpo", "b2", 1, {0: 0.6, 1000: 0.7}, benchmark_version="4")
    found = " | ".join(problems(other.tables()))
    assert "several benchmark versions: 3, 4" in found
    assert "lacks seeds 1, 2" in found
    assert problems([]) == ["no finished run"]


def test_a_grid_leaves_out_what_no_row_has(known: Rows) -> None:
    board = grid(document(known.tables()), "leaderboard")
    assert "headroom" not in [c.name for c in board.columns]
    assert board.columns[0] == Column("cell", right=False)
    assert all(isinstance(cell, Cell) for row in board.rows for cell in row)
    assert not [cell for row in board.rows for cell in row if cell.sort is not None and math.isnan(cell.sort)]
