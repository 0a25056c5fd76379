"""`colddiff report`: a page and tables of jobs, from STORAGE alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from colddiff.cli.options import Json, Storage
from colddiff.cli.output import emit, emit_json, note

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from colddiff.jobs.folder import JobFolder
    from colddiff.jobs.pages.find import NamedJob
    from colddiff.report.page.run import ReportedRun

FORMATS = {"html": "report.html", "md": "report.md", "latex": "report.tex", "csv": "report.csv"}
OVER = ("seed",)


def report(
    runs: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN...",
            help="Job ids, patterns over them ('train-deblur-*'), folders, URIs, mlflow:RUN_ID; "
            "of JOB@best or JOB@step=N the evaluation of that checkpoint, else the latest; "
            "several steps of one job are compared like jobs.",
        ),
    ],
    out: Annotated[str, typer.Option("--out", metavar="DIR", help="A folder for the report.")],
    over: Annotated[
        str | None,
        typer.Option(
            "--over",
            metavar="FIELD",
            help="seed: runs that differ only in their seeds become one table with intervals.",
        ),
    ] = None,
    metric: Annotated[
        list[str] | None,
        typer.Option("--metric", metavar="NAME", help="Only this metric; repeat it for several."),
    ] = None,
    formats: Annotated[
        str, typer.Option("--format", metavar="LIST", help="html, md, latex, csv, with commas.")
    ] = "html",
    storage: Storage = None,
    as_json: Json = False,
) -> None:
    """Write a report of jobs, side by side. What was undone, how well, and how it was measured.

    It reads STORAGE alone: the cluster and the tracker may be away. A job that is not finished is
    shown as it stands.
    """
    from colddiff.jobs.pages.find import find_jobs
    from colddiff.jobs.pages.read import read_run
    from colddiff.report.page.page import replaces_another
    from colddiff.stores.open import storage_at

    kinds = _kinds(formats)
    _check_over(over)
    folder = _folder(out, kinds)
    named = find_jobs(runs, storage_at(storage))
    if over is not None:
        _refuse_two_steps(named)
    found, damaged = _readable(named, read_run)
    for line in damaged:
        note(line)
    texts = _texts(found, kinds, over_seed=over == "seed", only=metric or (), of=_study_of(named))
    replaced = [FORMATS[kind] for kind in texts if replaces_another(folder / FORMATS[kind], found)]
    written = _write(folder, texts)
    if replaced:
        note(f"{out}: {', '.join(replaced)} of other jobs or steps was there, and is replaced")
    for run in found:
        note(f"{run.name}: {run.state}")
    if as_json:
        emit_json({"files": written, "runs": [run.id for run in found], "left_out": damaged})
    else:
        for path in written.values():
            emit(path)


def _study_of(named: Sequence[NamedJob]) -> JobFolder | None:
    """The study that stands for all of them; None where one was named itself, or by another."""
    studies = {one.member_of.uri if one.member_of else None for one in named}
    return named[0].member_of if len(studies) == 1 else None


def _kinds(formats: str) -> list[str]:
    from colddiff.errors import SpecError
    from colddiff.spec import nearest

    known = ", ".join(FORMATS)
    kinds = [kind.strip() for kind in formats.split(",") if kind.strip()]
    for kind in kinds:
        if kind not in FORMATS:
            close = nearest(kind, FORMATS)
            raise SpecError(f"--format: no {kind!r}{close}; one or more of {known}")
    if not kinds:
        raise SpecError(f"--format: name one or more of {known}")
    return kinds


def _check_over(over: str | None) -> None:
    from colddiff.errors import SpecError

    if over is not None and over not in OVER:
        raise SpecError(f"--over: only {', '.join(OVER)} is possible, got {over!r}")


def _refuse_two_steps(named: Sequence[NamedJob]) -> None:
    """SpecError if a job is named at two steps, which would count as two seeds."""
    from colddiff.errors import SpecError

    uris = [one.folder.uri for one in named]
    for one in named:
        if uris.count(one.folder.uri) > 1:
            raise SpecError(
                f"--over seed: {one.folder.job_id} is named at several steps, which are no seeds; "
                "name one of each job"
            )


def _folder(out: str, kinds: Sequence[str]) -> Path:
    """OUT, checked before anything is read: none of its files that we did not write is replaced."""
    from pathlib import Path

    from colddiff.errors import SpecError
    from colddiff.report.page.page import is_ours

    if "://" in out:
        raise SpecError(f"--out: {out} is not on this machine; give a folder, and copy it there")
    folder = Path(out).expanduser()
    if folder.exists() and not folder.is_dir():
        raise SpecError(f"--out: {out} is a file; give a folder")
    for kind in kinds:
        path = folder / FORMATS[kind]
        if path.exists() and not is_ours(path):
            raise SpecError(
                f"--out: {path} was not written by `colddiff report`, so it is not replaced; give "
                "another folder"
            )
    return folder


def _readable(named: Sequence[NamedJob], read: Any) -> tuple[list[ReportedRun], list[str]]:
    """The runs that can be read, and a line for each that cannot; SpecError if none can."""
    from colddiff.errors import ColddiffError, SpecError

    found, damaged = [], []
    for job in named:
        try:
            found.append(read(job.folder, step=job.step))
        except ColddiffError as error:
            damaged.append(f"left out: {error}")
    if not found:
        raise SpecError(damaged[0].removeprefix("left out: "))
    if not any(run.last or run.pictures or run.result for run in found):
        if problems := [line for run in found for line in run.problems]:
            raise SpecError(problems[0])
        states = ", ".join(f"{run.id} is {run.state}" for run in found[:3])
        raise SpecError(f"no results yet to report: {states}; wait for it, or see `colddiff logs`")
    return found, damaged


def _texts(
    runs: Sequence[ReportedRun],
    kinds: Sequence[str],
    *,
    over_seed: bool,
    only: Sequence[str],
    of: JobFolder | None,
) -> dict[str, str]:
    from colddiff.errors import SpecError
    from colddiff.features.spec import measuring
    from colddiff.jobs.pages.find import notes_of
    from colddiff.report.page.latex import to_latex
    from colddiff.report.page.markdown import report_markdown
    from colddiff.report.page.page import report_page
    from colddiff.report.page.table import to_csv
    from colddiff.report.page.told import mark_of, told_of
    from colddiff.report.tables import metric_names
    from colddiff.spec import nearest

    paths = {path for run in runs if run.last for path in run.last.metrics}
    known = sorted(metric_names(paths))
    for name in only:
        if name not in known:
            way_out = nearest(name, known)
            if kind := measuring(name):
                way_out = f", which `colddiff submit evaluate checkpoint=ID features={kind}` adds"
            raise SpecError(f"--metric: no run has {name!r}{way_out}; they have {', '.join(known)}")
    title, notes = ("", ()) if of is None else (of.job_id, notes_of(of))
    told = told_of(runs, over_seed=over_seed, only=only)
    made = {
        "html": lambda: report_page(runs, over_seed=over_seed, only=only, title=title, notes=notes),
        "md": lambda: report_markdown(
            runs, over_seed=over_seed, only=only, title=title, notes=notes
        ),
        "latex": lambda: f"% {mark_of(runs)}\n{to_latex(told.all_tables)}",
        "csv": lambda: to_csv(told.tables),
    }
    return {kind: made[kind]() for kind in kinds}


def _write(folder: Path, texts: Mapping[str, str]) -> dict[str, str]:
    """Writes all files, each whole or not at all."""
    from colddiff.stores.local_store import LocalStore

    store = LocalStore(folder.absolute())
    for kind, text in texts.items():
        store.put(FORMATS[kind], text.encode())
    return {kind: str(folder / FORMATS[kind]) for kind in texts}
