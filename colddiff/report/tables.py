"""Evaluation results as a plain-text table: one row per metric, one column per sampler."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from textwrap import wrap
from typing import Any

from colddiff.evaluation.best import (
    REAL,
    higher_is_better,
    left_out,
    shown_metrics,
    shown_notes,
    unfit_metric,
)
from colddiff.report.grids import distance_names, number
from colddiff.samplers import CURVE, RESERVED, column_labels

SETS = re.compile(
    r"(kid(?!_error)|precision|recall|density|coverage|copied|nearest|extrapolated)(_\w+)?"
)
"""Metrics of two sets beside their Frechet distance; after ``_``, the features."""
DIGITS = {"ssim": ".3f", "rmse": ".4f", "psnr": ".2f"}
NO_VALUE = "-"
FLOOR, GENERATED, DEGRADED = "floor", "generated", "degraded"
WIDTH, HEAD = 100, 14
"""Characters of the notes below a table, and of a line of a column's label."""


def evaluation_table(
    metrics: Mapping[str, float],
    provenance: Mapping[str, Any] | None = None,
    best: str | None = None,
) -> str:
    """Metrics ``eval/<column>/<metric>`` as aligned text; a star marks the best restoration.

    There is none where the degraded images are better still. ``provenance``, if it is given, tells
    what the distances mean, in lines below the table; one that does not fit comes last, unmarked,
    or not at all unless it is asked for, as by ``best``, the metric of the best checkpoint.
    """
    provenance = provenance or {}
    metrics, unfit = shown_metrics(metrics, provenance, best), unfit_metric(provenance)
    rows = sorted(metric_names(metrics), key=lambda name: name == unfit)
    there = _columns(metrics)
    columns = column_labels(name for name in there if name != FLOOR)
    restored = [name for name in columns if name not in RESERVED]
    columns |= {FLOOR: REAL} if FLOOR in there else {}
    omitted = omitted_lines(provenance, left_out(provenance, best))
    missing = [line for text in omitted for line in wrap(text, WIDTH)]
    if not rows or not columns:
        return "\n".join(missing) or "no evaluation yet"
    heads = [wrap(label, HEAD) for label in columns.values()]
    deep = max(map(len, heads))
    # Aligned at the bottom, beside the figures.
    heads = [[""] * (deep - len(head)) + head for head in heads]
    table = [["", *line, ""] for line in zip(*heads, strict=True)]
    for row in rows:
        first = _best(metrics, row, restored) if row != unfit else None
        cells = [_cell(metrics.get(f"eval/{name}/{row}"), row, name == first) for name in columns]
        better = "higher is better" if higher_is_better(row) else "lower is better"
        table.append([f"{row} (dB)" if row == "psnr" else row, *cells, better])
    notes = [line for note in shown_notes(provenance, best) for line in wrap(note, WIDTH)]
    return "\n".join([_aligned(table, deep), *notes, *missing])


def evaluation_lines(result: Mapping[str, Any], best: str | None = None) -> list[str]:
    """The evaluation of a job's result as it stands at its end; ``best`` as of the table."""
    metrics, provenance = result["metrics"], result.get("provenance") or {}
    return [
        *evaluation_table(metrics, provenance, best).splitlines(),
        *curve_table(metrics, provenance, best).splitlines(),
    ]


def omitted_lines(provenance: Mapping[str, Any], hidden: str | None = None) -> list[str]:
    """Which metrics an evaluation has not, and why: a line for each reason; none of ``hidden``.

    >>> omitted_lines({"omitted": {"eval/sampled/ssim": "8 px images are under its window"}})
    ['no ssim (sampled): 8 px images are under its window']
    """
    found: dict[tuple[str, str], list[str]] = {}
    for path, why in (provenance.get("omitted") or {}).items():
        column, _, metric = path.removeprefix("eval/").rpartition("/")
        if metric == hidden:
            continue
        name = (
            "metrics of the two sets, such as kid and recall"
            if SETS.fullmatch(metric)
            else (metric)
        )
        found.setdefault((name, str(why)), []).append(REAL if column == FLOOR else column)
    return [f"no {name} ({', '.join(of)}): {why}" for (name, why), of in found.items()]


