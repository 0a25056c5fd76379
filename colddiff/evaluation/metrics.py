"""Image errors (SSIM, RMSE, PSNR) and Frechet distances, from sums over batches and workers."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import safetensors
import safetensors.numpy
import torch
from numpy.typing import NDArray

from colddiff.errors import DataError

if TYPE_CHECKING:
    from torch import Tensor

Float64 = NDArray[np.float64]

SSIM_WINDOW = 11
SSIM_SIGMA = 1.5
_C1, _C2 = 0.01**2, 0.03**2


def ssim(images: Tensor, originals: Tensor) -> Tensor:
    """Structural similarity of each image, float64 [B] (Wang et al. 2004, the paper's settings).

    Gaussian window of 11 px and sigma 1.5 without padding, K = 0.01 and 0.03, biased variances,
    the mean over positions and channels: the numbers of ``pytorch_msssim.ssim(data_range=1)``.

    Args:
        images: [B, C, H, W] on the scale [0, 1]; values outside it are not clamped.
        originals: what they are compared with, of the same shape.

    Raises:
        DataError: shapes that differ, or a side under 11 px.
    """
    _check_pair(images, originals)
    height, width = images.shape[-2:]
    if min(height, width) < SSIM_WINDOW:
        raise DataError(
            f"ssim: images of {height}x{width} px are smaller than its {SSIM_WINDOW} px window; "
            "omit ssim, or evaluate at a larger image_size"
        )
    rows, columns = _windows(height).to(images.device), _windows(width).to(images.device)

    def local_mean(x: Tensor) -> Tensor:
        return rows @ x @ columns.mT

    # float64: local variances are differences of nearly equal numbers.
    x, y = images.double(), originals.double()
    mean_x, mean_y = local_mean(x), local_mean(y)
    var_x = local_mean(x * x) - mean_x**2
    var_y = local_mean(y * y) - mean_y**2
    covariance = local_mean(x * y) - mean_x * mean_y
    luminance = (2 * mean_x * mean_y + _C1) / (mean_x**2 + mean_y**2 + _C1)
    structure = (2 * covariance + _C2) / (var_x + var_y + _C2)
    return (luminance * structure).mean(dim=(1, 2, 3))


def ssim_of(images: Tensor, originals: Tensor) -> Tensor:
    """``ssim`` of each image, float64 [B]; [0] if they are smaller than its window."""
    if min(images.shape[-2:]) < SSIM_WINDOW:
        return torch.empty(0, dtype=torch.float64)
    return ssim(images, originals)


@lru_cache(maxsize=16)
def _windows(side: int) -> Tensor:
    """The window at every position along ``side``: float64 [side - 10, side]."""
    offsets = np.arange(SSIM_WINDOW) - SSIM_WINDOW // 2
    taps = np.exp(-(offsets**2) / (2 * SSIM_SIGMA**2))
    places = side - SSIM_WINDOW + 1
    operator = np.zeros((places, side))
    for place in range(places):
        operator[place, place : place + SSIM_WINDOW] = taps / taps.sum()
    return torch.from_numpy(operator)


@dataclass(frozen=True, slots=True)
class ImageErrors:
    """Sums over images that give SSIM, RMSE and PSNR; ``merge`` adds disjoint sets of images.

    ``ssim_sum`` is None if the images are smaller than SSIM's window.
    """

    n: int = 0
    values: int = 0
    squared_error: float = 0.0
    ssim_sum: float | None = 0.0

    @classmethod
    def of(cls, images: Tensor, originals: Tensor, similarity: Tensor | None = None) -> ImageErrors:
        """The sums of one batch, [B, C, H, W] on the scale [0, 1], not clamped (PAPER 6).

        ``similarity``: their ``ssim_of``, where it has been computed already.
        """
        _check_pair(images, originals)
        if similarity is None:
            similarity = ssim_of(images, originals)
        return cls(
            n=len(images),
            values=images.numel(),
            squared_error=float(((images.double() - originals.double()) ** 2).sum()),
            ssim_sum=float(similarity.sum()) if len(similarity) else None,
        )

    def merge(self, other: ImageErrors) -> ImageErrors:
        """The sums over both sets of images."""
        both = self.ssim_sum is not None and other.ssim_sum is not None
        return ImageErrors(
            n=self.n + other.n,
            values=self.values + other.values,
            squared_error=self.squared_error + other.squared_error,
            ssim_sum=self.ssim_sum + other.ssim_sum if both else None,  # type: ignore[operator]
        )

    @property
    def ssim(self) -> float | None:
        """Mean SSIM over the images; None if they are smaller than 11 px."""
        self._check_some()
        return None if self.ssim_sum is None else self.ssim_sum / self.n

    @property
    def rmse(self) -> float:
        """Root of the mean squared error over all values of all images, the paper's RMSE."""
        self._check_some()
        return math.sqrt(self.squared_error / self.values)

    @property
    def psnr(self) -> float:
        """-20 log10(rmse) in dB, of that same global error; inf for equal images."""
        return -20 * math.log10(self.rmse) if self.rmse > 0 else math.inf

    def _check_some(self) -> None:
        if self.n == 0:
            raise DataError("image errors: no images were compared; give at least one")


@dataclass(frozen=True, slots=True)
class FeatureStatistics:
    """Count, mean [F] and sum of squared deviations M2 [F, F] of feature vectors, in float64.

    Two sets merge exactly (Chan, Golub and LeVeque 1979), so statistics can be accumulated over
    batches and workers; ``covariance`` is M2 / (n - 1).
    """

    n: int
    mean: Float64
    m2: Float64 = field(repr=False)

    @classmethod
    def of(cls, features: Float64) -> FeatureStatistics:
        """The statistics of one batch of features [B, F]."""
        features = np.asarray(features, dtype=np.float64)
        if features.ndim != 2 or not len(features):
            raise DataError(f"features: expected [B, F] with B > 0, got {list(features.shape)}")
        mean = features.mean(axis=0)
        centred = features - mean
        return cls(len(features), mean, centred.T @ centred)

    def merge(self, other: FeatureStatistics) -> FeatureStatistics:
        """The statistics of both sets; DataError if the feature dimensions differ."""
        _check_same_width(self, other)
        n = self.n + other.n
        delta = other.mean - self.mean
        return FeatureStatistics(
            n,
            self.mean + delta * (other.n / n),
            self.m2 + other.m2 + np.outer(delta, delta) * (self.n * other.n / n),
        )

    @property
    def covariance(self) -> Float64:
        """Unbiased covariance [F, F]; DataError for fewer than two images."""
        if self.n < 2:
            raise DataError(
                f"feature statistics of {self.n} image have no covariance; use at least 2 images"
            )
        return np.asarray(self.m2 / (self.n - 1))

    def to_bytes(self) -> bytes:
        """The statistics as a safetensors file of float64 and int64 arrays."""
        return safetensors.numpy.save(
            {"n": np.array([self.n], dtype=np.int64), "mean": self.mean, "m2": self.m2}
        )

    @classmethod
    def from_bytes(cls, data: bytes) -> FeatureStatistics:
        """What ``to_bytes`` wrote; DataError for anything else."""
        try:
            arrays: dict[str, NDArray[Any]] = safetensors.numpy.load(data)
        except (safetensors.SafetensorError, ValueError, KeyError) as error:
            raise DataError(f"feature statistics: not a safetensors file ({error})") from None
        shapes = {name: array.shape for name, array in arrays.items()}
        width = shapes.get("mean", (0,))[0]
        if shapes != {"n": (1,), "mean": (width,), "m2": (width, width)}:
            raise DataError(
                f"feature statistics: expected n [1], mean [F] and m2 [F, F], got {shapes}"
            )
        return cls(
            int(arrays["n"][0]), arrays["mean"].astype(np.float64), arrays["m2"].astype(np.float64)
        )


def frechet_distance(a: FeatureStatistics, b: FeatureStatistics) -> float:
    """|mean_a - mean_b|^2 + tr(S_a + S_b - 2 (S_a S_b)^(1/2)), the distance of two Gaussians.

    The trace of the root is that of the symmetric (A S_b A)^(1/2) with A = S_a^(1/2): two
    symmetric eigendecompositions in float64, stable for singular covariances.

    Raises:
        DataError: fewer than two images on a side, different dimensions, or non-finite features.
    """
    _check_same_width(a, b)
    for side in (a, b):
        if not (np.isfinite(side.mean).all() and np.isfinite(side.m2).all()):
            raise DataError(
                "Frechet distance: the features hold NaN or inf; check the images they come from"
            )
    cov_a, cov_b = a.covariance, b.covariance
    values, vectors = np.linalg.eigh(cov_a)
    # Round-off leaves singular directions slightly negative.
    root_a = (vectors * np.sqrt(values.clip(min=0.0))) @ vectors.T
    cross = np.linalg.eigvalsh(root_a @ cov_b @ root_a).clip(min=0.0)
    means = float(((a.mean - b.mean) ** 2).sum())
    traces = float(np.trace(cov_a) + np.trace(cov_b) - 2 * np.sqrt(cross).sum())
    return max(0.0, means + traces)


def add_distance(
    metrics: dict[str, float],
    omitted: dict[str, str],
    path: str,
    sides: tuple[FeatureStatistics | None, FeatureStatistics | None],
) -> None:
    """Adds the Frechet distance of ``sides`` as ``path``, or why there is none to ``omitted``."""
    a, b = sides
    if a is None or b is None or min(a.n, b.n) < 2:
        omitted[path] = "fewer than 2 images on a side"
    else:
        metrics[path] = frechet_distance(a, b)


def _check_pair(images: Tensor, originals: Tensor) -> None:
    if images.shape != originals.shape or images.ndim != 4 or not images.is_floating_point():
        raise DataError(
            "image errors: expected two floating [B, C, H, W] of one shape, got "
            f"{images.dtype} {list(images.shape)} and {list(originals.shape)}"
        )


def _check_same_width(a: FeatureStatistics, b: FeatureStatistics) -> None:
    if a.mean.shape != b.mean.shape:
        raise DataError(
            f"feature statistics of {a.mean.size} and {b.mean.size} features come from different "
            "networks; compute both with the same one"
        )
