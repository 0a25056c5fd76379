"""Packing by several threads, by several runs, and by runs that are killed: the same bytes."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from colddiff.data.manifest import KEY, read_manifest
from colddiff.data.open import open_source, pack_source
from colddiff.data.pack import pack
from colddiff.data.pack_settings import PackSettings, selected
from colddiff.data.pil_images import Pixels, encode_png
from colddiff.data.sources.source import SourceEntry
from colddiff.data.verify import verify
from colddiff.errors import DataError
from colddiff.stores.memory_store import MemoryStore
from colddiff.stores.open import open_store
from tests.drawn_source import Drawn
from tests.unit.test_pack import everything


@pytest.mark.parametrize("workers", [2, 3, 8])
def test_any_number_of_threads_makes_the_same_bytes(workers: int) -> None:
    alone, together = MemoryStore("a"), MemoryStore("b")
    pack(Drawn(57), alone, PackSettings(shard_size=4), workers=1)
    pack(Drawn(57), together, PackSettings(shard_size=4), workers=workers)
    assert everything(alone) == everything(together)


def test_several_threads_are_at_work_at_once() -> None:
    class Meeting(Drawn):
        def load(self, entry: SourceEntry) -> Pixels:
            if entry.index and entry.index % 5 == 0:
                met.wait(timeout=30)  # alone, a thread would wait here for nobody
            return super().load(entry)

    met = threading.Barrier(3)
    pack(Meeting(20), MemoryStore(), PackSettings(shard_size=5), workers=4)


def test_of_several_bad_images_the_first_is_named(tmp_path: Path) -> None:
    for n in range(30):
        (tmp_path / f"{n:02d}.png").write_bytes(encode_png(np.full((4, 4, 1), n, np.uint8)))
    source = open_source(f"folder:{tmp_path}")
    order = [entry.name for entry in selected(source, PackSettings())]
    for number in (22, 9, 17):
        (tmp_path / order[number]).write_bytes(b"nothing")
    store = MemoryStore()
    for _ in range(3):
        source = open_source(f"folder:{tmp_path}")
        with pytest.raises(DataError, match=f"{order[9]}: not a supported image"):
            pack(source, store, PackSettings(shard_size=2), workers=4)
        assert everything(store) == {}


def test_a_kill_at_any_moment_leaves_what_the_next_run_goes_on_from(tmp_path: Path) -> None:
    images, out, fresh = tmp_path / "images", tmp_path / "out", tmp_path / "fresh"
    images.mkdir()
    rng = np.random.default_rng(0)
    for n in range(120):
        pixels = rng.integers(0, 256, (96, 96, 3)).astype(np.uint8)
        (images / f"{n:03d}.png").write_bytes(encode_png(pixels))
    script = (
        "import sys\nfrom colddiff.data.open import pack_source\n"
        "pack_source(*sys.argv[1:], shard_size=4)\n"
    )
    command = [sys.executable, "-c", script, f"folder:{images}", str(out)]
    for shards in (2, 9):
        packing = subprocess.Popen(command)
        while len(list(out.glob("shard-*.tar"))) < shards:
            assert packing.poll() is None, "it must be killed before it is done"
            time.sleep(0.005)
        packing.kill()
        packing.wait()
        assert not (out / KEY).exists()
    kept = {path.name: path.stat().st_ino for path in out.glob("shard-*.tar")}
    manifest, _ = pack_source(f"folder:{images}", str(out), shard_size=4)
    pack_source(f"folder:{images}", str(fresh), shard_size=4)
    assert manifest.count == 120
    assert everything(open_store(str(out))) == everything(open_store(str(fresh)))
    assert kept == {name: (out / name).stat().st_ino for name in kept}


def test_two_runs_at_once_agree() -> None:
    store, alone = MemoryStore(), MemoryStore()

    def run(_: int) -> str:
        return pack(Drawn(), store, PackSettings(shard_size=5)).manifest.digest

    with ThreadPoolExecutor(4) as pool:
        digests = set(pool.map(run, range(4)))
    pack(Drawn(), alone, PackSettings(shard_size=5))
    assert digests == {read_manifest(alone).digest}
    assert verify(store, read_manifest(store)) == []
