"""Jobs evaluated on the same images against each other: a table, a row a job, and verdicts."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from colddiff.evaluation.best import metric_of_record
from colddiff.report.page.contrast import Side, contrast_text, has_interval, over_text
from colddiff.report.page.run import Measured
from colddiff.report.page.table import Cell, ResultTable, Row, text_of
from colddiff.report.page.verdict import DEGRADED, DIRECT, telling_metrics
from colddiff.report.tables import DIGITS, FLOOR, metric_names
from colddiff.samplers import column_labels

TITLE = "Jobs side by side"
ERROR = "rmse"
ALIKE = 0.01
"""Up to such a part, errors of degraded images are those of the same amount to undo."""


@dataclass(frozen=True, slots=True)
class SideBySide:
    """Tables of the jobs that share their images, and how each job stands to the first of them."""

    tables: tuple[ResultTable, ...]
    sentences: tuple[str, ...]


def side_by_side(tables: Sequence[ResultTable]) -> SideBySide:
    """What ``tables``, each of one job or of a job's seeds, are against each other."""
    groups: dict[str, list[ResultTable]] = {}
    for table in tables:
        groups.setdefault(repr(_shared(table.measured[0])), []).append(table)
    several = [members for members in groups.values() if len(members) > 1]
    shown, sentences = [], []
    for members in several:
        column = _telling_column(members[0])
        own = [_sentence(other, members[0], column) for other in members[1:]]
        shown.append(_table(members, len(several) > 1, has_interval(own)))
        sentences += own
    return SideBySide(tuple(shown), (*filter(None, sentences), *_not_compared(tables)))


def _shared(last: Measured) -> dict[str, Any]:
    """What two evaluations must share so that their errors are compared."""
    alike = ("image_protocol", "reference_sha256", "n")
    return {"kind": _kind(last), **{name: last.provenance.get(name) for name in alike}}


def _kind(last: Measured) -> str:
    return str((last.provenance.get("degradation") or {}).get("kind", "none"))


def _not_compared(tables: Sequence[ResultTable]) -> Iterator[str]:
    """The jobs that do not share the images of the first one, and why, in one sentence."""
    reasons = []
    for table in tables[1:]:
        own, first = (_shared(one.measured[0]) for one in (table, tables[0]))
        unlike = []
        if own["n"] != first["n"]:
            unlike.append(f"{own['n']} test images, not {first['n']}")
        elif own["reference_sha256"] != first["reference_sha256"]:
            unlike.append("other test images")
        if own["kind"] != first["kind"]:
            unlike.append(f"degraded by {own['kind']}, not {first['kind']}")
        if own["image_protocol"] != first["image_protocol"]:
            unlike.append("measured by another protocol")
        reasons += [f"{table.title} ({', '.join(unlike)})"] if unlike else []
    if reasons:
        yield f"Not compared with {tables[0].title}: {'; '.join(reasons)}."


def _telling_column(table: ResultTable) -> str:
    """The column of the metric that tells the best checkpoint of the job."""
    last = table.measured[0]
    record = {"metrics": last.metrics, "provenance": last.provenance}
    path = metric_of_record(record, table.runs[0].spec)
    return path.split("/")[1] if path else DIRECT


def _sentence(other: ResultTable, first: ResultTable, column: str) -> str:
    """``B against A, Algorithm 2 (improved), over 30 images: better in rmse (...), ...``."""
    a, b = Side(other.measured, column), Side(first.measured, column)
    label = column_labels([column])[column]
    against = f"{other.title} against {first.title}, {label}, {over_text(a, b)}"
    # Before anything is drawn for an interval.
    if unlike := _unlike(other, first, column):
        return f"{against}: {unlike}."
    shown = telling_metrics(first.measured[0])
    if not _same_distances([first, other]):
        shown = [name for name in shown if name in DIGITS]
    parts = [text for metric in shown if (text := contrast_text(metric, a, b))]
    if not parts:
        return ""
    told = "; ".join([", ".join(parts), *_cautions(other, first, column)])
    return f"{against}: {told}."