def metric_names(metrics: Iterable[str]) -> list[str]:
    """Names of the metrics among paths ``eval/<column>/<metric>`` that tables show, in order."""
    found = {path.rsplit("/", 1)[-1] for path in metrics if path.startswith("eval/")}
    sets = sorted(name for name in found if SETS.fullmatch(name))
    return [name for name in (*distance_names(found), *sets, *DIGITS) if name in found]


def evaluation_line(
    metrics: Mapping[str, float], *, distances: bool = True, last: str | None = None
) -> str:
    """The first distance and error of restorations and samples: ``fd_lenet 31.2 (direct), ...``.

    Those of the degraded images come first, to compare with, and a distance that does not fit,
    ``last``, after the error. Without ``distances`` where they do not fit the images: the line has
    no room to say so.
    """
    shown = [name for name in _columns(metrics) if name == GENERATED or name not in RESERVED]
    labels = column_labels([*shown, DEGRADED])
    parts = []
    rows = [*(distance_names(metrics)[:1] if distances else ()), "rmse"]
    for row in sorted(rows, key=lambda name: name == last):
        there = {name for name in labels if f"eval/{name}/{row}" in metrics}
        if there <= {DEGRADED, GENERATED}:
            there.discard(DEGRADED)
        cells = [
            f"{_cell(metrics[f'eval/{name}/{row}'], row, best=False).strip()} ({label})"
            for name, label in labels.items()
            if name in there
        ]
        parts += [f"{row} {', '.join(cells)}"] * bool(cells)
    return "; ".join(parts) or "no metric that restorations share"


def curve_table(
    metrics: Mapping[str, float],
    provenance: Mapping[str, Any] | None = None,
    best: str | None = None,
) -> str:
    """Quality against the number of network calls as aligned text; "" if it was not measured.

    With the same distances, and in the same order, as ``evaluation_table``.
    """
    metrics = shown_metrics(metrics, provenance or {}, best)
    unfit = unfit_metric(provenance or {})
    found = (path.split("/")[1] for path in metrics if path.startswith(f"eval/{CURVE}"))
    calls = sorted({int(name.removeprefix(CURVE)) for name in found})
    if not calls:
        return ""
    table = [["network calls", *map(str, calls), ""]]
    for row in sorted((*distance_names(metrics), *DIGITS), key=lambda name: name == unfit):
        cells = [_cell(metrics.get(f"eval/{CURVE}{n}/{row}"), row, best=False) for n in calls]
        if any(cell.strip() != NO_VALUE for cell in cells):
            better = "higher is better" if higher_is_better(row) else "lower is better"
            table.append([f"{row} (dB)" if row == "psnr" else row, *cells, better])
    return _aligned(table, 1)


def _columns(metrics: Mapping[str, float]) -> dict[str, None]:
    """Columns of an evaluation, in their order, without those of the curve."""
    names = (path.split("/")[1] for path in metrics if path.startswith("eval/"))
    return {name: None for name in names if not name.startswith(CURVE)}


def _best(metrics: Mapping[str, float], row: str, restored: Iterable[str]) -> str | None:
    scores = {name: metrics[path] for name in restored if (path := f"eval/{name}/{row}") in metrics}
    if len(scores) < 2:
        return None
    higher = higher_is_better(row)
    best = (max if higher else min)(scores, key=lambda name: scores[name])
    degraded = metrics.get(f"eval/degraded/{row}")
    if degraded is not None and (degraded > scores[best] if higher else degraded < scores[best]):
        return None
    return best


def _cell(value: float | None, row: str, best: bool) -> str:
    if value is None:
        return f"{NO_VALUE} "
    text = f"{value:{DIGITS[row]}}" if row in DIGITS else number(value)
    # A space takes the star's place elsewhere, so that figures stay aligned.
    return f"{text}{'*' if best else ' '}"


def _aligned(table: list[list[str]], num_heads: int) -> str:
    widths = [max(len(row[i]) for row in table) for i in range(len(table[0]))]
    lines = []
    for number_of_row, row in enumerate(table):
        name, *cells, better = row
        # Column headings are aligned with the figures, not with the star.
        heads = [f"{cell} " if number_of_row < num_heads else cell for cell in cells]
        padded = [head.rjust(width + 3) for head, width in zip(heads, widths[1:-1], strict=True)]
        lines.append(f"{name.ljust(widths[0])}{''.join(padded)}   {better}".rstrip())
    return "\n".join(lines)
