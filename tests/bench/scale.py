"""A set of a billion images by simulation, many jobs in a STORAGE, and many workers on paper.

The set is one of a million shards in parts of 1,000, as `colddiff data join` makes it. Every shard
of it is the same tar, which is on the disk once; all else is as in a real one.
"""

from __future__ import annotations

import io
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from colddiff.data.manifest import make_manifest, manifest_bytes, read_manifest, write_joined
from colddiff.data.open import open_shards
from colddiff.data.readers.lanes import Lanes
from colddiff.data.tars import shard_entry, shard_key, write_tar
from colddiff.data.verify import drawn_shards, verify
from colddiff.ports import ImageFormat, ShardEntry
from colddiff.stores.local_store import LocalStore
from tests.bench.many_jobs import many_jobs
from tests.bench.many_workers import many_workers

PER_SHARD, PER_PART = 1000, 1000
WORKERS, PER_WORKER = 1000, 32
SAMPLE = 20


class SameTar(LocalStore):
    """A folder in which every tar is ``shard.tar``."""

    def path(self, key: str) -> Path:
        return super().path("shard.tar" if key.endswith(".tar") else key)


def measure(most_shards: int, num_jobs: int) -> list[dict[str, Any]]:
    """Rows of the set at growing sizes, of ``num_jobs`` jobs on a disk, and of 1,000 workers."""
    rows = []
    for num_shards in (10_000, 100_000, 1_000_000):
        if num_shards <= most_shards:
            with tempfile.TemporaryDirectory() as name:
                rows.append(_set_of(Path(name), num_shards))
    return [*rows, many_jobs(num_jobs), many_workers(WORKERS)]


def _set_of(folder: Path, num_shards: int) -> dict[str, Any]:
    _make_parts(folder, num_shards)
    joined = _timed("data join", lambda: write_joined(LocalStore(folder)))
    worker = subprocess.run(
        [sys.executable, "-m", "tests.bench.scale", str(folder)],
        stdout=subprocess.PIPE,
        check=True,
    )
    return {
        "set": f"{num_shards:,} shards, {num_shards * PER_SHARD:,} images",
        **joined,
        "manifest.json, MB": (folder / "manifest.json").stat().st_size / 1e6,
        **json.loads(worker.stdout),
    }


def _make_parts(folder: Path, num_shards: int) -> None:
    image, tar = _tar()
    folder.mkdir(exist_ok=True)
    (folder / "shard.tar").write_bytes(tar)
    entry = shard_entry("shard.tar", PER_SHARD, tar)
    shards = [
        ShardEntry(shard_key(n), entry.count, entry.bytes, entry.sha256) for n in range(PER_PART)
    ]
    content = manifest_bytes(make_manifest(image, shards))
    for part in range(num_shards // PER_PART):
        place = folder / f"part-{part:04d}"
        place.mkdir()
        (place / "manifest.json").write_bytes(content)


def _tar() -> tuple[ImageFormat, bytes]:
    rng, members = np.random.default_rng(0), []
    for n in range(PER_SHARD):
        file = io.BytesIO()
        pixels = rng.integers(0, 256, (8, 8, 3)).astype(np.uint8)
        Image.fromarray(pixels).resize((32, 32)).save(file, "PNG")
        members.append((f"{n:06d}.png", file.getvalue()))
    return ImageFormat(3, 32, 32), write_tar(members)


def _worker(folder: Path) -> dict[str, Any]:
    """What one of ``WORKERS`` workers sees, in a process of its own."""
    store, batch = SameTar(folder), WORKERS * PER_WORKER
    before = _memory_mb()
    opening = _timed("opening", lambda: read_manifest(store))
    opened = _memory_mb()
    source = open_shards(store, str(folder / "cache"))
    count = source.manifest.count
    lanes = Lanes(source.manifest, 0, batch)
    lanes.runs(0, slice(0, 1))
    first_order = _timed("order of the first epoch", lambda: _look(lanes, 0))
    later = 2 * count // batch + 12
    next_order = _timed("order of a later epoch", lambda: _look(lanes, later))

    def batches(step: int, number: int) -> None:
        found = source.batches(
            seed=0, global_batch_size=batch, rank=0, world_size=WORKERS, start_step=step
        )
        for _ in islice(found, number):
            pass
        found.close()  # type: ignore[attr-defined]

    batches(0, 1)  # imports torch
    resumed = _timed("first batch, resumed in epoch 3", lambda: batches(later, 1))
    batches(0, 100)
    peak = _memory_mb()
    drawn = drawn_shards(source.manifest, SAMPLE, 0)
    sampled = _timed(
        f"verify --sample {SAMPLE}", lambda: verify(store, source.manifest, only=drawn)
    )
    return {
        **opening,
        "opening, goal s": 5,
        **first_order,
        **next_order,
        **resumed,
        "a worker's memory, MB": peak,
        "its memory before opening, MB": before,
        "its memory after opening, MB": opened,
        "a worker's memory, goal MB": 500,
        **sampled,
    }


def _look(lanes: Lanes, step: int) -> None:
    for run in lanes.runs(step, slice(0, PER_WORKER)):
        lanes.places(run)


def _memory_mb() -> float:
    """Most memory of this process so far."""
    text = Path("/proc/self/status").read_text()
    line = next(line for line in text.splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def _timed(name: str, work: Callable[[], object]) -> dict[str, float]:
    """Seconds by the clock, and of CPU of all threads."""
    cpu, began = time.process_time(), time.perf_counter()
    work()
    return {
        f"{name}, s": time.perf_counter() - began,
        f"{name}, CPU s": time.process_time() - cpu,
    }


if __name__ == "__main__":
    print(json.dumps(_worker(Path(sys.argv[1]))))
