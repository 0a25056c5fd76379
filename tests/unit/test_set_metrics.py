"""KID and coverage of two sets, against kernels of scikit-learn and against prdc."""

from __future__ import annotations

from typing import Any

import numpy as np
import prdc
import pytest
import torch
from sklearn.metrics.pairwise import polynomial_kernel

from colddiff.data.readers.memory_shards import MemoryShards
from colddiff.errors import DataError
from colddiff.evaluation.metrics import FeatureStatistics, frechet_distance
from colddiff.evaluation.partition import group_batches, merge_sums
from colddiff.evaluation.set_comparison import SetComparison
from colddiff.evaluation.set_metrics import (
    copies_of,
    coverage_of,
    drawn_rows,
    extrapolated_distance,
    kernel_distance,
    unbiased_mmd,
)
from colddiff.evaluation.sums_bytes import sums_from_bytes, sums_to_bytes
from colddiff.report.tables import evaluation_table
from tests.unit.test_evaluate import PatchMeans, some_images

RNG = np.random.default_rng(0)
REAL, MADE = RNG.normal(size=(1300, 24)), RNG.normal(0.2, 1.3, size=(900, 24))


def test_the_kernel_distance_of_a_subset_is_the_unbiased_estimate() -> None:
    x, y = REAL[:500], MADE[:500]
    xx, yy, xy = (polynomial_kernel(a, b, degree=3, coef0=1) for a, b in ((x, x), (y, y), (x, y)))
    apart = ~np.eye(500, dtype=bool)
    expected = xx[apart].mean() + yy[apart].mean() - 2 * xy.mean()
    assert unbiased_mmd(x, y) == pytest.approx(expected, rel=1e-9)
    # A single subset where both sets are that small.
    found = kernel_distance(x, y)
    assert found.value == pytest.approx(unbiased_mmd(x, y))
    assert found.error is None, "one subset has no spread"


def test_the_kernel_distance_has_no_bias_in_the_number_of_images() -> None:
    few = [
        kernel_distance(REAL[i : i + 50], REAL[i + 650 : i + 700]).value for i in range(0, 600, 50)
    ]
    assert abs(np.mean(few)) < 2 * np.std(few) / np.sqrt(len(few))
    assert min(few) < 0
    whole = kernel_distance(REAL, MADE, subset=300, num_subsets=40)
    assert whole.error is not None
    assert abs(whole.value - unbiased_mmd(REAL[:900], MADE)) < whole.error
    assert kernel_distance(REAL, MADE, subset=300, num_subsets=40) == whole


@pytest.mark.parametrize("nearest", [3, 5])
def test_coverage_is_that_of_prdc(nearest: int, capsys: pytest.CaptureFixture[str]) -> None:
    found = coverage_of(REAL, MADE, nearest)
    theirs = prdc.compute_prdc(REAL, MADE, nearest)
    assert "Num real" in capsys.readouterr().out
    for name, value in theirs.items():
        assert getattr(found, name) == pytest.approx(value, abs=1e-9), name
    assert 0 < found.recall < 1


def test_equal_sets_are_covered_and_distant_ones_are_not() -> None:
    same, other = coverage_of(REAL, REAL), coverage_of(REAL, REAL + 100)
    assert (same.precision, same.recall, same.coverage) == (1.0, 1.0, 1.0)
    assert (other.precision, other.recall, other.density, other.coverage) == (0, 0, 0, 0)


def test_copies_are_told_from_what_looks_alike() -> None:
    rng = np.random.default_rng(1)
    real, new = rng.normal(size=(400, 24)), rng.normal(size=(300, 24))
    assert copies_of(real, new).copied == 0.0
    assert copies_of(real, new).nearest == pytest.approx(1.0, abs=0.05)
    repeated = np.concatenate([new[:200], real[:100] + rng.normal(0, 0.01, (100, 24))])
    found = copies_of(real, repeated)
    assert found.copied == pytest.approx(1 / 3)
    assert found.nearest < 0.75
    assert copies_of(real, real).nearest == pytest.approx(0.0, abs=1e-6)


