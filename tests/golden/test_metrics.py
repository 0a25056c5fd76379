"""SSIM, RMSE and the Frechet distance against what the paper's evaluation code computed."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from colddiff.evaluation.metrics import FeatureStatistics, ImageErrors, frechet_distance, ssim
from tests.golden.conftest import Golden


def tensors(golden: Golden, *names: str) -> list[Tensor]:
    arrays = golden("metrics")
    return [torch.from_numpy(arrays[name]) for name in names]


def test_ssim_of_each_image(golden: Golden) -> None:
    a, b, each = tensors(golden, "a", "b", "ssim_each")
    torch.testing.assert_close(ssim(a, b), each.double(), rtol=0, atol=2e-6)


def test_grey_scores_as_three_equal_channels(golden: Golden) -> None:
    # The images behind these two vectors are not recorded; that they are equal is the fact.
    once, thrice = tensors(golden, "ssim_gray_1ch", "ssim_gray_repeat3")
    torch.testing.assert_close(once, thrice)
    a, b = tensors(golden, "a", "b")
    ours = ssim(a[:, :1].repeat(1, 3, 1, 1), b[:, :1].repeat(1, 3, 1, 1))
    torch.testing.assert_close(ssim(a[:, :1], b[:, :1]), ours)


def test_means_over_a_batch(golden: Golden) -> None:
    a, b, mean, rmse = tensors(golden, "a", "b", "ssim_mean", "rmse")
    errors = ImageErrors.of(a, b)
    assert errors.ssim == pytest.approx(float(mean), abs=2e-6)
    assert errors.rmse == pytest.approx(float(rmse), abs=1e-7)


def test_rmse_is_the_global_one(golden: Golden) -> None:
    a, b, other = tensors(golden, "a", "b", "mean_of_per_image_rmse")
    assert ImageErrors.of(a, b).rmse != pytest.approx(float(other), abs=1e-5)


def test_frechet_distance(golden: Golden) -> None:
    arrays = golden("metrics")
    a, b = (FeatureStatistics.of(arrays[f"feat_{side}_f64"]) for side in "ab")
    assert frechet_distance(a, b) == pytest.approx(float(arrays["frechet_f64"]), rel=1e-10)
