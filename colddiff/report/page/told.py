"""What a report says in words and numbers, in whatever format: one source for page and Markdown."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from colddiff.machine.wording import counted
from colddiff.report.page.compared import compared
from colddiff.report.page.contrast import with_note
from colddiff.report.page.facts import attempts_of, cost_of, facts_of, provenance_of
from colddiff.report.page.paper import paper_lines
from colddiff.report.page.run import ReportedRun
from colddiff.report.page.side_by_side import side_by_side
from colddiff.report.page.table import ResultTable, tables_of
from colddiff.report.page.verdict import verdict, verdict_of_several
from colddiff.report.page.written import WrittenBlock
from colddiff.spec import digest

MARK = "written by colddiff report"
"""In the head of every file of a report, by which it is known again."""
_OF = re.compile(rf"{MARK} \(jobs ([0-9a-f]{{8}})\)")


MOST_SHOWN = 12
"""Jobs whose images and plots a page has room for."""


def mark_of(runs: Sequence[ReportedRun]) -> str:
    """``MARK``, and what tells reports of other jobs, or steps of them, apart."""
    return f"{MARK} (jobs {digest(sorted(run.name for run in runs))[:8]})"


def is_of_others(head: str, runs: Sequence[ReportedRun]) -> bool:
    """Whether the head of a report says that it is of others than ``runs``; not if it is silent."""
    found = _OF.search(head)
    return found is not None and found[0] != mark_of(runs)


@dataclass(frozen=True, slots=True)
class ToldJob:
    """What a report says of how one job ran."""

    name: str
    attempts: tuple[dict[str, Any], ...]
    cost: dict[str, str]


@dataclass(frozen=True, slots=True)
class Told:
    """The words of a report of one job or several."""

    title: str
    facts: tuple[str, ...]
    """A few words for the line above the title."""
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
    jobs: tuple[ToldJob, ...]
    provenance: tuple[dict[str, Any], ...]
    shown: tuple[ReportedRun, ...]
    """The jobs whose images and plots are shown: all, or of many ``MOST_SHOWN``."""
    not_shown: tuple[str, ...]
    """Names of the others."""

    @property
    def all_tables(self) -> tuple[ResultTable, ...]:
        """All tables as they are shown; numbers are copied as CSV from ``tables`` alone."""
        return (*self.side_by_side, *self.tables)

    @property
    def without_images(self) -> list[str]:
        """A sentence on the jobs whose images and plots are not shown, if there are some."""
        if not self.not_shown:
            return []
        some = ", ".join(self.not_shown[:3]) + (", ..." if len(self.not_shown) > 3 else "")
        first = f"Images and plots are those of {len(self.shown)} jobs; "
        return [f"{first}{len(self.not_shown)} more need a report of their own: {some}."]


def told_of(
    runs: Sequence[ReportedRun],
    *,
    over_seed: bool = False,
    only: Sequence[str] = (),
    title: str = "",
    notes: Sequence[str] = (),
) -> Told:
    """What a report of ``runs`` says; ``report_page`` has the arguments."""
    tables = tables_of(runs, over_seed=over_seed, only=only)
    lead = _most_telling(runs)
    own = next((table for table in tables if _among(table.runs, lead)), None)
    between = side_by_side(tables)
    shown = _shown(runs, tables)
    own_words = verdict(lead, own) if len(tables) < 2 else verdict_of_several(tables)
    jobs = _jobs(runs)
    ids = ", ".join(run.name for run in runs[:3])
    return Told(
        title=title or ids + (" ..." if len(runs) > 3 else ""),
        facts=tuple(facts_of(lead)) if len(runs) == 1 else (_count(runs),),
        verdict=tuple(with_note([*between.sentences, *own_words])),
        paper=tuple(paper_lines(runs)),
        problems=(*notes, *(f"{run.id}: {what}" for run in jobs for what in run.problems)),
        compared=compared(runs),
        tables=tuple(tables),
        side_by_side=between.tables,
        written=tuple(file for run in jobs for file in run.written),
        jobs=tuple(ToldJob(run.name, tuple(attempts_of(run)), cost_of(run)) for run in jobs),
        provenance=tuple(provenance_of(runs)),
        shown=shown,
        not_shown=tuple(run.name for run in runs if not _among(shown, run)),
    )


def _jobs(runs: Sequence[ReportedRun]) -> list[ReportedRun]:
    """Each job once; without a step where several of its evaluations are reported."""
    evaluations: dict[tuple[str, str], list[ReportedRun]] = {}
    for run in runs:
        evaluations.setdefault((run.uri, run.id), []).append(run)
    return [replace(own[0], step=None) if len(own) > 1 else own[0] for own in evaluations.values()]


def _count(runs: Sequence[ReportedRun]) -> str:
    """``3 jobs``, or ``3 evaluations of 2 jobs``."""
    jobs = len(_jobs(runs))
    of = counted(jobs, "job")
    return of if jobs == len(runs) else f"{len(runs)} evaluations of {of}"


def _shown(runs: Sequence[ReportedRun], tables: Sequence[ResultTable]) -> tuple[ReportedRun, ...]:
    """The jobs whose images are shown, in their order; of many one of each table goes first."""
    firsts = [table.runs[0] for table in tables]
    order = sorted(runs, key=lambda run: not _among(firsts, run))[:MOST_SHOWN]
    return tuple(run for run in runs if _among(order, run))


def _among(runs: Sequence[ReportedRun], run: ReportedRun) -> bool:
    """Whether ``run`` is one of ``runs``; evaluations of one job are equal but for their arrays."""
    return any(run is one for one in runs)


def _most_telling(runs: Sequence[ReportedRun]) -> ReportedRun:
    """The first run with images, else the first with metrics, else the first."""
    with_details = (run for run in runs if run.last and run.last.details)
    with_metrics = (run for run in runs if run.last)
    return next(with_details, next(with_metrics, runs[0]))
