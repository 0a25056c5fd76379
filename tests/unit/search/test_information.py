"""What D(x, T) still says about x, on the real digits: from everything to nothing."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from colddiff.data.open import open_shards, pack_source
from colddiff.errors import SpecError
from colddiff.ports import ShardSource
from colddiff.verbs.search.points.information import (
    MOST_INFORMATION,
    held_information,
    stronger,
)
from colddiff.verbs.search.points.same_end import end_images
from tests.unit.search.bases import BLUR, train_job

WIDE = {"kind": "blur", "num_timesteps": 20, "kernel_size": 11}
FADE = {"kind": "fade_to_colour", "num_timesteps": 50}
SOLID = {"terminal": {"kind": "solid_colour"}}


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> ShardSource:
    folder = tmp_path_factory.mktemp("digits")
    pack_source("digits", str(folder / "data"), image_size=16, channels=1)
    return open_shards(str(folder / "data"), str(folder / "cache"))


def constant(value: float) -> dict[str, Any]:
    return {"kind": "constant", "value": value}


def held(digits: ShardSource, degradation: dict[str, Any], seed: int = 0, **fields: Any) -> float:
    job = train_job(degradation, **fields)
    x0, omega = end_images(digits, job.degradation.build(job.shape), seed)
    return held_information(job, x0, omega)


@pytest.mark.parametrize(
    ("degradation", "fields"),
    [
        ({**FADE, "sigma": {"kind": "linear", "start": 0.5, "step": 0.2}}, {}),
        ({**FADE, "sigma": constant(0.01)}, {}),
        ({**FADE, "sigma": constant(30.0), "reverse": False}, SOLID),
        ({**WIDE, "sigma": constant(0.5), "collapse_to_mean": True}, {}),
        ({**WIDE, "sigma": constant(7.0)}, {}),
        ({"kind": "noise", "num_timesteps": 10}, {}),
        ({"kind": "noise", "num_timesteps": 200, "schedule": "linear"}, {}),
    ],
    ids=["fade", "late fade", "fade outwards", "collapse", "wide blur", "noise", "linear noise"],
)
def test_nothing_is_left_but_what_the_terminal_draws(
    digits: ShardSource, degradation: dict[str, Any], fields: dict[str, Any]
) -> None:
    assert max(held(digits, degradation, seed, **fields) for seed in (0, 1)) < MOST_INFORMATION / 5


@pytest.mark.parametrize(
    ("degradation", "fields", "least"),
    [
        ({**WIDE, "sigma": constant(0.05)}, {}, 0.999),
        (BLUR, {}, 0.9),
        ({**WIDE, "sigma": constant(2.0)}, {}, 0.3),
        ({**FADE, "sigma": constant(0.1), "reverse": False}, SOLID, 0.999),
        ({**FADE, "sigma": constant(3.0), "reverse": False}, SOLID, 0.5),
    ],
    ids=["identity", "quickstart", "blur", "no fade", "half a fade"],
)
def test_what_is_left_is_recovered(
    digits: ShardSource, degradation: dict[str, Any], fields: dict[str, Any], least: float
) -> None:
    assert least < held(digits, degradation, **fields) <= 1


def test_the_mean_colour_counts_where_the_terminal_does_not_draw_it(digits: ShardSource) -> None:
    """A mixture draws the mean of an image; a terminal of noise draws nothing of it."""
    collapsed = {**WIDE, "sigma": constant(7.0), "collapse_to_mean": True}
    assert held(digits, collapsed) == pytest.approx(0, abs=1e-6)
    assert held(digits, collapsed, terminal={"kind": "standard_normal"}) > MOST_INFORMATION


def test_images_that_are_all_equal_hold_nothing() -> None:
    job = train_job({**WIDE, "sigma": constant(0.05)})
    assert held_information(job, torch.full((9, 1, 16, 16), 0.25), {}) == 0


def test_what_has_no_terminal_is_refused(digits: ShardSource) -> None:
    with pytest.raises(SpecError, match=r"terminal: inpaint has no distribution of x_T"):
        held(digits, {"kind": "inpaint", "num_timesteps": 5})


def test_changes_that_may_remove_more_are_tried_in_order() -> None:
    job = train_job({**BLUR, "sigma": constant(0.7)})
    changes = {field: value for field, value, _ in stronger(job)}
    assert list(changes) == [
        "degradation.collapse_to_mean",
        "degradation.quantise",
        "degradation.sigma",
        "degradation.kernel_size",
        "degradation.num_timesteps",
    ]
    assert changes["degradation.sigma"] == constant(7.0)
    assert (changes["degradation.kernel_size"], changes["degradation.num_timesteps"]) == (11, 40)
