"""Three sentences on a run: what was undone, whether sampling beats one step, what to run next."""

from __future__ import annotations

from collections.abc import Sequence

from colddiff.evaluation.best import is_best
from colddiff.report.grids import distance_names
from colddiff.report.page.contrast import Side, contrast_text, over_text
from colddiff.report.page.run import Measured, ReportedRun
from colddiff.report.page.table import ResultTable
from colddiff.samplers import CURVE, column_labels

DIRECT, SAMPLED, DEGRADED = "direct", "sampled", "degraded"
STILL_FALLING = 0.03
"""Relative gain of the last evaluation over the one before that counts as still improving."""


def verdict(run: ReportedRun, table: ResultTable | None = None) -> list[str]:
    """Up to three sentences; a run that measured nothing says so and how to go on.

    With ``table`` of several seeds, the numbers are their means, and the second sentence compares
    their intervals.
    """
    last = run.last
    if run.state != "done":
        return [_standing(run), *([_undone(run, (last,))] if last else [])]
    if last is None or f"eval/{DEGRADED}/rmse" not in last.metrics:
        return list(run.sentences) or ["This job measured no restoration."]
    measured = table.measured if table else (last,)
    told = [_undone(run, measured), _compared(last, table)]
    return [sentence for sentence in (*told, _next(run, table)) if sentence]


def verdict_of_several(tables: Sequence[ResultTable]) -> list[str]:
    """A sentence for each table, by its title.

    What is worse than no restoration is not praised for being better than another.
    """
    found = []
    for table in tables:
        first = table.measured[0]
        compared = "" if _worsens(table.measured) else _compared(first, table)
        told = compared or _undone(table.runs[0], table.measured)
        found.append(f"{table.title}: {told.removesuffix('.')}.")
    return found


def _standing(run: ReportedRun) -> str:
    status = run.status
    step, of = status.get("step", 0), status.get("num_steps", 0)
    reason = f": {status['message']}" if status.get("message") else ""
    return f"The job is {run.state} at {step} of {of}{reason}."


def _undone(run: ReportedRun, measured: tuple[Measured, ...]) -> str:
    last, seeds = measured[0], len(measured)
    D = last.provenance.get("degradation", {})
    severities = last.provenance.get("severities", [])
    start = severities[0] if severities else D.get("num_timesteps")
    before, (column, after) = Side(measured, DEGRADED).rmse, best_restoration(measured)
    if before is None or after is None:
        return f"Evaluated on {last.provenance.get('n')} test images."
    change = 100 * (1 - after / before) if before > 0 else 0.0
    label = column_labels([column])[column]
    where = f" after step {last.step}" if run.verb == "train" else ""
    effect = (
        f"takes the RMSE from {before:.3f} to {after:.3f}, {change:.0f} % less"
        if change >= 0
        else f"makes the RMSE worse, {after:.3f} instead of {before:.3f}"
    )
    means = f", mean of {seeds} seeds" if seeds > 1 else ""
    return (
        f"Of {str(D.get('kind', 'the degradation')).replace('_', ' ')} at severity {start}, the "
        f"restorer{where} {effect} ({label}, {last.provenance.get('n')} test images{means})."
    )


def _worsens(measured: tuple[Measured, ...]) -> bool:
    """Whether even the best restoration is further from the originals than the degraded images."""
    before, (_, after) = Side(measured, DEGRADED).rmse, best_restoration(measured)
    return before is not None and after is not None and after > before


def best_restoration(measured: tuple[Measured, ...]) -> tuple[str, float | None]:
    """The sampler's column with the lowest RMSE; of several seeds, their means."""
    columns = dict.fromkeys(
        path.split("/")[1]
        for path in measured[0].metrics
        if path.startswith("eval/") and path.endswith("/rmse")
    )
    scored = {
        name: value
        for name in columns
        if name != DEGRADED
        and not name.startswith(CURVE)
        and (value := Side(measured, name).rmse) is not None
    }
    if not scored:
        return DIRECT, None
    name = min(scored, key=lambda one: scored[one])
    return name, scored[name]


def _compared(last: Measured, table: ResultTable | None) -> str:
    """Whether Algorithm 2 beats one step, in distance and in error, and how sure that is."""
    measured = table.measured if table else (last,)
    a, b = Side(measured, SAMPLED), Side(measured, DIRECT)
    parts = [contrast_text(metric, a, b) for metric in telling_metrics(last)]
    if not any(parts):
        return ""
    told = ", ".join(filter(None, parts))
    return f"Sampling (Algorithm 2, improved) against one step (direct) {over_text(a, b)}: {told}."


def telling_metrics(last: Measured) -> list[str]:
    """The metrics that verdicts speak of: a distance that fits the images, RMSE and SSIM.

    One that does not fit says nothing of them, but is spoken of where `evaluation.best` names it.
    """
    distances = [
        name
        for name in distance_names(last.metrics)[:1]
        if not last.provenance.get("misfit") or is_best(name, last.provenance, last.best)
    ]
    return [*distances, "rmse", "ssim"]


def _next(run: ReportedRun, table: ResultTable | None) -> str:
    if run.verb == "train" and _improving(run.evaluations):
        steps = int(run.spec.get("num_steps", 0))
        return f"The last evaluation still improved: run it on with num_steps={2 * steps}."
    if run.verb == "train" and (table is None or len(table.runs) < 2):
        return "One seed says nothing about the spread: train seed=1 and seed=2 too, and compare."
    if run.verb == "evaluate":
        return "For the spread over trainings, evaluate checkpoints of other seeds the same way."
    return ""


def _improving(evaluations: Sequence[Measured]) -> bool:
    if len(evaluations) < 2:
        return False
    before, after = (best_restoration((one,))[1] for one in evaluations[-2:])
    return before is not None and after is not None and after < before * (1 - STILL_FALLING)
