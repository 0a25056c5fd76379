"""What a report says in words and numbers, in whatever format: one source for page and Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from colddiff.report.page.compared import compared
from colddiff.report.page.contrast import with_note
from colddiff.report.page.facts import attempts_of, cost_of, provenance_of
from colddiff.report.page.paper import paper_lines
from colddiff.report.page.run import ReportedRun
from colddiff.report.page.side_by_side import side_by_side
from colddiff.report.page.table import ResultTable, tables_of
from colddiff.report.page.verdict import verdict, verdict_of_several
from colddiff.report.page.written import WrittenBlock

MARK = "written by colddiff report"
"""In the head of every file of a report, by which it is known again."""


@dataclass(frozen=True, slots=True)
class Told:
    """The words of a report of one job or several; ``shown`` is the one with images or attempts."""

    shown: ReportedRun
    title: str
    verdict: tuple[str, ...]
    paper: tuple[str, ...]
    problems: tuple[str, ...]
    compared: WrittenBlock | None
    tables: tuple[ResultTable, ...]
    """Of each job, or of a job's seeds: its methods."""
    side_by_side: tuple[ResultTable, ...]
    """Of jobs on the same images: a row a job, numbers that ``tables`` have too."""
    written: tuple[tuple[str, str], ...]
    """Markdown files of the jobs' verbs: (name, content)."""
    attempts: tuple[dict[str, Any], ...]
    cost: dict[str, str]
    provenance: tuple[dict[str, Any], ...]

    @property
    def all_tables(self) -> tuple[ResultTable, ...]:
        """All tables as they are shown; numbers are copied as CSV from ``tables`` alone."""
        return (*self.side_by_side, *self.tables)

    def below(self, what: str) -> list[str]:
        """Of several jobs, a sentence on whose ``what`` follow them."""
        several = sum(len(table.runs) for table in self.tables) > 1
        return [f"{what} below are those of {self.shown.id}."] if several else []


def told_of(
    runs: Sequence[ReportedRun],
    *,
    over_seed: bool = False,
    only: Sequence[str] = (),
    title: str = "",
) -> Told:
    """What a report of ``runs`` says; ``report_page`` has the arguments."""
    tables = tables_of(runs, over_seed=over_seed, only=only)
    shown = _most_telling(runs)
    own = next((table for table in tables if shown in table.runs), None)
    between = side_by_side(tables)
    own_words = verdict(shown, own) if len(tables) < 2 else verdict_of_several(tables)
    ids = ", ".join(run.name for run in runs[:3])
    return Told(
        shown=shown,
        title=title or ids + (" ..." if len(runs) > 3 else ""),
        verdict=tuple(with_note([*between.sentences, *own_words])),
        paper=tuple(paper_lines(runs)),
        problems=tuple(f"{run.id}: {what}" for run in runs for what in run.problems),
        compared=compared(runs),
        tables=tuple(tables),
        side_by_side=between.tables,
        written=tuple(file for run in runs for file in run.written),
        attempts=tuple(attempts_of(shown)),
        cost=cost_of(shown),
        provenance=tuple(provenance_of(runs)),
    )


def _most_telling(runs: Sequence[ReportedRun]) -> ReportedRun:
    """The first run with images, else the first with metrics, else the first."""
    with_details = (run for run in runs if run.last and run.last.details)
    with_metrics = (run for run in runs if run.last)
    return next(with_details, next(with_metrics, runs[0]))
