"""The paper's table of runs: methods by metrics, with intervals; as Markdown and CSV."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from colddiff.evaluation.best import REAL, higher_is_better, notes_of
from colddiff.report.differences import (
    HOW_IT_RUNS,
    OPERATION,
    differences_text,
    differing_fields,
)
from colddiff.report.grids import number
from colddiff.report.page.run import SHOWN_AS, Measured, ReportedRun
from colddiff.report.page.statistics import Interval, mean_interval
from colddiff.report.tables import DIGITS, FLOOR, GENERATED, metric_names
from colddiff.samplers import CURVE, column_labels

SEED_FIELDS = ("seed",)
APART_FROM_RESULTS = (
    (OPERATION - {"evaluation", "num_samples", "num_steps"}) | HOW_IT_RUNS | set(SEED_FIELDS)
)
"""Fields in which seeds of one training may differ: one of a study is that of the same fields
submitted alone, but for what runs it."""
CSV_HEAD = "run,step,column,metric,value,n,reference_sha256,weights_sha256"


@dataclass(frozen=True, slots=True)
class Source:
    """Where one number comes from: a run and one of its evaluations."""

    run: ReportedRun
    measured: Measured
    path: str

    @property
    def value(self) -> float:
        """The number."""
        return float(self.measured.metrics[self.path])


@dataclass(frozen=True, slots=True)
class Cell:
    """A number of a table, what it is the mean of, and whether it is the best of its row."""

    interval: Interval
    sources: tuple[Source, ...]
    best: bool = False


@dataclass(frozen=True, slots=True)
class Row:
    """A method: its label and its numbers by metric.

    Of jobs side by side a job, without a column; its numbers are by ``column/metric``.
    """

    column: str
    label: str
    cells: Mapping[str, Cell]


@dataclass(frozen=True, slots=True)
class ResultTable:
    """Numbers that may be compared: one protocol, reference and number of images.

    ``why`` says what sets it apart from the table before it, ``note`` what the numbers are where
    it is not a table of methods.
    """

    title: str
    metrics: tuple[str, ...]
    rows: tuple[Row, ...]
    runs: tuple[ReportedRun, ...]
    measured: tuple[Measured, ...]
    why: str = ""
    protocol: Mapping[str, Any] = field(default_factory=dict)
    note: str = ""


def tables_of(
    runs: Sequence[ReportedRun], *, over_seed: bool = False, only: Sequence[str] = ()
) -> list[ResultTable]:
    """A table for each run, or for all runs that differ in their seeds alone.

    Runs without metrics are left out, as is a distance that does not fit and nobody asked for.
    Runs whose numbers are unlike (``COMPARED_BY``) never share a table, even if they differ only in
    their seeds. ``only``: names of the metrics that are shown.
    """
    groups: dict[str, list[tuple[ReportedRun, Measured]]] = {}
    for run in runs:
        if run.last is None or not metric_names(run.last.metrics):
            continue
        protocol = json.dumps(run.last.protocol, sort_keys=True, default=str)
        same = _without_seeds(run) if over_seed else run.name
        groups.setdefault(f"{same}\n{protocol}", []).append((run, run.last))
    tables: list[ResultTable] = []
    for members in groups.values():
        found = _table(members, only)
        before = tables[-1] if tables else None
        tables.append(_with_reason(found, before))
    return _told_apart(tables)


def _told_apart(tables: Sequence[ResultTable]) -> list[ResultTable]:
    """The tables, those of one title with the fields in which their jobs differ, without seeds."""
    titles = [table.title for table in tables]
    alike = [table for table in tables if titles.count(table.title) > 1]
    if not alike:
        return list(tables)
    specs = [table.runs[0].spec for table in alike]
    differing = iter(differing_fields(specs, HOW_IT_RUNS.union(SEED_FIELDS)))
    return [
        replace(table, title=f"{table.title} with {differences_text(fields)}")
        if any(table is one for one in alike) and (fields := _of_all(table, next(differing)))
        else table
        for table in tables
    ]


def _of_all(table: ResultTable, fields: Mapping[str, Any]) -> dict[str, Any]:
    """Those of ``fields`` in which the jobs of a table are alike."""
    unlike = differing_fields([run.spec for run in table.runs], HOW_IT_RUNS)[0]
    return {path: value for path, value in fields.items() if path not in unlike}


def _table(members: Sequence[tuple[ReportedRun, Measured]], only: Sequence[str]) -> ResultTable:
    runs = tuple(run for run, _ in members)
    paths = {path: 0.0 for _, measured in members for path in measured.shown(only)}
    unfit = {measured.unfit for _, measured in members}
    named = [name for name in metric_names(paths) if not only or name in only]
    metrics = tuple(sorted(named, key=lambda name: name in unfit))
    columns = {path.split("/")[1]: None for path in paths if path.startswith("eval/")}
    labels = column_labels(name for name in columns if name != FLOOR and not name.startswith(CURVE))
    labels |= {FLOOR: REAL} if FLOOR in columns else {}
    rows = [Row(name, label, _cells(members, name, metrics)) for name, label in labels.items()]
    rows = [row for row in rows if row.cells]
    title = runs[0].name if len(runs) == 1 else f"{runs[0].job.get('slug', '')}: {len(runs)} seeds"
    return ResultTable(
        title,
        metrics,
        tuple(_with_best(rows, [name for name in metrics if name not in unfit])),
        runs,
        tuple(measured for _, measured in members),
        protocol=members[0][1].protocol,
    )


def _cells(
    members: Sequence[tuple[ReportedRun, Measured]], column: str, metrics: Sequence[str]
) -> dict[str, Cell]:
    cells = {}
    for metric in metrics:
        path = f"eval/{column}/{metric}"
        sources = tuple(
            Source(run, measured, path) for run, measured in members if path in measured.metrics
        )
        if sources:
            cells[metric] = Cell(mean_interval([one.value for one in sources]), sources)
    return cells


def _with_best(rows: Sequence[Row], metrics: Sequence[str]) -> list[Row]:
    """Marks the best restoration of a metric where its interval parts from all others'."""
    chosen: dict[str, str] = {}
    for metric in metrics:
        scored = [
            (row.column, row.cells[metric].interval)
            for row in rows
            if metric in row.cells and row.column not in ("degraded", FLOOR, GENERATED)
        ]
        if len(scored) < 2:
            continue
        pick: Callable[..., Any] = max if higher_is_better(metric) else min
        best, interval = pick(scored, key=lambda one: one[1].value)
        if all(interval.parts_from(other) for name, other in scored if name != best):
            chosen[metric] = best
    return [
        Row(
            row.column,
            row.label,
            {
                metric: Cell(cell.interval, cell.sources, chosen.get(metric) == row.column)
                for metric, cell in row.cells.items()
            },
        )
        for row in rows
    ]


