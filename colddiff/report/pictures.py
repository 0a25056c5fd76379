"""Pictures of an evaluation, as file contents by name."""

from __future__ import annotations

from collections.abc import Sequence

from colddiff.evaluation.best import shown_metrics, shown_notes, unfit_metric
from colddiff.evaluation.result import Evaluation
from colddiff.report.grids import comparison_grid
from colddiff.report.strips import trajectory_animation, trajectory_strip

SAMPLES = "samples.png"
"""The sheet of samples from the terminal, beside the pictures of restorations."""


def evaluation_pictures(
    evaluation: Evaluation,
    losses: Sequence[tuple[int, float]] = (),
    best: str | None = None,
) -> dict[str, bytes]:
    """Draw ``grid.png``, ``strip.png`` and ``strip.gif`` (if a sampler took steps), and
    ``loss.png`` (if there are ``losses``, pairs of step and training loss).

    ``best``: ``evaluation.best`` of the job, which may ask for a distance that does not fit.
    """
    if not evaluation.pictures:
        return {}
    provenance = evaluation.provenance
    kind, severity = provenance["degradation"]["kind"], provenance["severities"][0]
    found = {
        "grid.png": comparison_grid(
            evaluation.pictures,
            shown_metrics(evaluation.metrics, provenance, best),
            title=f"{kind.capitalize()} of severity {severity}, restored",
            subtitle=f"metrics over all {provenance['n']} test images",
            notes=shown_notes(provenance, best),
            last=unfit_metric(provenance),
        )
    }
    path = evaluation.trajectory
    if path is not None:
        title = f"{path.label} on {kind}"
        found["strip.png"] = trajectory_strip(path, title=title)
        found["strip.gif"] = trajectory_animation(path, title=title)
    if losses:
        # Only here: importing matplotlib takes a second, also in each worker of a training.
        from colddiff.report.curves import loss_curve

        steps, values = zip(*losses, strict=True)
        found["loss.png"] = loss_curve(steps, values)
    return found
