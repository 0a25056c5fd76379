"""Gaussian blur: chained steps, computed in O(1) as D(x, t) = A_t x B_t^T (PAPER 3.1 and 4.2)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, Self

import numpy as np
from pydantic import Field, field_validator

from colddiff.degradations.separable import Separable, chained
from colddiff.degradations.spec import DEGRADATIONS, DegradationSpec
from colddiff.errors import SpecError
from colddiff.schedules import Constant, FloatTable, Schedule, positive_values
from colddiff.spec import Range, Unit
from colddiff.types import ImageShape

Padding = Literal["circular", "reflect"]


@DEGRADATIONS.register
class BlurSpec(DegradationSpec):
    """Severity t is t chained truncated Gaussian blurs, step i of std ``sigma`` at entry i - 1."""

    kind: Literal["blur"] = "blur"
    num_timesteps: Annotated[
        int,
        Field(ge=1, le=4000, description="number of severities T"),
        Range(5, 400, log=True, integer=True),
    ] = 20
    kernel_size: Annotated[
        int,
        Field(ge=1, le=255, description="taps of each truncated Gaussian, odd"),
        Unit("px"),
    ] = 11
    sigma: Annotated[Schedule, Field(description="std of each step's Gaussian"), Unit("px")] = (
        Constant(value=7.0)
    )
    padding: Annotated[
        Padding,
        Field(
            description="at the border: circular wraps around, as the paper's code does; reflect "
            "for photographs that a lens blurred"
        ),
    ] = "circular"
    collapse_to_mean: Annotated[
        bool, Field(description="at severity T the image becomes its channel means")
    ] = False
    quantise: Annotated[
        bool, Field(description="observations are rounded to 8 bit; sampler steps are not")
    ] = False

    @field_validator("kernel_size")
    @classmethod
    def _odd(cls, value: int) -> int:
        if value % 2 == 0:
            raise SpecError(f"must be odd, got {value}; use {value - 1} or {value + 1}")
        return value

    def build(self, shape: ImageShape) -> Blur:
        return Blur(self, shape)

    @property
    def observed_in_8_bit(self) -> bool:
        return self.quantise

    def for_start(self, t: int) -> Self:
        # Below T an image is not a single colour yet: a trajectory from there is the plain blur.
        plain = t < self.num_timesteps and self.collapse_to_mean
        return self.model_copy(update={"collapse_to_mean": False}) if plain else self


class Blur(Separable[BlurSpec]):
    """D(x, t) = A_t x B_t^T, A_t and B_t the products of the per-step 1-D operators.

    Exact for truncated kernels and both paddings: each step is separable, linear and the same for
    all rows and all columns.
    """

    def __init__(self, spec: BlurSpec, shape: ImageShape) -> None:
        super().__init__(spec, shape)
        positive_values(spec.sigma, spec.num_timesteps, "degradation.sigma")
        reach, side = spec.kernel_size // 2, min(shape.height, shape.width)
        if spec.padding == "reflect" and reach >= side:
            raise SpecError(
                [
                    (
                        "degradation.kernel_size",
                        f"reflect padding of {reach} px does not fit an image of {side} px; use at "
                        f"most kernel_size={2 * side - 1}, or padding=circular",
                    )
                ]
            )

    def terminal(self) -> Mapping[str, Any]:
        return {"kind": "gmm", "grid": [1, 1]}  # one colour: the channel means (PAPER 4.2)

    def check_start(self, t: int) -> None:
        # Below T the sampler would treat a single-colour x_T as a blurred image.
        if self.spec.collapse_to_mean and t != self.num_timesteps:
            raise SpecError(
                [
                    (
                        "severities",
                        f"with collapse_to_mean a trajectory starts at T = {self.num_timesteps}, "
                        f"where an image is its channel means, not at {t}; start there, or build D "
                        "with collapse_to_mean=false, which is the same blur below T",
                    )
                ]
            )

    def _products(self, side: int) -> FloatTable:
        spec, T = self.spec, self.num_timesteps
        sigmas = positive_values(spec.sigma, T, "degradation.sigma")
        table = chained(gaussian_steps(side, spec.kernel_size, sigmas, spec.padding), T, side)
        if spec.collapse_to_mean:
            table[-1] = 1.0 / side
        return table


def gaussian(size: int, sigma: float) -> FloatTable:
    """The centred Gaussian of odd ``size`` taps, truncated and summing to 1, float64 [size]."""
    offsets = np.arange(size, dtype=np.float64) - (size - 1) / 2
    with np.errstate(over="ignore", under="ignore"):
        weights = np.exp(-0.5 * (offsets / sigma) ** 2)
    return np.asarray(weights / weights.sum())


def gaussian_steps(n: int, size: int, sigmas: FloatTable, padding: Padding) -> Iterator[FloatTable]:
    """One float64 [n, n] operator per step: the 1-D filter applied to the identity."""
    source = np.arange(n)[:, None] + np.arange(size) - size // 2
    if padding == "circular":
        source %= n
    else:
        source = np.abs(source)
        source = np.where(source >= n, 2 * (n - 1) - source, source)
    operator = np.empty((n, n))
    for i, sigma in enumerate(sigmas):
        if i == 0 or sigma != sigmas[i - 1]:
            operator = np.zeros((n, n))
            # add.at, not assignment: a long circular kernel meets a column twice.
            np.add.at(operator, (np.arange(n)[:, None], source), gaussian(size, float(sigma)))
        yield operator
