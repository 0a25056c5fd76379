"""The contract of a degradation D(x0, t), written once: guards here, the operator in the leaves."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Annotated, Any, ClassVar, Generic, Self, TypeAlias, TypeVar, final

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BeforeValidator, Field, SerializeAsAny
from torch import Tensor

from colddiff.errors import SpecError
from colddiff.rng import Rng, rows
from colddiff.schedules import ScheduleSpec
from colddiff.spec import Range, Registry, Spec
from colddiff.types import Image, ImageShape, Omega, Severity


class DegradationSpec(Spec):
    """What every kind of degradation has: its kind and the number of severities T."""

    kind: str
    num_timesteps: Annotated[
        int,
        Field(ge=1, le=4000, description="number of severities T"),
        Range(5, 400, log=True, integer=True),
    ] = 50

    @abstractmethod
    def build(self, shape: ImageShape) -> Degradation[Any]:
        """The operator for images of ``shape``; SpecError where the two do not fit."""


SpecT = TypeVar("SpecT", bound=DegradationSpec)
DrawImages: TypeAlias = Callable[[Sequence[np.random.Generator]], Image]
"""Images of another set, one for each generator and a function of it alone."""

DEGRADATIONS: Registry[DegradationSpec] = Registry(
    "degradation", "colddiff.degradations", "; see `colddiff degradations`"
)
AnyDegradation = Annotated[DegradationSpec, SerializeAsAny(), BeforeValidator(DEGRADATIONS.parse)]


class Degradation(ABC, Generic[SpecT]):
    """An image degradation D(x0, t) with severities t = 0..T (Cold Diffusion, section 3).

    D(x0, 0) = x0 bit for bit. Each image of a batch has its own severity, the cost does not depend
    on t, dtype and device are those of ``x0``, and everything random is in ``omega``: the same
    (x0, t, omega) give the same image on any worker.

    A leaf implements ``_degrade`` and, where D is random, names what is in ``omega`` and implements
    ``_draw_row`` and ``omega_shape``. Constants it needs are made once in float64
    (``_make_tables``) and held on the device of the images. Half precision and autocast stop at
    ``degrade``: inside, images are float32 or float64.

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
    """

    omega_names: tuple[str, ...] = ()
    omega_images: ClassVar[tuple[str, ...]] = ()
    """Entries of omega that are images of another set: a data set supplies them, not ``draw``."""
    parameter_tables: tuple[str, ...] = ()
    """Tables that hold one number for each severity 0..T, a physical parameter each."""
    parameter_units: ClassVar[Mapping[str, str]] = {}
    """Units of those tables that have one."""

    def __init__(self, spec: SpecT, shape: ImageShape) -> None:
        self.spec = spec
        self.shape = shape
        self.num_timesteps: int = spec.num_timesteps
        self._float64: dict[str, Tensor] | None = None
        self._held: dict[tuple[torch.device, torch.dtype], dict[str, Tensor]] = {}

    @final
    def draw(self, batch: int, *, rng: Rng, images: DrawImages | None = None) -> dict[str, Tensor]:
        """omega for ``batch`` trajectories; of a sequence of generators row i uses only its own.

        ``images`` draws from the second set, for the entries ``omega_images``.

        Raises:
            SpecError: there are such entries and no ``images``.
        """
        if not self.omega_names:
            return {}
        if self.omega_images and images is None:
            names = ", ".join(self.omega_images)
            raise SpecError(
                f"{self.spec.kind}: omega {names} is images of a second set and cannot be drawn; "
                f"pass omega={{{self.omega_images[0]!r}: images [B, "
                f"{', '.join(map(str, self.shape.chw))}]}}"
            )
        generators = rows(rng, batch)
        given = {} if images is None else {name: images(generators) for name in self.omega_images}
        own = [name for name in self.omega_names if name not in given]
        drawn = [self._draw_row(generator) for generator in generators] if own else []
        return given | {
            name: torch.from_numpy(np.stack([np.asarray(row[name]) for row in drawn]))
            for name in own
        }

    @final
    def degrade(self, x0: Image, t: Severity, omega: Omega | None = None) -> Image:
        """D(x0, t).

        Args:
            x0: floating [B, C, H, W], in [-1, 1].
            t: int64 [B] in 0..T, one severity per image.
            omega: what ``draw(B)`` returned; may be left out where D is not random.

        Raises:
            SpecError: a wrong shape or dtype, a severity outside 0..T, NaN or inf. Severities and
                values are looked at only where they are in host memory, never by a device sync.
        """
        self.check(x0, t)
        omega = self.place_omega(omega or {}, x0)
        t = t.to(x0.device, non_blocking=True)
        # Autocast would run A_t x in bfloat16: 3 digits, where Algorithm 2 takes small differences.
        with _exact(x0.device.type):
            x_t = self._degrade(x0.to(working_dtype(x0.dtype)), t, omega).to(x0.dtype)
        # The one place where severity 0 means the clean image.
        return torch.where((t == 0).view(-1, 1, 1, 1), x0, x_t)

    @final
    def observe(self, x0: Image, t: Severity, omega: Omega | None = None) -> Image:
        """D(x0, t) as it would be recorded: in 8 bit where the spec says ``quantise``.

        Training inputs and a sampler's start are observations; the D inside a sampler's steps is
        ``degrade`` (PAPER: `discrete` acts in q_sample and on the start state only). Rounds to
        nearest, so that 8-bit images are fixed points; severity 0 stays bit-exact.
        """
        x_t = self.degrade(x0, t, omega)
        if not getattr(self.spec, "quantise", False):
            return x_t
        levels = torch.round((x_t.to(working_dtype(x_t.dtype)) + 1) * 127.5)
        eight_bit = (2 * (levels / 255) - 1).to(x_t.dtype)
        clean = (t == 0).to(x0.device, non_blocking=True)
        return torch.where(clean.view(-1, 1, 1, 1), x_t, eight_bit)

    def estimate_omega(self, x_t: Image, x0_hat: Image, t: Severity) -> dict[str, Tensor] | None:
        """omega such that D(x0_hat, t, omega) = x_t, where D allows it; else None."""
        return None

    @property
    def estimates_omega(self) -> bool:
        """Whether ``estimate_omega`` finds one: what the sampler improved_estimated needs."""
        return type(self).estimate_omega is not Degradation.estimate_omega

    def omega_shape(self, name: str) -> tuple[int, ...] | None:
        """Shape of one image's ``omega[name]``, or None where any shape will do."""
        return self.shape.chw if name in self.omega_images else None

    @final
    def parameters(self) -> dict[str, NDArray[np.float64]]:
        """What severity changes, float64 [T] each, entry i of severity i + 1: for plots.

        The spec's schedules and the tables named in ``parameter_tables``.
        """
        T, found = self.num_timesteps, {}
        for name in type(self.spec).model_fields:
            value = getattr(self.spec, name)
            if isinstance(value, ScheduleSpec):
                found[name] = value.entries(T)
        tables = self._exact_tables() if self.parameter_tables else {}
        return found | {name: tables[name].numpy()[1:] for name in self.parameter_tables}

    @final
    def to(self, device: torch.device | str, dtype: torch.dtype = torch.float32) -> Self:
        """Holds the tables on ``device`` now rather than on first use; returns itself."""
        self._held.clear()
        self._tables(torch.empty(0, device=device, dtype=working_dtype(dtype)))
        return self

    def check_start(self, t: int) -> None:
        """SpecError where no trajectory of this D may start at severity ``t`` in 1..T."""
        return

    @abstractmethod
    def _degrade(self, x0: Image, t: Severity, omega: Omega) -> Image:
        """D(x0, t) for checked arguments on one device; entries with t = 0 are overwritten."""

    def terminal(self) -> Mapping[str, Any] | None:
        """The distribution of x_T that sampling without an image starts from, by default.

        The dict form of a spec of ``colddiff.terminal``; None where D(x0, T) still shows x0, or
        follows no law that can be drawn from.
        """
        return None

    def _draw_row(self, rng: np.random.Generator) -> Mapping[str, NDArray[Any] | np.generic]:
        """omega of one image, each value without the batch dimension."""
        raise NotImplementedError

    def _make_tables(self) -> dict[str, Tensor]:
        """float64 constants of this operator, made once, on first use."""
        return {}

    @final
    def _tables(self, like: Tensor) -> dict[str, Tensor]:
        key = (like.device, like.dtype)
        if key not in self._held:
            exact = self._exact_tables()
            with torch.inference_mode(False):
                self._held[key] = {
                    name: _moved(table, like.device, like.dtype) for name, table in exact.items()
                }
        return self._held[key]

    def _exact_tables(self) -> dict[str, Tensor]:
        if self._float64 is None:
            # Made while sampling, inference tensors would refuse a later backward through D.
            with torch.inference_mode(False):
                self._float64 = self._make_tables()
        return self._float64

    @final
    def check(self, x0: Image, t: Severity) -> None:
        """SpecError where (x0, t) are not what ``degrade`` takes."""
        for name, value in (("images", x0), ("t", t)):
            if not _is_tensor(value):
                raise SpecError(
                    f"{self.spec.kind}: {name} must be a torch tensor, got {type(value).__name__}"
                )
        if x0.ndim != 4 or tuple(x0.shape[1:]) != self.shape.chw:
            raise SpecError(
                f"{self.spec.kind}: built for images [B, {', '.join(map(str, self.shape.chw))}], "
                f"got {list(x0.shape)}"
            )
        if not x0.is_floating_point():
            raise SpecError(
                f"{self.spec.kind}: images must be floating in [-1, 1], got {x0.dtype}; "
                "divide 8-bit values by 127.5 and subtract 1"
            )
        if t.dtype != torch.int64 or t.shape != (len(x0),):
            raise SpecError(
                f"{self.spec.kind}: t must be int64 [{len(x0)}], got {t.dtype} {list(t.shape)}"
            )
        if t.device.type == "cpu" and len(t):
            low, high = int(t.min()), int(t.max())
            if low < 0 or high > self.num_timesteps:
                raise SpecError(
                    f"{self.spec.kind}: severity {low if low < 0 else high} is outside "
                    f"0..{self.num_timesteps}"
                )
        if x0.device.type == "cpu" and not _all_finite(x0):
            raise SpecError(f"{self.spec.kind}: the images hold NaN or inf")

    @final
    def place_omega(self, omega: Omega, x0: Image) -> dict[str, Tensor]:
        """omega where ``degrade`` needs it for images ``x0``; SpecError where it is not for them.

        ``degrade`` does this itself; a loop of many steps does it once, to spare it the transfers.
        """
        for name in self.omega_names:
            if name not in omega:
                raise SpecError(
                    f"{self.spec.kind}: omega has no {name!r}; draw it with D.draw(batch, rng=...)"
                )
            shape = self.omega_shape(name)
            expected = [len(x0), *(omega[name].shape[1:] if shape is None else shape)]
            if list(omega[name].shape) != expected:
                raise SpecError(
                    f"{self.spec.kind}: omega[{name!r}] must be {expected} for {len(x0)} images, "
                    f"got {list(omega[name].shape)}"
                )
            if omega[name].device.type == "cpu":
                self._check_omega(name, omega[name])
        dtype = working_dtype(x0.dtype)
        return {name: _moved(omega[name], x0.device, dtype) for name in self.omega_names}

    def _check_omega(self, name: str, value: Tensor) -> None:
        """SpecError for values in host memory that this D cannot mean."""
        if not _all_finite(value):
            raise SpecError(f"{self.spec.kind}: omega[{name!r}] holds NaN or inf")


