"""Two looks of a sweep: half of the seeds, then all."""

from types import SimpleNamespace
from typing import Any

import pytest

from b2bench.errors import UserError
from b2bench.sweep.plan import Job, at_look


def jobs(seeds: int) -> list[Job]:
    found: list[Any] = [Job(SimpleNamespace(seed=seed), cell, ()) for seed in range(seeds) for cell in "ab"]  # type: ignore[arg-type]
    return found


def test_the_second_look_comes_once_every_run_of_the_first_has_ended() -> None:
    planned = jobs(4)
    first = [job for job in planned if job.config.seed < 2]
    assert at_look(planned, 1, set()) == (planned, 1)
    assert at_look(planned, 2, set()) == (first, 1)
    keys = {job.key for job in first}
    assert at_look(planned, 2, keys - {("a", 1)}) == (first, 1)
    assert at_look(planned, 2, keys) == (planned, 2)


@pytest.mark.parametrize(("looks", "seeds", "words"), [(3, 4, "not 1 or 2"), (2, 3, "there are 3"), (2, 1, "0-9")])
def test_what_cannot_be_looked_at_twice_is_refused(looks: int, seeds: int, words: str) -> None:
    with pytest.raises(UserError, match=words):
        at_look(jobs(seeds), looks, set())
