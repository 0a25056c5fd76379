"""The search space: dimensions, what is refused and why, and the job at a point."""

from __future__ import annotations

from collections import Counter
from typing import Any, Literal

import numpy as np
import pytest

from colddiff.errors import SpecError
from colddiff.schedules import SCHEDULES, FloatTable, ScheduleSpec
from colddiff.verbs.search.job import RangeSpec
from colddiff.verbs.search.points.space import Dimension, base_point, job_at, search_space
from colddiff.verbs.train.job import TrainJob
from tests.unit.search.bases import BLUR, blur_job, train_job

T = "degradation.num_timesteps"
RATIO = "degradation.sigma.ratio"
KIND = "degradation.sigma.kind"
EXPONENTIAL = {"kind": "exponential", "start": 0.75, "end": 0.75}
INPAINT = {"kind": "inpaint", "num_timesteps": 20}
FADE = {"kind": "fade_to_colour", "num_timesteps": 20}


def paths(base: TrainJob, *over: str, compare: str = "same_end", **ranges: Any) -> list[str]:
    named = {path.replace("__", "."): span for path, span in ranges.items()}
    return [dimension.path for dimension in search_space(base, over, named, compare)]


def refusal(base: TrainJob, over: list[str], ranges: dict[str, Any] | None = None) -> str:
    with pytest.raises(SpecError) as error:
        search_space(base, over, ranges or {}, "same_end")
    return str(error.value)


def test_quantiles_go_from_low_to_high() -> None:
    linear = Dimension("lr", 0.0, 2.0)
    assert [linear.at(u) for u in (0.0, 0.25, 0.5)] == [0.0, 0.5, 1.0]
    log = Dimension(RATIO, 0.125, 8.0, log=True)
    assert [log.at(u) for u in (0.0, 0.5, 1 / 3)] == [0.125, 1.0, 0.5]
    assert log.at(1 - 1e-12) == 8.0
    choice = Dimension(KIND, choices=("linear", "exponential"))
    assert [choice.at(u) for u in (0.0, 0.49, 0.5, 0.999)] == ["linear"] * 2 + ["exponential"] * 2


def test_values_are_rounded_to_four_digits_and_whole_numbers() -> None:
    log = Dimension(RATIO, 0.125, 8.0, log=True)
    assert log.at(0.123) == 0.2085
    assert log.rounded(0.123449) == 0.125
    assert log.rounded(1.23449) == 1.234
    whole = Dimension(T, 6, 40, log=True, integer=True)
    values = [whole.at(n / 1000) for n in range(1000)]
    assert {type(value) for value in values} == {int}
    assert set(values) == set(range(6, 41))
    assert whole.rounded(17.6) == 18


def test_the_first_and_last_whole_number_are_as_likely_as_the_others() -> None:
    drawn = Counter(Dimension("n", 1, 4, integer=True).at(n / 400) for n in range(400))
    assert set(drawn.values()) <= {99, 100, 101}


def test_globs_name_dimensions_in_the_order_of_the_fields() -> None:
    base = train_job()
    assert paths(base, "optimizer.lr", "degradation.*") == [T, RATIO, KIND, "optimizer.lr"]
    assert paths(base, "*.ratio", RATIO) == [RATIO]
    assert paths(train_job(INPAINT), RATIO) == [RATIO]
    first = search_space(base, [T, RATIO], {}, "same_end")
    assert first == (
        Dimension(T, 5, 400, log=True, integer=True),
        Dimension(RATIO, 0.125, 8.0, log=True),
    )


def test_empty_and_unknown_names_are_refused_with_the_nearest() -> None:
    base = train_job()
    assert "over: is empty: name what to search, of degradation.num_timesteps" in refusal(base, [])
    said = refusal(base, ["degradation.sigma.ration"])
    assert f"names nothing that can be searched; did you mean {RATIO!r}?" in said
    assert "over: 'seed'" in refusal(base, ["seed"])
    table = blur_job({"kind": "table", "values": [0.75] * 20})
    assert "names nothing that can be searched" in refusal(table, [RATIO])


def test_what_the_end_fixes_is_refused_with_the_reason() -> None:
    said = refusal(train_job(), ["degradation.sigma.value"])
    why = f"the end fixes it; search {T} or {RATIO}"
    assert said == f"over: degradation.sigma.value: {why}"
    linear = blur_job({"kind": "linear", "start": 0.5, "step": 0.05})
    for name in ("start", "step"):
        assert why in refusal(linear, [f"degradation.sigma.{name}"])
    rising = blur_job({"kind": "exponential", "start": 0.5, "rate": 0.05})
    assert why in refusal(rising, ["degradation.sigma.rate"])
    assert why in refusal(blur_job(EXPONENTIAL), ["degradation.sigma.end"])
    assert paths(train_job(), "degradation.sigma.value", compare="generation")
    assert paths(train_job(), "degradation.sigma.*") == [RATIO, KIND]


