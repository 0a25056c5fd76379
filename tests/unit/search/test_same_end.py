"""The same end, on the real digits: reached, not reachable, and why."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from colddiff.data.open import open_shards, pack_source
from colddiff.ports import ShardSource
from colddiff.types import Image, Omega
from colddiff.verbs.search.points.same_end import (
    TOLERANCE,
    can_reach_end,
    end_images,
    end_rmse,
    saturating_field,
    scaled_to_end,
)
from colddiff.verbs.search.points.space import Point, degradation_at, job_at
from colddiff.verbs.train.job import TrainJob
from tests.unit.search.bases import BLUR, blur_job, train_job

T = "degradation.num_timesteps"
RATIO = "degradation.sigma.ratio"
KIND = "degradation.sigma.kind"
MASKS = {"kind": "linear", "start": 1.1, "step": 0.1}
CENTRED = {"kind": "inpaint", "num_timesteps": 20, "centre": "centred", "sigma": MASKS}
RANDOM = {**CENTRED, "centre": "random"}
OUTWARDS = {"kind": "fade_to_colour", "num_timesteps": 20, "sigma": MASKS, "reverse": False}


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> ShardSource:
    folder = tmp_path_factory.mktemp("digits")
    pack_source("digits", str(folder / "data"), image_size=16, channels=1)
    return open_shards(str(folder / "data"), str(folder / "cache"))


def images(base: TrainJob, digits: ShardSource) -> tuple[Image, Omega]:
    return end_images(digits, base.degradation.build(base.shape), seed=0)


def check_reached(base: TrainJob, digits: ShardSource, points: list[Point]) -> None:
    x0, omega = images(base, digits)
    target = end_rmse(base, x0, omega)
    for point in points:
        found = scaled_to_end(base, point, target, x0, omega)
        assert found is not None, point
        assert found.rmse == end_rmse(job_at(base, point, found.scale), x0, omega)
        assert abs(found.rmse / target - 1) <= TOLERANCE, point


def paths(*severities: int) -> list[Point]:
    return [
        {T: t, RATIO: ratio, KIND: kind}
        for t in severities
        for ratio in (0.25, 1.0, 4.0)
        for kind in ("linear", "exponential")
    ]


def test_the_images_are_evenly_spread_and_omega_is_fixed(digits: ShardSource) -> None:
    D = train_job(RANDOM).degradation.build(train_job(RANDOM).shape)
    x0, omega = end_images(digits, D, seed=0)
    assert x0.shape == (256, 1, 16, 16)
    last = digits.images(digits.manifest.count - 1, digits.manifest.count)
    assert np.allclose(x0[-1].numpy(), last[0] / 127.5 - 1, atol=1e-6)
    assert torch.equal(omega["centre"], end_images(digits, D, seed=0)[1]["centre"])
    assert not torch.equal(omega["centre"], end_images(digits, D, seed=1)[1]["centre"])
    assert len(end_images(digits, D, seed=0, n=10**6)[0]) == digits.manifest.count


def test_the_error_is_on_the_scale_of_0_to_1() -> None:
    base = train_job({**CENTRED, "sigma": {"kind": "constant", "value": 1e6}})
    assert end_rmse(base, torch.ones(2, 1, 16, 16), {}) == pytest.approx(0.5, abs=1e-3)


@pytest.mark.parametrize("severities", [(6, 8), (20, 40)], ids=str)
def test_blur_reaches_the_end_on_any_path(digits: ShardSource, severities: tuple[int, ...]) -> None:
    check_reached(train_job(), digits, paths(*severities))


@pytest.mark.parametrize(
    "sigma",
    [
        {"kind": "constant", "value": 0.75},
        {"kind": "linear", "start": 0.4, "step": 0.04},
        {"kind": "exponential", "start": 0.4, "rate": 0.06},
    ],
    ids=lambda sigma: sigma["kind"],
)
def test_a_schedule_keeps_its_form_where_only_severities_change(
    digits: ShardSource, sigma: dict[str, Any]
) -> None:
    check_reached(blur_job(sigma), digits, [{T: 7}, {T: 30}])


@pytest.mark.parametrize(
    "degradation", [CENTRED, RANDOM, OUTWARDS], ids=["centred", "random", "fade"]
)
def test_masks_reach_the_end(digits: ShardSource, degradation: dict[str, Any]) -> None:
    check_reached(train_job(degradation), digits, paths(6, 40))


def test_a_path_may_start_far_below_what_the_end_needs(digits: ShardSource) -> None:
    """A base that rises 300 times from a tiny first value, and falling points beside it."""
    steep = {**OUTWARDS, "num_timesteps": 300, "sigma": {**MASKS, "start": 0.02, "step": 0.02}}
    check_reached(train_job(steep), digits, [{T: 20, RATIO: 0.125}, {T: 6, RATIO: 0.125}])


def test_a_fade_that_ends_in_one_colour_needs_no_scale(digits: ShardSource) -> None:
    base = train_job({**OUTWARDS, "reverse": True})
    x0, omega = images(base, digits)
    target = end_rmse(base, x0, omega)
    for point in paths(6, 40):
        found = scaled_to_end(base, point, target, x0, omega)
        assert found is not None
        assert found.scale == 1.0


def test_the_base_itself_is_left_as_it_is(digits: ShardSource) -> None:
    base = train_job()
    x0, omega = images(base, digits)
    found = scaled_to_end(base, {}, end_rmse(base, x0, omega), x0, omega)
    assert found is not None
    assert found.scale == 1.0
    assert job_at(base, {}, found.scale) == base


def test_the_end_rises_with_the_scale(digits: ShardSource) -> None:
    for degradation in (BLUR, CENTRED, RANDOM, OUTWARDS):
        base = train_job(degradation)
        x0, omega = images(base, digits)
        for point in ({T: 6, RATIO: 4.0}, {T: 20, RATIO: 0.25}):
            ends = [
                end_rmse(
                    base.model_copy(update={"degradation": degradation_at(base, point, scale)}),
                    x0,
                    omega,
                )
                for scale in np.geomspace(0.05, 50, 25)
            ]
            assert min(np.diff(ends)) >= -1e-7


def test_a_schedule_that_hardly_degrades_is_raised_to_the_end(digits: ShardSource) -> None:
    """A weaker degradation has a lower distance by definition: it must not win by that."""
    base = train_job()
    x0, omega = images(base, digits)
    target = end_rmse(base, x0, omega)
    start = "degradation.sigma.value"
    point = {start: 0.05, RATIO: 1.0}
    assert end_rmse(job_at(base, point), x0, omega) < 1e-6
    found = scaled_to_end(base, point, target, x0, omega)
    assert found is not None
    assert found.scale == pytest.approx(15, rel=1e-3)
    assert abs(found.rmse / target - 1) <= TOLERANCE


def test_an_end_that_no_scale_reaches_gives_none_and_names_the_kernel(
    digits: ShardSource,
) -> None:
    base = train_job()
    x0, omega = images(base, digits)
    target = end_rmse(base, x0, omega)
    weak: list[Point] = [{T: t, RATIO: 1.0} for t in (3, 4, 5)]
    assert [scaled_to_end(base, point, target, x0, omega) for point in weak] == [None] * 3
    assert [can_reach_end(base, point, target, x0, omega) for point in weak] == [False] * 3
    assert can_reach_end(base, {T: 6, RATIO: 1.0}, target, x0, omega)
    assert saturating_field(base, weak, target, x0, omega) == "degradation.kernel_size"


def test_severities_are_named_where_nothing_else_helps(digits: ShardSource) -> None:
    base = train_job()
    x0, omega = images(base, digits)
    assert saturating_field(base, [{T: 4}], 2.0, x0, omega) == "degradation"
    # Nothing wider than this kernel fits the image, so that another blur is all that is left.
    widest = blur_job({"kind": "constant", "value": 75.0}, num_timesteps=2, kernel_size=31)
    target = end_rmse(widest, x0, omega)
    once: Point = {T: 1, RATIO: 1.0}
    assert scaled_to_end(widest, once, target, x0, omega) is None
    assert saturating_field(widest, [once], target, x0, omega) == T


def test_a_base_that_is_saturated_itself_is_reached_within_the_tolerance(
    digits: ShardSource,
) -> None:
    base = blur_job({"kind": "constant", "value": 60.0})
    check_reached(base, digits, [{T: 20, RATIO: 0.5}, {T: 20, RATIO: 2.0}])
