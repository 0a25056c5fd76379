"""The spec of a degradation: the data that describes a kind, and the registry of kinds."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Self, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, SerializeAsAny

from colddiff.errors import SpecError
from colddiff.schedules import ScheduleSpec
from colddiff.spec import KindOf, Range, Registry, Spec, refuse_fields_without_hook
from colddiff.spec.plugins import name_errors
from colddiff.types import ImageShape

if TYPE_CHECKING:
    from colddiff.degradations.base import Degradation


FIELDS_WITH_HOOK = {
    "quantise": "observed_in_8_bit",
    "collapse_to_mean": "for_start",
    "other": "second_set",
}
"""Field names with a meaning to the code around D, and the hook that must implement each."""


class DegradationSpec(Spec):
    """Fields of every kind of degradation: its kind and the number of severities T.

    A kind adds its own fields. If one has a meaning to the code around D, the kind overrides a hook
    below: no code looks up a field by its name.
    """

    kind: str
    num_timesteps: Annotated[
        int,
        Field(ge=1, le=4000, description="number of severities T"),
        Range(5, 400, log=True, integer=True),
    ] = 50

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        refuse_fields_without_hook(cls, DegradationSpec, FIELDS_WITH_HOOK)
        name_errors(cls, "build")

    @abstractmethod
    def build(self, shape: ImageShape) -> Degradation[Any]:
        """The operator for images of ``shape``; SpecError if the spec does not support it."""

    @property
    def observed_in_8_bit(self) -> bool:
        """Whether an observation (``Degradation.observe``) is rounded to 8 bit: ``quantise``."""
        return False

    def for_start(self, t: int) -> Self:
        """The spec of D on trajectories that start at severity ``t`` in 1..T.

        A different one if D has an effect at T only, which images at ``t`` have not undergone:
        ``collapse_to_mean``.
        """
        return self

    @property
    def second_set(self) -> str | None:
        """URI of the packed images that ``omega_images`` are drawn from: ``other``."""
        return None

    def with_second_set(self, uri: str) -> Self:
        """This spec with its second set at ``uri``; SpecError for kinds that mix in none."""
        raise SpecError(f"{self.kind}: does not mix in a second set of images")


SpecT = TypeVar("SpecT", bound=DegradationSpec)

DEGRADATIONS: Registry[DegradationSpec] = Registry(
    "degradation", "colddiff.degradations", "; see `colddiff degradations`"
)
AnyDegradation = Annotated[DegradationSpec, SerializeAsAny(), KindOf(DEGRADATIONS)]


def schedules_of(spec: Spec, num_timesteps: int) -> dict[str, NDArray[np.float64]]:
    """Entries of the fields of ``spec`` that are schedules, float64 [T] each."""
    values = {name: getattr(spec, name) for name in type(spec).model_fields}
    return {
        name: value.entries(num_timesteps)
        for name, value in values.items()
        if isinstance(value, ScheduleSpec)
    }


def build_degradation(
    spec: DegradationSpec | Mapping[str, Any], shape: ImageShape | tuple[int, int, int]
) -> Degradation[Any]:
    """D from a spec or its dict form, for images of ``shape``, (C, H, W).

    >>> D = build_degradation({"kind": "noise", "num_timesteps": 100}, ImageShape(1, 32, 32))
    >>> D.num_timesteps, D.omega_names
    (100, ('z',))

    Raises SpecError for an unknown kind, an invalid field, or a shape that D does not support.
    """
    return DEGRADATIONS.parse(spec).build(ImageShape.of(shape))
