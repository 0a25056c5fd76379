"""The report as Markdown: the words and tables of the page, without its pictures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from colddiff.report.page.compared import compared_markdown
from colddiff.report.page.run import ReportedRun
from colddiff.report.page.table import to_markdown
from colddiff.report.page.told import Told, mark_of, told_of
from colddiff.report.page.written import WrittenBlock, title_of

ATTEMPTS = ["attempt", "began (UTC)", "starts of its workers", "ended at step"]


def report_markdown(
    runs: Sequence[ReportedRun],
    *,
    over_seed: bool = False,
    only: Sequence[str] = (),
    title: str = "",
    notes: Sequence[str] = (),
) -> str:
    """What ``report_page`` says of ``runs``, with the same arguments."""
    told = told_of(runs, over_seed=over_seed, only=only, title=title, notes=notes)
    return "\n".join([f"<!-- {mark_of(runs)} -->", "", *_lines(told)])


def _lines(told: Told) -> Iterator[str]:
    yield from (f"# {told.title}", "")
    for sentence in told.verdict:
        yield from (sentence, "")
    yield from (f"- {run['id']}: {', '.join(run['about'])}" for run in told.provenance)
    yield from (f"- {line}" for line in (*told.paper, *told.problems))
    yield ""
    if told.compared:
        yield from ("### What differs", "", compared_markdown(told.compared), "")
    yield to_markdown(told.all_tables)
    for name, text in told.written:
        yield from (f"### {title_of(name)}", "", text.strip(), "")
    began = [job for job in told.jobs if job.attempts]
    yield from ["### Attempts and cost", ""] if began else []
    for job in began:
        yield from [f"#### {job.name}", ""] if len(told.jobs) > 1 else []
        rows = [[str(cell) for cell in attempt.values()] for attempt in job.attempts]
        yield compared_markdown(WrittenBlock(ATTEMPTS, rows))
        yield from ("", *(f"- {name}: {value}" for name, value in job.cost.items()), "")
    yield from ("### Provenance", "")
    for run in told.provenance:
        yield from (f"#### {run['id']}", "")
        yield from (f"- {name}: {value}" for name, value in run["facts"].items())
        yield from ("", "The command that makes it again:", "", f"    {run['command']}", "")
