"""Terminals: distributions of x_T = D(x0, T) over a data set, to sample starts of generation."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, TypeAlias, final

import numpy as np
import torch
from pydantic import Field, SerializeAsAny

from colddiff.degradations import Degradation
from colddiff.degradations.base import DrawImages
from colddiff.errors import CheckpointError, SpecError
from colddiff.rng import Rng, rows
from colddiff.sampling import break_symmetry
from colddiff.spec import KindOf, Registry, Spec
from colddiff.types import Image

if TYPE_CHECKING:
    from torch import Tensor

Grid: TypeAlias = tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)]]
Drawn: TypeAlias = "tuple[Image, dict[str, Tensor]]"


class TerminalSpec(Spec):
    """A kind of distribution of x_T; ``tensor_names`` are its parameters fitted to a data set."""

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
        """Draw (x_T, omega); row i is a function of generator i alone."""


TERMINALS: Registry[TerminalSpec] = Registry("terminal")
AnyTerminal = Annotated[TerminalSpec, SerializeAsAny(), KindOf(TERMINALS)]


@dataclass(frozen=True, slots=True)
class Terminal:
    """A distribution of x_T: its spec, and the float64 tensors fitted to a data set, if any.

    ``images`` draws from the second image set, if D mixes one in.
    """

    spec: TerminalSpec
    tensors: Mapping[str, Tensor] = field(default_factory=dict)
    images: DrawImages | None = None

    def draw(self, D: Degradation[Any], rng: Rng, *, symmetry_noise: float = 0.0) -> Drawn:
        """Draw starts of trajectories: x_T float32 [B, C, H, W], and the matching omega.

        ``rng``: one generator per image; row i is a function of this terminal and generator i.
        ``symmetry_noise``: std of the noise added to each pixel of x_T (PAPER 4.2: 0 or 0.002).

        Raises:
            SpecError: the terminal is not one for D, or lacks the second image set that D needs.
        """
        if isinstance(rng, np.random.Generator | torch.Generator):
            raise SpecError("terminal: pass a sequence of generators, one for each image")
        generators = rows(rng, len(rng))
        x_T, omega = self.spec.draw(D, generators, self.tensors, self.images)
        return break_symmetry(x_T, symmetry_noise, generators), omega

    def state(self) -> dict[str, Any]:
        """JSON-ready description; ``from_files`` restores the terminal from it and the tensors."""
        return self.spec.to_dict()

    @classmethod
    def from_files(
        cls,
        tensors: Mapping[str, Tensor],
        state: Mapping[str, Any],
        images: DrawImages | None = None,
    ) -> Terminal:
        """Restore from ``state`` and ``tensors``; raises CheckpointError if they do not match."""
        try:
            spec = TERMINALS.parse(state)
        except SpecError as error:
            raise CheckpointError(f"terminal: {error}") from None
        if set(tensors) != set(spec.tensor_names):
            raise CheckpointError(
                f"terminal: kind {spec.kind} has tensors {', '.join(spec.tensor_names) or 'none'}, "
                f"found {', '.join(sorted(tensors)) or 'none'}"
            )
        for name, tensor in tensors.items():
            if tensor.dtype != torch.float64 or not bool(torch.isfinite(tensor).all()):
                raise CheckpointError(f"terminal: {name} is not float64, or holds NaN or inf")
        return cls(spec, dict(tensors), images)


def terminal_spec(D: Degradation[Any], wanted: TerminalSpec | None = None) -> TerminalSpec | None:
    """The terminal to use for D: ``wanted``, with D's own as defaults if of the same kind."""
    default = D.terminal()
    own = None if default is None else TERMINALS.parse(default)
    if wanted is None or own is None or wanted.kind != own.kind:
        return wanted or own
    explicit = {name: value for name, value in wanted if value is not None}
    return own.model_copy(update=explicit)


