"""What a job says to do next is what its checkpoint can do."""

from __future__ import annotations

import pytest

from colddiff.jobs.verb import VERBS


@pytest.mark.parametrize("verb", ["train", "evaluate"])
def test_clean_images_are_tried_first_and_what_is_random_in_others_is_named(verb: str) -> None:
    trial = "CLEAN_IMAGES --degrade --fit --out ./trial"
    others = "DEGRADED_IMAGES --severity all --fit --out ./strips"
    known = "DEGRADED_IMAGES --omega FILE --severity T --fit --out ./restored"
    known += '    # FILE: {"centre": ...} as JSON, for all images or by name'
    for omega, expected in (([], [trial, others]), (["centre"], [trial, known])):
        result = {"checkpoint": "C", "omega": omega}
        lines = [line for line in VERBS[verb].next_steps("J", result) if " restore " in line]
        assert [line.partition("--checkpoint ")[2].partition(" ")[2] for line in lines] == expected


@pytest.mark.parametrize(
    ("found", "drawn"),
    [({"terminal": True}, True), ({"terminal": False}, False), ({"poor_samples": True}, False)],
)
def test_samples_are_named_where_they_are_worth_drawing(
    found: dict[str, bool], drawn: bool
) -> None:
    """Of other checkpoints the images of a set are restored."""
    (line,) = (
        line
        for line in VERBS["evaluate"].next_steps("J", {"checkpoint": "C", **found})
        if "submit generate" in line
    )
    assert ("num_samples=64" in line, "data=URI" in line) == (drawn, not drawn)


@pytest.mark.parametrize(("direct", "said"), [(0.08, True), (0.09, False), (None, False)])
def test_a_sampler_that_was_better_is_named(direct: float | None, said: bool) -> None:
    metrics = {"eval/sampled/rmse": 0.085, "eval/direct/rmse": direct}
    found = {path: value for path, value in metrics.items() if value is not None}
    first, *others = VERBS["train"].next_steps("J", {"checkpoint": "C", "metrics": found})
    assert first.endswith("    # --sampler direct had the lower rmse") == said
    assert not any("--sampler" in line for line in others)
