"""Schedules: severity -> physical parameter. Entry i = 0..T-1 belongs to severity i + 1.

>>> SCHEDULES.parse({"kind": "linear", "start": 1.0, "step": 0.5}).entries(4)
array([1. , 1.5, 2. , 2.5])
>>> sorted(SCHEDULES)
['constant', 'exponential', 'linear', 'table']
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Annotated, Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, SerializeAsAny, model_validator

from colddiff.errors import SpecError
from colddiff.spec import KindOf, Range, Registry, Spec

FloatTable = NDArray[np.float64]


class ScheduleSpec(Spec):
    """A physical parameter as a function of severity."""

    kind: str

    @abstractmethod
    def entries(self, num_timesteps: int) -> FloatTable:
        """Values of the parameter, float64 [T]; entry i is for the step from severity i to i+1."""


SCHEDULES: Registry[ScheduleSpec] = Registry("schedule")
Schedule = Annotated[ScheduleSpec, SerializeAsAny(), KindOf(SCHEDULES)]


@SCHEDULES.register
class Constant(ScheduleSpec):
    """The same value at every severity.

    >>> Constant(value=2.0).entries(3)
    array([2., 2., 2.])
    """

    kind: Literal["constant"] = "constant"
    value: Annotated[float, Range(0.3, 10.0, log=True)]

    def entries(self, num_timesteps: int) -> FloatTable:
        return np.full(num_timesteps, self.value, dtype=np.float64)


class _Ramp(ScheduleSpec):
    start: float

    @staticmethod
    def _exactly_one(slopes: dict[str, Any]) -> None:
        if sum(value is not None for value in slopes.values()) != 1:
            names = " or ".join(slopes)
            raise SpecError(f"set exactly one of {names}, got {slopes!r}")


@SCHEDULES.register
class Linear(_Ramp):
    """start + step i; ``end`` (the value at T) can be set instead of ``step``.

    >>> Linear(start=1.0, end=3.0).entries(5)
    array([1. , 1.5, 2. , 2.5, 3. ])
    """

    kind: Literal["linear"] = "linear"
    start: Annotated[float, Range(0.1, 3.0, log=True)]
    step: Annotated[float | None, Range(0.005, 0.5, log=True)] = None
    end: Annotated[float | None, Range(1.0, 40.0, log=True)] = None

    @model_validator(mode="after")
    def _one_slope(self) -> Self:
        self._exactly_one({"step": self.step, "end": self.end})
        return self

    def entries(self, num_timesteps: int) -> FloatTable:
        if self.step is not None:
            return self.start + self.step * np.arange(num_timesteps, dtype=np.float64)
        assert self.end is not None
        return np.linspace(self.start, self.end, num_timesteps, dtype=np.float64)


@SCHEDULES.register
class Exponential(_Ramp):
    """start exp(rate i); ``end`` (the value at T) can be set instead of ``rate``.

    >>> Exponential(start=1.0, end=8.0).entries(4)
    array([1., 2., 4., 8.])
    """

    kind: Literal["exponential"] = "exponential"
    start: Annotated[float, Field(gt=0), Range(0.3, 3.0, log=True)] = 1.0
    rate: Annotated[float | None, Range(0.002, 0.1, log=True)] = None
    end: Annotated[float | None, Field(gt=0), Range(1.0, 40.0, log=True)] = None

    @model_validator(mode="after")
    def _one_slope(self) -> Self:
        self._exactly_one({"rate": self.rate, "end": self.end})
        return self

    def entries(self, num_timesteps: int) -> FloatTable:
        if self.rate is not None:
            # Overflow gives inf, which ``positive_values`` refuses by name.
            with np.errstate(over="ignore"):
                return self.start * np.exp(self.rate * np.arange(num_timesteps, dtype=np.float64))
        assert self.end is not None
        return np.geomspace(self.start, self.end, num_timesteps, dtype=np.float64)


@SCHEDULES.register
class Table(ScheduleSpec):
    """A table of values, one for each severity 1..T.

    >>> Table(values=(0.5, 1.0, 4.0)).entries(3)
    array([0.5, 1. , 4. ])
    """

    kind: Literal["table"] = "table"
    values: Annotated[tuple[float, ...], Field(min_length=1)]

    def entries(self, num_timesteps: int) -> FloatTable:
        if len(self.values) != num_timesteps:
            raise SpecError(
                [("values", f"has {len(self.values)} entries for num_timesteps={num_timesteps}")]
            )
        return np.asarray(self.values, dtype=np.float64)


def positive_values(schedule: ScheduleSpec, num_timesteps: int, name: str) -> FloatTable:
    """The schedule's values, float64 [T]; SpecError naming ``name`` unless positive and finite."""
    try:
        values = schedule.entries(num_timesteps)
    except SpecError as error:
        raise SpecError([(f"{name}.{path}", what) for path, what in error.problems]) from None
    wrong = np.flatnonzero(~(np.isfinite(values) & (values > 0)))
    if wrong.size:
        i = int(wrong[0])
        raise SpecError(
            [(name, f"must be positive and finite, is {values[i]:g} at severity {i + 1}")]
        )
    return values
