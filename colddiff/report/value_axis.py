"""The range of an axis of values, so that a small difference looks small."""

from __future__ import annotations

from matplotlib.axes import Axes

LEAST_SPAN = 0.1
"""Least part of the largest value that a linear axis spans: values 1 % apart fill no picture."""
CUT = "the axis does not begin at 0"


def keep_span(axes: Axes) -> bool:
    """Widens a linear y axis to ``LEAST_SPAN``, around what it shows; whether it leaves out 0.

    It is never widened beyond 0. To be called last, once all that it shows is drawn.
    """
    if axes.get_yscale() != "linear":
        return False
    low, high = axes.get_ylim()
    missing = LEAST_SPAN * max(abs(low), abs(high)) - (high - low)
    if missing > 0:
        below, above = low - missing / 2, high + missing / 2
        if low >= 0 > below:
            below, above = 0.0, above - below
        if high <= 0 < above:
            below, above = below - above, 0.0
        low, high = axes.set_ylim(below, above)
    return low > 0 or high < 0
