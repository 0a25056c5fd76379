"""Which metric stands for an evaluation, and which of several is the best: `JOB@best`, lists."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

IMAGE_METRICS = ("rmse", "ssim", "psnr")
HIGHER_IS_BETTER = ("ssim", "psnr", "precision", "recall", "density", "coverage")
"""First words of metrics; those of two sets have the features behind it."""
DIGITS = "fd_lenet"
DIGIT_SIDE, DIGIT_CHANNELS = 16, 1
"""The images that the network of ``fd_lenet`` was trained on: grey digits of 16 x 16 px."""
NUM_FEATURES = {"fid": 2048, "fd_lenet": 64, "fd_resnet20": 64}
"""By distance, where it is known; a covariance of fewer images than features is singular."""
MANY = 2**31
"""Images, where nobody has counted them: too many to be too few."""

REAL = "real against real"
"""What people read for ``eval/floor/...``, the distance between halves of the real images."""

_COMPARES = "compares grey digits"
_FIRST, _MADE = "eval/sampled", ("eval/generated", "eval/samples", "generate")
_DISTANCE = re.compile(r"fid|fd_\w+")
_NOT_RESTORED = re.compile(r"eval/(degraded|floor|curve_\d+)")


@dataclass(frozen=True, slots=True)
class BestStep:
    """The best of several evaluations, and the metric that says so."""

    step: int
    metric: str
    value: float


def higher_is_better(metric: str) -> bool:
    """Whether larger values of the metric at this path (or of this name) are better."""
    return metric.rpartition("/")[2].partition("_")[0] in HIGHER_IS_BETTER


def is_distance(metric: str) -> bool:
    """Whether the metric at this path (or of this name) is a Frechet distance."""
    return _DISTANCE.fullmatch(metric.rpartition("/")[2]) is not None


def misfit(distance: str, shape: Sequence[int], n: int) -> str | None:
    """Why a Frechet distance does not fit ``n`` images [C, H, W]; None if it does.

    >>> misfit("fd_lenet", (3, 64, 64), 1000)
    'fd_lenet compares grey digits of 16 x 16 px, and these images are 3 x 64 x 64'
    >>> misfit("fd_lenet", (1, 16, 16), 64)
    '64 images are too few for the 64 features of fd_lenet'
    >>> misfit("fd_lenet", (1, 16, 16), 65)
    """
    if n <= NUM_FEATURES.get(distance, 0):
        few = f"{n} images are too few for the {NUM_FEATURES[distance]} features of {distance}"
        return _other_images(distance, shape) or few
    return _other_images(distance, shape)


def _other_images(distance: str, shape: Sequence[int]) -> str | None:
    if distance != DIGITS or tuple(shape) == (DIGIT_CHANNELS, DIGIT_SIDE, DIGIT_SIDE):
        return None
    known, images = f"{DIGIT_SIDE} x {DIGIT_SIDE}", " x ".join(map(str, shape))
    return f"{distance} {_COMPARES} of {known} px, and these images are {images}"


def is_best(distance: str, provenance: Mapping[str, Any], best: str | None) -> bool:
    """Whether ``evaluation.best`` names the distance; ``best`` is that of the job.

    Of an evaluation by itself, that of the training is in ``provenance``.
    """
    return _names(best or provenance.get("best"), distance)


def _names(best: str | None, distance: str) -> bool:
    return (best or "").rpartition("/")[2] == distance


def is_unasked(distance: str, misfit: object, best: str | None, *, alone: bool = False) -> bool:
    """Whether people are not shown a distance: of other images, and nobody asked for it.

    The digits' features are the default of jobs, so who has them need not have chosen them.

    Args:
        distance: its name.
        misfit: what ``misfit`` said of it, as records hold it.
        best: ``evaluation.best`` of the job; a distance that it names was asked for.
        alone: images made without an image are compared, which have no other measure.
    """
    asked = alone or distance != DIGITS or _names(best, distance)
    # Of few digits the distance is biased, but it is one of digits.
    return _COMPARES in str(misfit or "") and not asked


def left_out(provenance: Mapping[str, Any], best: str | None) -> str | None:
    """The distance of an evaluation that people are not shown (``is_unasked``), if there is one.

    ``best``: ``evaluation.best`` of its job; of an evaluation by itself, that of the training is in
    ``provenance``. What is stored holds it all the same.
    """
    best = best or provenance.get("best")
    metric, alone = provenance.get("metric"), {"generated", "samples_manifest"} & set(provenance)
    if isinstance(metric, str) and is_unasked(
        metric, provenance.get("misfit"), best, alone=bool(alone)
    ):
        return metric
    return None


def shown_metrics(
    metrics: Mapping[str, float], provenance: Mapping[str, Any], best: str | None
) -> dict[str, float]:
    """The metrics of an evaluation that people are shown."""
    hidden = left_out(provenance, best)
    return {path: value for path, value in metrics.items() if path.rpartition("/")[2] != hidden}


def unfit_metric(provenance: Mapping[str, Any]) -> str | None:
    """The distance of an evaluation that does not fit: wherever it is shown, last and unmarked."""
    return provenance.get("metric") if provenance.get("misfit") else None


def misfit_warning(
    distance: str, shape: Sequence[int], n: int, best: str | None, *, of_sets: bool = False
) -> str | None:
    """A line for who submits an evaluation whose distance does not fit; ``best``: what does.

    ``of_sets``: two sets are compared, which have no errors of single images.
    """
    why = misfit(distance, shape, n)
    if why is None:
        return None
    if of_sets:
        return f"{why}; choose other features (`colddiff features`)"
    instead = f"{best} tells the best checkpoint" if best else "read rmse, ssim and psnr"
    return f"{why}; {instead}, or choose other features (`colddiff features`)"


def standing_metric(
    paths: Iterable[str], *, wanted: str | None = None, misfits: Collection[str] = ()
) -> str | None:
    """The one of ``paths`` that stands for an evaluation; None without one that could.

    ``wanted`` if it is given; else the Frechet distance of Algorithm 2, or its RMSE where the
    distance is one of ``misfits``; else that of images made without an image, where there is no
    other measure; else that of another sampler.
    """
    there = sorted(paths)
    if wanted is not None:
        return wanted if wanted in there else None
    columns: list[str] = [_FIRST, *_MADE]
    restored = [path for path in there if re.fullmatch(r"eval/\w+/\w+", path)]
    columns += [
        column
        for column in dict.fromkeys(path.rpartition("/")[0] for path in restored)
        if column not in columns and not _NOT_RESTORED.fullmatch(column)
    ]
    made = [path for path in there if path.rpartition("/")[0] in _MADE and is_distance(path)]
    for column in columns:
        below = [path for path in there if path.rpartition("/")[0] == column]
        distances = [path for path in below if is_distance(path)]
        fitting = [path for path in distances if path.rpartition("/")[2] not in misfits]
        error = [path for path in below if path.endswith("/rmse")]
        found: list[str] = [*fitting, *error, *(made if column in _MADE else ())]
        if found:
            return found[0]
    return None


def best_step(records: Mapping[int, Mapping[str, Any]], job: Mapping[str, Any]) -> BestStep | None:
    """The best of a training's evaluations, ``{metrics, provenance}`` by step; None without one.

    ``job`` is the spec of the training job, as data: its ``evaluation.best``, else what
    ``standing_metric`` says of the last evaluation; of equal values, the earliest step's. An
    evaluation without that metric is left out, and so is one on other test images, or on another
    number of them, than the last: its value says nothing beside it.
    """
    metric = None
    for step in sorted(records, reverse=True):
        metric = metric or metric_of_record(records[step], job)
    if metric is None:
        return None
    values = {step: _finite(record).get(metric) for step, record in records.items()}
    sign = -1.0 if higher_is_better(metric) else 1.0
    last = max(step for step, value in values.items() if value is not None)
    scored = [
        (sign * value, step)
        for step, value in values.items()
        if value is not None and _test_images(records[step]) == _test_images(records[last])
    ]
    value, step = min(scored)
    return BestStep(step, metric, sign * value)


def _test_images(record: Mapping[str, Any]) -> list[Any]:
    provenance = record.get("provenance") or {}
    return [provenance.get(name) for name in ("n", "reference_sha256")]


def metric_of_record(record: Mapping[str, Any], job: Mapping[str, Any]) -> str | None:
    """Path of the metric that stands for one evaluation of a training job; None without one."""
    wanted: str | None = (job.get("evaluation") or {}).get("best")
    metrics = _finite(record)
    n = (record.get("provenance") or {}).get("n")
    misfits = []
    if {"channels", "image_size"} <= job.keys() and isinstance(n, int):
        shape = (job["channels"], job["image_size"], job["image_size"])
        names = {path.rpartition("/")[2] for path in metrics}
        # Of networks that somebody chose, only for what they are: all fit but the digits'.
        misfits = [name for name in names & {DIGITS} if misfit(name, shape, n)]
    return standing_metric(metrics, wanted=wanted, misfits=misfits)


def _finite(record: Mapping[str, Any]) -> dict[str, float]:
    found = record.get("metrics") or {}
    return {
        path: float(value)
        for path, value in found.items()
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    }


def notes_on_restored(distance: str, shape: Sequence[int], n: int, features: int) -> list[str]:
    """What to know of the distances of restorations of ``n`` test images [C, H, W]."""
    about = (
        f"{REAL} is the distance between two random halves of the {n} test images; a restoration "
        "can be below it, because it is compared with the very images it was made from"
    )
    return [about, *_caveats(distance, shape, n, features)]


def notes_on_sets(distance: str, shape: Sequence[int], n: int, m: int, features: int) -> list[str]:
    """What to know of the distance of ``n`` samples to ``m`` reference images [C, H, W]."""
    about = f"{REAL} is the distance between two random halves of the {m} reference images"
    return [about, *_caveats(distance, shape, min(n, m), features)]


def _caveats(distance: str, shape: Sequence[int], n: int, features: int) -> list[str]:
    found = []
    if (other := _other_images(distance, shape)) is not None:
        found.append(other)
    if n <= features:
        found.append(
            f"{n} images for {features} features: Frechet distances are biased upwards, compare "
            "them at equal n only"
        )
    return found


def shown_notes(provenance: Mapping[str, Any], best: str | None) -> list[str]:
    """``notes_of``, which are of distances: none where people are not shown its distance."""
    return [] if left_out(provenance, best) else notes_of(provenance)


def notes_of(provenance: Mapping[str, Any]) -> list[str]:
    """What stands below the distances of an evaluation, wherever they are shown."""
    # Records of earlier versions call it by its place in metric paths.
    return [
        f"{REAL} is {note.removeprefix('floor: ')}" if note.startswith("floor: ") else str(note)
        for note in map(str, provenance.get("notes") or ())
    ]
