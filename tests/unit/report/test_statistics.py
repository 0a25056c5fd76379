"""Intervals of means over seeds and of paired differences over images."""

from __future__ import annotations

import numpy as np
import pytest

from colddiff.errors import DataError
from colddiff.report.page import statistics
from colddiff.report.page.statistics import mean_interval, paired_difference
from colddiff.rng import stream


def test_the_interval_of_a_mean_is_students() -> None:
    import scipy.stats  # half a second, which every process that collects tests would take

    values = [3.0, 5.5, 4.0, 4.5]
    found = mean_interval(values)
    low, high = scipy.stats.t.interval(0.95, 3, loc=np.mean(values), scale=scipy.stats.sem(values))
    assert (found.value, found.n) == (4.25, 4)
    assert (found.low, found.high) == pytest.approx((low, high))


def test_one_seed_has_no_interval_and_parts_from_nothing() -> None:
    one, three = mean_interval([1.0]), mean_interval([7.0, 7.1, 7.2])
    assert (one.low, one.high) == (None, None)
    assert not one.parts_from(three)
    assert not three.parts_from(one)
    assert mean_interval([1.0, 1.1, 1.2]).parts_from(three)
    assert not mean_interval([1.0, 7.0, 9.0]).parts_from(three)


def test_a_paired_interval_covers_the_difference_as_often_as_it_says() -> None:
    rng, covered, rounds = np.random.default_rng(0), 0, 60
    for _ in range(rounds):
        common = rng.normal(size=80)
        a, b = common + rng.normal(0.3, 0.5, 80), common + rng.normal(0.0, 0.5, 80)
        found = paired_difference(a, b, "ssim")
        assert found.low is not None
        assert found.high is not None
        covered += found.low <= 0.3 <= found.high
    assert covered >= 0.85 * rounds
    assert found.low is not None
    assert found.high is not None
    # Paired: the part that both share does not widen it.
    assert found.high - found.low < 0.4


@pytest.mark.parametrize("metric", ["rmse", "psnr"])
def test_errors_are_compared_as_evaluations_compute_them(metric: str) -> None:
    rng = np.random.default_rng(1)
    a, b = rng.random(50), rng.random(50)
    found = paired_difference(a, b, metric)
    root_a, root_b = np.sqrt(a.mean()), np.sqrt(b.mean())
    expected = root_a - root_b if metric == "rmse" else -20 * np.log10(root_a / root_b)
    assert found.value == pytest.approx(expected)
    assert paired_difference(a, b, metric) == found


def test_the_interval_is_that_of_means_over_drawn_images(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(2)
    a, b = rng.random(40), rng.random(40)
    draw, spread = stream(0, "report/bootstrap"), []
    for _ in range(0, statistics.RESAMPLES, statistics.CHUNK):
        drawn = draw.integers(0, 40, size=(statistics.CHUNK, 40))
        spread.append(np.sqrt(a[drawn].mean(axis=1)) - np.sqrt(b[drawn].mean(axis=1)))
    ends = np.quantile(np.concatenate(spread), [0.025, 0.975])
    for kept in (1000, 10):  # images of which the draws are kept
        monkeypatch.setattr(statistics, "KEPT", kept)
        found = paired_difference(a, b, "rmse")
        assert (found.low, found.high) == pytest.approx(tuple(ends), rel=1e-9)


@pytest.mark.parametrize(
    ("a", "b"), [([1.0], [2.0]), ([1.0, 2.0], [1.0]), ([1.0, np.nan], [1.0, 2.0])]
)
def test_what_cannot_be_compared(a: list[float], b: list[float]) -> None:
    with pytest.raises(DataError, match="paired difference"):
        paired_difference(np.array(a), np.array(b), "rmse")
    with pytest.raises(DataError, match="interval"):
        mean_interval([float("nan")])
