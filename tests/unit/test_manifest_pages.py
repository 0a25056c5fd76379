"""A large set: its manifest in pages, sets joined to one, and what opening one takes."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

from colddiff.data.manifest import (
    KEY,
    make_manifest,
    manifest_bytes,
    read_manifest,
    write_joined,
    write_manifest,
)
from colddiff.data.manifests.paged import MOST_IN_ONE, PER_PAGE, PagedShards
from colddiff.data.open import open_shards
from colddiff.data.readers.lanes import Lanes
from colddiff.data.readers.streamed_shards import StreamedShards
from colddiff.data.verify import drawn_order, drawn_shards, verify, verify_some
from colddiff.errors import ColddiffError, DataError, Exists
from colddiff.ports import ImageFormat, ShardEntry
from colddiff.stores.local_store import LocalStore
from tests.numbered_shards import numbered, numbers, steps
from tests.watched_store import Watched

IMAGE = ImageFormat(1, 2, 2)


def entries(count: int, images: int = 5) -> list[ShardEntry]:
    return [
        ShardEntry(f"shard-{n:06d}.tar", images + n % 3, 512 + n, f"{n:064x}") for n in range(count)
    ]


def parts(folder: Path, *sizes: int, shard: int = 5) -> LocalStore:
    for n, size in enumerate(sizes):
        numbered(size, shard, LocalStore(folder / f"part-{n:02d}"))
    return LocalStore(folder)


def in_one_file(store: LocalStore) -> list[ShardEntry]:
    """The shards of all parts, as one manifest lists them."""
    return [
        ShardEntry(f"{name}/{shard.key}", shard.count, shard.bytes, shard.sha256)
        for name in store.folders("")
        for shard in read_manifest(LocalStore(store.root / name)).shards
    ]


def test_a_large_set_is_written_in_pages_and_opened_without_them(tmp_path: Path) -> None:
    asked: list[str] = []
    store = Watched(tmp_path, lambda call, key: asked.append(key) if call == "get" else None)
    large = make_manifest(IMAGE, entries(MOST_IN_ONE + 1), classes="01", settings={"a": 1})
    write_manifest(store, large)
    found = read_manifest(store)
    assert asked == [KEY]
    assert isinstance(found.shards, PagedShards)
    assert found.shards.counts.tolist() == [shard.count for shard in large.shards]
    assert found.shards.total_bytes == sum(shard.bytes for shard in large.shards)
    assert (found.digest, found.count, found.classes) == (large.digest, large.count, ("0", "1"))
    assert found.shards[PER_PAGE] == large.shards[PER_PAGE]
    assert found.shards[-1] == large.shards[-1]
    assert len(asked) == 3
    assert found.shards[998:1003] == list(large.shards[998:1003])
    assert tuple(found.shards) == large.shards
    assert len(asked) == len(set(asked)) == 1 + 11  # each page once
    with pytest.raises(IndexError):
        found.shards[MOST_IN_ONE + 1]


def test_a_set_that_fits_is_one_file_and_none_is_replaced_by_a_new_one(tmp_path: Path) -> None:
    small = make_manifest(IMAGE, entries(20))
    write_manifest(LocalStore(tmp_path), small, new=True)
    assert (tmp_path / KEY).read_bytes() == manifest_bytes(small)
    assert [item.key for item in LocalStore(tmp_path).list()] == [KEY]
    with pytest.raises(Exists):
        write_manifest(LocalStore(tmp_path), small, new=True)


def test_joined_sets_have_the_digest_and_the_order_of_one_file(tmp_path: Path) -> None:
    store = parts(tmp_path / "joined", 23, 40, 17)
    joined = write_joined(store)
    one = make_manifest(IMAGE, in_one_file(store))
    assert (joined.digest, joined.count) == (one.digest, 80)
    assert tuple(joined.shards) == one.shards
    source = open_shards(store, str(tmp_path / "cache"), max_decoded_bytes=0)
    assert isinstance(source, StreamedShards)
    assert numbers(source.images(20, 26)) == [20, 21, 22, 0, 1, 2]
    seen = steps(source, 10, world=2)
    store.put(KEY, manifest_bytes(one))
    plain = open_shards(store, str(tmp_path / "cache"), max_decoded_bytes=0)
    assert steps(plain, 10) == seen
    assert steps(source, 3, start=7, world=3) == seen[7:]


def test_a_part_that_is_added_is_in_it_when_joined_again(tmp_path: Path) -> None:
    store = parts(tmp_path, 10)
    assert write_joined(store).count == 10
    parts(tmp_path, 10, 12)
    assert write_joined(store).count == 22


def other_format(store: LocalStore) -> None:
    part = LocalStore(store.root / "part-01")
    shards = read_manifest(part).shards
    write_manifest(part, make_manifest(ImageFormat(1, 4, 1), shards))


def other_classes(store: LocalStore) -> None:
    part = LocalStore(store.root / "part-01")
    write_manifest(part, make_manifest(IMAGE, read_manifest(part).shards, classes="ab"))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda store: store.delete(f"part-01/{KEY}"), "part-01: has no manifest.json"),
        (other_format, "part-01: its images are .*part-00.*same settings"),
        (other_classes, "part-01: its classes are not those of part-00"),
        (lambda store: numbered(9, 5, store), "is a packed set itself"),
        (
            lambda store: [
                (store.root / f"part-0{n}").rename(store.root / to)
                for n, to in enumerate(("train", "test"))
            ],
            "holds the splits train and test",
        ),
    ],
)
def test_what_cannot_be_joined_is_refused(
    change: Callable[[LocalStore], object], said: str, tmp_path: Path
) -> None:
    store = parts(tmp_path, 10, 12)
    change(store)
    with pytest.raises(ColddiffError, match=said):
        write_joined(store)
    with pytest.raises(DataError, match="has no folders"):
        write_joined(LocalStore(tmp_path / "empty"))


def test_a_page_that_changed_or_is_gone_is_named(tmp_path: Path) -> None:
    store = parts(tmp_path, 10, 12)
    write_joined(store)
    parts(tmp_path, 10, 13)
    shards = read_manifest(store).shards
    assert shards[0].key == "part-00/shard-000000.tar"
    with pytest.raises(DataError, match=r"part-01/manifest\.json: has sha256 .* changed since"):
        shards[-1]
    store.delete(f"part-01/{KEY}")
    with pytest.raises(DataError, match=r"part-01/manifest\.json: is a page .* missing"):
        shards[-1]


def test_verifying_reads_a_sample_or_all_and_the_digest(tmp_path: Path) -> None:
    store = parts(tmp_path, 50, 50)
    manifest = write_joined(store)
    drawn = drawn_shards(manifest, 5, seed=1)
    assert drawn == drawn_shards(manifest, 5, seed=1) != drawn_shards(manifest, 5, seed=2)
    assert len(set(drawn)) == 5
    assert drawn_shards(manifest, 99, seed=1) == list(range(20))
    store.put(manifest.shards[drawn[2]].key, b"damaged")
    bad = [shard.key for shard in verify(store, manifest, only=drawn)]
    assert bad == [shard.key for shard in verify(store, manifest)]
    assert bad == [manifest.shards[drawn[2]].key]
    others = [n for n in range(20) if n != drawn[2]]
    assert verify(store, manifest, only=others) == []
    assert verify_some(store, manifest, 0.0)[1]
    parts(tmp_path, 50, 50)
    text = (tmp_path / KEY).read_text()
    (tmp_path / KEY).write_text(text.replace(manifest.digest, "0" * 64))
    assert [shard.key for shard in verify(store, read_manifest(store))] == [KEY]


def test_of_a_very_large_set_no_more_is_checked_than_there_is_time_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = parts(tmp_path, 50, 50)
    manifest = write_joined(store)
    last = manifest.shards[drawn_order(manifest, 0)[-1]].key
    store.delete(last)
    assert [shard.key for shard in verify_some(store, manifest, 0.0)[1]] == [last]
    monkeypatch.setattr("colddiff.data.verify.MOST_LISTED", 10)
    assert verify_some(store, manifest, 0.0) == (1, [])
    hashed, bad = verify_some(store, manifest, 60.0)
    assert (hashed, [shard.key for shard in bad]) == (20, [last])


def test_the_memory_of_a_reader_does_not_grow_with_the_images(tmp_path: Path) -> None:
    def peak(images: int) -> int:
        folder = tmp_path / str(images)
        write_manifest(LocalStore(folder), make_manifest(IMAGE, entries(MOST_IN_ONE + 1, images)))
        tracemalloc.start()
        try:
            lanes = Lanes(read_manifest(LocalStore(folder)), 0, 1024)
            for step in (0, 10**6):
                for run in lanes.runs(step, slice(0, 32)):
                    lanes.places(run)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    few, many = peak(1000), peak(10**8)
    assert many < 1.2 * few
    assert many < 500 * (MOST_IN_ONE + 1)


def test_no_more_shards_are_open_than_the_lanes_need(tmp_path: Path) -> None:
    store = parts(tmp_path / "joined", 400, shard=5)
    write_joined(store)
    source = open_shards(store, str(tmp_path / "cache"), max_decoded_bytes=0)
    assert isinstance(source, StreamedShards)
    batches = source.batches(seed=0, global_batch_size=32, rank=0, world_size=32, start_step=0)
    most = 0
    for _ in range(11):
        next(batches)
        most = max(most, len(source._open))
    batches.close()  # type: ignore[attr-defined]
    assert 0 < most <= 13