def test_a_schedule_that_the_end_does_not_depend_on_is_free() -> None:
    """Faded from the border all is one colour at T: any width of the masks ends there."""
    free = ["degradation.sigma.start", RATIO]
    assert paths(train_job(FADE), *free) == free
    outwards = train_job({**FADE, "reverse": False})
    assert "the end fixes it" in refusal(outwards, ["degradation.sigma.start"])
    assert paths(train_job({**BLUR, "collapse_to_mean": True}), "degradation.sigma.value")


def test_two_dimensions_do_not_say_the_same() -> None:
    base = train_job(FADE)
    assert "both set the path" in refusal(base, [RATIO, "degradation.sigma.step"])
    assert paths(base, "degradation.sigma.*") == ["degradation.sigma.start", RATIO, KIND]
    assert f"add {RATIO}" in refusal(train_job(), [KIND])
    rising = blur_job({"kind": "exponential", "start": 0.5, "end": 2.0})
    assert paths(rising, KIND) == [KIND]


def test_ranges_replace_and_narrow_the_declared_ones() -> None:
    base = train_job()
    (narrow,) = search_space(base, [T], {T: {"high": 40}}, "same_end")
    assert narrow == Dimension(T, 5, 40, log=True, integer=True)
    (typed,) = search_space(base, [T], {T: RangeSpec(low=6, high=40, log=True)}, "same_end")
    assert typed == Dimension(T, 6, 40, log=True, integer=True)
    (some,) = search_space(base, [T], {T: {"choices": [6, 10, 20]}}, "same_end")
    assert some == Dimension(T, choices=(6, 10, 20))
    kernels = {"degradation.kernel_size": {"choices": [3, 5, 7]}}
    (kernel,) = search_space(base, ["degradation.kernel_size"], kernels, "same_end")
    assert kernel.choices == (3, 5, 7)


@pytest.mark.parametrize(
    ("path", "span", "message"),
    [
        (T, {"low": 6, "high": 5000}, "num_timesteps: the base cannot have 5000 here"),
        (T, {"low": 1, "high": 40}, "num_timesteps=1 there is no path"),
        (T, {"low": 6.5, "high": 40}, "low: must be a whole number, got 6.5"),
        (T, {"low": 40, "high": 6}, "low must be below high, got 40 and 6"),
        (RATIO, {"low": -1, "high": 2}, "ratio.low: must be above 0 on a log scale, got -1"),
        (RATIO, {"low": -1, "high": 2, "log": False}, "ratio: the base cannot have -1.0 here"),
        (RATIO, {"lo": 1}, "ranges.degradation.sigma.ratio: no 'lo'"),
        (RATIO, 3, "ranges.degradation.sigma.ratio: write {low, high}"),
        (RATIO, {"low": "a", "high": 2}, "ratio.low: expected a number, got 'a'"),
        (KIND, {"low": 0, "high": 1}, "kind: is one of linear | exponential"),
        (KIND, {"choices": ["constant"]}, "a path is linear | exponential, got 'constant'"),
        (KIND, {"choices": []}, "kind.choices: is empty"),
        ("optimizer.lr", {"low": -1, "high": 1, "log": False}, "lr: the base cannot have -1.0"),
        ("degradation.kernel_size", {"choices": [3, 4]}, "cannot have 4 here: .*must be odd"),
        ("degradation.kernel_size", {"low": 3}, "kernel_size: write {low, high}"),
    ],
)
def test_a_range_outside_the_fields_bounds_is_refused(path: str, span: Any, message: str) -> None:
    base = blur_job({"kind": "exponential", "start": 0.5, "end": 2.0})
    with pytest.raises(SpecError, match=message) as error:
        search_space(base, [path], {path: span}, "same_end")
    assert path in str(error.value)


def test_a_range_of_what_is_not_searched_is_refused() -> None:
    said = refusal(train_job(), [RATIO], {T: {"low": 6, "high": 40}})
    assert said == f"ranges.{T}: is not searched: add it to `over`"
    said = refusal(train_job(), [RATIO], {"degradation.sigma.ration": {"low": 1, "high": 2}})
    assert f"ration: is not searched; did you mean {RATIO!r}? (over names {RATIO})" in said


def test_a_table_has_one_number_of_severities() -> None:
    table = blur_job({"kind": "table", "values": [0.75] * 20})
    assert "has 20 entries for num_timesteps=5" in refusal(table, [T])


