"""Figures as a notebook draws them."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image as Pictures

import colddiff
from colddiff.errors import DataError, SpecError
from tests.unit.test_from_python import blur


def drawn(figure: Figure) -> tuple[int, int]:
    """Size in px of what a notebook shows of a figure."""
    png = figure._repr_png_()  # type: ignore[attr-defined]
    return Pictures.open(io.BytesIO(png)).size


def test_figures_of_degraded_images_grids_and_trajectories() -> None:
    D, x0 = blur(), torch.rand(2, 1, 8, 8) * 2 - 1
    strip = colddiff.plot_strip(D, x0, severities=[0, 3, 6])
    assert [axes.get_title() for axes in strip.axes[::2]] == ["t = 0", "t = 3", "t = 6"]
    wide, tall = drawn(strip)
    assert wide > tall > 100
    x_T = D.degrade(x0, torch.full((2,), 6))
    grid = colddiff.plot_grid({"x_T": x_T, "x0": x0}, row_labels=["a.png", "b.png"], title="Two")
    assert len(grid.axes) == 4
    assert len(colddiff.plot_grid(torch.zeros(5, 3, 4, 8, dtype=torch.uint8)).axes) == 5
    steps = list(colddiff.sample_steps(lambda x, t: x0, D, x_T, severities=3))
    way = colddiff.plot_trajectory(steps, x_T, images=1)
    assert [axes.get_title() for axes in way.axes[::2]] == ["t = 6", "t = 4", "t = 2", "t = 0"]
    assert np.array_equal(shown(way, 0), shown(colddiff.plot_grid(x_T), 0))
    assert np.array_equal(shown(way, 6), shown(colddiff.plot_grid(steps[-1].x_s), 0))
    assert (shown(colddiff.plot_trajectory(iter(steps)), 0) == 255).all()


def shown(figure: Figure, axes: int) -> Any:
    return np.asarray(figure.axes[axes].images[0].get_array())


def test_what_cannot_be_drawn_is_said() -> None:
    x = torch.zeros(2, 1, 8, 8)
    with pytest.raises(DataError, match="no steps"):
        colddiff.plot_trajectory([])
    with pytest.raises(DataError, match="equally many images, got a: 2, b: 1"):
        colddiff.plot_grid({"a": x, "b": x[:1]})
    with pytest.raises(DataError, match="got none"):
        colddiff.plot_grid({})
    with pytest.raises(DataError, match=r"expected \[N, C, H, W\], got \[1, 8, 8\]"):
        colddiff.plot_grid(x[0])
    with pytest.raises(SpecError, match=r"severities: must be some of 0\.\.6, got \[7\]"):
        colddiff.plot_strip(blur(), x, severities=[7])
