"""Addresses: which adapter stands behind each, and which are refused."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from colddiff.data import packed_sets as datasets
from colddiff.data.open import open_shards, pack_source, read_manifest
from colddiff.errors import SpecError, StoreError
from colddiff.stores.local_store import LocalStore
from colddiff.stores.open import absolute, check_writable, open_store
from colddiff.stores.s3_store import S3Store
from tests.conftest import S3Service


def test_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for text, place in (
        ("runs", tmp_path / "runs"),
        ("./runs/", tmp_path / "runs"),
        ("~/runs", tmp_path / "home" / "runs"),
        (f"{tmp_path}/x", tmp_path / "x"),
        (f"file://{tmp_path}/x", tmp_path / "x"),
        ("./mnist:v2", tmp_path / "mnist:v2"),
    ):
        store = open_store(text)
        assert isinstance(store, LocalStore)
        assert store.uri == absolute(text) == str(place)


def test_buckets(s3_service: S3Service) -> None:
    for text, uri in (
        ("s3://bucket", "s3://bucket"),
        ("s3://bucket/", "s3://bucket"),
        ("s3://bucket/some/prefix/", "s3://bucket/some/prefix"),
    ):
        store = open_store(text)
        assert isinstance(store, S3Store)
        assert store.uri == absolute(text) == uri


@pytest.mark.parametrize(
    "text",
    [
        "pipe:cat /etc/passwd",
        "pipe://x",
        "http://host/x",
        "gs://b/p",
        "mnist:dir",
        "s3://",
        "s3:///x",
        "s3://a b/c",
        "",
        "s3:",
    ],
)
def test_other_schemes_are_refused(text: str) -> None:
    for use in (open_store, absolute, open_shards, read_manifest):
        with pytest.raises(SpecError, match="is not a storage address"):
            use(text)


def test_a_store_that_cannot_be_written_is_found_out(tmp_path: Path) -> None:
    check_writable(str(tmp_path / "new"))
    assert list(open_store(str(tmp_path / "new")).list()) == []
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StoreError):
        check_writable(str(tmp_path / "file"))


def test_a_set_in_a_bucket(s3_service: S3Service, tmp_path: Path) -> None:
    uri = f"s3://{s3_service.new_bucket()}/digits"
    manifest, fresh = pack_source("digits", uri, limit=30, shard_size=10)
    assert fresh
    assert read_manifest(uri) == manifest
    assert datasets.verify_shards(uri) == []
    for bound in (0, 2**30):
        source = open_shards(uri, str(tmp_path), max_decoded_bytes=bound)
        assert source.images(0, 30).shape == (30, 1, 8, 8)


def test_importing_it_is_cheap() -> None:
    script = (
        "import sys\n"
        "import colddiff.data.open, colddiff.features.open, colddiff.stores.open\n"
        "import colddiff.jobs.verb, colddiff.tracking.open\n"
        "print('train' in colddiff.jobs.verb.VERBS)\n"
        "heavy = {'torch', 'numpy', 'boto3', 'webdataset', 'sklearn', 'PIL', 'mlflow'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    command = [sys.executable, "-c", script]
    said = subprocess.run(command, capture_output=True, text=True, check=True)
    assert said.stdout == "True\n[]\n"
