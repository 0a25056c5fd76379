"""How many actors a generation job asks for, by which its GPU hours are counted too."""

from __future__ import annotations

import pytest

from colddiff.jobspec import GenerateJob
from jobs.ray_crew import num_actors


@pytest.mark.parametrize(("workers", "actors"), [(3, 3), ((4, 32), 32)])
def test_as_many_as_the_job_may_grow_to(workers: int | tuple[int, int], actors: int) -> None:
    assert num_actors(GenerateJob(workers=workers)) == actors