@TERMINALS.register
class Gmm(TerminalSpec):
    """A Gaussian mixture over the block means of D(x0, T), upsampled by nearest neighbour.

    With a 1x1 ``grid`` these are the channel means (PAPER 4.2), else the low-resolution image
    (PAPER 4.4). Tensors, for F = C h w features: ``weights`` [K], ``means`` [K, F], ``factors``
    [K, F, F], the lower Cholesky factors of the covariances.
    """

    kind: Literal["gmm"] = "gmm"
    components: Annotated[int, Field(ge=1, le=1000, description="Gaussians in the mixture")] = 1
    grid: Annotated[
        Grid | None, Field(description="rows and columns of blocks; null: set by the degradation")
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
        count = len(weights) if weights.ndim == 1 else 0
        shapes = (means.shape, factors.shape)
        if count < 1 or shapes != ((count, features), (count, features, features)):
            raise SpecError(
                f"terminal: the mixture has {means.shape[-1] if means.ndim else 0} features, in "
                f"{count} components; images of {D.shape} in {height}x{width} blocks have "
                f"{features}; its tensors are damaged, or it was fitted for another degradation"
            )
        omega = D.draw(len(rng), rng=rng, images=images)
        ends = np.cumsum(weights) / weights.sum()
        drawn = np.empty((len(rng), features))
        for row, generator in zip(drawn, rng, strict=True):
            k = min(int(np.searchsorted(ends, generator.random(), side="right")), len(ends) - 1)
            # One product per image: the rounding of a batched product depends on the batch size.
            row[:] = means[k] + factors[k] @ generator.standard_normal(features)
        small = torch.from_numpy(drawn).float().view(-1, D.shape.channels, height, width)
        tall = small.repeat_interleave(D.shape.height // height, dim=2)
        return tall.repeat_interleave(D.shape.width // width, dim=3), omega

    def features(self, D: Degradation[Any], x0: Image) -> Tensor:
        """Block means of D(x0, T), float64 [B, C h w]; SpecError if D is random."""
        if D.omega_names:
            raise SpecError(f"terminal gmm: {D.spec.kind} is random, a mixture cannot model it")
        t = torch.full((len(x0),), D.num_timesteps, dtype=torch.int64)
        x_T = D.degrade(x0, t).double()
        return torch.nn.functional.adaptive_avg_pool2d(x_T, self.blocks(D)).flatten(1)

    def blocks(self, D: Degradation[Any]) -> tuple[int, int]:
        """Rows and columns of blocks; SpecError if they do not divide the image."""
        height, width = self.grid or (1, 1)
        if D.shape.height % height or D.shape.width % width:
            raise SpecError(
                [("terminal.grid", f"{height}x{width} blocks do not divide images of {D.shape}")]
            )
        return height, width


class _OmegaTerminal(TerminalSpec):
    """x_T is an entry of omega: at T, D replaces every image by what is random in it."""

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
                f"terminal {self.kind}: degradation {D.spec.kind!r} has no omega entry "
                f"{self.omega_name!r} to start from"
            )
        omega = D.draw(len(rng), rng=rng, images=images)
        value = omega[self.omega_name]
        x_T = value.reshape(*value.shape, *[1] * (4 - value.ndim)).expand(-1, *D.shape.chw)
        return x_T.clone(), omega


@TERMINALS.register
class SolidColour(_OmegaTerminal):
    """A solid colour, uniform in the degradation's ``colour_range``."""

    kind: Literal["solid_colour"] = "solid_colour"
    omega_name: ClassVar[str] = "colour"


@TERMINALS.register
class StandardNormal(_OmegaTerminal):
    """N(0, I), held fixed as omega."""

    kind: Literal["standard_normal"] = "standard_normal"
    omega_name: ClassVar[str] = "z"


@TERMINALS.register
class Images(_OmegaTerminal):
    """An image of the degradation's second image set, held fixed as omega."""

    kind: Literal["images"] = "images"
    omega_name: ClassVar[str] = "z"
