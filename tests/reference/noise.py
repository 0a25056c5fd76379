"""PAPER 4.1: the mixing weights, beta by beta, in float64."""

from __future__ import annotations

import math

from tests.reference.blur import Array


def alphas_bar(schedule: str, T: int) -> list[float]:
    kept, product = [], 1.0
    for k in range(1, T + 1):
        if schedule == "cosine":
            now, before = (
                math.cos(((j / T) + 0.008) / 1.008 * math.pi / 2) ** 2 for j in (k, k - 1)
            )
            beta = min(max(1 - now / before, 0.0), 0.999)
        else:
            start, end = 1e-4 * 1000 / T, 0.02 * 1000 / T
            beta = min(start + (end - start) * ((k - 1) / (T - 1) if T > 1 else 0), 0.999)
        product *= 1 - beta
        kept.append(product)
    return kept


def state(x0: Array, z: Array, t: int, schedule: str, T: int) -> Array:
    if t == 0:
        return x0
    kept = alphas_bar(schedule, T)[t - 1]
    return math.sqrt(kept) * x0 + math.sqrt(1 - kept) * z
