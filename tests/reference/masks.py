"""PAPER 3.2 and 4.3: masks multiplied one after the other, in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.reference.blur import Array


def mask(height: int, width: int, centre: tuple[float, float], sigma: float) -> Array:
    rows, columns = np.mgrid[:height, :width]
    squared = (rows - centre[0]) ** 2 + (columns - centre[1]) ** 2
    return np.asarray(1 - np.exp(-squared / (2 * sigma**2)))


def products(
    height: int, width: int, centre: tuple[float, float], sigmas: NDArray[Any]
) -> list[Array]:
    """The products of the first 0..T masks."""
    found = [np.ones((height, width))]
    for sigma in sigmas:
        found.append(found[-1] * mask(height, width, centre, float(sigma)))
    return found


def inpainted(x0: Array, centre: tuple[float, float], sigmas: NDArray[Any]) -> Array:
    """D(x0, t) for t = 0..T, one mask at a time."""
    states = [x0]
    _, height, width = x0.shape
    for sigma in sigmas:
        states.append(np.multiply(states[-1], mask(height, width, centre, float(sigma))))
    return np.stack(states)


def faded(
    x0: Array, colour: Array, centre: tuple[float, float], sigmas: NDArray[Any], reverse: bool
) -> Array:
    """D(x0, t) for t = 0..T."""
    _, height, width = x0.shape
    found = products(height, width, centre, sigmas)
    T = len(sigmas)
    states = [x0]
    for t in range(1, T + 1):
        weight = found[T - t] if reverse else 1 - found[t]
        states.append((1 - weight) * x0 + weight * colour[:, None, None])
    return np.stack(states)
