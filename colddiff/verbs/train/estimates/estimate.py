"""Estimate of a training job before it starts: FLOPs, bytes, hours at a given rate."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from colddiff.errors import SpecError
from colddiff.jobs.job import AUTO
from colddiff.jobs.status import hours_text
from colddiff.jobs.verb import NO_RATE
from colddiff.verbs.train.estimates.cost import Cost, cost_of, si_text
from colddiff.verbs.train.estimates.evaluations import evaluation_work
from colddiff.verbs.train.job import TrainJob

MEASURED = "auto"
MOST_HOURS = 1e12
RATE = re.compile(r"([0-9.]+(?:e[+-]?[0-9]+)?) *(img/s|tflops|tflop/s)?", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Estimate:
    """Estimate of a whole job; hours need a rate, GPU hours also a number of workers, else None.

    A multiply-add is two FLOPs; those of D and the optimizer are not counted. Evaluations are a
    part of their own, by one worker: all but the last run beside the steps.
    """

    parameters: int
    forward_flops_per_image: float
    training_flops_per_image: float
    flops_per_step: float
    flops: float
    images: int
    checkpoint_bytes: int
    images_per_s: float | None = None
    hours: float | None = None
    gpu_hours: float | None = None
    measured: str = ""
    """How the rate was measured; "" if it was given."""
    evaluations: int = 0
    evaluation_calls: int | None = None
    """Network calls, one image each, of an evaluation; None where the number of its images follows
    from data that is not here."""
    evaluation_flops: float | None = None
    """Of all evaluations."""
    evaluation_hours: float | None = None
    besides: Sequence[str] = ()
    """The line on the evaluations, if there are any."""
    problems: Sequence[tuple[str, str]] = ()
    """Why they would fail, by field."""

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        text = ("besides", "problems")
        return {name: value for name, value in asdict(self).items() if name not in text}

    def lines(self) -> list[str]:
        """Lines for people."""
        per_image = f"{si_text(self.training_flops_per_image)}FLOP an image, forward and backward"
        lines = [
            f"{self.parameters / 1e6:,.1f} M parameters; {per_image}; "
            f"{si_text(self.flops_per_step)}FLOP a step, {si_text(self.flops)}FLOP the job",
            f"{self.images:,} images; a checkpoint is {self.checkpoint_bytes / 1e6:,.0f} MB",
        ]
        if self.hours is None:
            lines += self.besides
            lines.append(NO_RATE)
        else:
            lines += [self.measured] if self.measured else []
            line = f"at {self.images_per_s:,.4g} images/s: {hours_text(self.hours)}"
            if self.gpu_hours is None:
                line += "; GPU hours follow from what `all` or `auto` will be on the cluster"
            elif self.gpu_hours:
                line += f", {self.gpu_hours:,.3g} GPU hours"
            lines.append(line)
            lines += self.besides
        return lines


def estimate(job: TrainJob, rate: str | None = None) -> Estimate:
    """Estimates ``job``; contacts and allocates nothing.

    ``rate`` of all workers together: images per second (``850``), ``40TFLOP/s``, or ``auto``, which
    measures it on this machine in at most 20 s. Raises SpecError for anything else.
    """
    cost = cost_of(job)
    per_image, images = cost.training_flops, job.num_steps * job.global_batch_size
    images_per_s = hours = gpu_hours = None
    measured = ""
    if rate == MEASURED:
        from colddiff.verbs.train.estimates.measured_rate import measured_rate

        found = measured_rate(job)
        images_per_s, measured = found.images_per_s, found.line(per_image)
    elif rate is not None:
        images_per_s = _images_per_s(rate, per_image)
        _refuse_endless(rate, images_per_s, images)
    if images_per_s is not None:
        hours = images / images_per_s / 3600
        gpus = _gpus(job)
        gpu_hours = None if gpus is None else gpus * hours
    return Estimate(
        parameters=cost.parameters,
        forward_flops_per_image=cost.forward_flops,
        training_flops_per_image=per_image,
        flops_per_step=per_image * job.global_batch_size,
        flops=per_image * images,
        images=images,
        checkpoint_bytes=cost.checkpoint_bytes,
        images_per_s=images_per_s,
        hours=hours,
        gpu_hours=gpu_hours,
        measured=measured,
        **_evaluations(job, cost, images_per_s),
    )


def _evaluations(job: TrainJob, cost: Cost, images_per_s: float | None) -> dict[str, Any]:
    """The fields about evaluations."""
    try:
        work = evaluation_work(job)
    except SpecError as error:
        return {"problems": error.problems}
    if work is None:
        none_at_all = None if images_per_s is None else 0.0
        return {
            "evaluation_calls": 0,
            "evaluation_flops": 0.0,
            "evaluation_hours": none_at_all,
        }
    calls, workers = work.calls, _workers(job)
    flops = None if calls is None else work.count * calls * cost.forward_flops
    hours = None
    if flops is not None and images_per_s is not None and workers is not None:
        hours = flops / (cost.training_flops * images_per_s / workers) / 3600
    return {
        "evaluations": work.count,
        "evaluation_calls": calls,
        "evaluation_flops": flops,
        "evaluation_hours": hours,
        "besides": [work.line(cost.forward_flops, hours)],
    }


def _images_per_s(rate: str, flops_per_image: float) -> float:
    match = RATE.fullmatch(rate.strip())
    try:
        value = float(match.group(1)) if match else 0.0
    except ValueError:
        value = 0.0
    if match is None or value <= 0:
        raise SpecError(
            f"--rate: write images per second, such as 850, or 40TFLOP/s, or auto, got {rate!r}"
        )
    unit = (match.group(2) or "img/s").lower()
    return value if unit == "img/s" else value * 1e12 / flops_per_image


def _refuse_endless(rate: str, images_per_s: float, images: int) -> None:
    # The least float is above 0, and what is divided by it is no number of hours.
    if not (0 < images_per_s < math.inf and images / images_per_s / 3600 <= MOST_HOURS):
        raise SpecError(f"--rate: {rate} is no rate of this job: it gives no number of hours")


def _gpus(job: TrainJob) -> float | None:
    if job.resources.gpus == AUTO or (job.workers == "all" and job.resources.gpus):
        return None
    return job.resources.num_gpus * (_workers(job) or 0)


def _workers(job: TrainJob) -> int | None:
    """The most that there are; None where the cluster says how many."""
    if job.workers == "all":
        return None
    return job.workers if isinstance(job.workers, int) else job.workers[1]