def _unlike(other: ResultTable, first: ResultTable, column: str) -> str:
    """What two jobs undo of unlike degraded images, which makes neither the better; else ""."""
    told, given = [], []
    for table in (other, first):
        before, after = (Side(table.measured, name).rmse for name in (DEGRADED, column))
        if before is None or after is None:
            return ""
        change = 100 * (after / before - 1) if before > 0 else 0.0
        word = f" ({abs(change):.0f} % {'more' if change > 0 else 'less'})"
        told.append(f"from {text_of(ERROR, before)} to {text_of(ERROR, after)}{word}")
        given.append(before)
    if math.isclose(*given, rel_tol=ALIKE):
        return ""
    return f"not compared, as their degraded images differ: {ERROR} {' against '.join(told)}"


def _cautions(other: ResultTable, first: ResultTable, column: str) -> Iterator[str]:
    """What a comparison must not hide: results that are worse than their beginnings."""
    worse, given = [], ""
    for table in (other, first):
        before, after = (Side(table.measured, name).rmse for name in (DEGRADED, column))
        if before is None or after is None:
            return
        given = text_of(ERROR, before)
        worse += [table.title] if after > before else []
    if worse:
        who = "both are" if len(worse) == 2 else f"{worse[0]} is"
        yield f"{who} further from the originals than the degraded images ({ERROR} {given})"


def _same_distances(tables: Sequence[ResultTable]) -> bool:
    return all(table.protocol == tables[0].protocol for table in tables)


def _table(members: Sequence[ResultTable], several: bool, intervals: bool) -> ResultTable:
    distances = _same_distances(members)
    names = {name: None for table in members for name in table.metrics}
    wanted = metric_names(f"eval/{DIRECT}/{name}" for name in names)
    # With where each began, as two jobs on the same images may undo unlike amounts.
    methods = column_labels(row.column for table in members for row in table.rows)
    keys = [
        f"{method}/{name}"
        for method in methods
        if method != FLOOR
        for name in wanted
        if distances or name in DIGITS
    ]
    rows = tuple(Row("", _label(table), _cells(table, keys)) for table in members)
    n, features = (members[0].protocol.get(name) for name in ("n", "metric"))
    unlike = "" if distances else "; no distances, whose features or protocol are unequal"
    there = tuple(key for key in keys if any(key in row.cells for row in rows))
    of_features = any(key.partition("/")[2] not in DIGITS for key in there)
    about = [f"n = {n} images, the same for all", *[f"features {features}"] * of_features]
    if any(_unlike(other, members[0], DIRECT) for other in members[1:]):
        about.append("not to be compared where `degraded` differs: less was to be undone")
    return ResultTable(
        f"{TITLE}: {_kind(members[0].measured[0])}" if several else TITLE,
        there,
        rows,
        tuple(run for table in members for run in table.runs),
        tuple(measured for table in members for measured in table.measured),
        note=f"{'; '.join(about)}{unlike}; {_spread(members, intervals)}.",
        protocol=members[0].protocol,
    )


def _spread(members: Sequence[ResultTable], intervals: bool) -> str:
    if any(len(table.runs) > 1 for table in members):
        return "means of a job's seeds ± half of the 95 % interval (Student's t)"
    return "one seed a job" + ": the intervals over images stand in the verdict" * intervals


def _label(table: ResultTable) -> str:
    one = len(table.runs) == 1 and table.runs[0].verb == "train"
    return f"{table.runs[0].id}@step={table.measured[0].step}" if one else table.title


def _cells(table: ResultTable, keys: Sequence[str]) -> Mapping[str, Cell]:
    found = {
        f"{row.column}/{metric}": Cell(cell.interval, cell.sources)
        for row in table.rows
        if row.column != FLOOR
        for metric, cell in row.cells.items()
    }
    return {key: found[key] for key in keys if key in found}
