"""What D(x, T) of a job still says about x, and the fields that would remove more of it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from colddiff.degradations import Degradation
from colddiff.errors import SpecError
from colddiff.schedules import ScheduleSpec
from colddiff.terminal import TerminalSpec, terminal_spec
from colddiff.terminals import information
from colddiff.types import Image, Omega
from colddiff.verbs.search.points.space import DEGRADATION

if TYPE_CHECKING:
    from colddiff.degradations.spec import DegradationSpec
    from colddiff.verbs.train.job import TrainJob

MOST_INFORMATION = 0.02
"""Part of the variance of x that may be explained from D(x, T): what chance and rounding leave."""

STRONGER = 10.0
"""Factor on a schedule's values when the field that would remove more is looked for."""


def held_information(job: TrainJob, x0: Image, omega: Omega) -> float:
    """Part of the variance of x, 0..1, that a linear restorer recovers from D(x, T) of ``job``.

    SpecError if D has no terminal.
    """
    D = job.degradation.build(job.shape)
    return information.held_information(D, terminal_of(job, D), x0, omega)


def terminal_of(job: TrainJob, D: Degradation[Any]) -> TerminalSpec:
    """The terminal that samples of ``job`` start from; SpecError if it has none."""
    spec = terminal_spec(D, job.terminal)
    if spec is None:
        what = f"{job.degradation.kind} has no distribution of x_T to draw samples from"
        raise SpecError([("terminal", what)])
    return spec


def stronger(job: TrainJob) -> Iterator[tuple[str, Any, TrainJob]]:
    """Jobs whose D may remove more at T than the one of ``job``: field changed, its value, job.

    Switches are turned, schedules multiplied by ``STRONGER``, and numbers doubled, in that order,
    ``num_timesteps`` last.
    """
    spec = job.degradation
    fields = sorted(type(spec).model_fields, key=lambda name: _order(spec, name))
    for name in fields:
        for value in _more(getattr(spec, name)):
            try:
                data = {**spec.to_dict(), name: value}
                changed = type(job).model_validate({**job.to_dict(), DEGRADATION: data})
            except (SpecError, ValueError):
                continue
            yield f"{DEGRADATION}.{name}", value, changed
            break


def _order(spec: DegradationSpec, name: str) -> tuple[bool, bool, bool]:
    value = getattr(spec, name)
    return (
        name == "num_timesteps",
        not isinstance(value, bool),
        not isinstance(value, ScheduleSpec),
    )


def _more(value: Any) -> list[Any]:
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, ScheduleSpec):
        try:
            return [value.mapped(lambda entry: entry * STRONGER).to_dict()]
        except SpecError:
            return []
    # Some numbers are odd.
    return [2 * value, 2 * value + 1] if isinstance(value, int | float) else []