def test_a_kind_of_schedule_that_cannot_be_scaled_is_refused() -> None:
    class Steps(ScheduleSpec):
        kind: Literal["steps"] = "steps"

        def entries(self, num_timesteps: int) -> FloatTable:
            return np.full(num_timesteps, 0.75)

    SCHEDULES.register(Steps)
    try:
        said = refusal(blur_job({"kind": "steps"}), [T])
    finally:
        SCHEDULES.forget(Steps.__module__)
    assert said == "degradation.sigma: a schedule of kind 'steps' cannot be scaled"


def test_a_point_is_written_as_a_path() -> None:
    point = {T: 8, RATIO: 0.25, "optimizer.lr": 1e-3}
    job = job_at(train_job(), point)
    assert job.degradation.num_timesteps == 8
    assert job.optimizer.lr == 1e-3
    assert job.to_dict()["degradation"]["sigma"] == {
        "kind": "exponential",
        "start": 0.75,
        "rate": None,
        "end": 0.1875,
    }
    scaled = job_at(train_job(), {RATIO: 3.0, KIND: "linear"}, 1.23456)
    assert scaled.to_dict()["degradation"]["sigma"] == {
        "kind": "linear",
        "start": 0.3086,
        "step": None,
        "end": 0.9259,
    }
    started = job_at(train_job(FADE), {"degradation.sigma.start": 2.0, RATIO: 4.0})
    assert started.to_dict()["degradation"]["sigma"]["end"] == 8.0
    rising = blur_job({"kind": "linear", "start": 0.5, "step": 0.05})
    bent = job_at(rising, {KIND: "exponential"}).to_dict()["degradation"]["sigma"]
    assert (bent["start"], bent["end"]) == (0.5, 1.45)


def test_a_path_keeps_the_largest_value_of_the_base() -> None:
    steep = train_job({**FADE, "sigma": {"kind": "linear", "start": 0.05, "end": 20.0}})
    for ratio, ends in ((0.25, (20.0, 5.0)), (1.0, (20.0, 20.0)), (4.0, (5.0, 20.0))):
        sigma = job_at(steep, {RATIO: ratio}).to_dict()["degradation"]["sigma"]
        assert (sigma["start"], sigma["end"]) == ends


def test_a_scale_leaves_the_rate_and_nothing_leaves_the_base() -> None:
    base = blur_job({"kind": "exponential", "start": 0.512345, "rate": 0.0512345})
    assert job_at(base, {}) == base == job_at(base, {}, 1.0)
    sigma = job_at(base, {T: 9}, 2.0).to_dict()["degradation"]["sigma"]
    assert sigma == {"kind": "exponential", "start": 1.025, "rate": 0.0512345, "end": None}
    table = job_at(blur_job({"kind": "table", "values": [0.75] * 20}), {}, 2.0)
    assert table.to_dict()["degradation"]["sigma"]["values"] == [1.5] * 20


def test_points_that_round_to_one_schedule_are_one_job() -> None:
    content = {"data": "0" * 64}
    base = train_job()
    ids = [
        job_at(base, {T: 8, RATIO: 0.25}, scale).job_id("a", content)
        for scale in (2.0, 2.00001, 2.01)
    ]
    assert ids[0] == ids[1] != ids[2]


def test_a_point_that_is_no_job_is_refused() -> None:
    base = train_job()
    with pytest.raises(SpecError, match=r"degradation\.num_timesteps"):
        job_at(base, {T: 0})
    with pytest.raises(SpecError, match=r"optimizer\.rl: the base has no such field"):
        job_at(base, {"optimizer.rl": 1})
    with pytest.raises(SpecError, match=r"degradation\.sigma"):
        job_at(base, {RATIO: -1.0})


@pytest.mark.parametrize(
    ("sigma", "ratio"),
    [
        ({"kind": "constant", "value": 0.75}, 1.0),
        ({"kind": "exponential", "start": 0.5, "end": 2.0}, 4.0),
        ({"kind": "linear", "start": 1.0, "step": -0.025}, 0.525),
    ],
)
def test_the_bases_own_point(sigma: dict[str, Any], ratio: float) -> None:
    base = blur_job(sigma)
    over = ["degradation.num_timesteps", "degradation.sigma.*", "optimizer.lr"]
    space = search_space(base, over, {T: {"low": 2, "high": 20}}, "same_end")
    assert base_point(base, space) == {
        "degradation.num_timesteps": 20,
        "degradation.sigma.ratio": ratio,
        "degradation.sigma.kind": sigma["kind"],
        "optimizer.lr": base.optimizer.lr,
    }
