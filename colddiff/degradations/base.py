"""The interface of a degradation D(x0, t): what all share, and what a subclass implements."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Self, final

import numpy as np
import torch
from numpy.typing import NDArray

from colddiff.degradations.guards import check_images, check_values
from colddiff.degradations.omega import DrawImages, draw_omega, placed_omega
from colddiff.degradations.spec import SpecT, schedules_of
from colddiff.degradations.tables import Tables, in_8_bit, without_autocast, working_dtype
from colddiff.rng import Rng
from colddiff.spec.documents import shown
from colddiff.types import Image, ImageShape, Omega, Severity

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Degradation", "DrawImages"]


class Degradation(ABC, Generic[SpecT]):
    """An image degradation D(x0, t) with severities t = 0..T (Cold Diffusion, section 3).

    D(x0, 0) = x0 bit for bit. Each image of a batch has its own severity, the cost does not depend
    on t, dtype and device are those of ``x0``, and everything random is in ``omega``: the same
    (x0, t, omega) give the same image on any worker.

    A subclass implements ``_degrade`` and, if D is random, sets ``omega_names`` and implements
    ``_draw_row`` and ``omega_shape``. Constants are computed once in float64 (``_make_tables``)
    and cached on the device of the images. ``degrade`` disables half precision and autocast:
    inside, images are float32 or float64.

    >>> from colddiff import ImageShape, build_degradation
    >>> from colddiff.rng import streams
    >>> spec = {"kind": "inpaint", "num_timesteps": 8, "centre": "random"}
    >>> spec["sigma"] = {"kind": "linear", "start": 1.0, "step": 0.5}
    >>> D = build_degradation(spec, ImageShape(channels=3, height=16, width=16))
    >>> omega = D.draw(2, rng=streams(0, "example", range(2)))  # once per trajectory
    >>> omega["centre"].shape
    torch.Size([2, 2])
    >>> x0 = torch.ones(2, 3, 16, 16)
    >>> x_t = D.degrade(x0, torch.tensor([0, 8]), omega)  # one severity per image
    >>> torch.equal(x_t[0], x0[0]), torch.equal(x_t[1], x0[1])
    (True, False)
    >>> torch.equal(D(x0, torch.tensor([0, 8]), omega), x_t)
    True
    """

    omega_names: tuple[str, ...] = ()
    omega_images: ClassVar[tuple[str, ...]] = ()
    """Entries of omega that are images of another set, from a data set and not from ``draw``."""
    parameter_tables: tuple[str, ...] = ()
    """Names of tables with one number per severity 0..T: physical parameters."""
    parameter_units: ClassVar[Mapping[str, str]] = {}
    """Units of those tables, for those that have one."""

    def __init__(self, spec: SpecT, shape: ImageShape) -> None:
        self.spec = spec
        self.shape = shape
        self.num_timesteps: int = spec.num_timesteps
        self._held = Tables()

    def __repr__(self) -> str:
        fields = {name: value for name, value in self.spec.to_dict().items() if value is not None}
        kind = fields.pop("kind", self.spec.kind)
        named = ", ".join(f"{name}={shown(value)}" for name, value in fields.items())
        return f"<{kind} of {self.shape}: {named}>"

    # Common to every D.

    @final
    def draw(self, batch: int, *, rng: Rng, images: DrawImages | None = None) -> dict[str, Tensor]:
        """omega for ``batch`` trajectories.

        ``rng``: a torch or a numpy generator, or a sequence of numpy's, of which row i uses only
        its own.

        ``images`` draws from the second set, for the entries ``omega_images``; SpecError if there
        are such entries and no ``images``.
        """
        return draw_omega(self, batch, rng, images)

    @final
    def degrade(self, x0: Image, t: Severity, omega: Omega | None = None) -> Image:
        """D(x0, t) of floating x0 [B, C, H, W] in [-1, 1], at int64 t [B] in 0..T.

        Also written ``D(x0, t, omega)``. ``omega`` is what ``draw(B)`` returned. Raises SpecError
        for a wrong shape or dtype, a severity outside 0..T, NaN or inf.
        """
        self.check(x0, t)
        omega = self.place_omega(omega or {}, x0)
        t = t.to(x0.device, non_blocking=True)
        with without_autocast(x0.device.type):
            x_t = self._degrade(x0.to(working_dtype(x0.dtype)), t, omega).to(x0.dtype)
        # The only place where severity 0 is defined as the clean image.
        return torch.where((t == 0).view(-1, 1, 1, 1), x0, x_t)

    __call__ = degrade

    @final
    def observe(self, x0: Image, t: Severity, omega: Omega | None = None) -> Image:
        """D(x0, t) as it would be recorded: in 8 bit if the spec is ``observed_in_8_bit``.

        Training inputs and a sampler's start are observations; the D inside a sampler's steps is
        ``degrade`` (PAPER: `discrete` acts in q_sample and on the start state only). Rounds to
        nearest, so that 8-bit images are fixed points; severity 0 stays bit-exact.
        """
        x_t = self.degrade(x0, t, omega)
        if not self.spec.observed_in_8_bit:
            return x_t
        clean = (t == 0).to(x0.device, non_blocking=True)
        return torch.where(clean.view(-1, 1, 1, 1), x_t, in_8_bit(x_t))

    @final
    def check(self, x0: Image, t: Severity) -> None:
        """Raises SpecError if (x0, t) are not valid arguments of ``degrade``."""
        check_images(self.spec.kind, self.shape, self.num_timesteps, x0, t)

    @final
    def place_omega(self, omega: Omega, x0: Image) -> dict[str, Tensor]:
        """omega on the device and in the dtype for images ``x0``; SpecError if it does not match.

        ``degrade`` does this itself; a loop of many steps does it once, to avoid repeated copies.
        """
        return placed_omega(self, omega, x0)

    @final
    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> Self:
        """Moves the tables to ``device`` now instead of on first use; returns itself."""
        self._held.release()
        self._tables(torch.empty(0, device=device, dtype=working_dtype(dtype or torch.float32)))
        return self

    @final
    def parameters(self) -> dict[str, NDArray[np.float64]]:
        """Physical parameters by severity, float64 [T] each, entry i of severity i + 1: for plots.

        The spec's schedules and the tables named in ``parameter_tables``.
        """
        tables = self._held.exact(self._make_tables) if self.parameter_tables else {}
        shown = {name: tables[name].numpy()[1:] for name in self.parameter_tables}
        return schedules_of(self.spec, self.num_timesteps) | shown

    @property
    @final
    def estimates_omega(self) -> bool:
        """Whether ``estimate_omega`` is implemented, as the sampler improved_estimated needs."""
        return type(self).estimate_omega is not Degradation.estimate_omega

    @final
    def _tables(self, like: Tensor) -> dict[str, Tensor]:
        """The tables of ``_make_tables``, on the device and in the dtype of ``like``."""
        return self._held.like(like, self._make_tables)

    # Implemented by subclasses.

    @abstractmethod
    def _degrade(self, x0: Image, t: Severity, omega: Omega) -> Image:
        """D(x0, t) for checked arguments on one device; entries with t = 0 are overwritten."""

    def _make_tables(self) -> dict[str, Tensor]:
        """float64 constants of this operator, computed once, on first use."""
        return {}

    def _draw_row(self, rng: np.random.Generator) -> Mapping[str, NDArray[Any] | np.generic]:
        """omega of one image, each value without the batch dimension."""
        raise NotImplementedError

    def omega_shape(self, name: str) -> tuple[int, ...] | None:
        """Shape of one image's ``omega[name]``, or None if any shape is valid."""
        return self.shape.chw if name in self.omega_images else None

    def _check_omega(self, name: str, value: Tensor) -> None:
        """Raises SpecError for invalid values, which are in host memory."""
        check_values(self.spec.kind, name, value)

    def estimate_omega(self, x_t: Image, x0_hat: Image, t: Severity) -> dict[str, Tensor] | None:
        """omega such that D(x0_hat, t, omega) = x_t, if D allows that; else None."""
        return None

    def check_start(self, t: int) -> None:
        """Raises SpecError if no trajectory of this D can start at severity ``t`` in 1..T."""
        return

    def terminal(self) -> Mapping[str, Any] | None:
        """The distribution of x_T that sampling without an image starts from, by default.

        The dict form of a spec of ``colddiff.terminal``; None if D(x0, T) still depends on x0, or
        its distribution cannot be sampled.
        """
        return None
