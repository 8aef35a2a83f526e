"""Here the store is as users have it: ``tests/conftest.py`` makes it faster for all other tests."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from b2bench.store import database


@pytest.fixture(scope="module", autouse=True)
def as_users_have_it(no_rest: float, copied_drafts: Callable[[Path], None]) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(database, "REST", no_rest)
        patch.setattr(database, "_draft", copied_drafts)
        yield
