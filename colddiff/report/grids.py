"""Comparison grid: one row per image; columns original, degraded and each restoration."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from colddiff.errors import DataError
from colddiff.report.sheets import SheetColumn, draw_sheet, png
from colddiff.samplers import column_labels

SHOWN = {"ssim": ".3f", "rmse": ".3f"}


def comparison_grid(
    pictures: Mapping[str, NDArray[np.uint8]],
    metrics: Mapping[str, float] | None = None,
    *,
    title: str = "",
    subtitle: str = "",
    max_rows: int = 8,
) -> bytes:
    """A PNG of ``pictures`` (uint8 [k, C, H, W] by column, ``Evaluation.pictures``).

    With ``metrics`` (``Evaluation.metrics``) each column is captioned with the distance, SSIM and
    RMSE over the whole test set, and the originals with the floor. Columns are in the order of
    ``column_labels``.

    Raises:
        DataError: no pictures, or columns of different shapes.
    """
    if not pictures:
        raise DataError("comparison grid: no pictures to draw; evaluate with keep=1 or more")
    columns = [
        SheetColumn(label, pictures[name][:max_rows], _captions(name, metrics or {}))
        for name, label in column_labels(pictures).items()
    ]
    return png(draw_sheet(columns, title=title, subtitle=subtitle))


def _captions(name: str, metrics: Mapping[str, float]) -> tuple[str, ...]:
    if name == "original":
        # The distance between two halves of the test images: a baseline for the other distances.
        return tuple(
            f"floor {number(metrics[path])}"
            for metric in distance_names(metrics)
            if (path := f"eval/floor/{metric}") in metrics
        )
    lines = [
        f"{metric} {number(metrics[path])}"
        for metric in distance_names(metrics)
        if (path := f"eval/{name}/{metric}") in metrics
    ]
    lines += [
        f"{metric} {metrics[path]:{form}}"
        for metric, form in SHOWN.items()
        if (path := f"eval/{name}/{metric}") in metrics
    ]
    return tuple(lines)


def distance_names(metrics: Iterable[str]) -> Sequence[str]:
    """Names of the Frechet distances in ``metrics``: ``fid`` and ``fd_<name>``, sorted.

    Of paths ``eval/<column>/<name>``, or of names alone.
    """
    last = {
        path.rsplit("/", 1)[-1] for path in metrics if path.startswith("eval/") or "/" not in path
    }
    return sorted(name for name in last if name == "fid" or name.startswith("fd_"))


def number(value: float) -> str:
    """A distance with three significant digits, never in scientific notation."""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"
