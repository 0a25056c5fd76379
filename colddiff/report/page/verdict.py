"""Three sentences on a run: what was undone, whether sampling beats one step, what to run next."""

from __future__ import annotations

from collections.abc import Sequence

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

    With ``table`` of several seeds, the second sentence compares their intervals.
    """
    last = run.last
    if run.state != "done":
        return [_standing(run), *([_undone(run, last)] if last else [])]
    if last is None or f"eval/{DEGRADED}/rmse" not in last.metrics:
        return list(run.sentences) or ["This job measured no restoration."]
    told = [_undone(run, last), _compared(last, table)]
    return [sentence for sentence in (*told, _next(run, table)) if sentence]


def verdict_of_several(tables: Sequence[ResultTable]) -> list[str]:
    """A sentence for each table, by its title.

    What is worse than no restoration is not praised for being better than another.
    """
    found = []
    for table in tables:
        first = table.measured[0]
        compared = "" if _worsens(first) else _compared(first, table)
        told = compared or _undone(table.runs[0], first)
        found.append(f"{table.title}: {told.removesuffix('.')}.")
    return found


def _standing(run: ReportedRun) -> str:
    status = run.status
    step, of = status.get("step", 0), status.get("num_steps", 0)
    reason = f": {status['message']}" if status.get("message") else ""
    return f"The job is {run.state} at {step} of {of}{reason}."


def _undone(run: ReportedRun, last: Measured) -> str:
    D = last.provenance.get("degradation", {})
    severities = last.provenance.get("severities", [])
    start = severities[0] if severities else D.get("num_timesteps")
    before = last.metrics.get(f"eval/{DEGRADED}/rmse")
    column, after = best_restoration(last)
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
    return (
        f"Of {str(D.get('kind', 'the degradation')).replace('_', ' ')} at severity {start}, the "
        f"restorer{where} {effect} ({label}, {last.provenance.get('n')} test images)."
    )


def _worsens(last: Measured) -> bool:
    """Whether even the best restoration is further from the originals than the degraded images."""
    before, (_, after) = last.metrics.get(f"eval/{DEGRADED}/rmse"), best_restoration(last)
    return before is not None and after is not None and after > before


def best_restoration(last: Measured) -> tuple[str, float | None]:
    """The sampler's column with the lowest RMSE."""
    scored = {
        path.split("/")[1]: value
        for path, value in last.metrics.items()
        if path.startswith("eval/") and path.endswith("/rmse")
    }
    for name in [name for name in scored if name == DEGRADED or name.startswith(CURVE)]:
        del scored[name]
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
    """The metrics that verdicts speak of: a distance that fits the images, RMSE and SSIM."""
    # A distance that does not fit the images says nothing of them.
    distances = [] if last.provenance.get("misfit") else distance_names(last.metrics)[:1]
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
    before, after = (best_restoration(one)[1] for one in evaluations[-2:])
    return before is not None and after is not None and after < before * (1 - STILL_FALLING)
