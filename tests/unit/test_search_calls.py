"""The plot of quality against network calls: its best front, and what is drawn."""

from __future__ import annotations

import io

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from colddiff.errors import DataError
from colddiff.report.search.list_calls import FRONT, CallsPoint, best_front, calls_plot

POINTS = [
    CallsPoint(20, 8.0, "Algorithm 2"),
    CallsPoint(5, 9.0, "Algorithm 2"),
    CallsPoint(5, 7.5, "Algorithm 1"),
    CallsPoint(2, 12.0, "Algorithm 1"),
    CallsPoint(10, 7.0, "Algorithm 2"),
    CallsPoint(2, 50.0, "Algorithm 2"),
]


def test_the_front_is_what_nothing_with_fewer_calls_beats() -> None:
    assert [(p.calls, p.value) for p in best_front(POINTS)] == [(2, 12.0), (5, 7.5), (10, 7.0)]
    higher = best_front(POINTS, lower_is_better=False)
    assert [(p.calls, p.value) for p in higher] == [(2, 50.0)]


def drawn(*, base: CallsPoint | None = POINTS[0], even: bool = True) -> NDArray[np.uint8]:
    line = {2: 50.0, 5: 9.0, 20: 8.0} if even else {}
    data = calls_plot(POINTS, line, base, [5, 10, 20], metric="fd_lenet", subtitle="6 lists")
    assert data == calls_plot(
        POINTS, line, base, [5, 10, 20], metric="fd_lenet", subtitle="6 lists"
    )
    with Image.open(io.BytesIO(data)) as picture:
        return np.asarray(picture.convert("RGB"))


def test_samplers_front_even_line_and_base_are_drawn() -> None:
    picture = drawn()
    colour = tuple(int(FRONT[i : i + 2], 16) for i in (1, 3, 5))
    assert (picture == colour).all(axis=2).sum() > 200
    assert (picture != drawn(even=False)).any()
    assert (picture != drawn(base=None)).any()


def test_one_point_is_drawn_and_none_is_refused() -> None:
    assert calls_plot(POINTS[:1], {}, None, [20], metric="rmse")
    with pytest.raises(DataError, match="no list was measured"):
        calls_plot([], {}, None, [5], metric="rmse")


@pytest.mark.parametrize("lower", [True, False])
def test_far_worse_lists_leave_room_for_those_that_are_compared(lower: bool) -> None:
    worse = CallsPoint(7, 5000.0 if lower else -5000.0, "interpolated")
    both = [
        calls_plot([*POINTS, point], {}, None, [5], metric="m", lower_is_better=lower)
        for point in (worse, CallsPoint(7, 2 * worse.value, "interpolated"))
    ]
    # How much worse no longer matters: it is drawn at the edge.
    assert both[0] == both[1]
