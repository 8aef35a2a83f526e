"""Whatever text or bytes there are, what reads them gives a value or says in one line why not."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from b2bench.leaderboard.selection import parse_where
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from b2bench.cli.studies import parse_taus
from b2bench.config.given import parse_assignments, read_config_file
from b2bench.config.presets import load_preset
from b2bench.config.prompt_sets import load_prompts
from b2bench.config.settings import Settings
from b2bench.errors import UserError
from b2bench.hyperparameters import build, hyperparameters
from b2bench.sweep.plan import parse_list, parse_seeds
from b2bench.text import shortened, visible

often = settings(
    max_examples=100,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
words = st.text() | st.text(alphabet="0123456789-,.=: eax\x1b\u0665\u00b2")
names = st.sampled_from([parameter.name for parameter in hyperparameters(Settings)])
plain = st.none() | st.booleans() | st.integers() | st.floats() | words | st.dates()
values = st.recursive(plain, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3))
toml = st.lists(
    st.sampled_from(
        ["a", "[set]", "[options]", "lr", " = ", "{value = 1}", "'x'", "[", "]", "\n", "\x00", "\ud7ff", "1"]
    )
).map("".join)


def refused(read: Callable[..., Any], *arguments: Any) -> None:
    """Call it; what it refuses it refuses with words."""
    error = None
    try:
        read(*arguments)
    except UserError as met:
        error = met
    assert error is None or len(str(error)) > 10


@often
@given(text=words)
@pytest.mark.parametrize("read", [parse_seeds, parse_taus, lambda text: parse_list("algo", text, ["ddpo"])])
def test_a_text(read: Callable[[str], Any], text: str) -> None:
    refused(read, text)


@often
@given(texts=st.lists(words, max_size=3))
@pytest.mark.parametrize("read", [parse_where, parse_assignments])
def test_texts(read: Callable[[list[str]], Any], texts: list[str]) -> None:
    refused(read, texts)


@often
@given(given_values=st.dictionaries(names | words, values, max_size=3))
def test_hyperparameters(given_values: dict[str, Any]) -> None:
    refused(build, Settings, given_values)


@often
@given(content=st.binary() | words.map(lambda text: text.encode(errors="ignore")) | toml.map(str.encode))
@pytest.mark.parametrize("read", [load_prompts, read_config_file, lambda path: load_preset(str(path))])
def test_a_file(read: Callable[[Path], Any], content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(content)
    refused(read, file)


@often
@given(text=st.text(), longest=st.integers(50, 200))
def test_what_a_terminal_is_given(text: str, longest: int) -> None:
    assert visible(text).isprintable()
    assert len(shortened(text, longest)) <= max(len(text), longest)
