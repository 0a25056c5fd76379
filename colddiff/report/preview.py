"""Preview of a degradation: D(x0, t) over t as a strip, above plots of its parameters over t."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray
from PIL import Image

from colddiff.errors import DataError
from colddiff.report.curves import LINE
from colddiff.report.sheets import INK, SOFT, TILE, tile

DPI = 144
MARGIN, GUTTER = 32, 8
LEFT, RIGHT = 104, 84
HEAD, LABELS = 84, 34
PANEL, PANEL_GAP, FOOT = 132, 62, 64
GRID = "#ececf0"
COLUMNS = (9, 11, 10, 8, 7)


@dataclass(frozen=True, slots=True)
class Curve:
    """One value for each severity 1..T (a parameter) or 0..T (a measurement)."""

    label: str
    values: NDArray[np.float64]


def shown_severities(num_timesteps: int, columns: int | None = None) -> list[int]:
    """Evenly spaced severities for a strip, including 0 and T.

    Without ``columns``, a number near nine that divides T evenly is preferred, so that the tiles
    are exactly aligned with the plots.
    """
    T = num_timesteps
    wanted = columns or next((n for n in COLUMNS if T % (n - 1) == 0), COLUMNS[0])
    count = min(max(wanted, 2), T + 1)
    return [round(T * i / (count - 1)) for i in range(count)]


def draw_preview(
    strips: NDArray[np.uint8],
    severities: Sequence[int],
    curves: Sequence[Curve],
    *,
    num_timesteps: int,
    title: str,
    subtitle: str = "",
) -> bytes:
    """A PNG: one strip per image, then one panel per curve, sharing the severity axis.

    Args:
        strips: uint8 [N, K, C, H, W], image n at ``severities[k]``; if C is not 1 or 3, the mean
            over channels is shown.
        severities: K severities, from 0 to ``num_timesteps``.
        curves: T or T + 1 values each.
        num_timesteps: T, the end of the axis.
        title: heading; ``subtitle`` is a second line in grey.

    Raises:
        DataError: the number of strips is not that of the severities.
    """
    if strips.ndim != 5 or 0 in strips.shape or strips.shape[1] != len(severities):
        raise DataError(
            f"preview: expected strips [N, {len(severities)}, C, H, W], got {list(strips.shape)}"
        )
    rows, columns = strips.shape[:2]
    factor = max(1, -(-TILE // max(strips.shape[-2:])))
    height, width = (side * factor for side in strips.shape[-2:])
    # Titles and axis labels need the width of at least four tiles.
    across = max(columns * (width + GUTTER) - GUTTER, 4 * TILE)
    panels = len(curves)
    size = (
        LEFT + across + RIGHT,
        HEAD + LABELS + rows * (height + GUTTER) + panels * (PANEL + PANEL_GAP) + FOOT,
    )
    figure = Figure(figsize=(size[0] / DPI, size[1] / DPI), dpi=DPI, facecolor="white")
    canvas = FigureCanvasAgg(figure)
    canvas_px = _PixelCanvas(figure, size)
    canvas_px.text(MARGIN, MARGIN + 18, title, color=INK, fontsize=10.5)
    canvas_px.text(MARGIN, MARGIN + 44, subtitle, color=SOFT, fontsize=7.5)
    pitch = (across - width) / (columns - 1) if columns > 1 else 0.0
    lefts = [round(LEFT + k * pitch) for k in range(columns)]
    for k, t in enumerate(severities):
        label = f"t = {t}"
        canvas_px.text(lefts[k] + width / 2, HEAD + 22, label, color=INK, fontsize=8, ha="center")
        for n in range(rows):
            canvas_px.picture(lefts[k], HEAD + LABELS + n * (height + GUTTER), strips[n, k], factor)
    below = HEAD + LABELS + rows * (height + GUTTER)
    centres = (lefts[0] + width / 2, lefts[-1] + width / 2)
    for number, curve in enumerate(curves):
        top = below + PANEL_GAP - 16 + number * (PANEL + PANEL_GAP)
        axes = canvas_px.axes(centres, top, num_timesteps)
        _draw_curve(axes, curve, severities, num_timesteps, last=number == panels - 1)
    buffer = io.BytesIO()
    canvas.print_figure(buffer, format="png", dpi=DPI)
    return buffer.getvalue()


@dataclass(frozen=True, slots=True)
class _PixelCanvas:
    """Draws on a figure in px from its top left corner."""

    figure: Figure
    size: tuple[int, int]

    def text(self, x: float, y: float, text: str, **style: Any) -> None:
        width, height = self.size
        self.figure.text(x / width, 1 - y / height, text, va="baseline", **style)

    def picture(self, left: int, top: int, pixels: NDArray[np.uint8], factor: int) -> None:
        image = tile(pixels)
        shown = image.resize(
            (image.width * factor, image.height * factor), Image.Resampling.NEAREST
        )
        bottom = self.size[1] - top - shown.height
        # `figimage` copies pixels; axes would resample them.
        self.figure.figimage(np.asarray(shown), left, bottom, origin="upper")

    def axes(self, centres: tuple[float, float], top: float, num_timesteps: int) -> Axes:
        """Axes whose severities 0 and T are aligned with the ``centres`` of the outer tiles."""
        width, height = self.size
        across = (centres[1] - centres[0]) / width
        box = (centres[0] / width, 1 - (top + PANEL) / height, across, PANEL / height)
        axes = self.figure.add_axes(box)
        axes.set_xlim(0, num_timesteps)
        return axes


def _draw_curve(
    axes: Axes, curve: Curve, severities: Sequence[int], num_timesteps: int, *, last: bool
) -> None:
    t = np.arange(num_timesteps + 1)[-len(curve.values) :]
    if len(curve.values) <= 12:
        axes.plot(t, curve.values, color=LINE, linewidth=1.4, marker="o", markersize=3.5)
    else:
        axes.plot(t, curve.values, color=LINE, linewidth=1.6, solid_capstyle="round")
    shown = [severity for severity in severities if severity >= t[0]]
    values = curve.values[np.asarray(shown, dtype=np.int64) - t[0]]
    axes.plot(shown, values, "o", color=LINE, markersize=4, clip_on=False, zorder=3)
    axes.annotate(
        f"{curve.values[-1]:.3g}",
        (t[-1], curve.values[-1]),
        xytext=(7, 0),
        textcoords="offset points",
        color=LINE,
        fontsize=8,
        fontweight="bold",
        va="center",
        annotation_clip=False,
    )
    axes.set_title(curve.label, loc="left", color=INK, fontsize=8, pad=6)
    low, high = float(curve.values.min()), float(curve.values.max())
    if 0 <= low < 0.5 * high or high - low < 1e-6 * abs(high):
        low = min(low, 0.0)  # start at 0, so that a constant's rounding noise is not magnified
    room = max(high - low, 1e-9)
    axes.set_ylim(low - 0.04 * room, high + 0.1 * room)
    axes.yaxis.set_major_locator(MaxNLocator(nbins=4))
    axes.set_xticks(_ticks(severities))
    axes.tick_params(colors=SOFT, labelsize=7, length=0)
    axes.tick_params(axis="x", labelbottom=last)
    if last:
        axes.set_xlabel("severity t", color=SOFT, fontsize=8)
    axes.grid(visible=True, color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color("#c7c7cc")


def _ticks(severities: Sequence[int]) -> list[int]:
    """Tick positions: the shown severities, thinned out so that labels do not overlap."""
    every = -(-len(severities) // 12)
    return list(severities[::every])
