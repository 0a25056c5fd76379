"""A figure like the paper's: original, degraded and each sampler, of one or more jobs."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image

from colddiff.errors import DataError
from colddiff.report.grids import comparison_sheet
from colddiff.report.page.details import Details, ShownImage
from colddiff.report.page.run import Measured, ReportedRun
from colddiff.report.page.sprites import cells_of
from colddiff.report.sheets import PAPER, png

MARK = "colddiff-figure"
"""Keyword of a text chunk in the pictures."""
FIRST = "first"
"""The role of an image that was not chosen by its error."""


def draw_figure(runs: Sequence[ReportedRun], num_images: int = 4) -> bytes:
    """A PNG with a block for each job: its first ``num_images`` test images, a row each.

    Columns are original, degraded and each sampler, captioned with the metrics over all test
    images; of the evaluation that is shown of the job.

    None is of those that ``refuse_undrawn`` refuses.
    """
    return png(_stacked([_block(run, num_images) for run in runs]))


def refuse_undrawn(run: ReportedRun, checkpoints: Callable[[], Sequence[int]]) -> None:
    """Raises DataError for a job that keeps no images of an evaluation, with the way out.

    ``checkpoints``: the steps of those that a training has; called where it is not evaluated.
    """
    last, way = run.last, ""
    if last is not None and last.details is not None and _first(last.details):
        return
    why = "is not evaluated yet" if last is None else "keeps no images of its evaluation"
    if last is None and run.verb == "train" and not checkpoints():
        why = f"has no checkpoint ({run.state} at step {run.status.get('step', 0)})"
        way = f"; `colddiff logs {run.id}` says more"
    elif run.verb == "train":
        way = f"; evaluate its checkpoint: `colddiff submit evaluate checkpoint={run.id}`"
    raise DataError(f"{run.id} {why}, so there is nothing to draw{way}")


def _block(run: ReportedRun, num_images: int) -> Image.Image:
    last = run.last
    assert last is not None
    assert last.details is not None
    shown = _first(last.details)[:num_images]
    columns = shown[0].columns
    rows = np.stack([cells_of(one.sheet, 1, len(columns))[0] for one in shown])
    pictures = {name: rows[:, number] for number, name in enumerate(columns)}
    return comparison_sheet(
        pictures,
        last.shown(),
        title=_title(run, last),
        subtitle=f"{run.id}, step {last.step}",
        notes=last.notes,
        max_rows=num_images,
        last=last.unfit,
    )


def _first(details: Details) -> list[ShownImage]:
    return [one for one in details.shown if one.role == FIRST]


def _title(run: ReportedRun, last: Measured) -> str:
    """``Blur of severity 20, restored``."""
    degradation = last.provenance.get("degradation") or run.spec.get("degradation") or {}
    severities = last.provenance.get("severities") or [degradation.get("num_timesteps", "T")]
    kind = str(degradation.get("kind", "")).replace("_", " ")
    return f"{kind.capitalize()} of severity {severities[0]}, restored"


def _stacked(blocks: Sequence[Image.Image]) -> Image.Image:
    """Pictures one below the other, on white."""
    size = (max(block.width for block in blocks), sum(block.height for block in blocks))
    whole, top = Image.new("RGB", size, PAPER), 0
    for block in blocks:
        whole.paste(block, (0, top))
        top += block.height
    return whole
