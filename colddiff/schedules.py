"""Schedules: severity -> physical parameter. Entry i = 0..T-1 belongs to severity i + 1.

>>> SCHEDULES.parse({"kind": "linear", "start": 1.0, "step": 0.5}).entries(4)
array([1. , 1.5, 2. , 2.5])
>>> sorted(SCHEDULES)
['constant', 'exponential', 'linear', 'table']
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal, Self, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, SerializeAsAny, model_validator

from colddiff.errors import SpecError
from colddiff.spec import Choices, KindOf, Range, Registry, SearchRange, Spec

FloatTable = NDArray[np.float64]

PATHS: Mapping[str, SearchRange] = {
    "ratio": Range(1 / 8, 8.0, log=True),
    "kind": Choices(("linear", "exponential")),
}
"""What is searched of a schedule as a path from the first value to the last: ``ratio`` is the last
over the first, so that falling, constant and rising paths are all found; ``kind`` is the curve."""

START = "value at severity 1"
END = "value at severity T"


class ScheduleSpec(Spec):
    """A physical parameter as a function of severity."""

    kind: str
    paths: ClassVar[Mapping[str, SearchRange]] = {}
    """``PATHS``, where a search may replace the schedule by a path between two values."""

    @abstractmethod
    def entries(self, num_timesteps: int) -> FloatTable:
        """Values of the parameter, float64 [T]; entry i is for the step from severity i to i+1."""

    def mapped(self, change: Callable[[float], float]) -> Self:
        """This schedule with ``change`` applied to each field that is in the parameter's unit.

        SpecError for a kind that does not say which fields those are.
        """
        raise SpecError(f"a schedule of kind {self.kind!r} cannot be scaled")


SCHEDULES: Registry[ScheduleSpec] = Registry("schedule")
Schedule = Annotated[ScheduleSpec, SerializeAsAny(), KindOf(SCHEDULES)]


@SCHEDULES.register
class Constant(ScheduleSpec):
    """The same value at every severity.

    >>> Constant(value=2.0).entries(3)
    array([2., 2., 2.])
    """

    kind: Literal["constant"] = "constant"
    paths: ClassVar[Mapping[str, SearchRange]] = PATHS
    value: Annotated[float, Field(description="at every severity"), Range(0.3, 10.0, log=True)]

    def entries(self, num_timesteps: int) -> FloatTable:
        return np.full(num_timesteps, self.value, dtype=np.float64)

    def mapped(self, change: Callable[[float], float]) -> Self:
        return _changed(self, ("value",), change)


class _Ramp(ScheduleSpec):
    paths: ClassVar[Mapping[str, SearchRange]] = PATHS
    start: Annotated[float, Field(description=START)]

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
    start: Annotated[float, Field(description=START), Range(0.1, 3.0, log=True)]
    step: Annotated[
        float | None,
        Field(description="added at each severity after the first"),
        Range(0.005, 0.5, log=True),
    ] = None
    end: Annotated[float | None, Field(description=END), Range(1.0, 40.0, log=True)] = None

    @model_validator(mode="after")
    def _one_slope(self) -> Self:
        self._exactly_one({"step": self.step, "end": self.end})
        return self

    def entries(self, num_timesteps: int) -> FloatTable:
        if self.step is not None:
            return self.start + self.step * np.arange(num_timesteps, dtype=np.float64)
        assert self.end is not None
        return np.linspace(self.start, self.end, num_timesteps, dtype=np.float64)

    def mapped(self, change: Callable[[float], float]) -> Self:
        return _changed(self, ("start", "step", "end"), change)


@SCHEDULES.register
class Exponential(_Ramp):
    """start exp(rate i); ``end`` (the value at T) can be set instead of ``rate``.

    >>> Exponential(start=1.0, end=8.0).entries(4)
    array([1., 2., 4., 8.])
    """

    kind: Literal["exponential"] = "exponential"
    start: Annotated[float, Field(gt=0, description=START), Range(0.3, 3.0, log=True)] = 1.0
    rate: Annotated[
        float | None,
        Field(description="growth of its logarithm at each severity after the first"),
        Range(0.002, 0.1, log=True),
    ] = None
    end: Annotated[float | None, Field(gt=0, description=END), Range(1.0, 40.0, log=True)] = None

    @model_validator(mode="after")
    def _one_slope(self) -> Self:
        self._exactly_one({"rate": self.rate, "end": self.end})
        return self

    def entries(self, num_timesteps: int) -> FloatTable:
        if self.rate is not None:
            return self.start * np.exp(self.rate * np.arange(num_timesteps, dtype=np.float64))
        assert self.end is not None
        return np.geomspace(self.start, self.end, num_timesteps, dtype=np.float64)

    def mapped(self, change: Callable[[float], float]) -> Self:
        return _changed(self, ("start", "end"), change)


@SCHEDULES.register
class Table(ScheduleSpec):
    """A table of values, one for each severity 1..T.

    >>> Table(values=(0.5, 1.0, 4.0)).entries(3)
    array([0.5, 1. , 4. ])
    """

    kind: Literal["table"] = "table"
    values: Annotated[
        tuple[float, ...], Field(min_length=1, description="one for each severity, from 1 to T")
    ]

    def entries(self, num_timesteps: int) -> FloatTable:
        if len(self.values) != num_timesteps:
            raise SpecError(
                [("values", f"has {len(self.values)} entries for num_timesteps={num_timesteps}")]
            )
        return np.asarray(self.values, dtype=np.float64)

    def mapped(self, change: Callable[[float], float]) -> Self:
        return self.model_copy(update={"values": tuple(change(value) for value in self.values)})


S = TypeVar("S", bound=ScheduleSpec)


def _changed(schedule: S, names: Sequence[str], change: Callable[[float], float]) -> S:
    values = {name: getattr(schedule, name) for name in names}
    update = {name: change(value) for name, value in values.items() if value is not None}
    return schedule.model_copy(update=update)


def path_ranges(spec: Spec, prefix: str = "") -> dict[str, SearchRange]:
    """Search ranges of the paths of ``spec``'s schedules (``PATHS``), by dotted path.

    These are no fields: a search writes them as a schedule with a start and an end.

    >>> {path: str(span) for path, span in path_ranges(Constant(value=1.0), "sigma.").items()}
    {'sigma.ratio': '0.125..8 (log)', 'sigma.kind': 'linear | exponential'}
    """
    if isinstance(spec, ScheduleSpec):
        return {f"{prefix}{name}": span for name, span in spec.paths.items()}
    found: dict[str, SearchRange] = {}
    for name in type(spec).model_fields:
        value = getattr(spec, name)
        if isinstance(value, Spec):
            found |= path_ranges(value, f"{prefix}{name}.")
    return found


def positive_values(schedule: ScheduleSpec, num_timesteps: int, name: str) -> FloatTable:
    """The schedule's values, float64 [T]; SpecError naming ``name`` unless positive and finite."""
    try:
        # What is too large becomes inf, which is refused below by name.
        with np.errstate(over="ignore", invalid="ignore"):
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
