"""Evaluation: what each column holds, that it does not depend on batches, and what it refuses."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from colddiff.data.readers.memory_shards import MemoryShards
from colddiff.degradations import Degradation, build_degradation
from colddiff.errors import DataError, DivergedError, SpecError
from colddiff.evaluation.evaluator import Evaluator, evaluate
from colddiff.evaluation.metrics import FeatureStatistics, ImageErrors, frechet_distance
from colddiff.evaluation.partition import sum_batch
from colddiff.evaluation.result import Evaluation
from colddiff.evaluation.spec import EvaluationSpec
from colddiff.report.tables import curve_table, evaluation_table
from colddiff.rng import streams
from colddiff.sampling import sample
from colddiff.transforms import normalise
from colddiff.types import ImageShape

BLUR = {
    "kind": "blur",
    "num_timesteps": 4,
    "kernel_size": 5,
    "sigma": {"kind": "constant", "value": 1.2},
}


@dataclass(frozen=True)
class PatchMeans:
    """Features without a network: the means of 4x4 blocks, so that distances can be recomputed."""

    metric: str = "fd_blocks"
    weights_sha256: str = "none"
    protocol: str = "means of 4x4 blocks"

    def features(self, images: Tensor) -> NDArray[np.float64]:
        assert images.dtype == torch.uint8
        blocks = torch.nn.functional.avg_pool2d(images.double().mean(dim=1, keepdim=True), 4)
        return blocks.flatten(1).numpy()


def some_images(count: int = 23, side: int = 12, channels: int = 1) -> NDArray[np.uint8]:
    rng = np.random.default_rng(0)
    low = rng.integers(0, 256, (count, channels, side // 4, side // 4), dtype=np.uint8)
    return np.asarray(low.repeat(4, axis=2).repeat(4, axis=3))


def halfway(x_t: Tensor, t: Tensor) -> Tensor:
    """A restorer that is wrong in a way that depends on severity and place."""
    return 0.9 * x_t + 0.02 * t.view(-1, 1, 1, 1) + 0.1 * x_t.flip(-1)


def of(
    images: NDArray[np.uint8],
    degradation: Mapping[str, Any] = BLUR,
    restore: Any = halfway,
    spec: EvaluationSpec | None = None,
    **options: Any,
) -> Evaluation:
    D: Degradation[Any] = build_degradation(degradation, ImageShape(*images.shape[1:]))
    return evaluate(
        restore, D, MemoryShards(images), spec or EvaluationSpec(), PatchMeans(), **options
    )


def statistics(images: Tensor) -> FeatureStatistics:
    eight_bit = torch.round((images.clamp(-1, 1) + 1) * 127.5).to(torch.uint8)
    return FeatureStatistics.of(PatchMeans().features(eight_bit))


def test_every_column_is_what_it_says() -> None:
    images = some_images()
    found = of(images, spec=EvaluationSpec(batch_size=10)).metrics
    x0 = normalise(torch.from_numpy(images))
    D = build_degradation(BLUR, ImageShape(1, 12, 12))
    x_T = D.observe(x0, torch.full((len(x0),), 4))
    columns = {
        "degraded": x_T,
        "direct": halfway(x_T, torch.full((len(x0),), 4)),
        "naive": sample(halfway, D, x_T, sampler="naive"),
        "sampled": sample(halfway, D, x_T, sampler="improved"),
    }
    for name, expected in columns.items():
        errors = ImageErrors.of((expected.double() + 1) / 2, (x0.double() + 1) / 2)
        assert found[f"eval/{name}/rmse"] == pytest.approx(errors.rmse, rel=1e-6)
        assert found[f"eval/{name}/psnr"] == pytest.approx(errors.psnr, rel=1e-6)
        assert found[f"eval/{name}/ssim"] == pytest.approx(errors.ssim, rel=1e-5)
        expected_fd = frechet_distance(statistics(expected), statistics(x0))
        assert found[f"eval/{name}/fd_blocks"] == pytest.approx(expected_fd, rel=1e-4)
    assert len({round(found[f"eval/{name}/rmse"], 6) for name in columns}) == 4


def test_a_perfect_restorer() -> None:
    images = some_images()
    originals = normalise(torch.from_numpy(images))

    def perfect(x_t: Tensor, t: Tensor) -> Tensor:
        return originals

    found = of(images, restore=perfect)
    assert found.metrics["eval/direct/ssim"] == pytest.approx(1.0)
    assert found.metrics["eval/direct/fd_blocks"] == pytest.approx(0.0, abs=1e-6)
    assert found.metrics["eval/degraded/fd_blocks"] > 1
    # An infinite PSNR is no JSON number: it is left out, and said so.
    assert "eval/direct/psnr" not in found.metrics
    assert "infinite" in found.provenance["omitted"]["eval/direct/psnr"]


def test_batches_do_not_matter() -> None:
    images = some_images()
    one, many = (of(images, spec=EvaluationSpec(batch_size=size)).metrics for size in (64, 5))
    assert one.keys() == many.keys()
    for name, value in one.items():
        assert many[name] == pytest.approx(value, rel=1e-5), name


def test_tallies_of_two_workers_merge() -> None:
    images = some_images()
    D = build_degradation(BLUR, ImageShape(1, 12, 12))
    spec = EvaluationSpec(batch_size=6)
    evaluator = Evaluator(halfway, D, MemoryShards(images), spec, PatchMeans())
    a, b, c, d = (sum_batch(evaluator.batch(positions)) for positions in evaluator.batches())
    # Dealt out in another order than one worker would take them.
    together = evaluator.summary(d.merge(b).merge(c.merge(a)))
    alone = of(images, spec=spec)
    assert together.provenance == alone.provenance
    for name, value in alone.metrics.items():
        assert together.metrics[name] == pytest.approx(value, rel=1e-9), name
    np.testing.assert_array_equal(together.pictures["sampled"], alone.pictures["sampled"])


class Shifted(Degradation[Any]):
    """x + omega at every severity: shows which omega each image got."""

    omega_names = ("shift",)

    def _draw_row(self, rng: np.random.Generator) -> Mapping[str, Any]:
        return {"shift": np.float32(rng.uniform(-0.2, 0.2))}

    def _degrade(self, x0: Tensor, t: Tensor, omega: Mapping[str, Tensor]) -> Tensor:
        return x0 + omega["shift"].view(-1, 1, 1, 1)


def test_omega_belongs_to_the_image() -> None:
    images = some_images()
    blur = build_degradation(BLUR, ImageShape(1, 12, 12))
    D = Shifted(blur.spec, blur.shape)
    spec = EvaluationSpec(batch_size=7, seed=5)
    found = evaluate(halfway, D, MemoryShards(images), spec, PatchMeans()).metrics
    drawn = D.draw(len(images), rng=streams(5, "evaluation/omega", range(len(images))))
    expected = float((drawn["shift"].double() / 2).square().mean().sqrt())
    assert found["eval/degraded/rmse"] == pytest.approx(expected, rel=1e-5)


def test_a_subset_is_spread_over_the_set() -> None:
    images = np.zeros((20, 1, 12, 12), np.uint8)
    images[:] = np.arange(0, 200, 10, dtype=np.uint8)[:, None, None, None]
    found = of(images, spec=EvaluationSpec(num_images=5, batch_size=3), keep=3)
    assert found.provenance["n"] == 5
    assert found.pictures["original"][:, 0, 0, 0].tolist() == [0, 40, 80]
    whole = of(images)
    assert found.provenance["reference_sha256"] != whole.provenance["reference_sha256"]
    assert found.provenance["test_manifest"] == whole.provenance["test_manifest"]


@pytest.mark.parametrize("bright", [slice(None, None, 2), slice(200)], ids=["in turn", "sorted"])
def test_the_floor_compares_halves_that_are_drawn(bright: slice) -> None:
    # Bright and dark images in turn: halves by parity would differ as much as black and white.
    # One after the other: so would the first half and the second.
    images = np.zeros((400, 1, 12, 12), np.uint8)
    images[bright] = 255
    found = of(images, spec=EvaluationSpec(samplers=("direct",)))
    assert found.metrics["eval/floor/fd_blocks"] < 0.05 * 255**2 * 9
    assert "random halves" in found.provenance["notes"][0]


def test_the_halves_of_the_floor_are_drawn_from_the_seed() -> None:
    images = some_images(40)
    floors = [
        of(images, spec=EvaluationSpec(samplers=("direct",), seed=seed)).metrics[
            "eval/floor/fd_blocks"
        ]
        for seed in (0, 0, 1)
    ]
    assert floors[0] == floors[1] != floors[2]


def test_progress_is_told() -> None:
    heard: list[tuple[int, int]] = []
    spec = EvaluationSpec(batch_size=10)
    of(some_images(), spec=spec, on_batch=lambda done, total: heard.append((done, total)))
    assert heard == [(10, 23), (20, 23), (23, 23)]


def test_pictures_and_trajectory() -> None:
    images = some_images()
    found = of(images, keep=2)
    assert list(found.pictures) == ["original", "degraded", "direct", "naive", "sampled"]
    assert all(p.shape == (2, 1, 12, 12) for p in found.pictures.values())
    np.testing.assert_array_equal(found.pictures["original"], images[:2])
    path = found.trajectory
    assert path is not None
    assert path.severities == (4, 3, 2, 1, 0)
    np.testing.assert_array_equal(path.states[0], found.pictures["degraded"])
    np.testing.assert_array_equal(path.estimates[0], found.pictures["direct"])
    np.testing.assert_array_equal(path.states[-1], found.pictures["sampled"])
    assert of(images, keep=0).pictures == {}


def test_a_long_trajectory_is_thinned() -> None:
    path = of(some_images(4), {**BLUR, "num_timesteps": 300}, keep=1).trajectory
    assert path is not None
    assert 55 <= len(path.severities) <= 62
    assert path.severities[0] == 300
    assert path.severities[-1] == 0


def test_samplers_and_severities_are_chosen() -> None:
    spec = EvaluationSpec(samplers=("improved",), severities=(3, 1, 0))
    found = of(some_images(), spec=spec)
    assert {path.split("/")[1] for path in found.metrics} == {"degraded", "sampled", "floor"}
    assert found.provenance["severities"] == [3, 1, 0]
    x0 = normalise(torch.from_numpy(some_images()))
    D = build_degradation(BLUR, ImageShape(1, 12, 12))
    x_3 = D.observe(x0, torch.full((len(x0),), 3))
    rmse = ImageErrors.of((x_3 + 1) / 2, (x0 + 1) / 2).rmse
    assert found.metrics["eval/degraded/rmse"] == pytest.approx(rmse, rel=1e-6)


def test_quality_against_calls_is_that_of_even_severities() -> None:
    spec = EvaluationSpec(samplers=("improved",), curve=(1, 2, 4))
    found = of(some_images(), spec=spec)
    for calls in (1, 2, 4):
        alone = of(some_images(), spec=EvaluationSpec(samplers=("improved",), severities=calls))
        for metric in ("fd_blocks", "ssim", "rmse", "psnr"):
            path = f"eval/curve_{calls}/{metric}"
            assert found.metrics[path] == pytest.approx(alone.metrics[f"eval/sampled/{metric}"])
    assert "curve_2" not in found.pictures
    table = curve_table(found.metrics).splitlines()
    assert table[0].split() == ["network", "calls", "1", "2", "4"]
    assert f"{found.metrics['eval/curve_2/rmse']:.4f}" in table[3]
    assert "curve" not in evaluation_table(found.metrics)
    assert curve_table({"eval/direct/rmse": 0.1}) == ""


@pytest.mark.parametrize(
    ("curve", "told"), [((5,), "5 calls need"), ((2, 2), "each of them once"), ((), "each of them")]
)
def test_curves_that_cannot_be(curve: tuple[int, ...], told: str) -> None:
    with pytest.raises(SpecError, match=told):
        of(some_images(), spec=EvaluationSpec(curve=curve))


def test_ssim_under_its_window_is_left_out_and_said() -> None:
    found = of(some_images(side=8))
    assert not any(path.endswith("ssim") for path in found.metrics)
    assert found.provenance["omitted"]["eval/sampled/ssim"] == (
        "images of 1x8x8 are under its 11 px window"
    )
    assert "eval/sampled/rmse" in found.metrics


def test_one_image_has_no_distance() -> None:
    found = of(some_images(1))
    assert "eval/sampled/rmse" in found.metrics
    assert found.provenance["omitted"]["eval/sampled/fd_blocks"] == "fewer than 2 images on a side"


def test_provenance_is_json_and_says_where_numbers_come_from() -> None:
    found = of(some_images())
    record = json.loads(json.dumps(found.provenance, allow_nan=False))
    assert record["feature_weights_sha256"] == "none"
    assert record["protocol"] == "clamped, rounded to 8 bit, means of 4x4 blocks"
    assert record["degradation"]["kind"] == "blur"
    json.dumps(dict(found.metrics), allow_nan=False)
    few = of(some_images(6)).provenance["notes"]
    assert any("6 images for 9 features" in note for note in few)


def test_sixteen_bit_images() -> None:
    images = some_images().astype(np.uint16) * 257
    same = of(images)  # type: ignore[arg-type]
    assert same.metrics["eval/sampled/rmse"] == pytest.approx(
        of(some_images()).metrics["eval/sampled/rmse"], rel=1e-5
    )


def test_what_cannot_be_evaluated() -> None:
    images = some_images()
    D = build_degradation(BLUR, ImageShape(3, 12, 12))
    source, spec = MemoryShards(images), EvaluationSpec()
    with pytest.raises(DataError, match="images are 1x12x12, the checkpoint takes 3x12x12"):
        evaluate(halfway, D, source, spec, PatchMeans())
    with pytest.raises(SpecError, match=r"num_images: 24 of 23 test images"):
        of(images, spec=EvaluationSpec(num_images=24))
    with pytest.raises(SpecError, match="severities"):
        of(images, spec=EvaluationSpec(severities=(9, 0)))
    with pytest.raises(DivergedError, match="NaN or inf at severity 4"):
        of(images, restore=lambda x_t, t: x_t * torch.nan, spec=EvaluationSpec(batch_size=4))


def test_dropout_is_off_and_comes_back() -> None:
    class Dropping(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.drop = torch.nn.Dropout(0.5)

        def forward(self, x_t: Tensor, t: Tensor) -> Tensor:
            dropped: Tensor = self.drop(x_t)
            return dropped

    R = Dropping().train()
    found = of(some_images(), restore=R).metrics
    assert found["eval/direct/rmse"] == found["eval/degraded/rmse"]
    assert R.training


def test_an_empty_set_is_refused() -> None:
    source = MemoryShards(some_images())
    source.manifest = replace(source.manifest, count=0)
    D = build_degradation(BLUR, ImageShape(1, 12, 12))
    with pytest.raises(SpecError, match="0 of 0 test images"):
        evaluate(halfway, D, source, EvaluationSpec(), PatchMeans())
