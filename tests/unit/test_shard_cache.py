"""What is kept on the local disk: made once, whole, bounded, and safe when processes are killed."""

from __future__ import annotations

import os
import signal
import threading
import time
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from colddiff.data.manifest import read_manifest
from colddiff.data.open import open_shards
from colddiff.data.readers import mapped_shards
from colddiff.data.readers.local_cache import LocalCache
from colddiff.data.readers.streamed_shards import StreamedShards
from colddiff.data.webdataset_tar import tar_pixels
from colddiff.errors import SpecError, StoreError
from colddiff.stores.local_store import LocalStore
from colddiff.stores.memory_store import MemoryStore
from tests.forked import Forked
from tests.kills import wait_until
from tests.numbered_shards import COUNT, numbered, numbers, opened, steps


def test_it_is_decoded_once_per_machine(tmp_path: Path) -> None:
    store = numbered()
    opened("mapped", store, tmp_path).images(0, 1)
    for item in list(store.list("shard")):
        store.delete(item.key)
    assert numbers(opened("mapped", store, tmp_path).images(0, COUNT)) == list(range(COUNT))


def build(data: str, cache: str, go: str) -> None:
    source = open_shards(data, cache)
    print("opened", flush=True)
    wait_until(Path(go).exists, "the others")
    print(int(source.images(0, source.manifest.count).astype(int).sum()))


def test_several_processes_decode_it_together(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "data")
    numbered(400, 40, store)
    go = tmp_path / "go"
    places = (str(tmp_path / "data"), str(tmp_path / "cache"), str(go))
    workers = [Forked(build, *places) for _ in range(3)]
    for worker in workers:
        wait_until(worker.printed, "a worker")
    go.touch()
    said = [worker.communicate() for worker in workers]
    total = 2 * sum(n // 256 + n % 256 for n in range(400))
    assert said == [(f"opened\n{total}\n", "")] * 3
    [made] = (tmp_path / "cache" / "pixels").iterdir()
    assert made.name == read_manifest(store).digest


def killed_while_decoding(data: str, cache: str) -> None:
    decoded: list[int] = []

    def some(*arguments: Any) -> Any:
        decoded.append(1)
        if len(decoded) == 50:
            os.kill(os.getpid(), signal.SIGKILL)
        return tar_pixels(*arguments)

    vars(mapped_shards)["tar_pixels"] = some
    open_shards(data, cache).images(0, 1)


def test_a_kill_while_decoding_leaves_nothing_in_the_way(tmp_path: Path) -> None:
    store = numbered(store=LocalStore(tmp_path / "data"))
    killed = Forked(killed_while_decoding, str(tmp_path / "data"), str(tmp_path / "cache"))
    killed.communicate()
    assert killed.returncode == -9
    assert len(list((tmp_path / "cache" / "pixels").iterdir())) == 1
    source = opened("mapped", store, tmp_path / "cache")
    assert numbers(source.images(0, COUNT)) == list(range(COUNT))
    assert [path.name for path in (tmp_path / "cache" / "pixels").iterdir()] == [
        source.manifest.digest
    ]


def test_a_cached_file_of_another_size_is_made_again(tmp_path: Path) -> None:
    source = opened("mapped", numbered(), tmp_path)
    (tmp_path / "pixels").mkdir()
    (tmp_path / "pixels" / source.manifest.digest).write_bytes(b"short")
    assert numbers(source.images(0, COUNT)) == list(range(COUNT))


def test_a_cache_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StoreError, match=r"file/pixels.*set COLDDIFF_CACHE to a folder with"):
        opened("mapped", numbered(), tmp_path / "file").images(0, 1)


def test_the_least_recently_used_make_room(tmp_path: Path) -> None:
    cache = LocalCache(tmp_path, max_bytes=25)
    made: list[str] = []

    def want(name: str) -> bytes:
        def make(file: Any) -> None:
            made.append(name)
            file.write(name.encode() * 10)

        with cache.open(name, 10, make) as file:
            return file.read()

    for age, name in enumerate("ab"):
        assert want(name) == name.encode() * 10
        os.utime(tmp_path / name, (age, age))
    assert want("a") == b"a" * 10  # used again: now b is the oldest
    assert want("c") == b"c" * 10
    assert made == ["a", "b", "c"]
    kept = {path.name for path in tmp_path.iterdir() if not path.name.startswith(".")}
    assert kept == {"a", "c"}


def stream(cache: str) -> None:
    store = numbered(400, 20)
    source = StreamedShards(store, read_manifest(store), LocalCache(Path(cache)))
    print(steps(source, 20, batch=2))