def _with_reason(table: ResultTable, before: ResultTable | None) -> ResultTable:
    if before is None:
        return table
    unlike = [
        f"{SHOWN_AS[name]} ({_short(before.protocol.get(name))} there, {_short(value)} here)"
        for name, value in table.protocol.items()
        if before.protocol.get(name) != value
    ]
    if not unlike:
        return table
    why = f"not to be compared with the table above: unequal {', '.join(unlike)}"
    return replace(table, why=why)


def _short(value: Any) -> str:
    text = str(value)
    return text[:8] if len(text) == 64 else text


def _without_seeds(run: ReportedRun) -> str:
    spec = {name: value for name, value in run.spec.items() if name not in APART_FROM_RESULTS}
    evaluation = dict(spec.get("evaluation") or {})
    spec["evaluation"] = {k: v for k, v in evaluation.items() if k not in SEED_FIELDS}
    # An evaluation is one of a checkpoint: seeds of trainings differ behind it.
    spec.pop("checkpoint", None)
    return json.dumps([run.verb, run.job.get("slug"), spec], sort_keys=True, default=str)


def text_of(metric: str, value: float) -> str:
    """A number as tables show it."""
    return f"{value:{DIGITS[metric]}}" if metric in DIGITS else number(value)


def cell_text(metric: str, cell: Cell, *, joint: str = " ± ") -> str:
    """A number, with half of its interval if it has one; ``metric`` may be ``column/metric``."""
    interval, metric = cell.interval, metric.rpartition("/")[2]
    if interval.high is None:
        return text_of(metric, interval.value)
    half = interval.high - interval.value
    places = DIGITS.get(metric, "")
    spread = f"{half:{places}}" if places else number(half, 2)
    return f"{text_of(metric, interval.value)}{joint}{spread}"


def head_text(metric: str) -> str:
    """The header of a metric: its name, unit, and which direction is better.

    >>> head_text("direct/psnr")
    'direct: psnr (dB) ↑'
    """
    method = method_text(metric)
    return f"{method}: {metric_text(metric)}" if method else metric_text(metric)