def test_a_distance_is_extrapolated_to_infinitely_many_samples() -> None:
    rng = np.random.default_rng(2)
    reference = FeatureStatistics.of(rng.normal(size=(200_000, 24)))
    # Samples of the same distribution: all of their distance is bias.
    drawn = [rng.normal(size=(400, 24)) for _ in range(5)]
    biased = [frechet_distance(FeatureStatistics.of(samples), reference) for samples in drawn]
    found = [extrapolated_distance(samples, reference) for samples in drawn]
    assert abs(np.mean(found)) < np.mean(biased) / 5
    assert extrapolated_distance(drawn[-1], reference) == found[-1]
    samples = drawn[0]
    with pytest.raises(DataError, match="needs 4 samples"):
        extrapolated_distance(samples[:3], reference)


@pytest.mark.parametrize(
    ("a", "b", "told"),
    [
        (REAL, MADE[:, :3], "do not match"),
        (REAL, MADE[:1], "need"),
        (REAL, np.full((20, 24), np.nan), "NaN or inf"),
    ],
)
def test_what_cannot_be_compared(a: Any, b: Any, told: str) -> None:
    with pytest.raises(DataError, match=told):
        kernel_distance(a, b)
    with pytest.raises(DataError, match=told):
        coverage_of(a, b)
    with pytest.raises(DataError, match=told):
        copies_of(a, b)


def test_a_large_set_is_drawn_from_evenly() -> None:
    chosen = drawn_rows(20_000, 3, "samples")
    assert chosen.sum() == 5000
    assert abs(chosen[:10_000].sum() - 2500) < 150
    assert drawn_rows(40, 3, "samples").all()
    np.testing.assert_array_equal(chosen, drawn_rows(20_000, 3, "samples"))


def test_a_single_subset_states_no_error_of_the_kernel_distance() -> None:
    made, real = 255 - some_images(12), some_images(12)
    measured = SetComparison(
        MemoryShards(made), MemoryShards(real), PatchMeans(), batch_size=5, set_metrics=True
    )
    metrics, provenance = measured.summary(
        merge_sums([group.sums(measured) for group in group_batches(measured)])
    )
    assert "eval/generated/kid_blocks" in metrics
    assert "eval/generated/kid_error_blocks" not in metrics
    assert list(provenance["omitted"]) == ["eval/generated/kid_error_blocks"]


def test_samples_are_compared_as_sets_where_it_is_asked_for() -> None:
    made, real = 255 - some_images(31), some_images(23)
    measured = SetComparison(
        MemoryShards(made), MemoryShards(real), PatchMeans(), batch_size=5, set_metrics=True
    )
    parts = [
        sums_from_bytes(sums_to_bytes(group.sums(measured))) for group in group_batches(measured)
    ]
    metrics, provenance = measured.summary(merge_sums(parts))
    samples, reference = (PatchMeans().features(torch.from_numpy(side)) for side in (made, real))
    kid = kernel_distance(samples, reference)
    assert metrics["eval/generated/kid_blocks"] == pytest.approx(kid.value)
    assert metrics["eval/generated/kid_error_blocks"] == pytest.approx(kid.error)
    found = coverage_of(reference, samples)
    assert metrics["eval/generated/precision_blocks"] == found.precision
    assert metrics["eval/generated/recall_blocks"] == found.recall
    copies = copies_of(reference, samples)
    assert metrics["eval/generated/copied_blocks"] == copies.copied
    assert metrics["eval/generated/nearest_blocks"] == copies.nearest
    assert metrics["eval/generated/extrapolated_fd_blocks"] == pytest.approx(
        extrapolated_distance(samples, FeatureStatistics.of(reference))
    )
    assert provenance["omitted"] == {}
    table = evaluation_table(metrics)
    assert "kid_blocks" in table
    assert "kid_error" not in table
    assert "recall_blocks" in table.split("higher is better")[-2]
    few = SetComparison(MemoryShards(made[:4]), MemoryShards(real), PatchMeans(), set_metrics=True)
    _, told = few.summary(merge_sums([group.sums(few) for group in group_batches(few)]))
    assert "set metrics need 6 images" in told["omitted"]["eval/generated/kid_blocks"]
