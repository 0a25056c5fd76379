"""`colddiff figure`: a figure like the paper's, from what jobs left in STORAGE."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from colddiff.cli.options import Storage
from colddiff.cli.output import emit, note

if TYPE_CHECKING:
    from colddiff.jobs.pages.find import NamedJob
    from colddiff.report.page.run import ReportedRun


def figure(
    jobs: Annotated[
        list[str],
        typer.Argument(
            metavar="JOB...",
            help="Train or evaluate jobs: ids, patterns ('train-deblur-*'), folders, URIs; of "
            "JOB@best or JOB@step=N the evaluation of that checkpoint, else the latest.",
        ),
    ],
    out: Annotated[Path, typer.Option("--out", metavar="PNG", help="The picture to write.")],
    images: Annotated[
        int, typer.Option("--images", min=1, max=8, help="Test images shown of each job.")
    ] = 4,
    storage: Storage = None,
) -> None:
    """Draw jobs' restorations in one figure. Original, degraded and by each sampler, a block for
    each job.
    """
    from colddiff.data.pil_images import with_png_text
    from colddiff.errors import SpecError
    from colddiff.jobs.pages.find import find_jobs
    from colddiff.report.figure import MARK, draw_figure
    from colddiff.stores.local_store import LocalStore
    from colddiff.stores.open import storage_at

    _refuse_other_file(out)
    runs = _drawable(find_jobs(jobs, storage_at(storage)))
    picture = draw_figure(runs, images)
    names = json.dumps([run.id for run in runs])
    if not out.parent.is_dir():
        raise SpecError(f"--out: no such folder: {str(out.parent)!r}; create it first")
    # Whole or not at all: a picture of an earlier call stays until this one is complete.
    LocalStore(out.parent.absolute()).put(out.name, with_png_text(picture, MARK, names))
    for run in runs:
        note(f"{run.name}: {run.state}")
    emit(str(out))


def _drawable(named: Sequence[NamedJob]) -> list[ReportedRun]:
    """The jobs with images; of those that a pattern stands for, the others are named in notes."""
    from colddiff.checkpoints.format import Checkpoints
    from colddiff.errors import ColddiffError
    from colddiff.jobs.pages.read import read_run
    from colddiff.report.figure import refuse_undrawn

    found: list[ReportedRun] = []
    left_out: list[ColddiffError] = []
    for one in named:
        kept = Checkpoints.of(one.folder)
        try:
            run = read_run(one.folder, step=one.step)
            refuse_undrawn(run, kept.steps)
        except ColddiffError as error:
            if not one.among:
                raise
            left_out.append(error)
        else:
            found.append(run)
    if not found:
        raise left_out[0]
    for line in left_out:
        note(f"left out: {line}")
    return found


def _refuse_other_file(out: Path) -> None:
    """SpecError if the figure would replace a file that is no figure."""
    from colddiff.data.pil_images import png_text
    from colddiff.errors import SpecError
    from colddiff.machine.files import is_regular, read_regular
    from colddiff.report.figure import MARK

    if out.suffix.lower() != ".png":
        raise SpecError(f"--out: {out} must end in .png")
    if out.exists() and not (is_regular(out) and png_text(read_regular(out), MARK) is not None):
        raise SpecError(
            f"--out: {out} already exists and was not drawn by `colddiff figure`, so it is not "
            "replaced; use another name"
        )
