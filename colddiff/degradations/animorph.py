"""Animorphosis: an image fades into an image of another set (PAPER 4.5)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Field

from colddiff.degradations.mixing import Mixing, MixingSpec
from colddiff.degradations.spec import DEGRADATIONS
from colddiff.types import ImageShape


@DEGRADATIONS.register
class AnimorphSpec(MixingSpec):
    """Severity t mixes in an image z of a second set, drawn independently of x0.

    ``draw`` cannot generate z, which is data: callers pass ``omega={"z": images}``, or ``images``
    drawn from the shards of ``other`` if that is set.
    """

    kind: Literal["animorph"] = "animorph"
    other: Annotated[
        str | None,
        Field(min_length=1, description="URI of packed shards of the second set; null: pass z"),
    ] = None

    def build(self, shape: ImageShape) -> Animorph:
        return Animorph(self, shape)

    @property
    def second_set(self) -> str | None:
        return self.other

    def with_second_set(self, uri: str) -> Self:
        return self.model_copy(update={"other": uri})


class Animorph(Mixing[AnimorphSpec]):
    """D(x0, t) = sqrt(abar_t) x0 + sqrt(1 - abar_t) z with z an image of ``other``."""

    omega_images = ("z",)

    def terminal(self) -> Mapping[str, Any]:
        return {"kind": "images"}
