"""Image errors and Frechet distances: against slow oracles, in parts, and at the edges."""

from __future__ import annotations

import ast
import importlib.util
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
import scipy.linalg
import torch
from numpy.typing import NDArray
from torch import Tensor

from colddiff.errors import DataError
from colddiff.evaluation.metrics import FeatureStatistics, ImageErrors, frechet_distance, ssim

RNG = np.random.default_rng(7)


def pair(shape: tuple[int, ...] = (3, 2, 17, 14), noise: float = 0.2) -> tuple[Tensor, Tensor]:
    clean = RNG.random(shape)
    return torch.from_numpy(clean), torch.from_numpy(clean + noise * RNG.standard_normal(shape))


def slow_ssim(x: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    """SSIM of two [H, W] images by looking through one window after the other."""
    place = np.arange(11) - 5
    window = np.exp(-(place[:, None] ** 2 + place[None] ** 2) / (2 * 1.5**2))
    window /= window.sum()
    found = []
    for i in range(x.shape[0] - 10):
        for j in range(x.shape[1] - 10):
            a, b = x[i : i + 11, j : j + 11], y[i : i + 11, j : j + 11]
            mean_a, mean_b = (window * a).sum(), (window * b).sum()
            var_a, var_b = (window * (a - mean_a) ** 2).sum(), (window * (b - mean_b) ** 2).sum()
            covariance = (window * (a - mean_a) * (b - mean_b)).sum()
            found.append(
                (2 * mean_a * mean_b + 1e-4)
                * (2 * covariance + 9e-4)
                / ((mean_a**2 + mean_b**2 + 1e-4) * (var_a + var_b + 9e-4))
            )
    return float(np.mean(found))


def test_ssim_equals_the_definition() -> None:
    x, y = pair()
    for ours, a, b in zip(ssim(x, y), x.numpy(), y.numpy(), strict=True):
        by_channel = [slow_ssim(p, q) for p, q in zip(a, b, strict=True)]
        assert float(ours) == pytest.approx(np.mean(by_channel), abs=1e-12)


def test_ssim_of_equal_images_is_one() -> None:
    x, _ = pair((2, 1, 11, 11))
    torch.testing.assert_close(ssim(x, x), torch.ones(2, dtype=torch.float64))


def test_errors_of_known_images() -> None:
    zero, half = torch.zeros(2, 1, 12, 12), torch.full((2, 1, 12, 12), 0.5)
    errors = ImageErrors.of(half, zero)
    assert errors.rmse == 0.5
    assert errors.psnr == pytest.approx(20 * math.log10(2))
    assert ImageErrors.of(zero, zero).psnr == math.inf


def test_values_outside_the_scale_are_not_clamped() -> None:
    zero = torch.zeros(1, 1, 12, 12)
    assert ImageErrors.of(zero - 0.25, zero).rmse == 0.25


def test_image_errors_merge() -> None:
    x, y = pair((5, 1, 12, 12))
    whole = ImageErrors.of(x, y)
    parts = ImageErrors().merge(ImageErrors.of(x[:2], y[:2])).merge(ImageErrors.of(x[2:], y[2:]))
    assert parts.n == whole.n == 5
    assert parts.rmse == pytest.approx(whole.rmse, rel=1e-14)
    assert parts.ssim == pytest.approx(whole.ssim, rel=1e-14)


def test_ssim_is_absent_for_small_images() -> None:
    x, y = pair((2, 1, 10, 16))
    errors = ImageErrors.of(x, y)
    assert errors.ssim is None
    assert errors.merge(errors).ssim is None
    assert errors.rmse > 0
    with pytest.raises(DataError, match="10x16 px are smaller than its 11 px window"):
        ssim(x, y)


def test_image_errors_refuse_nonsense() -> None:
    with pytest.raises(DataError, match="of one shape"):
        ImageErrors.of(torch.zeros(1, 1, 12, 12), torch.zeros(1, 1, 12, 13))
    with pytest.raises(DataError, match="floating"):
        ImageErrors.of(*[torch.zeros(1, 1, 12, 12, dtype=torch.uint8)] * 2)
    with pytest.raises(DataError, match="no images"):
        _ = ImageErrors().rmse


def features(n: int, width: int = 5, shift: float = 0.0) -> NDArray[np.float64]:
    mixing = np.random.default_rng(1).standard_normal((width, width))
    return RNG.standard_normal((n, width)) @ mixing + shift


def test_statistics_merge_to_those_of_the_whole() -> None:
    # A large common offset: what naive sums of squares would lose.
    x = features(100) + 1e6
    whole = FeatureStatistics.of(x)
    parts = FeatureStatistics.of(x[:1])
    for start, stop in ((1, 4), (4, 60), (60, 100)):
        parts = parts.merge(FeatureStatistics.of(x[start:stop]))
    assert parts.n == 100
    np.testing.assert_allclose(parts.mean, whole.mean, rtol=1e-15)
    np.testing.assert_allclose(parts.covariance, np.cov(x.T), rtol=1e-8)


def test_statistics_survive_a_file() -> None:
    before = FeatureStatistics.of(features(9))
    after = FeatureStatistics.from_bytes(before.to_bytes())
    assert after.n == 9
    np.testing.assert_array_equal(after.mean, before.mean)
    np.testing.assert_array_equal(after.m2, before.m2)


@pytest.mark.parametrize(
    "data",
    [b"", b"not safetensors at all", safetensors.numpy.save({"n": np.zeros(1, np.int64)})],
    ids=["empty", "text", "other arrays"],
)
def test_a_file_of_something_else_is_refused(data: bytes) -> None:
    with pytest.raises(DataError, match="feature statistics"):
        FeatureStatistics.from_bytes(data)


def test_frechet_distance_equals_the_matrix_root() -> None:
    x, y = features(300), features(200, shift=0.3) * 1.5
    a, b = FeatureStatistics.of(x), FeatureStatistics.of(y)
    root: Any = scipy.linalg.sqrtm(np.cov(x.T) @ np.cov(y.T))
    expected = ((x.mean(0) - y.mean(0)) ** 2).sum() + np.trace(
        np.cov(x.T) + np.cov(y.T) - 2 * root.real
    )
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-10)
    assert frechet_distance(b, a) == pytest.approx(expected, rel=1e-10)


