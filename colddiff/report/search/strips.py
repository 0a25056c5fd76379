"""One image on the paths of the best trial, the base and the worst, at equal t/T."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from colddiff.report.search.figures import (
    HEAD,
    TEXT,
    SearchPicture,
    colour_of,
    new_figure,
    png,
)
from colddiff.report.search.results import SearchResults, Strip, Strips
from colddiff.report.sheets import INK, SOFT

WORST = "worst"
TITLE = "One image on the path"
TILE_IN, GAP, GROUP = 0.66, 0.08, 0.34
"""Inches a tile; gaps as parts of a tile: between tiles, between trials."""


def strips_picture(results: SearchResults) -> SearchPicture | None:
    """``strips.png``; None without strips."""
    if results.strips is None or not results.strips.strips:
        return None
    return SearchPicture(
        "strips.png", png(strips_figure(results)), TITLE, _alt(results), photo=True
    )


def strips_figure(results: SearchResults) -> Figure:
    """Two rows a trial, D(x, t) above the sampler's states, in columns of equal t/T.

    Coordinates are tiles: column k at x = k, rows downwards.
    """
    shown = results.strips
    assert shown is not None
    columns, count = len(shown.places), len(shown.strips)
    pitch = 1 + GAP
    left = 3.1
    height = count * (2 * pitch + GROUP) + 0.95
    size = ((left + columns * pitch + 0.2) * TILE_IN, height * TILE_IN)
    figure, (axes,) = new_figure(*size)
    figure.set_layout_engine("none")
    axes.set_position((0, 0, 1, 1))
    axes.set_axis_off()
    axes.set_xlim(-left, columns * pitch + 0.2)
    axes.set_ylim(height - 0.95, -0.95)
    axes.set_aspect("equal")
    axes.text(-left + 0.15, -0.62, TITLE, color=INK, fontsize=HEAD, va="center")
    for k, place in enumerate(shown.places):
        label = "t = T" if place == 1 else "t = 0" if place == 0 else f"{place:g} T"
        centre = k * pitch + 0.5
        axes.text(centre, -0.18, label, color=INK, fontsize=TEXT, ha="center", va="center")
    for number, strip in enumerate(shown.strips):
        _add_strip(axes, results, strip, shown, number * (2 * pitch + GROUP))
    return figure


def _add_strip(axes: Axes, results: SearchResults, strip: Strip, shown: Strips, top: float) -> None:
    pitch = 1 + GAP
    trial = next(t for t in results.trials if t.number == strip.trial)
    axes.plot(
        [-2.95, -2.95],
        [top + 0.05, top + 2 * pitch - 0.15],
        color=colour_of(results, trial),
        linewidth=4,
        solid_capstyle="butt",
        linestyle="--" if trial.base else "-",
    )
    for line, (text, colour, weight) in enumerate(_texts(results, strip)):
        axes.text(
            -2.8,
            top + 0.22 + 0.27 * line,
            text,
            color=colour,
            fontsize=TEXT,
            va="center",
            fontweight=weight,
        )
    rows = ((strip.degraded, "D(x, t)"), (strip.restored, shown.sampler))
    for row, (images, label) in enumerate(rows):
        above = top + row * pitch
        axes.text(-0.12, above + 0.5, label, color=SOFT, fontsize=TEXT, ha="right", va="center")
        for k, image in enumerate(images):
            axes.imshow(
                _rgb(image),
                extent=(k * pitch, k * pitch + 1, above + 1, above),
                interpolation="nearest",
                aspect="auto",
                vmin=0,
                vmax=255,
            )
    axes.set_xlim(-3.1, len(shown.places) * pitch + 0.2)


def _texts(results: SearchResults, strip: Strip) -> list[tuple[str, str, str]]:
    trial = next(t for t in results.trials if t.number == strip.trial)
    name = f"{WORST}: {trial.name}" if strip.role == WORST else results.name_of(trial)
    lines = [(name, INK, "bold")]
    if (last := trial.last) is not None:
        value = results.text(trial.values[last])
        lines.append((f"{results.metric_name} {value}", INK, "normal"))
    pairs = zip(results.axes, trial.point, strict=False)
    points = [f"{axis.label} {axis.text(v)}" for axis, v in pairs if np.isfinite(v)]
    return [*lines, *((text, SOFT, "normal") for text in points[:4])]


def _rgb(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    if image.shape[0] not in (1, 3):
        image = image.mean(axis=0, keepdims=True).round().astype(np.uint8)
    return np.ascontiguousarray(np.broadcast_to(image, (3, *image.shape[1:])).transpose(1, 2, 0))


def _alt(results: SearchResults) -> str:
    shown = results.strips
    assert shown is not None
    trials = {trial.number: trial for trial in results.trials}
    who = ", ".join(
        f"{WORST if strip.role == WORST else results.role(trials[strip.trial])} "
        f"(trial {strip.trial})"
        for strip in shown.strips
    )
    return (
        f"The same validation image on the paths of {who}: D(x, t) above the states of "
        f"{shown.sampler}, from t = T at the left to t = 0."
    )
