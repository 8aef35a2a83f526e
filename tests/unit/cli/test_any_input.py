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


def refused(read: Callable[..., Any], *arguments: Any) -> Any:
    """What is read of arguments; what is refused is refused with words, and None."""
    error = None
    try:
        return read(*arguments)
    except UserError as met:
        error = str(met)
    assert len(error) > 10
    assert "Traceback" not in error
    return None


@often
@given(text=words)
def test_seeds(text: str) -> None:
    """What is read is a list of different seeds that, written down, is read as the same list."""
    seeds = refused(parse_seeds, text)
    if seeds is not None:
        assert seeds
        assert all(isinstance(seed, int) and seed >= 0 for seed in seeds)
        assert len(set(seeds)) == len(seeds)
        assert parse_seeds(",".join(map(str, seeds))) == seeds


@often
@given(text=words)
def test_taus(text: str) -> None:
    taus = refused(parse_taus, text)
    if taus is not None:
        assert taus
        assert len(taus) == text.count(",") + 1
        assert parse_taus(",".join(map(str, taus))) == taus


@often
@given(text=words)
def test_a_list_of_names(text: str) -> None:
    """The parts between the commas, each once and in order; a list of nothing is refused."""
    read = refused(lambda: parse_list("algo", text, {"all": lambda: ["ddpo", "pg"]}))
    parts = [part.strip() for part in text.split(",")]
    if read is None:
        assert not any(parts)
    else:
        named = [name for part in parts for name in (["ddpo", "pg"] if part == "all" else [part])]
        assert read == [name for i, name in enumerate(named) if name and name not in named[:i]]


@often
@given(texts=st.lists(words, max_size=3))
def test_conditions_and_assignments(texts: list[str]) -> None:
    """As many conditions as texts; an assignment's name and value are what stands on either side of its first =."""
    conditions = refused(parse_where, texts)
    assert conditions is None or len(conditions) <= len(texts)
    values_read = refused(parse_assignments, texts)
    if values_read is not None:
        assert all("=" in text for text in texts)
        assert {text.partition("=")[0].strip() for text in texts} == set(values_read)


@pytest.mark.slow
@often
@given(given_values=st.dictionaries(names | words, values, max_size=3))
def test_hyperparameters(given_values: dict[str, Any]) -> None:
    """Settings that are built hold what was given, by names that there are, and can be built from what they hold."""
    built = refused(build, Settings, given_values)
    if built is not None:
        assert set(given_values) <= {parameter.name for parameter in hyperparameters(Settings)}
        assert build(Settings, {name: getattr(built, name) for name in given_values}) == built


@often
@given(content=st.binary() | words.map(lambda text: text.encode(errors="ignore")) | toml.map(str.encode))
def test_a_file(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(content)
    prompts = refused(load_prompts, file)
    if prompts is not None:
        lines = [line.strip() for line in content.decode().splitlines()]
        assert prompts.train
        assert set(prompts.train) <= set(lines)
        assert len(set(prompts.train)) == len(prompts.train)
    for read in (read_config_file, lambda path: load_preset(str(path))):
        refused(read, file)


@often
@given(text=st.text(), longest=st.integers(50, 200))
def test_what_a_terminal_is_given(text: str, longest: int) -> None:
    assert visible(text).isprintable()
    assert len(shortened(text, longest)) <= max(len(text), longest)