def method_text(metric: str) -> str:
    """The method that ``column/metric`` is of; empty for a metric without a column."""
    column = metric.rpartition("/")[0]
    return column_labels([column])[column] if column else ""


def metric_text(metric: str) -> str:
    """The name of a metric, its unit, and which direction is better."""
    name = metric.rpartition("/")[2]
    unit = " (dB)" if name == "psnr" else ""
    return f"{name}{unit} {'↑' if higher_is_better(name) else '↓'}"


def to_markdown(tables: Sequence[ResultTable]) -> str:
    """The tables as GitHub-flavoured Markdown."""
    lines = []
    for table in tables:
        lines += [f"### {table.title}", ""]
        lines += [f"{table.why}", ""] if table.why else []
        heads = ["", *map(head_text, table.metrics)]
        lines += [_pipes(heads), _pipes(["---", *["---:"] * len(table.metrics)])]
        for row in table.rows:
            lines.append(_pipes([row.label, *row_texts(row, table.metrics, "**{}**", paper=True)]))
        lines += ["", note_of(table), ""]
        lines += [*(f"- {note}" for note in notes_below(table)), ""] if notes_below(table) else []
    return "\n".join(lines)


def to_csv(tables: Sequence[ResultTable]) -> str:
    """One line a number: run, step, column, metric, value, n, and what it was compared with."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(CSV_HEAD.split(","))
    for table in tables:
        for row in table.rows:
            for metric, cell in row.cells.items():
                for source in cell.sources:
                    proof = source.measured.provenance
                    writer.writerow(
                        [
                            source.run.id,
                            source.measured.step,
                            row.column,
                            metric,
                            repr(source.value),
                            proof.get("n", ""),
                            proof.get("reference_sha256", ""),
                            proof.get("weights_sha256", ""),
                        ]
                    )
    return buffer.getvalue()


def note_of(table: ResultTable) -> str:
    """What a table's numbers are: images, features, seeds."""
    if table.note:
        return table.note
    protocol, hidden = table.protocol, _not_shown(table)
    seeds = len(table.runs)
    spread = (
        f"mean of {seeds} seeds ± half of the 95 % interval (Student's t); bold where the best "
        "interval parts from all others"
        if seeds > 1
        else "one seed, so no intervals and nothing in bold"
    )
    n = f"{_of_step(table)}n = {protocol.get('n')} images"
    if hidden is not None:
        return f"{n}; {spread}. {hidden} does not fit these images: `--metric {hidden}` shows it."
    return f"{n}, features {protocol.get('metric')}; {spread}."


def _of_step(table: ResultTable) -> str:
    """``step 20 (the best is step 10: `ID@best`), `` of one training; "" of several jobs."""
    run, step = table.runs[0], table.measured[0].step
    if len(table.runs) > 1 or run.verb != "train":
        return ""
    found = run.result.get("best")
    best = found.get("step", step) if isinstance(found, Mapping) else step
    other = "" if best == step else f" (the best is step {best}: `{run.id}@best`)"
    return f"step {step}{other}, "


def notes_below(table: ResultTable) -> list[str]:
    """What to know of a table's distances, such as one that does not fit its images."""
    if _not_shown(table) is not None:
        return []
    notes = [note for measured in table.measured for note in notes_of(measured.provenance)]
    if not any(row.column == FLOOR for row in table.rows):
        notes = [note for note in notes if not note.startswith(REAL)]
    return list(dict.fromkeys(notes))


def _not_shown(table: ResultTable) -> str | None:
    """The distance that is left out of a table, and was not chosen; None without one."""
    hidden = table.measured[0].left_out
    return None if hidden in table.metrics else hidden


def published(cell: Cell) -> str:
    """The number that the paper has for this cell, and whether it compares; "" without one."""
    found = cell.sources[0].run.targets.get(cell.sources[0].path)
    if not isinstance(found, int | float):
        return ""
    unlike = any(source.run.unlike for source in cell.sources)
    return f"{found:g}, not comparable" if unlike else f"{found:g}"


def row_texts(row: Row, metrics: Sequence[str], bold: str, *, paper: bool = False) -> list[str]:
    """The numbers of a row as text, the best in ``bold``; with ``paper``, the paper's beside."""
    found = []
    for metric in metrics:
        cell = row.cells.get(metric)
        text = cell_text(metric, cell) if cell else "-"
        beside = published(cell) if paper and cell else ""
        text = bold.format(text) if cell and cell.best else text
        found.append(f"{text} (paper {beside})" if beside else text)
    return found


def _pipes(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"
