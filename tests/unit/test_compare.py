"""Two sets of images against each other, in parts, and tallies that cross to another process."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from colddiff.data.readers.memory_shards import MemoryShards
from colddiff.degradations import build_degradation
from colddiff.errors import DataError, SpecError
from colddiff.evaluation.evaluator import Evaluator
from colddiff.evaluation.metrics import FeatureStatistics, frechet_distance
from colddiff.evaluation.partition import NUM_GROUPS, BatchedEvaluation, group_batches, merge_sums
from colddiff.evaluation.set_comparison import SetComparison
from colddiff.evaluation.spec import EvaluationSpec
from colddiff.evaluation.sums_bytes import sums_from_bytes, sums_to_bytes
from colddiff.rng import stream
from colddiff.types import ImageShape
from tests.unit.test_evaluate import BLUR, PatchMeans, halfway, some_images


def comparison(count: int = 31, reference: int = 23, **options: Any) -> SetComparison:
    made = MemoryShards(255 - some_images(count))
    return SetComparison(made, MemoryShards(some_images(reference)), PatchMeans(), **options)


def whole(measured: BatchedEvaluation) -> Any:
    return merge_sums([group.sums(measured) for group in group_batches(measured)])


def test_the_distance_is_that_of_all_features_at_once() -> None:
    measured = comparison(batch_size=5)
    metrics, provenance = measured.summary(whole(measured))
    a, b = (
        FeatureStatistics.of(PatchMeans().features(torch.from_numpy(images)))
        for images in (255 - some_images(31), some_images(23))
    )
    assert metrics["eval/generated/fd_blocks"] == pytest.approx(frechet_distance(a, b), rel=1e-9)
    first = stream(0, "evaluation/halves").permutation(23) < 11
    halves = (
        FeatureStatistics.of(PatchMeans().features(torch.from_numpy(some_images(23)[side])))
        for side in (first, ~first)
    )
    assert metrics["eval/floor/fd_blocks"] == pytest.approx(frechet_distance(*halves), rel=1e-9)
    assert (provenance["n"], provenance["n_reference"]) == (31, 23)
    assert provenance["samples_manifest"] == measured.samples.manifest.digest
    assert "biased" not in str(provenance["notes"])


@pytest.mark.parametrize("bright", [slice(None, None, 2), slice(200)], ids=["in turn", "sorted"])
def test_the_floor_of_a_comparison_is_between_halves_that_are_drawn(bright: slice) -> None:
    # Halves by parity, or the first half and the second, would differ as black and white do.
    reference = np.zeros((400, 1, 12, 12), np.uint8)
    reference[bright] = 255
    measured = SetComparison(MemoryShards(some_images()), MemoryShards(reference), PatchMeans())
    metrics, provenance = measured.summary(whole(measured))
    assert metrics["eval/floor/fd_blocks"] < 0.05 * 255**2 * 9
    assert "random halves" in provenance["notes"][0]


def test_fewer_samples_are_spread_evenly_over_the_set() -> None:
    images = 255 - some_images(30)
    measured = SetComparison(
        MemoryShards(images), MemoryShards(some_images()), PatchMeans(), num_samples=10
    )
    metrics, provenance = measured.summary(whole(measured))
    every_third = FeatureStatistics.of(PatchMeans().features(torch.from_numpy(images[::3])))
    reference = FeatureStatistics.of(PatchMeans().features(torch.from_numpy(some_images())))
    assert metrics["eval/generated/fd_blocks"] == pytest.approx(
        frechet_distance(every_third, reference)
    )
    assert (provenance["n"], provenance["samples_there"]) == (10, 30)


def test_sets_that_cannot_be_compared() -> None:
    small = MemoryShards(some_images(4, side=8))
    with pytest.raises(DataError, match="images are 1x8x8, the reference's 1x12x12"):
        SetComparison(small, MemoryShards(some_images()), PatchMeans())
    with pytest.raises(SpecError, match="num_images: 40 of 31 samples"):
        comparison(num_samples=40)
    one = comparison(count=1)
    metrics, provenance = one.summary(whole(one))
    assert "eval/generated/fd_blocks" not in metrics
    assert provenance["omitted"] == {"eval/generated/fd_blocks": "fewer than 2 images on a side"}


def test_parts_are_all_batches_once_and_never_more_than_so_many() -> None:
    for batch_size in (1, 3, 100):
        measured = comparison(batch_size=batch_size)
        parts = group_batches(measured)
        assert [batch for part in parts for batch in part.batches] == measured.batches()
        assert [part.number for part in parts] == list(range(len(parts)))
        assert len(parts) == min(NUM_GROUPS, len(measured.batches()))
        assert sum(part.num_images for part in parts) == measured.num_images
        # No batch holds images of both sets.
        assert all(b.stop <= 31 or b.start >= 31 for b in measured.batches())


def evaluator() -> Evaluator:
    D = build_degradation(BLUR, ImageShape(1, 12, 12))
    spec = EvaluationSpec(batch_size=4)
    return Evaluator(halfway, D, MemoryShards(some_images()), spec, PatchMeans(), keep=3)


def twice(measured: Any) -> tuple[Any, Any]:
    """Summaries of tallies as they are, and of those that were bytes on their way."""
    parts = [group.sums(measured) for group in group_batches(measured)]
    sent = [sums_from_bytes(sums_to_bytes(part)) for part in parts]
    return measured.summary(merge_sums(parts)), measured.summary(merge_sums(sent))


def test_tallies_of_sets_as_bytes_are_the_same_to_the_last_bit() -> None:
    here, there = twice(comparison(batch_size=4))
    assert here == there


def test_tallies_of_a_restorer_as_bytes_are_the_same_to_the_last_bit() -> None:
    here, there = twice(evaluator())
    assert here.metrics == there.metrics
    assert here.provenance == there.provenance
    assert list(there.pictures) == ["original", "degraded", "direct", "naive", "sampled"]
    for name, images in here.pictures.items():
        assert np.array_equal(images, there.pictures[name])
    assert here.trajectory.severities == there.trajectory.severities
    assert np.array_equal(here.trajectory.states, there.trajectory.states)
    assert np.array_equal(here.trajectory.estimates, there.trajectory.estimates)
