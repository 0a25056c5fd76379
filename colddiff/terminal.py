"""Terminal distributions: what x_T = D(x0, T) looks like over a data set, and how to draw it."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal, TypeAlias, final

import numpy as np
import torch
from pydantic import Field, SerializeAsAny
from torch import Tensor

from colddiff.degradations import Degradation
from colddiff.degradations.base import DrawImages
from colddiff.errors import CheckpointError, SpecError
from colddiff.rng import Rng, rows
from colddiff.sampling import break_symmetry
from colddiff.spec import KindOf, Registry, Spec
from colddiff.types import Image

Grid: TypeAlias = tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)]]
Drawn: TypeAlias = tuple[Image, dict[str, Tensor]]


class TerminalSpec(Spec):
    """A kind of distribution of x_T; ``tensor_names`` is what fitting it to a data set finds."""

    kind: str
    tensor_names: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def draw(
        self,
        D: Degradation[Any],
        rng: Sequence[np.random.Generator],
        tensors: Mapping[str, Tensor],
        images: DrawImages | None,
    ) -> Drawn:
        """(x_T, omega), one row for each generator and a function of it alone."""


TERMINALS: Registry[TerminalSpec] = Registry("terminal")
AnyTerminal = Annotated[TerminalSpec, SerializeAsAny(), KindOf(TERMINALS)]


@dataclass(frozen=True, slots=True)
class Terminal:
    """The distribution of x_T: its spec, the float64 tensors fitted to a data set, if any.

    ``images`` draws from the second data set where D mixes one in.
    """

    spec: TerminalSpec
    tensors: Mapping[str, Tensor] = field(default_factory=dict)
    images: DrawImages | None = None

    def draw(self, D: Degradation[Any], rng: Rng, *, symmetry_noise: float = 0.0) -> Drawn:
        """Starts of trajectories: x_T float32 [B, C, H, W] and the omega that goes with each.

        ``rng``: one generator for each image; row i is a function of this terminal and generator i.
        ``symmetry_noise`` is the std of what is added to each pixel of x_T (PAPER 4.2: 0 or 0.002).

        Raises:
            SpecError: a terminal that is not for D, or without the second data set D needs.
        """
        if isinstance(rng, np.random.Generator | torch.Generator):
            raise SpecError("terminal: give a sequence of generators, one for each image")
        generators = rows(rng, len(rng))
        x_T, omega = self.spec.draw(D, generators, self.tensors, self.images)
        return break_symmetry(x_T, symmetry_noise, generators), omega

    def state(self) -> dict[str, Any]:
        """JSON-ready description; with the tensors, ``from_files`` makes it again."""
        return self.spec.to_dict()

    @classmethod
    def from_files(
        cls,
        tensors: Mapping[str, Tensor],
        state: Mapping[str, Any],
        images: DrawImages | None = None,
    ) -> Terminal:
        """The terminal of ``state`` and ``tensors``; raises CheckpointError where they disagree."""
        try:
            spec = TERMINALS.parse(state)
        except SpecError as error:
            raise CheckpointError(f"terminal: {error}") from None
        if set(tensors) != set(spec.tensor_names):
            raise CheckpointError(
                f"terminal: kind {spec.kind} has tensors {', '.join(spec.tensor_names) or 'none'}, "
                f"found {', '.join(sorted(tensors)) or 'none'}"
            )
        return cls(spec, dict(tensors), images)


def terminal_spec(D: Degradation[Any], wanted: TerminalSpec | None = None) -> TerminalSpec | None:
    """What D's terminal is: ``wanted``, completed by D's own where that is of the same kind."""
    default = D.terminal()
    own = None if default is None else TERMINALS.parse(default)
    if wanted is None or own is None or wanted.kind != own.kind:
        return wanted or own
    given = {name: value for name, value in wanted if value is not None}
    return own.model_copy(update=given)


@TERMINALS.register
class Gmm(TerminalSpec):
    """A Gaussian mixture over D(x0, T) averaged over ``grid`` blocks, enlarged by nearest pixel.

    With a grid of 1x1 these are the channel means (PAPER 4.2), else the low-resolution image
    (PAPER 4.4). Tensors, of F = C h w features: ``weights`` [K], ``means`` [K, F], ``factors``
    [K, F, F], the lower Cholesky factors of the covariances.
    """

    kind: Literal["gmm"] = "gmm"
    components: Annotated[int, Field(ge=1, le=1000, description="Gaussians in the mixture")] = 1
    grid: Annotated[
        Grid | None, Field(description="rows and columns of blocks; null for what D leaves")
    ] = None
    tensor_names: ClassVar[tuple[str, ...]] = ("weights", "means", "factors")

    def draw(
        self,
        D: Degradation[Any],
        rng: Sequence[np.random.Generator],
        tensors: Mapping[str, Tensor],
        images: DrawImages | None,
    ) -> Drawn:
        height, width = self.blocks(D)
        features = D.shape.channels * height * width
        weights, means, factors = (tensors[name].numpy() for name in self.tensor_names)
        if means.shape != (len(weights), features) or factors.shape[1:] != (features, features):
            raise SpecError(
                f"terminal: a mixture of {means.shape[-1]} features, images of {D.shape} over "
                f"{height}x{width} blocks have {features}; it was fitted for another degradation"
            )
        omega = D.draw(len(rng), rng=rng, images=images)
        ends = np.cumsum(weights) / weights.sum()
        drawn = np.empty((len(rng), features))
        for row, generator in zip(drawn, rng, strict=True):
            k = min(int(np.searchsorted(ends, generator.random(), side="right")), len(ends) - 1)
            # One product per image: what a batched one sums to depends on the batch.
            row[:] = means[k] + factors[k] @ generator.standard_normal(features)
        small = torch.from_numpy(drawn).float().view(-1, D.shape.channels, height, width)
        tall = small.repeat_interleave(D.shape.height // height, dim=2)
        return tall.repeat_interleave(D.shape.width // width, dim=3), omega

    def features(self, D: Degradation[Any], x0: Image) -> Tensor:
        """float64 [B, C h w] of images ``x0``: D(x0, T) averaged over the blocks."""
        if D.omega_names:
            raise SpecError(f"terminal gmm: {D.spec.kind} is random, a mixture cannot stand for it")
        t = torch.full((len(x0),), D.num_timesteps, dtype=torch.int64)
        x_T = D.degrade(x0, t).double()
        return torch.nn.functional.adaptive_avg_pool2d(x_T, self.blocks(D)).flatten(1)

    def blocks(self, D: Degradation[Any]) -> tuple[int, int]:
        """Rows and columns of blocks; SpecError where they do not divide the image."""
        height, width = self.grid or (1, 1)
        if D.shape.height % height or D.shape.width % width:
            raise SpecError(
                [("terminal.grid", f"{height}x{width} blocks do not divide images of {D.shape}")]
            )
        return height, width


class _OmegaTerminal(TerminalSpec):
    """x_T is omega itself: what D turns every image into is what is random in it."""

    omega_name: ClassVar[str]

    @final
    def draw(
        self,
        D: Degradation[Any],
        rng: Sequence[np.random.Generator],
        tensors: Mapping[str, Tensor],
        images: DrawImages | None,
    ) -> Drawn:
        if self.omega_name not in D.omega_names:
            raise SpecError(
                f"terminal {self.kind}: degradation {D.spec.kind!r} has no omega "
                f"{self.omega_name!r} to start from"
            )
        omega = D.draw(len(rng), rng=rng, images=images)
        value = omega[self.omega_name]
        x_T = value.reshape(*value.shape, *[1] * (4 - value.ndim)).expand(-1, *D.shape.chw)
        return x_T.clone(), omega


@TERMINALS.register
class SolidColour(_OmegaTerminal):
    """One colour all over, uniform in the degradation's ``colour_range`` (PAPER 4.3)."""

    kind: Literal["solid_colour"] = "solid_colour"
    omega_name: ClassVar[str] = "colour"


@TERMINALS.register
class StandardNormal(_OmegaTerminal):
    """N(0, I), held fixed as omega (PAPER 4.1)."""

    kind: Literal["standard_normal"] = "standard_normal"
    omega_name: ClassVar[str] = "z"


@TERMINALS.register
class Images(_OmegaTerminal):
    """An image of the degradation's second set, held fixed as omega (PAPER 4.5)."""

    kind: Literal["images"] = "images"
    omega_name: ClassVar[str] = "z"
