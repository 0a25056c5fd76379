"""The laws every degradation must satisfy, as functions that measure the violation."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from colddiff.degradations import DEGRADATIONS, Degradation, DegradationSpec
from colddiff.errors import SpecError
from colddiff.rng import streams
from colddiff.sampling import sample
from colddiff.synthetic import synthetic_images, synthetic_omega
from colddiff.types import Image, ImageShape

BATCH = 3
SAMPLER_STEPS = 100
DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)


@dataclass(frozen=True, slots=True)
class Case:
    """What the laws are tested on: a D, a batch of images, and an omega for each."""

    spec: DegradationSpec
    D: Degradation[Any]
    x0: Image
    omega: dict[str, Tensor] = field(repr=False)

    @property
    def severities(self) -> list[int]:
        """Severities to test: both ends of 0..T, their neighbours, and the middle."""
        T = self.spec.num_timesteps
        return sorted({0, 1, min(2, T), T // 2, T - 1, T})

    def degrade(self, t: int, x0: Image | None = None) -> Image:
        """D(x0, t) at one severity for all images."""
        x0 = self.x0 if x0 is None else x0
        return self.D.degrade(x0, torch.full((len(x0),), t), self.omega)


@dataclass(frozen=True, slots=True)
class Finding:
    """Result of testing one law: the measured error and the allowed one."""

    law: str
    statement: str
    measured: float
    allowed: float
    problem: str = ""
    """Why no error could be measured, such as an exception raised by D; else empty."""

    @property
    def holds(self) -> bool:
        """Whether the law holds; a NaN error violates it."""
        return not self.problem and self.measured <= self.allowed


Law = Callable[[Case], float]
LAWS: dict[str, tuple[str, float, Law]] = {}


def law(allowed: float) -> Callable[[Law], Law]:
    """Decorator that registers a law: the function returns an error, its docstring is the law."""

    def add(measure: Law) -> Law:
        statement = (measure.__doc__ or "").splitlines()[0].rstrip(".")
        LAWS[measure.__name__] = (statement, allowed, measure)
        return measure

    return add


def check_laws(
    spec: DegradationSpec, shape: ImageShape, x0: Image | None = None, seed: int = 0
) -> list[Finding]:
    """Test every law on D of ``spec``, on images of ``shape`` (synthetic ones by default).

    If D raises during a test, the law is broken and the exception is its problem. Raises SpecError
    if D cannot be built at all.

    >>> noise = DEGRADATIONS.parse({"kind": "noise", "num_timesteps": 4})
    >>> broken(check_laws(noise, ImageShape(channels=1, height=8, width=8)))
    []
    """
    D = spec.build(shape)
    images = synthetic_images(shape, BATCH, seed) if x0 is None else x0[:BATCH]
    if len(images) < BATCH:
        raise SpecError(f"the laws need {BATCH} images, got {len(images)}")
    case = Case(spec, D, images, synthetic_omega(D, BATCH, seed))
    return [_find(name, case) for name in LAWS]


def _find(name: str, case: Case) -> Finding:
    statement, allowed, measure = LAWS[name]
    try:
        return Finding(name, statement, measure(case), allowed)
    except Exception as error:  # a plugin's code may raise anything
        what = str(error).strip().splitlines()
        problem = f"{type(error).__name__}: {what[0] if what else 'no message'}"
        return Finding(name, statement, math.nan, allowed, problem)


@law(allowed=0)
def identity_at_zero(case: Case) -> float:
    """D(x0, 0) = x0, bit for bit."""
    x0 = case.x0 / 3  # values that any arithmetic would round
    t = torch.tensor([0, case.spec.num_timesteps, 0])
    mixed = case.D.degrade(x0, t, case.omega)
    return max(_largest(case.degrade(0, x0) - x0), _largest(mixed[[0, 2]] - x0[[0, 2]]))


@law(allowed=0)
def image_in_image_out(case: Case) -> float:
    """The result has the shape, dtype and device of x0."""
    wrong = 0
    for dtype in DTYPES:
        x0 = case.x0.to(dtype)
        for t in case.severities:
            x_t = case.degrade(t, x0)
            wrong += (x_t.shape, x_t.dtype, x_t.device) != (x0.shape, x0.dtype, x0.device)
    return float(wrong)


@law(allowed=1e-4)
def precise(case: Case) -> float:
    """Float32 results agree with float64."""
    return max(_apart(case.degrade(t), case.degrade(t, case.x0.double())) for t in case.severities)


@law(allowed=0)
def finite(case: Case) -> float:
    """The result is finite at every severity."""
    own = {name: value[:1] for name, value in case.omega.items()}
    wrong = 0
    for t in range(case.spec.num_timesteps + 1):
        x_t = case.D.degrade(case.x0[:1], torch.tensor([t]), own)
        wrong += int((~torch.isfinite(x_t)).sum())
    return float(wrong)


@law(allowed=1e-5)
def batch_independence(case: Case) -> float:
    """A result does not depend on the rest of its batch."""
    worst = 0.0
    for t in case.severities:
        together = case.degrade(t)
        for i in range(BATCH):
            row = {name: value[i : i + 1] for name, value in case.omega.items()}
            alone = case.D.degrade(case.x0[i : i + 1], torch.tensor([t]), row)
            worst = max(worst, _apart(together[i : i + 1], alone))
    return worst


@law(allowed=1e-5)
def own_severity(case: Case) -> float:
    """Each image has its own severity."""
    T, worst = case.spec.num_timesteps, 0.0
    for t in ([1, T // 2, T], [T, 0, 1]):
        mixed = case.D.degrade(case.x0, torch.tensor(t), case.omega)
        uniform = torch.stack([case.degrade(severity)[i] for i, severity in enumerate(t)])
        worst = max(worst, _apart(mixed, uniform))
    return worst


@law(allowed=0)
def same_omega_same_image(case: Case) -> float:
    """Equal x0, t and omega give an equal result, also from a newly built D."""
    rebuilt = DEGRADATIONS.parse(case.spec.to_dict()).build(case.D.shape)
    worst = 0.0
    for t in case.severities:
        severity, first = torch.full((BATCH,), t), case.degrade(t)
        for D in (case.D, rebuilt):
            with _other_global_seeds():
                again = D.degrade(case.x0, severity, case.omega)
            worst = max(worst, _largest(again - first))
    return worst


@law(allowed=0)
def arguments_unchanged(case: Case) -> float:
    """The arguments x0, t and omega are not modified."""
    T = case.spec.num_timesteps
    arguments = {"x0": case.x0.clone(), "t": torch.tensor([T, 1, T // 2])}
    arguments |= {name: value.clone() for name, value in case.omega.items()}
    before = {name: value.clone() for name, value in arguments.items()}
    omega = {name: arguments[name] for name in case.omega}
    case.D.degrade(arguments["x0"], arguments["t"], omega)
    return float(sum(not torch.equal(arguments[name], before[name]) for name in before))


@law(allowed=0)
def own_generator(case: Case) -> float:
    """Row i of a draw depends on generator i only."""
    if not case.D.omega_names or case.D.omega_images:
        return 0.0
    drawn = case.D.draw(BATCH, rng=streams(7, "laws/draw", range(BATCH)))
    wrong = 0
    for i in range(BATCH):
        with _other_global_seeds():
            alone = case.D.draw(1, rng=streams(7, "laws/draw", [i]))
        wrong += any(not torch.equal(alone[name][0], drawn[name][i]) for name in drawn)
    return float(wrong)


@law(allowed=1e-6)
def naive_restores(case: Case) -> float:
    """With a perfect restorer Algorithm 1 ends at x0."""
    return _restored(case, "naive")


@law(allowed=1e-6)
def improved_restores(case: Case) -> float:
    """With a perfect restorer Algorithm 2 ends at x0."""
    return _restored(case, "improved")


def _restored(case: Case, sampler: str) -> float:
    # In float64, so that the rounding of T steps stays below the tolerance.
    T, x0, omega = (
        case.spec.num_timesteps,
        case.x0.double(),
        {k: _doubled(v) for k, v in case.omega.items()},
    )
    x_T = case.D.degrade(x0, torch.full((BATCH,), T), omega)
    steps = min(T, SAMPLER_STEPS)
    end = sample(lambda x, t: x0, case.D, x_T, omega, sampler=sampler, severities=steps)
    return _largest(end - x0)


@contextmanager
def _other_global_seeds() -> Iterator[None]:
    """Temporarily reseed the global generators, which D must not use."""
    state = np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(99)
        np.random.seed(99)
        try:
            yield
        finally:
            np.random.set_state(state)


def _doubled(value: Tensor) -> Tensor:
    return value.double() if value.is_floating_point() else value


def _apart(a: Tensor, b: Tensor) -> float:
    """Largest absolute difference, relative to the largest value of ``b`` or to 1 if larger."""
    return _largest(a - b) / max(_largest(b), 1.0)


def _largest(values: Tensor) -> float:
    largest = float(values.abs().max()) if values.numel() else 0.0
    return math.inf if math.isnan(largest) else largest  # Python's `max` ignores NaN


def broken(findings: Iterable[Finding]) -> list[Finding]:
    """The findings whose law does not hold."""
    return [finding for finding in findings if not finding.holds]
