"""Here the store is as users have it: ``tests/conftest.py`` makes it faster for all other tests."""

from collections.abc import Iterator

import pytest

from b2bench.store import database


@pytest.fixture(scope="module", autouse=True)
def as_users_have_it(no_rest: float) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:  # not the test's own, which a test may undo before its end
        patch.setattr(database, "REST", no_rest)
        yield
