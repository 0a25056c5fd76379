"""What a job says to do next is what its checkpoint can do."""

from __future__ import annotations

import pytest

from colddiff.jobs.verb import VERBS


@pytest.mark.parametrize("verb", ["train", "evaluate"])
def test_images_are_degraded_first_where_nobody_could_know_how(verb: str) -> None:
    for omega, words in (([], "IMAGES --fit"), (["centre"], "CLEAN_IMAGES --degrade --fit")):
        result = {"checkpoint": "C", "omega": omega}
        (line,) = (line for line in VERBS[verb].next_steps("J", result) if " restore " in line)
        assert f" {words} --out ./restored" in line


def test_samples_are_named_where_there_is_something_to_sample_from() -> None:
    for terminal in (True, False):
        lines = VERBS["evaluate"].next_steps("J", {"checkpoint": "C", "terminal": terminal})
        assert any("submit generate" in line for line in lines) == terminal
