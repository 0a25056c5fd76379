"""What is kept on the local disk: made once, whole, bounded, and safe when processes are killed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from colddiff import connect
from colddiff.adapters.local_cache import LocalCache
from colddiff.adapters.local_store import LocalStore
from colddiff.adapters.memory_store import MemoryStore
from colddiff.adapters.streamed_shards import StreamedShards
from colddiff.errors import StoreError
from colddiff.shards.manifest import read_manifest
from tests.numbered_shards import COUNT, numbered, numbers, opened, steps


def test_it_is_decoded_once_per_machine(tmp_path: Path) -> None:
    store = numbered()
    opened("mapped", store, tmp_path).images(0, 1)
    for item in list(store.list("shard")):
        store.delete(item.key)
    assert numbers(opened("mapped", store, tmp_path).images(0, COUNT)) == list(range(COUNT))


BUILD = """
import sys, pathlib
from colddiff import connect
source = connect.open_shards(sys.argv[1], sys.argv[2])
sys.stdin.readline()
print(int(source.images(0, source.manifest.count).astype(int).sum()), flush=True)
"""


def test_several_processes_decode_it_together(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "data")
    numbered(400, 40, store)
    command = [sys.executable, "-c", BUILD, str(tmp_path / "data"), str(tmp_path / "cache")]
    workers = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    said = []
    for worker in workers:
        assert worker.stdin is not None
        worker.stdin.write("go\n")
        worker.stdin.flush()
    for worker in workers:
        said.append(worker.communicate()[0])
        assert worker.returncode == 0
    total = 2 * sum(n // 256 + n % 256 for n in range(400))
    assert said == [f"{total}\n"] * 3
    [made] = (tmp_path / "cache" / "pixels").iterdir()
    assert made.name == read_manifest(store).digest


KILLED = """
import os, sys
from colddiff import connect
from colddiff.adapters import webdataset_shards
decode, decoded = webdataset_shards.tar_pixels, []
def some(*arguments):
    decoded.append(1)
    if len(decoded) == 50:
        os.kill(os.getpid(), 9)
    return decode(*arguments)
webdataset_shards.tar_pixels = some
connect.open_shards(sys.argv[1], sys.argv[2]).images(0, 1)
"""


def test_a_kill_while_decoding_leaves_nothing_in_the_way(tmp_path: Path) -> None:
    store = numbered(store=LocalStore(tmp_path / "data"))
    command = [sys.executable, "-c", KILLED, str(tmp_path / "data"), str(tmp_path / "cache")]
    assert subprocess.run(command, check=False).returncode == -9
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

    import os

    for age, name in enumerate("ab"):
        assert want(name) == name.encode() * 10
        os.utime(tmp_path / name, (age, age))
    assert want("a") == b"a" * 10  # used again: now b is the oldest
    assert want("c") == b"c" * 10
    assert made == ["a", "b", "c"]
    kept = {path.name for path in tmp_path.iterdir() if not path.name.startswith(".")}
    assert kept == {"a", "c"}


def test_streaming_stays_within_its_cache(tmp_path: Path) -> None:
    store = numbered(400, 20)
    manifest = read_manifest(store)
    bound = 6 * manifest.shards[0].bytes
    source = StreamedShards(store, manifest, LocalCache(tmp_path, max_bytes=bound))
    seen = [n for images, _ in steps(source, 50, batch=16) for n in images]
    assert sorted(seen[:400]) == list(range(400))
    kept = sum(path.stat().st_size for path in (tmp_path / "shards").iterdir())
    assert 0 < kept <= bound + 2 * manifest.shards[0].bytes  # two are fetched at a time


def test_a_local_set_is_streamed_without_a_copy(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "data")
    numbered(store=store)
    source = connect.open_shards(store, str(tmp_path / "cache"), max_decoded_bytes=0)
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


def test_the_background_thread_ends_with_its_reader(tmp_path: Path) -> None:
    import threading

    source = opened("streamed", numbered(), tmp_path)
    batches = source.batches(seed=0, global_batch_size=8, rank=0, world_size=1, start_step=0)
    next(batches)
    assert any(thread.name == "shards" for thread in threading.enumerate())
    batches.close()  # type: ignore[attr-defined]
    assert not any(thread.name == "shards" for thread in threading.enumerate())