def frechet_of_clean_fid() -> Any:
    """Its own function. Its module imports torchvision, which fails beside many builds of torch."""
    package = importlib.util.find_spec("cleanfid")
    assert package
    assert package.origin
    module = ast.parse((Path(package.origin).parent / "fid.py").read_text())
    (function,) = (node for node in module.body if getattr(node, "name", "") == "frechet_distance")

    def sqrtm(x: Any, disp: bool = True) -> Any:
        """SciPy's, with the argument that newer ones lack."""
        return scipy.linalg.sqrtm(x) if disp else (scipy.linalg.sqrtm(x), 0.0)

    names: dict[str, Any] = {"np": np, "linalg": SimpleNamespace(sqrtm=sqrtm)}
    exec(compile(ast.Module([function], []), "fid.py", "exec"), names)
    return names["frechet_distance"]


def test_frechet_distance_is_that_of_clean_fid_also_merged_over_workers() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        # Without features that are constant: its matrix root warns of singular matrices.
        network = torch.nn.Sequential(
            torch.nn.Conv2d(3, 64, 4, stride=4), torch.nn.Softplus(), torch.nn.AdaptiveAvgPool2d(1)
        ).double()
    images = torch.from_numpy(np.random.default_rng(3).random((1000, 3, 16, 16)))
    with torch.no_grad():
        found = network(images).flatten(1).numpy()
    real, made = found[:600], found[600:] * 1.1 + 0.02
    theirs = frechet_of_clean_fid()(
        real.mean(0), np.cov(real, rowvar=False), made.mean(0), np.cov(made, rowvar=False)
    )
    a, b = FeatureStatistics.of(real), FeatureStatistics.of(made)
    assert frechet_distance(a, b) == pytest.approx(theirs, rel=1e-6)
    merged = FeatureStatistics.of(real[:7])
    for start, stop in ((7, 200), (200, 450), (450, 600)):
        merged = merged.merge(FeatureStatistics.of(real[start:stop]))
    assert frechet_distance(merged, b) == pytest.approx(frechet_distance(a, b), rel=1e-8)


def test_frechet_distance_of_shifted_sets_is_the_shift() -> None:
    x = features(50)
    a, b = FeatureStatistics.of(x), FeatureStatistics.of(x + np.array([3.0, 4, 0, 0, 0]))
    assert frechet_distance(a, b) == pytest.approx(25.0, rel=1e-9)
    assert frechet_distance(a, a) == pytest.approx(0.0, abs=1e-6)


def test_frechet_distance_of_fewer_images_than_features() -> None:
    a, b = FeatureStatistics.of(features(3, 40)), FeatureStatistics.of(features(4, 40))
    assert math.isfinite(frechet_distance(a, b))
    assert frechet_distance(a, a) == pytest.approx(0.0, abs=1e-5)


def test_frechet_distance_says_what_is_wrong() -> None:
    two, one = FeatureStatistics.of(features(2)), FeatureStatistics.of(features(1))
    with pytest.raises(DataError, match="at least 2 images"):
        frechet_distance(two, one)
    with pytest.raises(DataError, match="5 and 6 features"):
        frechet_distance(two, FeatureStatistics.of(features(3, 6)))
    with pytest.raises(DataError, match="NaN or inf"):
        frechet_distance(two, FeatureStatistics.of(np.full((3, 5), np.nan)))
    with pytest.raises(DataError, match=r"expected \[B, F\]"):
        FeatureStatistics.of(np.zeros((0, 5)))
