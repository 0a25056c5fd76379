"""Plot of the training loss over optimizer steps."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import ScalarFormatter
from numpy.typing import NDArray

from colddiff.errors import DataError
from colddiff.report.sheets import INK, SOFT

LINE = "#2f6fde"


def loss_curve(
    steps: Sequence[int],
    losses: Sequence[float],
    *,
    title: str = "Training loss",
    label: str = "L1 per pixel, images in [-1, 1]",
) -> bytes:
    """A PNG of the loss: logged values faint, their running mean on top, its last value labelled.

    Raises:
        DataError: no values, lists of unequal length, or a loss that is not finite.
    """
    x, y = np.asarray(steps, dtype=np.float64), np.asarray(losses, dtype=np.float64)
    if not len(x) or x.shape != y.shape or not np.isfinite(y).all():
        raise DataError(
            f"loss curve: expected as many finite losses as steps, got {len(y)} for {len(x)}"
        )
    figure = Figure(figsize=(7.2, 4.2), dpi=144)
    figure.set_layout_engine("constrained", w_pad=0.15, h_pad=0.15)
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    smooth = running_mean(y, max(1, len(y) // 25))
    axes.plot(x, y, color=LINE, alpha=0.25, linewidth=1)
    axes.plot(x, smooth, color=LINE, linewidth=2)
    axes.annotate(
        f"{smooth[-1]:.4g}",
        (x[-1], smooth[-1]),
        xytext=(6, 0),
        textcoords="offset points",
        color=LINE,
        va="center",
        fontweight="bold",
    )
    positive = y[y > 0]
    if len(positive) == len(y) and y.max() > 5 * y.min():
        axes.set_yscale("log")
        for axis_format in (axes.yaxis.set_major_formatter, axes.yaxis.set_minor_formatter):
            axis_format(_plain_numbers())
    axes.set_title(title, loc="left", color=INK, fontsize=12, pad=12)
    axes.set_xlabel("optimizer step", color=SOFT)
    axes.set_ylabel(label, color=SOFT)
    axes.tick_params(colors=SOFT, which="both", length=0)
    axes.grid(visible=True, axis="y", which="both", color="#ececf0", linewidth=0.8)
    axes.set_axisbelow(True)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color("#c7c7cc")
    axes.margins(x=0.02)
    buffer = io.BytesIO()
    canvas.print_figure(buffer, format="png")
    return buffer.getvalue()


def running_mean(values: NDArray[np.float64], window: int) -> NDArray[np.float64]:
    """Mean of the last ``window`` values at each index, or of all values so far if fewer."""
    total = np.cumsum(np.concatenate([[0.0], values]))
    stop = np.arange(1, len(values) + 1)
    start = np.maximum(0, stop - window)
    return np.asarray((total[stop] - total[start]) / (stop - start))


def _plain_numbers() -> ScalarFormatter:
    formatter = ScalarFormatter()
    formatter.set_scientific(False)
    return formatter
