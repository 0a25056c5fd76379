"""The interface of a sampler: its step, what it needs of D, and the names of its results."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, TypeVar

import torch
from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

from colddiff.errors import SpecError
from colddiff.spec import Catalogue
from colddiff.types import Image, Omega

if TYPE_CHECKING:
    from torch import Tensor

    from colddiff.degradations import Degradation

NAME = re.compile(r"[a-z][a-z0-9_]*")
OTHER_COLUMNS = {"original": "original", "degraded": "degraded"}
"""Evaluation columns that precede the samplers' columns, with their labels."""
RESERVED = (*OTHER_COLUMNS, "floor", "generated")
"""Column names that a sampler cannot use."""


CURVE = "curve_"
"""Evaluation columns ``curve_<n>`` are restorations by ``n`` network calls; no sampler has one."""


class Sampler(ABC):
    """One way from x_T to x_0; a subclass sets ``name``, implements ``step`` and is registered.

    The loop around it (``colddiff.sampling``) chooses the severities, calls R and sets evaluation
    and inference mode, so that a step is arithmetic on one pair of severities.
    """

    name: ClassVar[str]
    """Name in jobs and commands: lower case letters, digits, underscores."""
    label: ClassVar[str] = ""
    """Header of its column in tables and pictures; default: its name."""
    description: ClassVar[str] = ""
    """A few words on what it computes; default: its label."""
    column: ClassVar[str] = ""
    """Its component of a metric path, ``eval/<column>/...``; default: its name."""
    order: ClassVar[int] = 100
    """Position in lists and tables; equal ones are sorted by name."""
    single_step: ClassVar[bool] = False
    """Whether it applies R once, at the first severity, and steps from there directly to 0."""
    needs_omega: ClassVar[bool] = True
    """Whether ``step`` reads ``omega``; if false it gets {}, and omega need not be known."""

    @abstractmethod
    def step(
        self, x_t: Image, x0_hat: Image, t: int, s: int, D: Degradation[Any], omega: Omega
    ) -> Image:
        """x_s of a trajectory at ``x_t`` whose estimate is ``x0_hat`` = R(x_t, t), for s < t.

        Row i depends on row i of the arguments alone. ``omega`` is on the device of the images.
        """

    def unfit(self, D: Degradation[Any]) -> str | None:
        """Why this sampler cannot be used with D, and what to do; None if it can."""
        return None


class Samplers(Catalogue[Sampler]):
    """The samplers by name, in the order of their columns."""

    def register(self, cls: type[SamplerT]) -> type[SamplerT]:
        """Class decorator; SpecError for an invalid or duplicate name or column."""
        name = getattr(cls, "name", None)
        if not isinstance(name, str) or not NAME.fullmatch(name):
            raise SpecError(
                f"{cls.__name__}: name must be lower case letters, digits and underscores, such as "
                f'name = "mine", got {name!r}'
            )
        cls.label = cls.label or name
        cls.description = cls.description or cls.label
        cls.column = cls.column or name
        self._refuse_column(cls)
        self._add(name, cls(), cls, self.noun)
        return cls

    def _refuse_column(self, cls: type[Sampler]) -> None:
        owners = {entry.column: name for name, (_, entry) in self._beside(cls).items()}
        owner = owners.get(cls.column, "evaluation" if cls.column in RESERVED else cls.name)
        if cls.column.startswith(CURVE):
            owner = "evaluation"
        if owner != cls.name or not NAME.fullmatch(cls.column):
            raise SpecError(
                f"{cls.__name__}: column {cls.column!r} is taken by {owner}; choose another, in "
                "lower case letters, digits and underscores"
            )

    def __iter__(self) -> Iterator[str]:
        found = self._discovered()
        return iter(sorted(found, key=lambda name: (found[name][1].order, name)))


SamplerT = TypeVar("SamplerT", bound=Sampler)
SAMPLERS = Samplers("sampler", "colddiff.samplers")
DEFAULT = "improved"
"""Algorithm 2, the paper's sampler."""


def find_sampler(name: str) -> Sampler:
    """The sampler of that name; SpecError naming the nearest one."""
    if name not in SAMPLERS:
        raise SpecError([("sampler", SAMPLERS.unknown(name))])
    return SAMPLERS[name]


def check_samplers(names: Iterable[str], D: Degradation[Any], where: str = "sampler") -> None:
    """SpecError at the path ``where`` for the first of ``names`` that cannot be used with D."""
    for name in names:
        if (problem := SAMPLERS[name].unfit(D)) is not None:
            raise SpecError([(where, f"{name}: {problem}")])


class NameOfSampler:
    """Annotation of a field that names a sampler; its JSON schema lists the registered ones."""

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self._known, handler(source))

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        return {**handler(schema), "enum": list(SAMPLERS)}

    @staticmethod
    def _known(name: str) -> str:
        if name not in SAMPLERS:
            raise SpecError(SAMPLERS.unknown(name))
        return name


SamplerName = Annotated[str, NameOfSampler()]


def column_labels(columns: Iterable[str]) -> dict[str, str]:
    """Labels of ``columns`` of an evaluation (metric path components), in display order.

    Originals, degraded, then samplers in the order of the catalogue. The column of a sampler that
    is not registered here, such as a plugin's, comes last and is its own label.
    """
    known = OTHER_COLUMNS | {sampler.column: sampler.label for sampler in SAMPLERS.values()}
    present = list(columns)
    return {name: label for name, label in known.items() if name in present} | {
        name: name for name in present if name not in known
    }


def full(x: Image, t: int) -> Tensor:
    """Severity ``t`` for each image of ``x``, int64 [B].

    In host memory: D can check severities there, and copies them without a device sync.
    """
    return torch.full((len(x),), t, dtype=torch.int64)
