"""The reader of packed sets: images per second of one core, cold and warm, and the floor of each.

Cold: verified, found in the tar, decoded, put together to batches. Its floor is Pillow's decoder
(zlib, libjpeg) on the same files with nothing around it. Warm: batches out of the memory map, as in
the second epoch of a small set. Its floor is copying the same number of bytes.
"""

from __future__ import annotations

import io
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from colddiff.data.manifest import make_manifest, read_manifest, write_manifest
from colddiff.data.open import open_shards
from colddiff.data.tars import shard_entry, shard_key, write_tar
from colddiff.ports import Batch, ImageFormat, ShardSource
from colddiff.stores.local_store import LocalStore

BATCH = 64
SHARDS, PER_SHARD = 8, 500
TARGETS = {"cold png 32 px": 2_000, "cold jpeg 128 px": 1_200, "warm 32 px": 30_000}
"""Images per second and core that are wanted."""


def measure(repeats: int = 3) -> list[dict[str, Any]]:
    """A row for each kind of set: img/s of one core, that of its floor, and the part reached."""
    with tempfile.TemporaryDirectory() as folder:
        png, jpeg = Path(folder) / "png", Path(folder) / "jpeg"
        png_files = _packed(png, 32, "PNG", {"compress_level": 6})
        jpeg_files = _packed(jpeg, 128, "JPEG", {"quality": 95})
        return [
            _cold("cold png 32 px", png, png_files, repeats),
            _cold("cold jpeg 128 px", jpeg, jpeg_files, repeats),
            _warm(png, Path(folder) / "cache", repeats),
        ]


def _cold(name: str, folder: Path, files: list[bytes], repeats: int) -> dict[str, Any]:
    store = LocalStore(folder)
    count = read_manifest(store).count

    def read() -> int:
        source = open_shards(store, str(folder / "cache"), max_decoded_bytes=0)
        return _epoch(source, count)

    def decode() -> int:
        for file in files:
            Image.open(io.BytesIO(file)).load()
        return len(files)

    size = sum(map(len, files)) / len(files)
    return _row(name, read, decode, repeats) | {"bytes_per_image": size}


def _warm(folder: Path, cache: Path, repeats: int) -> dict[str, Any]:
    source = open_shards(str(folder), str(cache))
    pixels = source.images(0, source.manifest.count)
    copies = 20

    def read() -> int:
        return sum(_epoch(source, source.manifest.count) for _ in range(copies))

    def copy() -> int:
        for _ in range(copies):
            for start in range(0, len(pixels), BATCH):
                pixels[start : start + BATCH].copy()
        return copies * len(pixels)

    return _row("warm 32 px", read, copy, repeats)


def _row(
    name: str, work: Callable[[], int], floor: Callable[[], int], repeats: int
) -> dict[str, Any]:
    rate, wall = _rate(work, repeats)
    bare, _ = _rate(floor, repeats)
    return {
        "loader": name,
        "img_s_per_core": rate,
        "img_s_wall": wall,
        "floor_img_s_per_core": bare,
        "part_of_floor": rate / bare,
        "part_of_target": rate / TARGETS[name],
    }


def _rate(work: Callable[[], int], repeats: int) -> tuple[float, float]:
    """Images per second of CPU time of all threads, and of the clock: the best of several runs."""
    rates, walls = [], []
    for _ in range(repeats):
        cpu, wall = time.process_time(), time.perf_counter()
        count = work()
        rates.append(count / (time.process_time() - cpu))
        walls.append(count / (time.perf_counter() - wall))
    return max(rates), max(walls)


def _epoch(source: ShardSource, count: int) -> int:
    batches: Iterator[Batch] = source.batches(
        seed=0, global_batch_size=BATCH, rank=0, world_size=1, start_step=0
    )
    seen = sum(len(batch.images) for batch in islice(batches, count // BATCH))
    batches.close()  # type: ignore[attr-defined]
    return seen


def _packed(folder: Path, size: int, form: str, settings: dict[str, Any]) -> list[bytes]:
    """Packs drawn images with detail and noise, about as large as photographs; their files."""
    rng = np.random.default_rng(0)
    store, entries, files = LocalStore(folder), [], list[bytes]()
    suffix = {"PNG": "png", "JPEG": "jpg"}[form]
    for number in range(SHARDS):
        members = []
        for n in range(PER_SHARD):
            file = io.BytesIO()
            Image.fromarray(_drawn(rng, size)).save(file, form, **settings)
            members.append((f"{number * PER_SHARD + n:012d}.{suffix}", file.getvalue()))
        files += [content for _, content in members]
        data = write_tar(members)
        store.put(shard_key(number), data)
        entries.append(shard_entry(shard_key(number), PER_SHARD, data))
    write_manifest(store, make_manifest(ImageFormat(3, size, size), entries))
    return files


def _drawn(rng: np.random.Generator, size: int) -> NDArray[np.uint8]:
    coarse = rng.integers(0, 256, (size // 4, size // 4, 3)).astype(np.uint8)
    smooth = np.asarray(Image.fromarray(coarse).resize((size, size), Image.Resampling.BICUBIC))
    noisy = smooth + rng.normal(0, 4, smooth.shape)
    return np.clip(noisy, 0, 255).astype(np.uint8)
