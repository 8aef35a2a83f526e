"""A real browser, which shows pages as a new person sees them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")


@pytest.fixture(scope="module")
def chromium() -> Iterator[tuple[Any, dict[str, Any]]]:
    """What starts Chromium without a window, and how. It may be named by ``B2BENCH_BROWSER``."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="needs the package playwright, of group dev")
    path = os.environ.get("B2BENCH_BROWSER") or next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        pytest.skip("needs a browser: install Chromium, or name one by B2BENCH_BROWSER")
    with sync_api.sync_playwright() as playwright:
        # a browser in a container has no sandbox to put itself into
        yield playwright.chromium, {"executable_path": path, "args": ["--no-sandbox"]}


@pytest.fixture(scope="module")
def browser(chromium: Any) -> Iterator[Any]:
    starts, how = chromium
    started = starts.launch(**how)
    yield started
    started.close()


@pytest.fixture
def opened(browser: Any) -> Iterator[Callable[..., Any]]:
    """A page as a new person opens it, or in the ``context`` of one; it may print nothing and ask for nothing."""
    contexts, said = [], []

    def open_page(file: Path, context: Any = None, **options: Any) -> Any:
        if context is None:
            context = browser.new_context(accept_downloads=True, **options)
            contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: said.append(request.url) if request.url.startswith("http") else None)
        page.goto(file.as_uri())
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert said == []
