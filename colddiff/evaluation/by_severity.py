"""What D removes and what R restores at each severity, measured on a few test images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from colddiff.degradations import Degradation
from colddiff.sampling import Restore
from colddiff.severity_profile import labelled_parameters, measure_severity_profile
from colddiff.transforms import eight_bit
from colddiff.types import Image, Omega

Float64 = NDArray[np.float64]

SPECTRA = (0.0, 0.25, 0.5, 1.0)
"""Fractions of T whose power spectrum is kept."""


@dataclass(frozen=True, slots=True)
class BySeverity:
    """Measurements over the severities of one degradation, on the scale [0, 1].

    ``removed`` [T + 1] and ``steps`` [T] are those of a ``SeverityProfile``; ``severities`` [S]
    fall to 0, and ``restored`` [S] is the RMSE of R(D(x, t), t) against x at them.
    ``states`` and ``estimates``, uint8 [S, k, C, H, W], are D(x, t) and R(D(x, t), t) of the first
    images. ``spectra`` [P, F]: mean power by radial frequency, 0 to the Nyquist frequency, of
    D(x, t) at ``spectrum_severities``. ``parameters``: what D's schedule sets, [T] by label.
    """

    num_images: int
    removed: Float64
    steps: Float64
    severities: tuple[int, ...]
    restored: Float64
    states: NDArray[np.uint8]
    estimates: NDArray[np.uint8]
    spectrum_severities: tuple[int, ...]
    spectra: Float64
    parameters: Mapping[str, Float64]


def measure_by_severity(
    estimate: Restore,
    D: Degradation[Any],
    x0: Image,
    omega: Omega,
    severities: Sequence[int],
    keep: int,
) -> BySeverity:
    """Measures D, and R by ``estimate``, on images ``x0`` [B, C, H, W], one omega each.

    ``severities``: those of R, one call each; ``keep``: how many images are kept as pictures.
    """
    T = D.num_timesteps
    profile = measure_severity_profile(D, x0, omega)
    errors, states, estimates = [], [], []
    for t in severities:
        at = torch.full((len(x0),), t)
        x_t = D.observe(x0, at, omega)
        x0_hat = estimate(x_t, at) if t else x0
        errors.append(_rmse(x0_hat, x0))
        states.append(eight_bit(x_t[:keep]))
        estimates.append(eight_bit(x0_hat[:keep]))
    at_fractions = sorted({round(T * part) for part in SPECTRA})
    return BySeverity(
        len(x0),
        profile.rmse,
        profile.steps,
        tuple(severities),
        np.array(errors),
        np.stack(states),
        np.stack(estimates),
        tuple(at_fractions),
        np.stack([_spectrum(D, x0, t, omega) for t in at_fractions]),
        labelled_parameters(D),
    )


def radial_power(images: NDArray[Any]) -> Float64:
    """Mean power |F|^2 / (H W) of images [..., H, W] by whole radial frequency, float64 [F].

    Frequency is counted in cycles over the shorter side, from 0 to half of it.
    """
    height, width = images.shape[-2:]
    power = np.abs(np.fft.fft2(images)) ** 2 / (height * width)
    side = min(height, width)
    rows = np.fft.fftfreq(height)[:, None] * side
    columns = np.fft.fftfreq(width)[None, :] * side
    radius = np.rint(np.hypot(rows, columns)).astype(np.int64)
    flat = power.reshape(-1, height * width).mean(axis=0)
    sums = np.bincount(radius.ravel(), weights=flat)
    counts = np.bincount(radius.ravel())
    return np.asarray((sums / counts)[: side // 2 + 1])


def _spectrum(D: Degradation[Any], x0: Image, t: int, omega: Omega) -> Float64:
    x_t = D.degrade(x0, torch.full((len(x0),), t), omega)
    return radial_power(((x_t.double() + 1) / 2).cpu().numpy())


def _rmse(images: Image, x0: Image) -> float:
    return float((images.double() - x0.double()).square().mean().sqrt()) / 2
