"""Stored images made into training and test images: exact, by position alone, of any depth."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from colddiff.data.open import open_shards, open_transformed, read_manifest
from colddiff.data.readers.memory_shards import MemoryShards
from colddiff.data.readers.second_set import SecondSet
from colddiff.data.readers.transformed import transformed
from colddiff.errors import DataError
from colddiff.evaluation.evaluator import evaluate
from colddiff.features.open import open_features
from colddiff.rng import streams
from colddiff.spec import parse
from colddiff.tracking.memory_tracker import MemoryTracker
from colddiff.transforms import PRESETS, Augment, Transform, resized, transform_problem
from colddiff.types import ImageShape
from colddiff.verbs.train.inputs import training_inputs
from colddiff.verbs.train.job import TrainJob
from colddiff.verbs.train.local_context import LocalContext
from colddiff.verbs.train.resolve import resolve_training
from colddiff.verbs.train.trainer import Trainer
from tests.unit.test_train import folder_in

NAMES: list[Augment] = list(PRESETS)  # type: ignore[arg-type]
SHAPE = ImageShape(3, 16, 16)


def stored(count: int, size: int, dtype: Any = np.uint8, channels: int = 3) -> torch.Tensor:
    top = np.iinfo(dtype).max + 1
    drawn = np.random.default_rng(size).integers(0, top, (count, channels, size, size))
    return torch.from_numpy(drawn.astype(dtype))


def transform(name: Augment, size: int = 16) -> Transform:
    return Transform(name, (3, size, size), SHAPE)


@settings(max_examples=60, deadline=None)
@given(
    height=st.integers(1, 70), width=st.integers(1, 70), side=st.integers(1, 80), seed=st.integers()
)
def test_resizing_is_pillows_bit_for_bit(height: int, width: int, side: int, seed: int) -> None:
    rng = np.random.default_rng(seed % 2**32)
    pixels = rng.integers(0, 256, (height, width)).astype(np.uint8)
    expected = Image.fromarray(pixels).resize((side, side), Image.Resampling.BILINEAR)
    found = resized(torch.from_numpy(pixels)[None, None], side)[0, 0]
    # Of a tall image Pillow may take the columns first, which rounds otherwise.
    allowed = 0 if height <= width else 1
    assert np.abs(found.numpy().astype(int) - np.asarray(expected).astype(int)).max() <= allowed


def test_sixteen_bits_are_resized_at_their_depth() -> None:
    deep = stored(2, 9, np.uint16)
    found = resized(deep, 11)
    assert found.dtype == torch.uint16
    near = torch.nn.functional.interpolate(deep.double(), 11, mode="bilinear")
    assert (found.double() - near).abs().max() <= 1.0
    assert bool((resized(torch.full((1, 1, 5, 5), 65535, dtype=torch.uint16), 9) == 65535).all())


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("name", NAMES)
def test_integers_go_in_and_come_out_in_the_shape_of_the_job(name: Augment, dtype: Any) -> None:
    x, made = stored(5, 16, dtype), transform(name)
    for found in (made.test(x), made.train(x, made.draw_crops(0, np.arange(5)))):
        assert (found.dtype, tuple(found.shape)) == (x.dtype, (5, *SHAPE.chw))


@pytest.mark.parametrize("name", NAMES)
def test_a_training_image_is_a_function_of_seed_and_position(name: Augment) -> None:
    x, made = stored(12, 16), transform(name)
    whole = made.train(x, made.draw_crops(3, np.arange(100, 112)))
    for start, stop in ((0, 5), (5, 6), (6, 12)):
        part = made.train(x[start:stop], made.draw_crops(3, np.arange(100 + start, 100 + stop)))
        assert torch.equal(part, whole[start:stop])
    chance = PRESETS[name].random_crop or PRESETS[name].flip
    assert torch.equal(made.train(x, made.draw_crops(4, np.arange(100, 112))), whole) is not chance


def test_crops_are_everywhere_and_half_are_mirrored() -> None:
    crops = transform("paper/crop112", 128).draw_crops(0, np.arange(4000))
    # int(1.12 * 16) = 17: two places along each axis.
    assert [sorted(set(crops[:, n].tolist())) for n in range(3)] == [[0, 1]] * 3
    assert all(0.45 < float(crops[:, n].double().mean()) < 0.55 for n in range(3))
    assert abs(float(torch.corrcoef(crops.T.double())[0, 1])) < 0.05
    padded = transform("paper/pad4").draw_crops(0, np.arange(4000))
    assert set(padded[:, 0].tolist()) == set(padded[:, 1].tolist()) == set(range(9))


def test_a_crop_is_what_slicing_gives() -> None:
    x = stored(6, 20)
    for name, pad in (("paper/crop112", 0), ("paper/pad4", 4)):
        made = transform(name, 20)  # type: ignore[arg-type]
        crops = made.draw_crops(1, np.arange(6))
        big = np.pad(
            resized(x, 17 if pad == 0 else 16).numpy(), ((0, 0), (0, 0), (pad, pad), (pad, pad))
        )
        for image, (top, left, mirrored), found in zip(
            big, crops.tolist(), made.train(x, crops).numpy(), strict=True
        ):
            expected = image[:, top : top + 16, left : left + 16]
            np.testing.assert_array_equal(found, expected[..., ::-1] if mirrored else expected)


@pytest.mark.parametrize(
    ("name", "size", "expected"),
    [
        ("none", 16, lambda x: x),
        ("flip", 16, lambda x: x),
        ("paper/crop112", 30, lambda x: resized(x, 17)[..., :16, :16]),  # 0.5 goes to 0
        ("paper/centre112", 16, lambda x: resized(x, 17)[..., :16, :16]),
        ("paper/pad4", 20, lambda x: resized(x, 16)),
        ("paper/resize", 12, lambda x: resized(x, 16)),
        ("paper/centre", 19, lambda x: x[..., 2:18, 2:18]),  # 1.5 goes to 2
        ("paper/centre", 16, lambda x: x),
    ],
)
def test_what_a_test_image_is(name: Augment, size: int, expected: Any) -> None:
    x = stored(4, size)
    assert torch.equal(transform(name, size).test(x), expected(x))
    chance = PRESETS[name].random_crop or PRESETS[name].flip
    if not chance:
        made = transform(name, size)
        assert torch.equal(made.train(x, made.draw_crops(0, np.arange(4))), expected(x))


@pytest.mark.parametrize(
    ("name", "images", "said"),
    [
        ("none", (3, 28, 28), r"has images 3x28x28, the job needs 3x16x16; .*image_size=28"),
        ("flip", (3, 16, 20), "another image_size"),
        ("paper/centre", (3, 15, 30), "the job needs 3x16x16 with augment=paper/centre"),
        ("paper/crop112", (1, 28, 28), "has images 1x28x28, .* channels=1"),
    ],
)
def test_images_that_cannot_become_the_jobs_are_refused(
    name: Augment, images: tuple[int, int, int], said: str
) -> None:
    with pytest.raises(DataError, match=said):
        Transform(name, images, SHAPE)
    assert transform_problem("paper/crop112", (3, 28, 40), SHAPE) is None


def test_a_view_is_a_set_of_the_jobs_shape() -> None:
    images = stored(10, 28).numpy()
    source = MemoryShards(images)
    seen = transformed(source, "paper/crop112", SHAPE, "test data")
    expected = transform("paper/crop112", 28).test(torch.from_numpy(images)).numpy()
    assert (seen.manifest.image.height, seen.manifest.image.width) == (16, 16)
    assert seen.manifest.digest == source.manifest.digest
    assert seen.manifest.settings["view"] == "paper/crop112"
    np.testing.assert_array_equal(seen.images(2, 5), expected[2:5])
    arguments = {"seed": 0, "global_batch_size": 4, "rank": 0, "world_size": 1, "start_step": 0}
    raw, made = (next(s.batches(**arguments)) for s in (source, seen))
    order = [int((images == image).all(axis=(1, 2, 3)).argmax()) for image in raw.images]
    np.testing.assert_array_equal(made.images, expected[order])
    assert transformed(MemoryShards(expected), "flip", SHAPE, "data").manifest.settings == {}
    with pytest.raises(DataError, match="test data: has images 3x28x28"):
        transformed(source, "none", SHAPE, "test data")


def test_the_second_set_is_transformed_too() -> None:
    images = stored(7, 28).numpy()
    other = SecondSet(lambda: MemoryShards(images), SHAPE, "paper/crop112")
    drawn = other(streams(0, "x", range(40)))
    assert tuple(drawn.shape) == (40, *SHAPE.chw)
    assert torch.equal(other(streams(0, "x", [7])), drawn[7:8])


def job(**changes: Any) -> TrainJob:
    return parse(
        TrainJob,
        {
            "image_size": 16,
            "channels": 1,
            "degradation": {"kind": "decolor", "num_timesteps": 3},
            "restorer": {"kind": "convnext_unet", "dim": 8, "dim_mults": [1, 2]},
            "global_batch_size": 6,
            "num_steps": 2,
            "checkpoint_every": 2,
            "ema": {"start": 0, "every": 1},
            "augment": "paper/crop112",
            **changes,
        },
    )


def numbers(images: NDArray[Any]) -> MemoryShards:
    return MemoryShards(images)


def test_ranks_see_parts_of_one_batch() -> None:
    source, D = numbers(stored(20, 14, channels=1).numpy()), job().degradation.build(job().shape)
    alone = next(training_inputs(job(), source, D, rank=0, world_size=1, start_step=5))
    parts = [
        next(training_inputs(job(), source, D, rank=rank, world_size=4, start_step=5))
        for rank in range(4)
    ]
    assert torch.equal(torch.cat([part.crops for part in parts]), alone.crops)
    assert torch.equal(torch.cat([part.x0 for part in parts]), alone.x0)


@pytest.mark.parametrize("micro", [None, 4])
def test_a_job_trains_on_images_of_another_size_than_its_own(
    tmp_path: Path, micro: int | None
) -> None:
    source = numbers(stored(20, 14, channels=1).numpy())
    trained = Trainer(
        job(max_batch_per_worker=micro),
        source,
        folder_in(tmp_path),
        LocalContext(),
        MemoryTracker(),
        attempt=1,
    )
    assert trained.run().step == 2
    with pytest.raises(DataError, match="data: has images 1x14x14, the job needs 1x16x16"):
        Trainer(
            job(augment="none"),
            source,
            folder_in(tmp_path),
            LocalContext(),
            MemoryTracker(),
            attempt=1,
        )


def test_a_source_is_packed_as_published_and_evaluated_by_the_test_transform(
    tmp_path: Path,
) -> None:
    wanted = job(data="digits", evaluation={"num_images": 4, "severities": 1})
    resolved, _ = resolve_training(wanted, str(tmp_path), pack=True)
    assert resolved.data
    assert resolved.test_data
    image = read_manifest(resolved.data).image
    assert (image.height, image.width) == (8, 8)
    restorer = resolved.restorer.build(resolved.shape).eval()
    seen = open_transformed(resolved.test_data, resolved.augment, resolved.shape)
    D = resolved.degradation.build(resolved.shape)
    features = open_features("lenet")
    found = evaluate(restorer, D, seen, resolved.evaluation, features, keep=1)
    assert found.provenance["transform"] == "paper/crop112"
    first = open_shards(resolved.test_data).images(0, 1)
    original = Transform("paper/crop112", (1, 8, 8), resolved.shape).test(torch.from_numpy(first))
    assert np.array_equal(found.pictures["original"], original.numpy())
    plain = job(data="digits", augment="flip")
    small, _ = resolve_training(plain, str(tmp_path), pack=True)
    assert small.data != resolved.data
    assert read_manifest(str(small.data)).image.height == 16
