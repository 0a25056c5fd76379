"""What an evaluation keeps of single images: by rule, the same however batches are dealt."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from colddiff.errors import DataError
from colddiff.evaluation import batch
from colddiff.evaluation.by_severity import radial_power
from colddiff.evaluation.partition import group_batches, merge_sums
from colddiff.evaluation.spec import EvaluationSpec
from colddiff.evaluation.sums_bytes import sums_from_bytes, sums_to_bytes
from colddiff.report.page.details import details_from_bytes, details_to_bytes
from colddiff.report.page.sprites import last_column, sprite_sheet
from tests.unit.report.made_runs import evaluated, restorer
from tests.unit.test_compare import evaluator
from tests.unit.test_evaluate import of, some_images


def test_scores_of_each_image_make_up_the_metrics() -> None:
    found = evaluated()
    details = details_from_bytes(details_to_bytes(found))
    for name, mse in details.mse.items():
        assert len(mse) == 23
        assert np.sqrt(mse.mean()) == pytest.approx(found.metrics[f"eval/{name}/rmse"])
        assert details.ssim[name].mean() == pytest.approx(found.metrics[f"eval/{name}/ssim"])


def test_the_worst_and_the_median_are_those_of_all_images() -> None:
    found = evaluated()
    details = details_from_bytes(details_to_bytes(found))
    errors = details.mse["sampled"]
    shown = {
        role: [one for one in details.shown if one.role == role]
        for role in ("first", "worst", "median")
    }
    assert [one.position for one in shown["first"]] == list(range(6))
    worst = np.argsort(-errors, kind="stable")[:3]
    assert [one.position for one in shown["worst"]] == worst.tolist()
    assert [one.rmse for one in shown["worst"]] == pytest.approx(np.sqrt(errors[worst]).tolist())
    (median,) = shown["median"]
    ranks = np.argsort(np.argsort(errors))
    assert abs(ranks[median.position] - 11) <= 1
    with Image.open(io.BytesIO(shown["worst"][0].sheet)) as sheet:
        original = np.asarray(sheet.convert("L"))[:, :12]
    np.testing.assert_array_equal(original, some_images()[worst[0], 0])


def test_sums_of_other_processes_keep_all_of_it() -> None:
    measured = evaluator()
    groups = group_batches(measured)
    here = merge_sums([group.sums(measured) for group in groups])
    there = merge_sums(
        [sums_from_bytes(sums_to_bytes(group.sums(measured))) for group in reversed(groups)][::-1]
    )
    mine, theirs = (details_to_bytes(measured.summary(sums)) for sums in (here, there))
    assert mine == theirs


def test_a_path_begins_with_the_degraded_and_ends_with_the_restored() -> None:
    found = evaluated()
    details = details_from_bytes(details_to_bytes(found))
    path = details.paths[2]
    assert path.severities == (4, 3, 2, 1, 0)
    assert path.rows == ("direct", "naive", "sampled")
    cells = last_column(path.sheet, 6, 5)
    np.testing.assert_array_equal(cells[0, 0], some_images()[2, 0])  # D(x, 0)
    np.testing.assert_array_equal(cells[4, 0], found.pictures["sampled"][2, 0])


def test_without_pictures_there_are_scores_alone() -> None:
    details = details_from_bytes(details_to_bytes(evaluated(count=2, num_images=2)))
    assert len(details.mse["direct"]) == 2
    assert [one.role for one in details.shown].count("first") == 2


def test_measurements_over_severities() -> None:
    found = evaluated()
    measured = found.sums.by_severity
    assert measured is not None
    assert measured.severities == (4, 3, 2, 1, 0)
    assert measured.restored[-1] == 0.0
    assert list(measured.parameters) == ["sigma (px)"]
    assert measured.removed[0] == 0.0
    assert (np.diff(measured.removed) > 0).all()
    # Blur removes high frequencies first.
    assert measured.spectrum_severities == (0, 1, 2, 4)
    high = measured.spectra[:3, -1]
    assert (np.diff(high) < 0).all()


def test_few_images_of_the_first_batch_are_measured_over_severities(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(batch, "MEASURED_BY_SEVERITY", 9)
    spec = EvaluationSpec(batch_size=23)
    few, alone, kept = (
        of(some_images(count), restore=restorer(0.9), spec=spec, keep=keep).sums.by_severity
        for count, keep in ((23, 4), (9, 4), (23, 12))
    )
    assert few is not None
    assert alone is not None
    assert kept is not None
    assert (few.num_images, alone.num_images, kept.num_images) == (9, 9, 12)
    np.testing.assert_allclose(few.restored, alone.restored, rtol=1e-6)


def test_radial_power_is_parsevals() -> None:
    rng = np.random.default_rng(0)
    flat = np.full((1, 8, 8), 0.5)
    assert radial_power(flat)[0] == pytest.approx(0.25 * 64)
    assert radial_power(flat)[1:] == pytest.approx(0.0, abs=1e-20)
    wave = np.cos(2 * np.pi * 3 * np.arange(16) / 16)[None, None, :].repeat(16, axis=1)
    assert int(radial_power(wave).argmax()) == 3
    noise = radial_power(rng.normal(size=(200, 32, 32)))
    assert noise == pytest.approx(np.ones(17), abs=0.1)


def test_sheets_hold_the_pixels_of_small_images() -> None:
    cells = np.random.default_rng(0).integers(0, 256, (2, 3, 3, 8, 10), dtype=np.uint8)
    sheet = sprite_sheet(cells)
    np.testing.assert_array_equal(last_column(sheet, 2, 3), cells[:, 2])
    assert sprite_sheet(cells) == sheet
    with Image.open(io.BytesIO(sprite_sheet(cells[:, :, :2]))) as two_channels:
        assert two_channels.size == (30, 16)


@pytest.mark.parametrize("data", [b"", b"nothing", details_to_bytes(evaluated(count=2))[:-9]])
def test_what_is_no_details_file(data: bytes) -> None:
    with pytest.raises(DataError, match="not the details"):
        details_from_bytes(data)
