"""An axis of values: small differences look small, and a cut one says so."""

from __future__ import annotations

import pytest
from matplotlib.figure import Figure

from colddiff.report.value_axis import LEAST_SPAN, keep_span


@pytest.mark.parametrize(
    ("values", "cut", "widened"),
    [
        ((0.1872, 0.1885), True, True),
        ((-0.1885, -0.1872), True, True),
        ((60.0, 130.0), True, False),
        ((0.0, 0.2), False, False),
        ((0.0, 0.0), False, False),
    ],
)
def test_values_that_are_close_do_not_fill_the_picture(
    values: tuple[float, float], cut: bool, widened: bool
) -> None:
    axes = Figure().add_subplot()
    axes.plot((1, 2), values, "o")
    drawn = axes.get_ylim()
    assert keep_span(axes) == cut
    low, high = axes.get_ylim()
    assert (low < drawn[0]) == (high > drawn[1]) == widened
    assert high - low >= 0.99 * LEAST_SPAN * max(map(abs, drawn))


def test_a_logarithmic_axis_is_left_as_it_is() -> None:
    axes = Figure().add_subplot()
    axes.plot((1, 2), (100.0, 101.0))
    axes.set_yscale("log")
    drawn = axes.get_ylim()
    assert not keep_span(axes)
    assert axes.get_ylim() == drawn
