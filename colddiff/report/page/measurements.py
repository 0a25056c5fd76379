"""The plots of a run: what D removes, what R restores, training, and quality against calls."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from colddiff.report.grids import distance_names
from colddiff.report.page.details import Details
from colddiff.report.page.plots import Plot, PlotLine, line_plot, loss_plot
from colddiff.report.page.run import Measured, ReportedRun
from colddiff.samplers import CURVE, DEFAULT, SAMPLERS, column_labels
from colddiff.severity_profile import DEAD

MOST_PARAMETERS = 3


def plots_of(run: ReportedRun, only: Sequence[str] = ()) -> list[dict[str, Any]]:
    """Groups of plots with a title and a note; a group without plots is left out.

    A distance that does not fit the images is plotted only where it is asked for, as in ``only``.
    """
    last = run.last
    if last is None:
        return []
    details = last.details
    groups = [
        {
            "title": "Quality against the number of network calls",
            "note": f"{SAMPLERS[DEFAULT].label} with even severities; one call is one step from "
            "x_T.",
            "plots": _calls(last, only),
        },
        {
            "title": "What D removes, and what R restores",
            "note": _severity_note(details) if details else "",
            "plots": _severities(details) if details else [],
        },
        {
            "title": "Training",
            "note": "",
            "plots": [*_losses(details), *_over_training(run.evaluations, only)],
        },
    ]
    return [group for group in groups if group["plots"]]


def curve_calls(last: Measured) -> list[int]:
    """The numbers of network calls that were measured, rising."""
    names = {path.split("/")[1] for path in last.metrics if path.startswith(f"eval/{CURVE}")}
    return sorted(int(name.removeprefix(CURVE)) for name in names)


def _calls(last: Measured, only: Sequence[str]) -> list[Plot]:
    calls = curve_calls(last)
    if len(calls) < 2:
        return []
    plots = []
    for metric in _unfit_last(last, (*distance_names(last.shown(only)), "rmse", "ssim")):
        paths = [f"eval/{CURVE}{n}/{metric}" for n in calls]
        if all(path in last.metrics for path in paths):
            values = [last.metrics[path] for path in paths]
            plots.append(
                line_plot(
                    f"{metric} against calls",
                    [PlotLine(SAMPLERS[DEFAULT].label, calls, values, marked=True)],
                    "network calls an image",
                    metric,
                    log_x=True,
                )
            )
    return plots


def _severity_note(details: Details) -> str:
    if "removed" not in details.numbers:
        return ""
    steps = details.numbers["steps"]
    dead = [int(i) + 1 for i in np.flatnonzero(~(steps >= DEAD))]
    few = ", ".join(map(str, dead[:8])) + (", ..." if len(dead) > 8 else "")
    told = f"no dead steps among {len(steps)}" if not dead else f"dead steps: {few}"
    n = details.facts.get("num_images", 0)
    return f"Measured on {n} test images, on the scale [0, 1]; {told}."


def _severities(details: Details) -> list[Plot]:
    numbers = details.numbers
    if "removed" not in numbers:
        return []
    removed, steps = numbers["removed"], numbers["steps"]
    severities = np.array(details.facts["severities"], dtype=np.float64)
    T = len(steps)
    plots = [
        line_plot(
            "Error over severity",
            [
                PlotLine("D(x, t), given", np.arange(T + 1), removed, dashed=True),
                PlotLine(
                    "R(D(x, t), t), one step", severities[::-1], numbers["restored"][::-1], True
                ),
            ],
            "severity t",
            "RMSE against x",
            log_y=False,
        ),
        line_plot(
            "Pace: what one step of t changes",
            [PlotLine("D(x, t) - D(x, t - 1)", np.arange(1, T + 1), steps, marked=T <= 40)],
            "severity t",
            "RMSE",
            log_y=False,
        ),
        _spectra(details),
    ]
    for label, values in list(details.parameters.items())[:MOST_PARAMETERS]:
        t = np.arange(1, len(values) + 1)
        plots.append(
            line_plot(
                f"Schedule: {label}",
                [PlotLine(label, t, values, marked=len(values) <= 40)],
                "severity t",
                label,
            )
        )
    return plots


def _spectra(details: Details) -> Plot:
    spectra = details.numbers["spectra"]
    # Frequency 0 is the mean brightness, which would hide all others.
    frequencies = np.arange(1, spectra.shape[1])
    return line_plot(
        "Radial power spectrum",
        [
            PlotLine(f"t = {t}", frequencies, np.maximum(row[1:], 1e-12))
            for t, row in zip(details.facts["spectrum_severities"], spectra, strict=True)
        ],
        "cycles an image",
        "power",
        log_y=True,
    )


def _losses(details: Details | None) -> list[Plot]:
    if details is None or len(details.losses) < 2:
        return []
    return [loss_plot(details.losses)]


def _unfit_last(last: Measured, metrics: Sequence[str]) -> list[str]:
    return sorted(metrics, key=lambda name: name == last.unfit)


def _over_training(evaluations: Sequence[Measured], only: Sequence[str]) -> list[Plot]:
    if len(evaluations) < 2:
        return []
    plots = []
    last = evaluations[-1]
    metrics = last.shown(only)
    for metric in _unfit_last(last, (*distance_names(metrics)[:1], "rmse")):
        lines = []
        columns = {path.split("/")[1] for path in metrics if path.endswith(f"/{metric}")}
        for name, label in column_labels(columns - {"degraded", "floor"}).items():
            path = f"eval/{name}/{metric}"
            at = [one for one in evaluations if path in one.metrics]
            if len(at) > 1 and not name.startswith(CURVE):
                steps = [float(one.step) for one in at]
                lines.append(PlotLine(label, steps, [one.metrics[path] for one in at], marked=True))
        if lines:
            plots.append(line_plot(f"{metric} of checkpoints", lines, "optimizer step", metric))
    return plots
