"""Comparison grid: one row per image; columns original, degraded and each restoration."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from colddiff.errors import DataError
from colddiff.evaluation.best import REAL, is_distance
from colddiff.report.sheets import SheetColumn, draw_sheet, png
from colddiff.samplers import column_labels

SHOWN = {"ssim": ".3f", "rmse": ".3f"}


def comparison_grid(
    pictures: Mapping[str, NDArray[np.uint8]],
    metrics: Mapping[str, float] | None = None,
    *,
    title: str = "",
    subtitle: str = "",
    notes: Sequence[str] = (),
    max_rows: int = 8,
    last: str | None = None,
) -> bytes:
    """``comparison_sheet`` as a PNG."""
    return png(
        comparison_sheet(
            pictures,
            metrics,
            title=title,
            subtitle=subtitle,
            notes=notes,
            max_rows=max_rows,
            last=last,
        )
    )


def comparison_sheet(
    pictures: Mapping[str, NDArray[np.uint8]],
    metrics: Mapping[str, float] | None = None,
    *,
    title: str = "",
    subtitle: str = "",
    notes: Sequence[str] = (),
    max_rows: int = 8,
    last: str | None = None,
) -> Image.Image:
    """A sheet of ``pictures`` (uint8 [k, C, H, W] by column, ``Evaluation.pictures``).

    With ``metrics`` (``Evaluation.metrics``) each column is captioned with the distance, SSIM and
    RMSE over the whole test set, and the originals with the distance of real images to each other.
    Columns are in the order of ``column_labels``; ``notes`` stand below them. A distance that does
    not fit the images, ``last``, is the last line of a caption.

    Raises:
        DataError: no pictures, or columns of different shapes.
    """
    if not pictures:
        raise DataError("comparison grid: no pictures to draw; evaluate with keep=1 or more")
    columns = [
        SheetColumn(label, pictures[name][:max_rows], _captions(name, metrics or {}, last))
        for name, label in column_labels(pictures).items()
    ]
    return draw_sheet(columns, title=title, subtitle=subtitle, notes=notes)


def _captions(name: str, metrics: Mapping[str, float], last: str | None) -> tuple[str, ...]:
    if name == "original":
        # The distance between two halves of the test images: a baseline for the other distances.
        return tuple(
            f"{REAL} {number(metrics[path])}"
            for metric in distance_names(metrics)
            if (path := f"eval/floor/{metric}") in metrics
        )
    return tuple(
        f"{metric} {_value(metric, metrics[path])}"
        for metric in sorted((*distance_names(metrics), *SHOWN), key=lambda one: one == last)
        if (path := f"eval/{name}/{metric}") in metrics
    )


def _value(metric: str, value: float) -> str:
    return f"{value:{SHOWN[metric]}}" if metric in SHOWN else number(value)


def distance_names(metrics: Iterable[str]) -> Sequence[str]:
    """Names of the Frechet distances in ``metrics``: ``fid`` and ``fd_<name>``, sorted.

    Of paths ``eval/<column>/<name>``, or of names alone.
    """
    last = {
        path.rsplit("/", 1)[-1] for path in metrics if path.startswith("eval/") or "/" not in path
    }
    return sorted(filter(is_distance, last))


def number(value: float, digits: int = 3, sign: Literal["", "+"] = "") -> str:
    """A number with so many significant digits, and all of those before its point.

    Never in scientific notation; ``sign="+"`` also writes that of a positive one.

    >>> number(1234.5), number(114.2, 2), number(0.00002), number(12.34, sign="+")
    ('1234', '114', '0.00002', '+12.3')
    """
    text = f"{value:{sign}.{digits}g}"
    if "e" not in text:
        return text
    return f"{value:{sign}.0f}" if abs(value) >= 1 else f"{Decimal(text):{sign}f}"
