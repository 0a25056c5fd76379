"""Gaussian mixtures fitted to streamed features: one component in closed form, else EM."""

from __future__ import annotations

import warnings
from collections.abc import Iterable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from colddiff.errors import DataError

TOLERANCE = 1e-3
"""Gain in mean log-likelihood below which the fit ends (PAPER 4.2)."""
REGULARISATION = 1e-6
"""Added to every variance, so that features that hardly vary can be drawn too."""
MAX_ITERATIONS = 1000
Features = NDArray[np.float64]


def fit_mixture(features: Iterable[Features], components: int = 1) -> dict[str, Tensor]:
    """A mixture of ``components`` Gaussians with full covariances, a function of the features.

    Args:
        features: batches [n, F]; with one component no more than one is held in memory.
        components: number K of Gaussians.

    Returns:
        float64 ``weights`` [K], ``means`` [K, F] and ``factors`` [K, F, F], the lower Cholesky
        factors of the covariances.

    Raises:
        DataError: fewer than two vectors, or than there are components; one that is not finite;
            more components than the data has places for.
    """
    batches = _checked(features, max(2, components))
    weights, means, covariances = (
        _one(batches) if components == 1 else _many(np.concatenate(list(batches)), components)
    )
    return {
        "weights": torch.from_numpy(weights),
        "means": torch.from_numpy(means),
        "factors": torch.from_numpy(np.linalg.cholesky(covariances)),
    }


def _checked(features: Iterable[Features], least: int) -> Iterable[Features]:
    count = 0
    for batch in features:
        if not np.isfinite(batch).all():
            raise DataError("terminal: a feature is NaN or inf, no mixture can be fitted")
        count += len(batch)
        if len(batch):
            yield np.asarray(batch, dtype=np.float64)
    if count < least:
        raise DataError(f"terminal: {count} images, a mixture needs at least {least}")


def _one(batches: Iterable[Features]) -> tuple[Features, Features, Features]:
    """Sample mean and covariance, merged batch by batch."""
    count, mean, scatter = 0, np.zeros(0), np.zeros((0, 0))
    for batch in batches:
        if not count:
            mean, scatter = np.zeros(batch.shape[1]), np.zeros((batch.shape[1],) * 2)
        centre = batch.mean(axis=0)
        apart, total = centre - mean, count + len(batch)
        around = batch - centre
        scatter += around.T @ around + np.outer(apart, apart) * (count * len(batch) / total)
        mean = mean + apart * (len(batch) / total)
        count = total
    covariance = scatter / count + REGULARISATION * np.eye(len(mean))
    return np.ones(1), mean[None], covariance[None]


def _many(features: Features, components: int) -> tuple[Features, Features, Features]:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture
    from threadpoolctl import threadpool_limits

    mixture = GaussianMixture(
        components,
        covariance_type="full",
        tol=TOLERANCE,
        reg_covar=REGULARISATION,
        max_iter=MAX_ITERATIONS,
        random_state=0,
    )
    # Several threads add up in an order of their own each time.
    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)
        try:
            mixture.fit(features)
        except (ConvergenceWarning, ValueError) as error:
            raise DataError(
                f"terminal: {components} components cannot be fitted to {len(features)} images "
                f"({' '.join(str(error).split())[:160]}); use fewer"
            ) from None
    return mixture.weights_, mixture.means_, mixture.covariances_
