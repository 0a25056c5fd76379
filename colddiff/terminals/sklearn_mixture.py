"""Fits Gaussian mixtures to streamed features: one component in closed form, several by EM."""

from __future__ import annotations

import warnings
from collections.abc import Iterable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from colddiff.errors import DataError

TOLERANCE = 1e-3
"""Gain in mean log-likelihood below which EM stops (PAPER 4.2)."""
REGULARISATION = 1e-6
"""Added to every variance, so that nearly constant features can be sampled too."""
MAX_ITERATIONS = 1000
Features = NDArray[np.float64]


def fit_mixture(features: Iterable[Features], components: int = 1) -> dict[str, Tensor]:
    """Fit ``components`` Gaussians with full covariances; a deterministic function of the features.

    Args:
        features: batches [n, F]; with one component, only one batch is in memory at a time.
        components: number K of Gaussians.

    Returns:
        float64 ``weights`` [K], ``means`` [K, F] and ``factors`` [K, F, F], the lower Cholesky
        factors of the covariances.

    Raises:
        DataError: fewer than two vectors, or fewer than components; a vector that is not finite;
            EM does not converge with so many components.
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
            raise DataError("terminal: a feature is NaN or inf, cannot fit a mixture")
        count += len(batch)
        if len(batch):
            yield np.asarray(batch, dtype=np.float64)
    if count < least:
        raise DataError(
            f"terminal: {count} images, a mixture needs at least {least}; pack more images, or set "
            "fewer terminal.components"
        )


def _one(batches: Iterable[Features]) -> tuple[Features, Features, Features]:
    """Sample mean and covariance, merged batch by batch."""
    count, mean, scatter = 0, np.zeros(0), np.zeros((0, 0))
    for batch in batches:
        if not count:
            mean, scatter = np.zeros(batch.shape[1]), np.zeros((batch.shape[1],) * 2)
        centre = batch.mean(axis=0)
        shift, total = centre - mean, count + len(batch)
        residual = batch - centre
        scatter += residual.T @ residual + np.outer(shift, shift) * (count * len(batch) / total)
        mean = mean + shift * (len(batch) / total)
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
    # With several threads the summation order would vary from run to run.
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
