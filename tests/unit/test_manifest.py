"""The manifest: what is written is read back, and what is wrong is named."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from colddiff.data.manifest import (
    KEY,
    kept_manifest,
    make_manifest,
    manifest_bytes,
    parse_manifest,
    read_manifest,
    write_manifest,
)
from colddiff.errors import DataError, SpecError
from colddiff.ports import ImageFormat, Manifest, ShardEntry
from colddiff.stores.local_store import LocalStore
from colddiff.stores.memory_store import MemoryStore

SHARDS = (
    ShardEntry("shard-000000.tar", 10, 20480, "a" * 64),
    ShardEntry("shard-000001.tar", 7, 10240, "b" * 64),
)


def a_manifest(**changes: Any) -> Manifest:
    made = make_manifest(
        ImageFormat(1, 28, 28), SHARDS, classes="01", source="mnist:/x", settings={"split": "train"}
    )
    return replace(made, **changes)


def broken(**changes: Any) -> bytes:
    return json.dumps({**json.loads(manifest_bytes(a_manifest())), **changes}).encode()


def test_it_is_read_back_as_it_was_written() -> None:
    store = MemoryStore()
    write_manifest(store, a_manifest())
    assert read_manifest(store) == a_manifest()
    deep = make_manifest(ImageFormat(1, 8, 9, 16, (-1000.0, 3000.0)), SHARDS)
    assert parse_manifest(manifest_bytes(deep), "here") == deep


def test_the_public_fields_are_there() -> None:
    written = json.loads(manifest_bytes(a_manifest()))
    assert list(written) == ["format", "count", "image", "shards", "classes", "source", "settings"]
    assert written["count"] == 17
    assert set(written["image"]) == {"channels", "height", "width", "bits", "range"}
    assert set(written["shards"][0]) == {"key", "count", "bytes", "sha256"}


def test_the_digest_is_that_of_the_bytes_alone() -> None:
    image, digest = a_manifest().image, a_manifest().digest
    moved = [replace(shard, key=f"other/{shard.key}") for shard in SHARDS]
    assert make_manifest(image, moved, source="elsewhere").digest == digest
    for other in (
        make_manifest(image, SHARDS[::-1]),
        make_manifest(image, SHARDS[:1]),
        make_manifest(replace(image, range=(0.0, 1.0)), SHARDS),
        make_manifest(image, [SHARDS[0], replace(SHARDS[1], sha256="c" * 64)]),
        make_manifest(image, [replace(SHARDS[0], count=11), replace(SHARDS[1], count=6)]),
    ):
        assert other.digest != digest


def test_without_one_the_way_out_is_said() -> None:
    with pytest.raises(DataError, match=r"memory://store: no manifest\.json.*data pack SOURCE"):
        read_manifest(MemoryStore())


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "is not JSON"),
        (b"\x80\x04pickle", "is not JSON"),
        (b"[" * 100_000, "deeper"),
        (b"[1, 2]", "not a JSON object"),
        (broken(format="colddiff-shards/0"), "format is 'colddiff-shards/0'"),
        (broken(format=None), "format is None"),
        (broken(count=18), "count: is 18, but the shards hold 17 images"),
        (broken(count="many"), "count: "),
        (broken(shards=[]), "shards: "),
        (broken(shards=[{"key": "a.tar"}]), r"shards\.0\.count: is required"),
        (broken(image={"channels": 1, "height": 8, "width": 8, "bits": 12}), r"image\.bits: "),
        (broken(image={"channels": 1, "height": 8}), r"image\.width: is required"),
        (broken(colour="red"), "colour: no such field"),
        (b'{"format": 1, "format": 2}', "has the key 'format' twice"),
        (broken(format=[1] * 1000), r"format is \[1, .{,99}, this version"),
        (broken(settings={"left_out": 3}), r"settings\.left_out: "),
        (broken(settings={"left_out": [{"why": "x", "count": "y"}]}), r"left_out\.0\.count: "),
        (broken(settings={"skipped": [None]}), r"settings\.skipped\.0: "),
        (broken(settings={"skipped": [["a.png", "broken", 3]]}), r"settings\.skipped\.0"),
    ],
)
def test_what_is_wrong_is_named_in_one_line(data: bytes, said: str) -> None:
    store = MemoryStore()
    store.put(KEY, data)
    with pytest.raises(DataError, match=said) as caught:
        read_manifest(store)
    line = str(caught.value)
    assert line.startswith("memory://store/manifest.json: ")
    assert "colddiff data index" in line
    assert "\n" not in line


@pytest.mark.parametrize(
    "key", ["../up.tar", "/etc/x.tar", "a/../../b.tar", "x.zip", "a\\b.tar", "./a.tar"]
)
def test_a_shard_elsewhere_is_refused(key: str) -> None:
    entry = {"key": key, "count": 17, "bytes": 1, "sha256": "a" * 64}
    with pytest.raises(DataError, match=r"shards\.0\.key"):
        parse_manifest(broken(shards=[entry]), "here")


def test_a_shard_listed_twice_is_refused() -> None:
    with pytest.raises(SpecError, match=r"shard-000000\.tar is listed twice"):
        make_manifest(ImageFormat(1, 8, 8), [SHARDS[0], SHARDS[0]])


def test_a_manifest_of_any_size_is_not_read_into_memory(tmp_path: Path) -> None:
    with (tmp_path / "manifest.json").open("wb") as file:
        file.truncate(2**40)
    for read in (read_manifest, kept_manifest):
        with pytest.raises(DataError, match="more than the limit of"):
            read(LocalStore(tmp_path))
