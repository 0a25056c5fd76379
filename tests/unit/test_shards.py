"""A packed set as global batches: the same for any number of workers, each image once an epoch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from colddiff.data import webdataset_tar
from colddiff.data.manifest import make_manifest, read_manifest, write_manifest
from colddiff.data.open import open_shards
from colddiff.data.order import epoch_order
from colddiff.data.pil_images import encode_png
from colddiff.data.readers import mapped_shards as webdataset_shards
from colddiff.data.readers.lanes import Lanes
from colddiff.data.readers.mapped_shards import MappedShards
from colddiff.data.readers.streamed_shards import BATCHES_AHEAD, StreamedShards
from colddiff.data.tars import shard_entry, shard_key, write_tar
from colddiff.errors import DataError, StoreError
from colddiff.ports import ImageFormat, ShardEntry
from colddiff.stores.memory_store import MemoryStore
from tests.numbered_shards import COUNT, numbered, numbers, opened, pixels_of, steps


@pytest.fixture(params=["mapped", "streamed"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_the_two_kinds_are_what_they_are_called(tmp_path: Path) -> None:
    assert isinstance(opened("mapped", numbered(), tmp_path), MappedShards)
    assert isinstance(opened("streamed", numbered(), tmp_path), StreamedShards)


@pytest.mark.parametrize("batch", [16, 13, 120, 250])
def test_any_number_of_workers_sees_the_same_batches(kind: str, batch: int, tmp_path: Path) -> None:
    source = opened(kind, numbered(), tmp_path)
    alone = steps(source, 12, batch=batch)
    for world in (2, 3, 4, 8):
        assert steps(source, 12, batch=batch, world=world) == alone
    for step, (images, positions) in enumerate(alone):
        assert len(images) == batch
        assert positions == list(range(step * batch, (step + 1) * batch))


def test_more_workers_than_images_in_a_batch(kind: str, tmp_path: Path) -> None:
    source = opened(kind, numbered(), tmp_path)
    assert steps(source, 5, batch=3, world=5) == steps(source, 5, batch=3)


def test_every_image_once_an_epoch(kind: str, tmp_path: Path) -> None:
    source = opened(kind, numbered(96, 9), tmp_path)
    seen = [n for images, _ in steps(source, 18, batch=16) for n in images]
    for epoch in range(3):
        assert sorted(seen[96 * epoch : 96 * (epoch + 1)]) == list(range(96))
    assert seen[:96] != seen[96:192]


@pytest.mark.parametrize("batch", [16, 13, 250])
def test_epochs_flow_on_where_they_do_not_fill_batches(
    kind: str, batch: int, tmp_path: Path
) -> None:
    source = opened(kind, numbered(), tmp_path)
    # COUNT steps are `batch` whole epochs.
    found = steps(source, COUNT, batch=batch)
    times = np.zeros(COUNT, int)
    for step, (images, _) in enumerate(found, 1):
        np.add.at(times, images, 1)
        # No image comes again before all others came, but for the batch an epoch ends in.
        assert times.max() - times.min() <= 1 + (step * batch % COUNT < batch) + batch // COUNT
    assert times.tolist() == [batch] * COUNT


def test_a_run_goes_on_at_any_step_as_if_it_had_never_stopped(kind: str, tmp_path: Path) -> None:
    source = opened(kind, numbered(), tmp_path / "a")
    whole = steps(source, 30)
    for start in (1, 6, 7, 13, 29):
        again = opened(kind, numbered(), tmp_path / str(start))
        assert steps(again, 30 - start, start=start, world=2) == whole[start:]
    far = steps(source, 1, start=10**9)
    assert far[0][1][0] == 16 * 10**9


def test_the_number_of_workers_may_change_at_any_step(kind: str, tmp_path: Path) -> None:
    source = opened(kind, numbered(), tmp_path)
    whole = steps(source, 20)
    found: list[tuple[list[int], list[int]]] = []
    for world, count in ((4, 3), (3, 5), (1, 1), (8, 6), (2, 5)):
        found += steps(source, count, start=len(found), world=world)
    assert found == whole


def test_where_an_epoch_ends_within_a_step_it_still_goes_lane_by_lane() -> None:
    entries = [shard_entry(shard_key(n), 10, b"x") for n in range(12)]
    lanes = Lanes(make_manifest(ImageFormat(1, 2, 2), entries), seed=3, global_batch_size=16)
    assert lanes.num_lanes > 1
    epochs = []
    for step in range(30):
        runs = lanes.runs(step, slice(0, 16))
        order = [run.lane for run in runs]
        assert order == sorted(order)
        epochs.append({run.epoch for run in runs})
    assert any(len(both) == 2 for both in epochs)


def test_going_on_decodes_nothing_of_what_was_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decode, decoded = webdataset_tar.tar_pixels, list[int]()

    def counting(*arguments: Any) -> Any:
        pixels = decode(*arguments)
        decoded.append(256 * int(pixels[0, 0, 0]) + int(pixels[0, 1, 0]))
        return pixels

    store = numbered(640, 10)
    images, _ = zip(*steps(opened("streamed", store, tmp_path), 30), strict=True)
    monkeypatch.setattr(webdataset_shards, "tar_pixels", counting)
    steps(opened("streamed", store, tmp_path), 2, start=20)
    # Its two batches, and those made ahead in the background, in their order.
    assert 2 * 16 <= len(decoded) <= (2 + BATCHES_AHEAD + 1) * 16
    later = [n for batch in images[20:] for n in batch]
    assert set(decoded) <= set(later[: len(decoded) + 16])
    assert set(later[:32]) <= set(decoded)


def test_a_decoded_set_is_not_decoded_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = numbered()
    expected = steps(opened("mapped", store, tmp_path), 12)[10:]

    def refuse(*_: Any) -> Any:
        raise AssertionError

    monkeypatch.setattr(webdataset_shards, "tar_pixels", refuse)
    assert steps(opened("mapped", store, tmp_path), 2, start=10) == expected


def test_the_order_depends_on_seed_and_data_and_nothing_else(kind: str, tmp_path: Path) -> None:
    first = steps(opened(kind, numbered(), tmp_path / "a"), 6)
    assert steps(opened(kind, numbered(), tmp_path / "b"), 6) == first
    assert steps(opened(kind, numbered(), tmp_path / "a"), 6, seed=1) != first
    assert steps(opened(kind, numbered(COUNT + 1), tmp_path / "a"), 6) != first
    order = [n for images, _ in first for n in images]
    assert order != sorted(order)


def test_the_order_is_the_one_it_always_was() -> None:
    # A job that goes on with another version of numpy, or of us, must not see another order.
    assert epoch_order("digest", 3, 1, 10).tolist() == [2, 0, 4, 1, 8, 9, 5, 6, 3, 7]
    entries = [ShardEntry(f"{n}.tar", 5, 1, "0" * 64) for n in range(4)]
    lanes = Lanes(make_manifest(ImageFormat(1, 2, 2), entries), seed=3, global_batch_size=4)
    places = [place for run in lanes.runs(1, slice(0, 4)) for place in lanes.places(run)]
    assert (lanes.num_lanes, lanes.window) == (4, 10)
    assert [(place.shard, place.index) for place in places] == [(1, 1), (2, 0), (0, 4), (3, 0)]


def test_images_come_in_manifest_order(kind: str, tmp_path: Path) -> None:
    source = opened(kind, numbered(), tmp_path)
    assert numbers(source.images(0, COUNT)) == list(range(COUNT))
    assert numbers(source.images(7, 20)) == list(range(7, 20))
    assert source.images(5, 5).shape == (0, 1, 2, 2)
    assert source.images(0, 1).flags.writeable
    for start, stop in ((0, COUNT + 1), (-1, 3), (5, 4)):
        with pytest.raises(DataError, match=f"images {start}..{stop} requested"):
            source.images(start, stop)


def test_sixteen_bit_colour_and_shape(kind: str, tmp_path: Path) -> None:
    deep = np.arange(40, dtype=np.uint16).reshape(2, 4, 5, 1) * 1600
    colour = np.random.default_rng(0).integers(0, 256, (2, 4, 5, 3)).astype(np.uint8)
    for pixels, image in ((deep, ImageFormat(1, 4, 5, 16)), (colour, ImageFormat(3, 4, 5))):
        data = write_tar([(f"{n}.png", encode_png(p)) for n, p in enumerate(pixels)])
        store = MemoryStore()
        store.put("a.tar", data)
        write_manifest(store, make_manifest(image, [shard_entry("a.tar", 2, data)]))
        found = opened(kind, store, tmp_path).images(0, 2)
        assert found.dtype == pixels.dtype
        np.testing.assert_array_equal(found, pixels.transpose(0, 3, 1, 2))


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda data: data[:-5000], "the manifest says 20480 bytes"),
        (lambda data: data[:600] + bytes([data[600] ^ 1]) + data[601:], "with sha256 "),
        (lambda data: b"", "has 0 bytes"),
        (None, "is in the manifest but missing"),
    ],
)
def test_a_damaged_shard_is_named_with_both_hashes(
    kind: str, damage: Any, said: str, tmp_path: Path
) -> None:
    store = numbered()
    key = shard_key(4)
    if damage is None:
        store.delete(key)
    else:
        store.put(key, damage(store.get(key)))
        said += ".*" + read_manifest(store).shards[4].sha256
    source = opened(kind, store, tmp_path)
    for use in (lambda: source.images(0, COUNT), lambda: steps(source, 10)):
        with pytest.raises(DataError, match=said) as caught:
            use()
        assert str(caught.value).startswith(f"memory://store/{key}: ")
        assert "colddiff data verify memory://store" in str(caught.value)


def test_a_shard_that_was_damaged_on_the_way_is_read_again(kind: str, tmp_path: Path) -> None:
    class Flaky(MemoryStore):
        def get(self, key: str) -> bytes:
            data = super().get(key)
            if key.endswith(".tar") and key not in damaged:
                damaged.append(key)
                return data[:-1] + b"?"
            return data

    damaged: list[str] = []
    source = opened(kind, numbered(store=Flaky()), tmp_path)
    assert numbers(source.images(0, COUNT)) == list(range(COUNT))
    assert len(damaged) == len(source.manifest.shards)


def test_a_store_that_does_not_answer_is_named(kind: str, tmp_path: Path) -> None:
    class Gone(MemoryStore):
        def get(self, key: str) -> bytes:
            if key.endswith(".tar"):
                raise StoreError(f"{self.uri}/{key}: http://s3 does not answer")
            return super().get(key)

    source = opened(kind, numbered(store=Gone()), tmp_path)
    with pytest.raises(StoreError, match=r"shard-0000\d\d\.tar: http://s3 does not answer"):
        steps(source, 1)


def test_a_manifest_that_counts_wrong_is_named(kind: str, tmp_path: Path) -> None:
    store = MemoryStore()
    data = write_tar([("1.png", encode_png(pixels_of(1)))])
    store.put("a.tar", data)
    write_manifest(store, make_manifest(ImageFormat(1, 2, 2), [shard_entry("a.tar", 2, data)]))
    with pytest.raises(DataError, match=r"a\.tar: holds 1 images, the manifest says 2"):
        opened(kind, store, tmp_path).images(0, 1)


def test_no_manifest(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no manifest\.json"):
        open_shards(str(tmp_path))
