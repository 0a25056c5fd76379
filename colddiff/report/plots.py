"""Pictures for a notebook as matplotlib figures: strips of D(x0, t), grids, trajectories."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from numbers import Integral
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from colddiff.degradations import Degradation
from colddiff.errors import DataError, SpecError
from colddiff.evaluation.trajectory import evenly
from colddiff.report.preview import shown_severities
from colddiff.report.sheets import INK, SOFT
from colddiff.sampling import Step
from colddiff.spec.documents import shown
from colddiff.transforms import eight_bit, normalise
from colddiff.types import Image, Omega

if TYPE_CHECKING:
    from colddiff.rng import Rng

TILE_INCHES, LABEL_INCHES, DPI = 1.1, 0.3, 110


class NotebookFigure(Figure):
    """A matplotlib figure that a notebook shows by itself, without pyplot and its global state."""

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.savefig(buffer, format="png")
        return buffer.getvalue()


def plot_strip(
    D: Degradation[Any],
    images: Image,
    omega: Omega | None = None,
    *,
    severities: Sequence[int] | None = None,
    rng: Rng | None = None,
    title: str = "",
) -> Figure:
    """D(x0, t) with t growing from left to right, a row for each image.

    >>> from colddiff import ImageShape, build_degradation
    >>> D = build_degradation({"kind": "decolor", "num_timesteps": 4}, ImageShape(3, 8, 8))
    >>> len(plot_strip(D, torch.zeros(2, 3, 8, 8)).axes)  # t = 0, ..., 4 of two images
    10

    Args:
        D: a degradation for images of this shape.
        images: x0, floating [B, C, H, W] in [-1, 1].
        omega: what is random in D, drawn with ``rng`` (default: numpy's generator 0) if left out.
        severities: those to show, 0..T; default: about nine, evenly spaced.
        title: heading.

    Raises SpecError for images, omega or severities that D does not take.
    """
    columns_of = severities
    if severities is None and isinstance(D, Degradation):
        columns_of = shown_severities(D.num_timesteps)
    _refuse_others(D, images, columns_of)
    assert columns_of is not None
    if omega is None:
        omega = D.draw(len(images), rng=np.random.default_rng(0) if rng is None else rng)
    columns = {
        f"t = {t}": D.degrade(images, torch.full((len(images),), t, dtype=torch.int64), omega)
        for t in columns_of
    }
    return _figure(_tiles(columns), title=title or D.spec.kind.replace("_", " "))


def plot_grid(
    images: Image | Mapping[str, Image],
    *,
    columns: int | None = None,
    row_labels: Sequence[str] = (),
    title: str = "",
) -> Figure:
    """Images in a grid; of a mapping, a column for each entry and a row for each image.

    >>> x = torch.zeros(3, 1, 8, 8)
    >>> figure = plot_grid({"degraded": x, "restored": x}, title="Three images")
    >>> [axes.get_title() for axes in figure.axes[::3]]  # the first of three images
    ['degraded', 'restored']

    Args:
        images: [B, C, H, W], floating in [-1, 1], or uint8 or uint16; or several, by label.
        columns: number of columns where there are no labels; default: nearly a square.
        row_labels: one for each row, such as file names.
        title: heading.

    Raises DataError for no images, or entries of different numbers of images.
    """
    if isinstance(images, Mapping):
        return _figure(_tiles(images), row_labels=row_labels, title=title)
    tiles = _tiles({"": images})[""]
    wide: Any = columns or int(np.ceil(np.sqrt(len(tiles))))
    if not isinstance(wide, int) or wide < 1:
        raise SpecError([("columns", f"must be a whole number from 1 on, got {shown(wide)}")])
    return _figure(
        {f"{n}": tiles[n::wide] for n in range(min(wide, len(tiles)))},
        row_labels=row_labels,
        title=title,
        labelled=False,
    )


def plot_trajectory(
    steps: Iterable[Step],
    x_T: Image | None = None,
    *,
    images: int = 3,
    columns: int = 8,
    title: str = "",
) -> Figure:
    """The way from x_T to x_0: x_t of each image above R(x_t, t), with t falling to the right.

    ::

        steps = colddiff.sample_steps(R, D, x_T, omega, sampler="improved")
        figure = colddiff.plot_trajectory(steps, x_T)
        figure.savefig("trajectory.png")

    Args:
        steps: what ``sample_steps`` yields, or a list of it.
        x_T: the start, [B, C, H, W]; without it the first column has the estimate alone.
        images: number of images shown, two rows each.
        columns: number of severities shown, evenly spaced, with the first and the last.
        title: heading.

    Raises DataError for no steps.
    """
    states: dict[int, Tensor] = {}
    estimates: dict[int, Tensor] = {}
    for step in _steps(steps):
        if not estimates and x_T is not None:
            states[step.t] = x_T[:images].cpu()
        estimates[step.t] = step.x0_hat[:images].cpu().clone()
        states[step.s] = step.x_s[:images].cpu().clone()
    if not estimates:
        raise DataError("plot_trajectory: no steps; give what `colddiff.sample_steps` yields")
    blank = torch.ones_like(states[0])
    at = evenly(sorted({*states, *estimates}, reverse=True), columns)
    pairs = {
        # Interleaved: the state of each image, and what R makes of it, below.
        f"t = {t}": torch.stack([states.get(t, blank), estimates.get(t, blank)], 1).flatten(0, 1)
        for t in at
    }
    labels = ["$x_t$", "$R(x_t, t)$"] * len(blank)
    return _figure(_tiles(pairs), row_labels=labels, title=title)


def _steps(steps: Any) -> Iterator[Step]:
    """One after the other, as they are made; SpecError for what is no step."""
    for step in steps if isinstance(steps, Iterable) else [steps]:
        if not isinstance(step, Step):
            what = "must be what `colddiff.sample_steps` yields"
            raise SpecError([("steps", f"{what}, got {shown(step)}")])
        yield step


def _refuse_others(D: Any, images: Any, severities: Any) -> None:
    """SpecError where an argument of ``plot_strip`` is of another kind."""
    if not isinstance(D, Degradation):
        raise SpecError(f"plot_strip: D must be a degradation, got {shown(D)}")
    if not isinstance(images, Tensor) or images.ndim != 4:
        got = list(images.shape) if isinstance(images, Tensor) else shown(images)
        raise SpecError([("images", f"must be a tensor [B, C, H, W], got {got}")])
    T = D.num_timesteps
    whole = isinstance(severities, Iterable) and all(isinstance(t, Integral) for t in severities)
    if not whole or not len(severities) or not all(0 <= t <= T for t in severities):
        raise SpecError([("severities", f"must be some of 0..{T}, got {shown(severities)}")])


def _tiles(images: Mapping[str, Image]) -> dict[str, NDArray[np.uint8]]:
    """uint8 [N, H, W, 3] by label."""
    found = {str(label): _pixels(label, batch) for label, batch in images.items()}
    counts = {len(tiles) for tiles in found.values()}
    if len(counts) != 1:
        sizes = ", ".join(f"{label}: {len(tiles)}" for label, tiles in found.items())
        raise DataError(f"pictures: columns must hold equally many images, got {sizes or 'none'}")
    return found


def _pixels(label: object, batch: Any) -> NDArray[np.uint8]:
    try:
        images = batch if isinstance(batch, Tensor) else torch.from_numpy(np.array(batch))
    except (TypeError, ValueError):
        raise SpecError(f"pictures: expected [N, C, H, W], got {shown(batch)}") from None
    if images.ndim != 4 or 0 in images.shape:
        raise DataError(
            f"pictures: {label or 'images'}: expected [N, C, H, W], got {list(images.shape)}"
        )
    if not images.is_floating_point():
        images = normalise(images)
    levels = eight_bit(torch.nan_to_num(images.detach().float()))
    if levels.shape[1] not in (1, 3):
        # Neither grey nor colour: the mean over channels is shown.
        levels = levels.mean(axis=1, keepdims=True).round().astype(np.uint8)
    tiles = np.broadcast_to(levels, (len(levels), 3, *levels.shape[2:]))
    return np.ascontiguousarray(tiles.transpose(0, 2, 3, 1))


def _figure(
    columns: Mapping[str, NDArray[np.uint8]],
    *,
    row_labels: Sequence[str] = (),
    title: str = "",
    labelled: bool = True,
) -> Figure:
    """A figure of tiles side by side; the first column is the longest."""
    rows, wide = max(len(tiles) for tiles in columns.values()), len(columns)
    height, width = next(iter(columns.values())).shape[1:3]
    aspect = height / width
    head = (LABEL_INCHES if labelled else 0.05) + (LABEL_INCHES if title else 0.0)
    left = 0.08 + max((0.075 * len(text) for text in row_labels), default=0.0)
    size = (left + wide * TILE_INCHES + 0.05, head + rows * TILE_INCHES * aspect + 0.05)
    figure = NotebookFigure(figsize=size, dpi=DPI, facecolor="white")
    FigureCanvasAgg(figure)
    for column, (label, tiles) in enumerate(columns.items()):
        for row, pixels in enumerate(tiles):
            axes = figure.add_axes(_place(row, column, size, left, head, aspect))
            axes.imshow(pixels, interpolation="nearest")
            axes.set_axis_off()
            if row == 0 and labelled:
                axes.set_title(label, fontsize=8, color=INK, pad=3)
            if column == 0 and row < len(row_labels):
                axes.text(
                    -0.06,
                    0.5,
                    row_labels[row],
                    transform=axes.transAxes,
                    fontsize=7,
                    color=SOFT,
                    ha="right",
                    va="center",
                )
    if title:
        figure.text(0.08 / size[0], 1 - 0.08 / size[1], title, fontsize=10, color=INK, va="top")
    return figure


def _place(
    row: int, column: int, size: tuple[float, float], left: float, head: float, aspect: float
) -> tuple[float, float, float, float]:
    """Left, bottom, width and height of a tile, as parts of the figure."""
    gap, (width, height) = 0.06, size
    tall = TILE_INCHES * aspect
    return (
        (left + column * TILE_INCHES) / width,
        1 - (head + (row + 1) * tall - gap) / height,
        (TILE_INCHES - gap) / width,
        (tall - gap) / height,
    )