def test_processes_that_stream_together_stay_within_one_bound(tmp_path: Path) -> None:
    store = numbered(400, 20)
    shard = read_manifest(store).shards[0].bytes
    environment = {**os.environ, "COLDDIFF_CACHE_BYTES": str(5 * shard)}
    workers = [Forked(stream, str(tmp_path), env=environment) for _ in range(3)]
    seen = []
    while any(worker.poll() is None for worker in workers):
        sizes = [_size(path) for path in tmp_path.glob("shards/*")]
        seen.append(sum(sizes))
        time.sleep(0.002)
    outputs = [worker.communicate()[0] for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0, 0]
    assert outputs == [f"{steps(opened('streamed', store, tmp_path / 'calm'), 20, batch=2)}\n"] * 3
    # A listing is no snapshot: it may meet a file under both its names.
    assert 0 < max(seen) <= 6 * shard


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def killed_while_caching(place: Path) -> None:
    LocalCache(place, 25).open("shards/a", 20, lambda file: os.kill(os.getpid(), signal.SIGKILL))


def test_what_a_killed_process_left_is_in_nobodys_way(tmp_path: Path) -> None:
    killed = Forked(killed_while_caching, tmp_path)
    killed.communicate()
    assert killed.returncode == -9
    assert len(list(tmp_path.glob("shards/*"))) == 1
    LocalCache(tmp_path, 25).open("shards/b", 10, lambda file: _write(file, 10)).close()
    assert [path.name for path in tmp_path.glob("shards/*")] == ["b"]


def test_a_file_waits_until_those_under_way_leave_room(tmp_path: Path) -> None:
    cache = LocalCache(tmp_path, 25)
    begun, go_on, there = threading.Event(), threading.Event(), list[list[str]]()

    def slowly(file: BinaryIO) -> None:
        begun.set()
        assert go_on.wait(30)
        _write(file, 20)

    def noting(file: BinaryIO) -> None:
        there.append([path.name for path in tmp_path.glob("shards/[!.]*")])
        _write(file, 20)

    threads = [
        threading.Thread(target=lambda name=name, make=make: cache.open(name, 20, make).close())
        for name, make in (("shards/a", slowly), ("shards/b", noting))
    ]
    threads[0].start()
    assert begun.wait(30)
    threads[1].start()
    time.sleep(0.2)  # time enough to begin, were it let
    assert there == []
    go_on.set()
    for thread in threads:
        thread.join(30)
    assert there == [[]]
    assert [path.name for path in tmp_path.glob("shards/*")] == ["b"]


def test_a_file_larger_than_the_bound_is_kept_alone(tmp_path: Path) -> None:
    cache = LocalCache(tmp_path, 25)
    for name, size in (("a", 10), ("b", 10), ("large", 99), ("c", 20)):
        cache.open(f"shards/{name}", size, partial(_write, size=size)).close()
        kept = sorted(path.name for path in tmp_path.glob("shards/*"))
        assert kept == {"a": ["a"], "b": ["a", "b"], "large": ["large"], "c": ["c"]}[name]


def _write(file: BinaryIO, size: int) -> None:
    file.write(bytes(size))


def test_a_bound_that_is_no_number_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLDDIFF_CACHE_BYTES", "32 GB")
    with pytest.raises(SpecError, match="COLDDIFF_CACHE_BYTES '32 GB': must be a whole number"):
        LocalCache(tmp_path)


def test_streaming_stays_within_its_cache(tmp_path: Path) -> None:
    store = numbered(400, 20)
    manifest = read_manifest(store)
    bound = 6 * manifest.shards[0].bytes
    source = StreamedShards(store, manifest, LocalCache(tmp_path, max_bytes=bound))
    seen = [n for images, _ in steps(source, 100, batch=4) for n in images]
    assert sorted(seen[:400]) == list(range(400))
    kept = sum(path.stat().st_size for path in (tmp_path / "shards").iterdir())
    assert 0 < kept <= bound


def test_a_local_set_is_streamed_without_a_copy(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "data")
    numbered(store=store)
    source = open_shards(store, str(tmp_path / "cache"), max_decoded_bytes=0)
    assert len(steps(source, 10)) == 10
    assert not (tmp_path / "cache").exists()


def test_streaming_reads_the_shards_of_its_own_lanes(tmp_path: Path) -> None:
    class Counting(MemoryStore):
        def get(self, key: str) -> bytes:
            read.add(key)
            return super().get(key)

    read: set[str] = set()
    store = numbered(640, 10, Counting())
    source = opened("streamed", store, tmp_path / "a")
    batches = source.batches(seed=0, global_batch_size=32, rank=0, world_size=4, start_step=0)
    for _ in range(18):
        next(batches)
    batches.close()  # type: ignore[attr-defined]
    # A quarter of the 64 shards, and those that begin the lanes' next epoch.
    assert len(read - {"manifest.json"}) <= 64 // 4 + 8 * 3


@pytest.mark.parametrize("closed", [True, False], ids=["closed", "dropped"])
def test_the_background_thread_ends_with_its_reader(tmp_path: Path, closed: bool) -> None:
    import threading

    source = opened("streamed", numbered(), tmp_path)
    batches = source.batches(seed=0, global_batch_size=8, rank=0, world_size=1, start_step=0)
    next(batches)
    assert any(thread.name == "shards" for thread in threading.enumerate())
    if closed:
        batches.close()  # type: ignore[attr-defined]
    del batches
    assert not any(thread.name == "shards" for thread in threading.enumerate())