def _is_tensor(value: object) -> bool:
    return isinstance(value, Tensor)


def _all_finite(values: Tensor) -> bool:
    # NaN and inf stay in a sum, which costs a thirtieth of looking at each value; a sum that is too
    # large for its dtype is no proof, so then each is looked at.
    total = values.sum(dtype=working_dtype(values.dtype))
    return bool(torch.isfinite(total)) or bool(torch.isfinite(values).all())


def _exact(device_type: str) -> AbstractContextManager[object]:
    if not torch.amp.is_autocast_available(device_type):
        return nullcontext()
    return torch.autocast(device_type, enabled=False)


def working_dtype(dtype: torch.dtype) -> torch.dtype:
    """What D computes in for images of ``dtype``: float64 for float64, float32 for all others."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def _moved(tensor: Tensor, device: torch.device, dtype: torch.dtype) -> Tensor:
    return tensor.to(device, dtype if tensor.is_floating_point() else None, non_blocking=True)


def build_degradation(
    spec: DegradationSpec | Mapping[str, Any], shape: ImageShape
) -> Degradation[Any]:
    """D from a spec or its dict form, for images of ``shape``.

    >>> D = build_degradation({"kind": "noise", "num_timesteps": 100}, ImageShape(1, 32, 32))
    >>> D.num_timesteps, D.omega_names
    (100, ('z',))

    Raises SpecError for an unknown kind, an invalid field, or a shape that D is not for.
    """
    return DEGRADATIONS.parse(spec).build(shape)
