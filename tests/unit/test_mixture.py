"""Mixtures: one component in closed form, several by EM, and both a function of the features."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.mixture import GaussianMixture
from threadpoolctl import threadpool_info, threadpool_limits

from colddiff.data.readers.memory_shards import MemoryShards
from colddiff.degradations import build_degradation
from colddiff.errors import DataError, SpecError
from colddiff.terminal import Gmm
from colddiff.terminals.features import terminal_features
from colddiff.terminals.sklearn_mixture import REGULARISATION, fit_mixture
from colddiff.types import ImageShape

Features = NDArray[np.float64]
SHAPE = ImageShape(3, 8, 8)
BLUR = {"kind": "blur", "num_timesteps": 3, "kernel_size": 5, "collapse_to_mean": True}


def correlated(count: int = 250) -> Features:
    rng = np.random.default_rng(3)
    mixing: Features = np.array([[1, 0.5, 0], [0, 1, 0], [0, 2, 1e-3]])
    return np.asarray(100 + rng.standard_normal((count, 3)) @ mixing)


def parts(features: Features, size: int) -> Iterator[Features]:
    for start in range(0, len(features), size):
        yield features[start : start + size]


def covariances(tensors: dict[str, torch.Tensor]) -> Features:
    factors = tensors["factors"]
    product: Features = torch.matmul(factors, factors.mT).numpy()
    return product


def two_clouds() -> Features:
    rng = np.random.default_rng(0)
    far = np.array([[-0.5, 0.5], [0.6, -0.2]])
    return np.concatenate(
        [
            far[0] + 0.05 * rng.standard_normal((300, 2)),
            far[1] + 0.1 * rng.standard_normal((100, 2)),
        ]
    )


@pytest.mark.parametrize("size", [1, 100, 999])
def test_one_component_is_the_sample_mean_and_covariance(size: int) -> None:
    features = correlated()
    found = fit_mixture(parts(features, size))
    expected = np.cov(features.T, ddof=0) + REGULARISATION * np.eye(3)
    np.testing.assert_allclose(found["means"][0].numpy(), features.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(covariances(found)[0], expected, rtol=1e-9, atol=1e-12)
    assert found["weights"].tolist() == [1.0]


def test_the_closed_form_is_what_em_finds_with_one_component() -> None:
    features = correlated()
    em = GaussianMixture(1, tol=1e-3, reg_covar=REGULARISATION, random_state=0).fit(features)
    np.testing.assert_allclose(
        covariances(fit_mixture([features])), em.covariances_, rtol=1e-8, atol=1e-10
    )


def test_several_components_find_the_clouds_and_the_same_ones_again() -> None:
    features = two_clouds()
    found = fit_mixture(parts(features, 64), 2)
    order = found["weights"].argsort(descending=True)
    np.testing.assert_allclose(found["weights"][order].numpy(), [0.75, 0.25], atol=1e-6)
    np.testing.assert_allclose(found["means"][order].numpy(), [[-0.5, 0.5], [0.6, -0.2]], atol=0.03)
    np.testing.assert_allclose(
        covariances(found)[order.numpy()], [np.eye(2) * 0.05**2, np.eye(2) * 0.1**2], atol=2e-3
    )
    again = fit_mixture([features], 2)
    assert all(torch.equal(found[name], again[name]) for name in found)


def test_several_components_are_fitted_by_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """More would add up in an order of their own each time."""
    threads: list[int] = []
    fit = GaussianMixture.fit

    def counting(self: GaussianMixture, features: Features) -> GaussianMixture:
        threads.extend(pool["num_threads"] for pool in threadpool_info())
        return fit(self, features)

    monkeypatch.setattr(GaussianMixture, "fit", counting)
    with threadpool_limits(2):
        fit_mixture([two_clouds()], 2)
    assert threads
    assert set(threads) == {1}


def test_features_that_do_not_vary_can_be_drawn_from() -> None:
    found = fit_mixture([np.ones((5, 4))])
    np.testing.assert_allclose(covariances(found)[0], REGULARISATION * np.eye(4), rtol=1e-12)


@pytest.mark.parametrize(
    ("features", "components", "message"),
    [
        (np.zeros((1, 2)), 1, "1 images, a mixture needs at least 2"),
        (np.zeros((0, 2)), 1, "0 images, a mixture needs at least 2"),
        (np.zeros((4, 2)), 5, "4 images, a mixture needs at least 5"),
        (np.full((4, 2), np.nan), 1, "NaN or inf"),
        (np.full((4, 2), np.inf), 2, "NaN or inf"),
        (np.zeros((9, 2)), 3, "3 components cannot be fitted to 9 images .*; use fewer"),
    ],
)
def test_features_that_cannot_be_fitted_are_one_error(
    features: Features, components: int, message: str
) -> None:
    with pytest.raises(DataError, match=message) as caught:
        fit_mixture([features], components)
    assert "\n" not in str(caught.value)


def shards(count: int = 230) -> MemoryShards:
    rng = np.random.default_rng(1)
    return MemoryShards(rng.integers(0, 256, (count, *SHAPE.chw), dtype=np.uint8))


def test_features_are_the_channel_means_of_every_image() -> None:
    source = shards()
    batches = list(terminal_features(build_degradation(BLUR, SHAPE), Gmm(grid=(1, 1)), source))
    assert [len(batch) for batch in batches] == [100, 100, 30]
    expected = source.images(0, 230).astype(np.float64).mean(axis=(2, 3)) / 127.5 - 1
    np.testing.assert_allclose(np.concatenate(batches), expected, atol=1e-6)


def test_features_of_downsampling_are_its_low_resolution_image() -> None:
    D = build_degradation({"kind": "downsample", "num_timesteps": 2}, SHAPE)
    source = shards(5)
    (found,) = terminal_features(D, Gmm(grid=(2, 2)), source)
    x0 = torch.from_numpy(source.images(0, 5)).float() / 127.5 - 1
    corner = D.degrade(x0, torch.full((5,), 2))[:, :, ::4, ::4]
    np.testing.assert_allclose(found, corner.flatten(1).double().numpy(), atol=1e-6)


def test_of_a_large_set_batches_spread_evenly_are_taken() -> None:
    source = shards(1000)
    D = build_degradation(BLUR, SHAPE)
    found = list(terminal_features(D, Gmm(grid=(1, 1)), source, max_images=300))
    expected = source.images(0, 1000).astype(np.float64).mean(axis=(2, 3)) / 127.5 - 1
    for batch, start in zip(found, (0, 300, 600), strict=True):
        np.testing.assert_allclose(batch, expected[start : start + 100], atol=1e-6)


def test_images_of_another_shape_and_a_random_degradation_are_refused() -> None:
    D = build_degradation(BLUR, ImageShape(1, 8, 8))
    with pytest.raises(DataError, match=r"the data has images 3x8x8, D is for 1x8x8"):
        list(terminal_features(D, Gmm(), shards(3)))
    snow = build_degradation({"kind": "snow", "num_timesteps": 2}, SHAPE)
    with pytest.raises(SpecError, match="snow is random"):
        list(terminal_features(snow, Gmm(), shards(3)))
