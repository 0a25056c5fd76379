"""The comparison grid: images in rows; original, degraded and each restoration in columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from colddiff.errors import DataError
from colddiff.report.sheets import Column, draw_sheet, png
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

    With ``metrics`` (``Evaluation.metrics``) the distance, SSIM and RMSE of the whole test set
    stand below each column, and the floor below the originals. Columns are in the order of
    ``column_labels``.

    Raises:
        DataError: no pictures, or columns that differ in shape.
    """
    if not pictures:
        raise DataError("comparison grid: no pictures were kept; evaluate with keep=1 or more")
    columns = [
        Column(label, pictures[name][:max_rows], _captions(name, metrics or {}))
        for name, label in column_labels(pictures).items()
    ]
    return png(draw_sheet(columns, title=title, subtitle=subtitle))


def _captions(name: str, metrics: Mapping[str, float]) -> tuple[str, ...]:
    if name == "original":
        # The distance between two halves of them: the scale that all others are read on.
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


def distance_names(metrics: Mapping[str, float]) -> Sequence[str]:
    """The Frechet distances among metric paths: ``fid`` and ``fd_<name>``, in order of name."""
    last = {path.rsplit("/", 1)[-1] for path in metrics if path.startswith("eval/")}
    return sorted(name for name in last if name == "fid" or name.startswith("fd_"))


def number(value: float) -> str:
    """A distance to three figures, never in powers of ten."""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"
