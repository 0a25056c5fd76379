"""A whole set packed to, and read from, an S3 service of which calls fail and bodies break off."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from colddiff.data.open import open_shards
from colddiff.data.pack import pack
from colddiff.data.pack_settings import PackSettings
from colddiff.stores.memory_store import MemoryStore
from colddiff.stores.open import open_store
from colddiff.stores.s3_store import S3Store
from tests.conftest import S3Service
from tests.drawn_source import Drawn
from tests.faulty_s3 import FaultyS3
from tests.numbered_shards import numbered, opened, steps


def test_it_packs_the_same_bytes_and_reads_the_same_batches(
    s3_service: S3Service, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    bucket = s3_service.new_bucket()
    alone = MemoryStore()
    pack(Drawn(60), alone, PackSettings(shard_size=2))
    happened: Counter[str] = Counter()
    with FaultyS3(s3_service.endpoint, seed=0) as faulty:
        monkeypatch.setenv("AWS_ENDPOINT_URL", faulty.endpoint)
        there = open_store(f"s3://{bucket}/set")
        packed = pack(Drawn(60), there, PackSettings(shard_size=2))
        assert packed.fresh
        assert {item.key: there.get(item.key) for item in there.list()} == {
            item.key: alone.get(item.key) for item in alone.list()
        }
        numbered(90, 3, there_too := open_store(f"s3://{bucket}/numbered"))
        for kind in ("mapped", "streamed"):
            found = steps(opened(kind, there_too, tmp_path / kind), 8, batch=16, world=2)
            calm = steps(opened(kind, numbered(90, 3), tmp_path / f"calm-{kind}"), 8, batch=16)
            assert found == calm
        happened += faulty.counts
    failed = sum(happened.values()) - happened["served"]
    assert failed >= 10
    assert happened["broken off"] + happened["cut short"] >= 1


def test_a_command_of_its_own_packs_through_it(s3_service: S3Service, tmp_path: Path) -> None:
    for n in range(12):
        Image.fromarray(np.full((8, 8), n, np.uint8)).save(tmp_path / f"{n:02d}.png")
    bucket = s3_service.new_bucket()
    with FaultyS3(s3_service.endpoint, seed=2, fail=0.2, truncate=0.1) as faulty:
        script = (
            "import sys\nfrom colddiff.data.open import pack_source\n"
            "pack_source(*sys.argv[1:], shard_size=1)\n"
        )
        command = [sys.executable, "-c", script, f"folder:{tmp_path}", f"s3://{bucket}/set"]
        environment = {**os.environ, "AWS_ENDPOINT_URL": faulty.endpoint}
        subprocess.run(command, check=True, env=environment)
        assert sum(faulty.counts.values()) > faulty.counts["served"]
    store = S3Store(bucket, "set", endpoint_url=s3_service.endpoint)
    manifest = open_shards(store, str(tmp_path / "cache")).manifest
    assert (manifest.count, len(list(store.list("shard-")))) == (12, 12)
