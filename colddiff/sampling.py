"""Sampling: from x_T back to x_0 with a restorer R and a degradation D (Algorithms 1 and 2)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from colddiff.degradations import Degradation
from colddiff.errors import SpecError
from colddiff.types import Image, Omega

Sampler = Literal["direct", "naive", "improved", "improved_estimated"]
SAMPLERS: tuple[Sampler, ...] = get_args(Sampler)
Severities = int | Sequence[int] | None
Restore = Callable[[Image, Tensor], Image]
Update = Callable[[Image, Image, int, int, Degradation[Any], Omega], Image]


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a sampler: the estimate at severity ``t`` and the state it led to at ``s``."""

    t: int
    s: int
    x0_hat: Image
    x_s: Image


def naive_step(
    x_t: Image, x0_hat: Image, t: int, s: int, D: Degradation[Any], omega: Omega
) -> Image:
    """Algorithm 1: x_s = D(x0_hat, s)."""
    return D.degrade(x0_hat, _full(x_t, s), omega)


def improved_step(
    x_t: Image, x0_hat: Image, t: int, s: int, D: Degradation[Any], omega: Omega
) -> Image:
    """Algorithm 2: x_s = x_t - D(x0_hat, t) + D(x0_hat, s), for s < t.

    Where D(x, s) = x + s e with e independent of x, the result does not depend on ``x0_hat``: any
    restorer recovers x0 exactly (``tests/laws/test_sampler_laws.py``).
    """
    # Same omega in both terms: with fresh randomness their difference is noise, not a step.
    return x_t - D.degrade(x0_hat, _full(x_t, t), omega) + D.degrade(x0_hat, _full(x_t, s), omega)


def improved_estimated_step(
    x_t: Image, x0_hat: Image, t: int, s: int, D: Degradation[Any], omega: Omega
) -> Image:
    """Algorithm 2 with omega re-estimated from (x_t, x0_hat): for ``noise`` the DDIM step.

    With D(x0_hat, t, omega) = x_t by construction, x_s = D(x0_hat, s, omega) (PAPER 4.1).
    """
    estimated = D.estimate_omega(x_t, x0_hat, _full(x_t, t))
    if estimated is None:
        raise SpecError(
            f"sampler improved_estimated: degradation {D.spec.kind!r} cannot re-estimate omega "
            "from an image; use sampler=improved"
        )
    return D.degrade(x0_hat, _full(x_t, s), estimated)


UPDATES: dict[str, Update] = {
    "naive": naive_step,
    "improved": improved_step,
    "improved_estimated": improved_estimated_step,
}


def falling(severities: Severities, num_timesteps: int, sampler: str = "improved") -> list[int]:
    """T = t_0 > t_1 > ... > 0 from None (all), n (n even steps) or a falling list down to 0."""
    if sampler == "direct":
        if severities is None or isinstance(severities, int):
            return [num_timesteps, 0]
        severities = [severities[0], 0] if severities else []
    elif severities is None:
        severities = num_timesteps
    if isinstance(severities, int):
        if not 1 <= severities <= num_timesteps:
            raise SpecError([("severities", f"must be 1..{num_timesteps} steps, got {severities}")])
        return [round(num_timesteps * (severities - i) / severities) for i in range(severities + 1)]
    chosen = list(severities)
    if (
        len(chosen) < 2
        or chosen[-1] != 0
        or chosen[0] > num_timesteps
        or any(s >= t for t, s in pairwise(chosen))
    ):
        raise SpecError(
            [
                (
                    "severities",
                    f"must fall strictly from at most {num_timesteps} down to 0, got {chosen}",
                )
            ]
        )
    return chosen


def sample_steps(
    R: Restore,
    D: Degradation[Any],
    x_T: Image,
    omega: Omega | None = None,
    *,
    sampler: Sampler = "improved",
    severities: Severities = None,
) -> Iterator[Step]:
    """Yields every step of a sampler, the last one holding x_0; the caller owns the progress.

    Args:
        R: (x_t, t) -> x0_hat with t int64 [B]; a module is put into evaluation mode meanwhile.
        D: the degradation R was trained to invert.
        x_T: the start, [B, C, H, W], at the first of ``severities``. Nothing is clipped.
        omega: of the trajectory that led to ``x_T``; {} where D is not random.
        sampler: ``direct`` is a single R(x_T, T), ``naive`` Algorithm 1, ``improved`` Algorithm 2.
        severities: None for T..0, n for n even steps, or a strictly falling list down to 0.
    """
    steps = falling(severities, D.num_timesteps, sampler)
    update = _direct if sampler == "direct" else _update(sampler)
    training = isinstance(R, nn.Module) and R.training
    if isinstance(R, nn.Module):
        R.eval()
    try:
        x = x_T
        for t, s in pairwise(steps):
            with torch.inference_mode():
                x0_hat = R(x, _full(x, t))
                x = update(x, x0_hat, t, s, D, omega or {})
            yield Step(t, s, x0_hat, x)
    finally:
        if isinstance(R, nn.Module):
            R.train(training)


def sample(
    R: Restore,
    D: Degradation[Any],
    x_T: Image,
    omega: Omega | None = None,
    *,
    sampler: Sampler = "improved",
    severities: Severities = None,
) -> Image:
    """x_0 of ``sample_steps``: [B, C, H, W], not clipped to [-1, 1]."""
    x = x_T
    for step in sample_steps(R, D, x_T, omega, sampler=sampler, severities=severities):
        x = step.x_s
    return x.clone()  # leaves inference mode's tensors inside


def _direct(x_t: Image, x0_hat: Image, t: int, s: int, D: Degradation[Any], omega: Omega) -> Image:
    return x0_hat


def _update(sampler: str) -> Update:
    if sampler not in UPDATES:
        raise SpecError([("sampler", f"no {sampler!r}; one of direct, {', '.join(UPDATES)}")])
    return UPDATES[sampler]


def _full(x: Image, t: int) -> Tensor:
    # Host memory: D checks severities there, and moves them without a sync.
    return torch.full((len(x),), t, dtype=torch.int64)
