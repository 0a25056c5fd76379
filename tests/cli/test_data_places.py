"""`colddiff data` in S3, and where the place misbehaves: one line, exit code 3, nothing kept."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from colddiff.cli.data import app
from colddiff.data.open import open_shards, pack_source
from colddiff.data.pil_images import encode_png
from colddiff.errors import StoreError
from colddiff.stores.s3_store import S3Store
from tests.conftest import S3Service
from tests.faulty_s3 import Proxy, Relay
from tests.in_process import colddiff_here


def refused(*arguments: str) -> str:
    """The one line of a command that cannot reach its store; its exit code is 3."""
    result = CliRunner().invoke(app, list(arguments))
    assert isinstance(result.exception, StoreError), result.output
    assert result.exception.exit_code == 3
    assert result.stdout == ""
    line = str(result.exception)
    assert "\n" not in line
    return line


@pytest.mark.system
def test_every_command_against_a_real_service(
    real_s3_service: S3Service, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("COLDDIFF_CACHE", str(tmp_path / "cache"))
    bucket = real_s3_service.new_bucket()
    raw = S3Store(bucket, "raw")
    for n in range(6):
        deep = np.full((8, 8, 1), 10_000 * n, np.uint16)
        raw.put(f"kind{n % 2}/{n}.png", encode_png(deep))
    out = f"s3://{bucket}/set"
    pack = ("pack", f"folder:s3://{bucket}/raw", "--out", out, "--bits", "16", "--shard-size", "2")
    packed = CliRunner().invoke(app, [*pack, "--json"])
    assert packed.exit_code == 0, packed.output
    digest = json.loads(packed.stdout)["digest"]
    images = open_shards(out).images(0, 6)
    assert sorted(int(image.max()) for image in images) == [10_000 * n for n in range(6)]
    assert CliRunner().invoke(app, ["verify", out]).exit_code == 0
    again = CliRunner().invoke(
        app, ["pack", f"webdataset:{out}", "--out", f"{out}-2", "--bits", "16"]
    )
    assert again.exit_code == 0, again.output
    store = S3Store(bucket, "set")
    store.delete("manifest.json")
    indexed = CliRunner().invoke(app, ["index", out, "--json"])
    assert json.loads(indexed.stdout)["digest"] == digest
    store.put("shard-000001.tar", b"other")
    bad = CliRunner().invoke(app, ["verify", out])
    assert (bad.exit_code, bad.stdout.partition(":")[0]) == (1, "shard-000001.tar")

    assert "has no bucket 'no-such-bucket'; create it" in refused(
        "pack", "digits", "--out", "s3://no-such-bucket/set", "--limit", "3"
    )
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong" * 8)
    for arguments in (pack, ("verify", out), ("index", out), ("duplicates", out)):
        line = refused(*arguments)
        assert "rejects the credentials (SignatureDoesNotMatch)" in line or "denies access" in line
        assert real_s3_service.endpoint in line
        assert "wrong" * 8 not in line


@pytest.mark.system
def test_a_pack_whose_bytes_are_damaged_on_the_way_to_a_real_service(
    real_s3_service: S3Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    def damage(handler: Relay) -> None:
        if handler.command == "PUT" and "/shard-" in handler.path:
            handler.body = b"X" + handler.body[1:]
        handler.respond(handler.forward())

    monkeypatch.setattr("colddiff.stores.s3_store.time.sleep", lambda _: None)
    bucket = real_s3_service.new_bucket()
    with Proxy(real_s3_service.endpoint, damage) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        line = refused("pack", "digits", "--out", f"s3://{bucket}/set", "--limit", "3")
    assert "shard-000000.tar" in line
    assert "the network damages data" in line
    keys = [
        item.key for item in S3Store(bucket, "set", endpoint_url=real_s3_service.endpoint).list()
    ]
    assert keys == ["pack.json"]


def test_a_disk_that_fills_up_while_packing(tmp_path: Path) -> None:
    for n in range(8):
        noise = np.random.default_rng(n).integers(0, 256, (64, 64, 3)).astype(np.uint8)
        Image.fromarray(noise).save(tmp_path / f"{n}.png")
    script = (
        "import resource, signal, sys\n"
        "from colddiff.cli.main import main\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))\n"
        "main()\n"
    )
    out = tmp_path / "out"
    arguments = ["data", "pack", f"folder:{tmp_path}", "--out", str(out), "--shard-size", "4"]
    full = subprocess.run(
        [sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=False
    )
    assert full.returncode == 3
    assert full.stderr.startswith(f"colddiff: error: {out}/shard-00000")
    assert full.stderr.count("\n") == 1
    assert [path.name for path in out.iterdir()] == ["pack.json"]
    manifest, fresh = pack_source(f"folder:{tmp_path}", str(out), shard_size=4)
    assert (manifest.count, fresh) == (8, True)


def test_a_place_that_is_read_only() -> None:
    # Also root cannot write there.
    assert "/proc/colddiff" in refused("pack", "digits", "--out", "/proc/colddiff", "--limit", "3")


def test_both_splits_and_what_they_hold_in_s3(
    s3_service: S3Service,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("COLDDIFF_CACHE", str(tmp_path / "cache"))
    place = f"s3://{s3_service.new_bucket()}/digits"
    words = ("data", "pack", "digits", "--out", place, "--holdout", "0.5", "--limit", "20")
    done = colddiff_here(monkeypatch, capsys, *words)
    assert done.returncode == 0, done.stderr
    assert [line.rpartition(": ")[2] for line in done.stdout.splitlines()] == [
        f"{place}/train",
        f"{place}/test",
    ]
    shown = colddiff_here(monkeypatch, capsys, "data", "show", f"{place}/test", "--json")
    assert sum(json.loads(shown.stdout)["images_by_class"].values()) == 10
    both = colddiff_here(monkeypatch, capsys, "data", "show", place, "--json")
    assert both.returncode == 0, both.stderr
    shown_by_split = json.loads(both.stdout)
    assert shown_by_split.keys() == {"train", "test"}
    assert shown_by_split["test"] == json.loads(shown.stdout)
