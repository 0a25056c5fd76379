"""One column of evaluations against another: better, worse, not distinguished, and how sure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from colddiff.errors import DataError
from colddiff.evaluation.best import higher_is_better
from colddiff.report.grids import number
from colddiff.report.page.run import Measured
from colddiff.report.page.statistics import Float64, Interval, mean_interval, paired_difference
from colddiff.report.page.table import text_of

OF_IMAGES = ("rmse", "psnr", "ssim")
"""Metrics that are made of a value per image, which evaluations keep."""
INTERVALS = (
    "In square brackets: 95 % paired bootstrap intervals of the difference over the test images. "
    "They hold for these checkpoints, not for trainings with other seeds."
)
_INTERVAL = re.compile(r"difference [^ ]+ \[[^ ]+, [^ ]+\]")


@dataclass(frozen=True, slots=True)
class Side:
    """A column of the evaluations of one job, or of all seeds of a job."""

    measured: tuple[Measured, ...]
    column: str

    def mean(self, metric: str) -> Interval | None:
        """The metric's mean over the seeds; None if there is none."""
        path = f"eval/{self.column}/{metric}"
        values = [one.metrics[path] for one in self.measured if path in one.metrics]
        return mean_interval(values) if values else None

    @property
    def rmse(self) -> float | None:
        """The mean RMSE; None if there is none."""
        mean = self.mean("rmse")
        return None if mean is None else mean.value


def contrast_text(metric: str, a: Side, b: Side) -> str:
    """What ``a`` is against ``b`` in ``metric``, their values, and how sure; "" without values.

    Two jobs of one seed each by the paired difference over their images, which must be the same;
    jobs of several seeds by their intervals over seeds. Without either it is undecided.
    """
    ours, theirs = a.mean(metric), b.mean(metric)
    if ours is None or theirs is None:
        return ""
    values = f"{text_of(metric, ours.value)} against {text_of(metric, theirs.value)}"
    if max(ours.n, theirs.n) > 1:
        if min(ours.n, theirs.n) == 1:
            return f"undecided in {metric} ({values}: one seed, no interval)"
        apart = ours.parts_from(theirs)
        word = _word(metric, ours.value - theirs.value) if apart else "not distinguished"
        return f"{word} in {metric} ({values}{': the intervals part' if apart else ''})"
    found = difference(metric, a, b)
    if found is None or found.low is None or found.high is None:
        return f"undecided in {metric} ({values}: {_why_none(metric, a, b)}, no interval)"
    same = found.low <= 0 <= found.high
    word = "not distinguished" if same else _word(metric, found.value)
    value, low, high = (number(one, sign="+") for one in (found.value, found.low, found.high))
    sure = f"difference {value} [{low}, {high}]"
    return f"{word} in {metric} ({values}, {sure})"


def over_text(a: Side, b: Side) -> str:
    """Over what the two are compared: ``over 30 images`` or ``over 3 seeds``."""
    counts = list(dict.fromkeys((len(a.measured), len(b.measured))))
    if counts == [1]:
        return f"over {a.measured[0].provenance.get('n')} images"
    return f"over {' and '.join(map(str, counts))} seeds"


def has_interval(sentences: Iterable[str]) -> bool:
    """Whether one of the sentences has an interval over images."""
    return any(_INTERVAL.search(text) for text in sentences)


def with_note(sentences: Sequence[str]) -> list[str]:
    """The sentences, and once, below the last one that has an interval, what intervals are."""
    have = [place for place, text in enumerate(sentences, 1) if _INTERVAL.search(text)]
    return [*sentences[: have[-1]], INTERVALS, *sentences[have[-1] :]] if have else list(sentences)


def difference(metric: str, a: Side, b: Side) -> Interval | None:
    """The paired difference over the images of the first evaluations; None if it has none."""
    ours, theirs = (_scores(metric, side) for side in (a, b))
    if ours is None or theirs is None:
        return None
    try:
        return paired_difference(ours, theirs, metric)
    except DataError:
        return None


def _why_none(metric: str, a: Side, b: Side) -> str:
    if metric not in OF_IMAGES:
        return "one seed"
    if _scores(metric, a) is None or _scores(metric, b) is None:
        return "values per image are not recorded"
    return "values of some images are not finite, or there is one image"


def _scores(metric: str, side: Side) -> Float64 | None:
    details = side.measured[0].details
    if details is None or metric not in OF_IMAGES:
        return None
    return (details.ssim if metric == "ssim" else details.mse).get(side.column)


def _word(metric: str, change: float) -> str:
    return "better" if (change > 0) == higher_is_better(metric) else "worse"
