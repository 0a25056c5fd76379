"""Schedules: entry i belongs to severity i + 1, and what cannot be a parameter is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from colddiff.errors import SpecError
from colddiff.schedules import SCHEDULES, positive_values


def entries(T: int, **fields: Any) -> list[float]:
    schedule = SCHEDULES.parse(fields)
    assert SCHEDULES.parse(schedule.to_dict()) == schedule
    values = schedule.entries(T)
    assert values.dtype == np.float64
    assert values.shape == (T,)
    return [float(value) for value in values]


def test_each_kind_is_its_formula() -> None:
    assert entries(3, kind="constant", value=7) == [7, 7, 7]
    assert entries(3, kind="linear", start=1.1, step=0.1) == pytest.approx([1.1, 1.2, 1.3])
    assert entries(3, kind="linear", start=1, end=5) == [1, 3, 5]
    assert entries(3, kind="exponential", rate=0.01) == pytest.approx(np.exp([0, 0.01, 0.02]))
    assert entries(3, kind="exponential", start=2, end=8) == pytest.approx([2, 4, 8])
    assert entries(3, kind="table", values=[3, 1, 2]) == [3, 1, 2]


def test_the_papers_schedules_end_where_the_paper_says() -> None:
    assert entries(50, kind="linear", start=0.35, step=0.01)[-1] == pytest.approx(0.84)
    assert entries(200, kind="exponential", rate=0.01)[-1] == pytest.approx(7.32, abs=5e-3)
    assert entries(50, kind="linear", start=1.1, step=0.1)[-1] == pytest.approx(6.0)


def test_one_severity_is_the_start() -> None:
    assert entries(1, kind="linear", start=2, end=9) == [2]
    assert entries(1, kind="exponential", start=2, end=9) == [2]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"kind": "linear", "start": 1}, "exactly one of step or end"),
        ({"kind": "linear", "start": 1, "step": 1, "end": 2}, "exactly one of step or end"),
        ({"kind": "exponential"}, "exactly one of rate or end"),
        ({"kind": "exponential", "start": 0, "rate": 1}, "start: input should be greater than 0"),
        ({"kind": "constant"}, "value: is required"),
        ({"kind": "constant", "value": float("nan")}, "value: input should be a finite number"),
        ({"kind": "table", "values": []}, "values: tuple should have at least 1 item"),
        ({"kind": "table", "value": [1]}, "value: no such field; did you mean 'values'"),
        ({"kind": "cosine"}, "kind: no 'cosine'; did you mean"),
        ({"value": 3}, "kind: is required"),
        (7, "expected a mapping with a 'kind'"),
    ],
)
def test_what_is_no_schedule_is_refused(fields: Any, message: str) -> None:
    with pytest.raises(SpecError) as caught:
        SCHEDULES.parse(fields)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"kind": "constant", "value": 0},
            "sigma: must be positive and finite, is 0 at severity 1",
        ),
        ({"kind": "linear", "start": 1, "step": -0.5}, "sigma: must be positive and finite, is 0 "),
        ({"kind": "exponential", "rate": 500}, "is inf at severity 3"),
        ({"kind": "table", "values": [1, 2]}, "sigma.values: has 2 entries for num_timesteps=4"),
    ],
)
def test_values_that_are_no_width_are_refused_by_name_and_severity(
    fields: dict[str, Any], message: str
) -> None:
    with pytest.raises(SpecError) as caught:
        positive_values(SCHEDULES.parse(fields), 4, "sigma")
    assert message in str(caught.value)
