"""Sampling: the loop from x_T back to x_0 with R, D and a sampler (Algorithms 1 and 2)."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from operator import index
from typing import Any

import numpy as np
import torch

from colddiff.degradations import Degradation
from colddiff.errors import SpecError
from colddiff.machine.tqdm_bar import reported
from colddiff.restorers import evaluating
from colddiff.rng import Rng, rows
from colddiff.samplers import DEFAULT, check_samplers, find_sampler, full
from colddiff.types import Image, Omega, ProgressCallback, Severity

Severities = int | Sequence[int] | None
Restore = Callable[[Image, Severity], Image]


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a sampler: the estimate at severity ``t`` and the state it led to at ``s``."""

    t: int
    s: int
    x0_hat: Image
    x_s: Image


def break_symmetry(x_T: Image, std: float, rng: Rng) -> Image:
    """x_T + N(0, std^2) for each pixel and channel, the start of a trajectory (PAPER 4.2).

    A start that is constant over the image stays constant under any R that commutes with shifts;
    the paper's "broken symmetry" is std = 0.002, "perfect symmetry" std = 0. With a sequence of
    generators row i uses only its own. Raises SpecError for a negative or infinite ``std``.
    """
    if not 0 <= std < math.inf:
        raise SpecError([("symmetry_noise", f"must be 0 or more, got {std}")])
    if std == 0:
        return x_T
    shape = tuple(x_T.shape[1:])
    drawn = np.stack([generator.standard_normal(shape) for generator in rows(rng, len(x_T))])
    return x_T + std * torch.from_numpy(drawn).to(x_T.device, x_T.dtype)


def falling(severities: Severities, num_timesteps: int, sampler: str = DEFAULT) -> list[int]:
    """T = t_0 > t_1 > ... > 0 from None (all), n (n even steps) or a falling list down to 0.

    For a sampler of a single step: [t_0, 0]. Raises SpecError for severities that do not fall so.
    """
    if severities is None:
        severities = num_timesteps
    if isinstance(severities, int):
        if not 1 <= severities <= num_timesteps:
            raise SpecError([("severities", f"must be 1..{num_timesteps} steps, got {severities}")])
        chosen = [
            round(num_timesteps * (severities - i) / severities) for i in range(severities + 1)
        ]
    else:
        chosen = _falling_list(severities, num_timesteps)
    return [chosen[0], 0] if find_sampler(sampler).single_step else chosen


def _falling_list(severities: Sequence[int], num_timesteps: int) -> list[int]:
    try:
        chosen = [index(severity) for severity in severities]
        falls = chosen[0] <= num_timesteps and all(s < t for t, s in pairwise([*chosen, -1]))
    except (TypeError, IndexError):
        falls = False
    if not falls or len(chosen) < 2 or chosen[-1] != 0:
        raise SpecError(
            [
                (
                    "severities",
                    f"must fall strictly from at most {num_timesteps} down to 0, got {severities}",
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
    sampler: str = DEFAULT,
    severities: Severities = None,
) -> Generator[Step, None, None]:
    """Yields every step of a sampler, the last one holding x_0; the caller reports progress.

    Args:
        R: (x_t, t) -> x0_hat with t int64 [B]; a module is in evaluation mode during the call.
        D: the degradation R was trained to invert.
        x_T: the start, floating [B, C, H, W], at the first of ``severities``. Nothing is clipped.
        omega: of the trajectory that led to ``x_T``; {} where D is not random.
        sampler: a name in ``colddiff.samplers``: ``direct`` is a single R(x_T, T), ``naive``
            Algorithm 1, ``improved`` Algorithm 2.
        severities: None for T..0, n for n even steps, or a strictly falling list down to 0.

    Raises:
        SpecError: a sampler that is unknown or does not support D, severities that do not fall, a
            start that D does not support.
    """
    steps = falling(severities, D.num_timesteps, sampler)
    chosen = find_sampler(sampler)
    D.check(x_T, full(x_T, steps[0]))
    D.check_start(steps[0])
    check_samplers([sampler], D)
    # Once: an image-sized omega would otherwise be copied to the device twice per step.
    held = D.place_omega(omega or {}, x_T) if chosen.needs_omega else {}
    with evaluating(R):
        x = x_T
        for t, s in pairwise(steps):
            with torch.inference_mode():
                x0_hat = R(x, torch.full((len(x),), t, dtype=torch.int64, device=x.device))
                x = chosen.step(x, x0_hat, t, s, D, held)  # Algorithm 1, 2, ...: samplers/*.py
            yield Step(t, s, x0_hat, x)


def sample(
    R: Restore,
    D: Degradation[Any],
    x_T: Image,
    omega: Omega | None = None,
    *,
    sampler: str = DEFAULT,
    severities: Severities = None,
    progress: bool | ProgressCallback = False,
) -> Image:
    """x_0 of ``sample_steps``: [B, C, H, W], not clipped to [-1, 1].

    ``progress``: True for a bar of the steps (none for a sampler of one step, or where all takes
    under half a second), or a function that is called with (steps done, steps in all).

    >>> from colddiff import ImageShape, build_degradation
    >>> blur = {"kind": "blur", "num_timesteps": 8, "sigma": {"kind": "constant", "value": 1.0}}
    >>> D = build_degradation({**blur, "kernel_size": 5}, ImageShape(1, 16, 16))
    >>> x0 = torch.linspace(-1, 1, 256).view(1, 1, 16, 16)
    >>> x_T = D.degrade(x0, torch.tensor([8]))
    >>> x = sample(lambda x_t, t: x0, D, x_T, sampler="improved", severities=4)
    >>> torch.allclose(x, x0, atol=1e-5)  # exact, since this R is
    True
    """
    x = x_T
    total = len(falling(severities, D.num_timesteps, sampler)) - 1
    with reported(progress, total, sampler) as report:
        steps = sample_steps(R, D, x_T, omega, sampler=sampler, severities=severities)
        for done, step in enumerate(steps, start=1):
            x = step.x_s
            report(done, total)
    return x.clone()  # a normal tensor, not one of inference mode
