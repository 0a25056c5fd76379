"""A folder of 300 photographs as people have them: packed by one command that says what it left."""

from __future__ import annotations

import io
import json
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from colddiff.data.manifest import read_manifest
from colddiff.data.open import open_shards
from colddiff.stores.local_store import LocalStore
from tests.in_process import Done, colddiff_here

WHOLE = 300
"""Images; one file, a TIFF of three pages, has three of them."""
RNG = np.random.default_rng(7)


def photograph(height: int, width: int, channels: int = 3) -> NDArray[np.uint8]:
    coarse = RNG.integers(0, 255, (5, 7, channels), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse.squeeze()).resize((width, height)))


def encoded(pixels: NDArray[Any], kind: str, **settings: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, **settings)
    return file.getvalue()


def converted(pixels: NDArray[Any], mode: str, kind: str) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(file, kind)
    return file.getvalue()


def exif(orientation: int) -> bytes:
    found = Image.Exif()
    found[0x0112] = orientation
    return found.tobytes()


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(width: int, height: int, depth: int, colour: int, rows: bytes) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def frames(kind: str) -> bytes:
    first, *more = [Image.fromarray(photograph(24, 24)) for _ in range(3)]
    file = io.BytesIO()
    first.save(file, kind, save_all=True, append_images=more)
    return file.getvalue()


def good_ones() -> dict[bytes, bytes]:
    """Photographs that can be packed, of every format, mode and name."""
    colour, grey = photograph(30, 40), photograph(30, 40, 1)
    png_of = encoded(colour, "PNG")
    found = {
        b"grey.jpg": encoded(grey, "JPEG"),
        b"grey.pgm": encoded(grey, "PPM"),
        b"grey and alpha.png": encoded(photograph(30, 40, 2), "PNG"),
        b"transparent.png": encoded(photograph(30, 40, 4), "PNG"),
        b"palette.png": converted(colour, "P", "PNG"),
        b"print.jpg": converted(colour, "CMYK", "JPEG"),
        b"upright.jpg": encoded(colour, "JPEG", exif=exif(6)),
        b"odd exif.jpg": encoded(colour, "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff"),
        b"no end.jpg": encoded(colour, "JPEG")[:-2],
        b"one pixel high.png": encoded(photograph(1, 40), "PNG"),
        b"UPPER.JPEG": encoded(colour, "JPEG"),
        b"two\nlines.png": png_of,
        b"back\\slash.png": png_of,
        b"tab\t.png": png_of,
        b"caf\xe9.png": png_of,
        b"red\x1b[31m.png": png_of,
        "\N{CAMERA}.png".encode(): png_of,
        b"-rf.png": png_of,
        b"100%.png": png_of,
        b"many frames.webp": frames("WEBP"),
        b"pages.tif": frames("TIFF"),
    }
    kinds = (("jpg", "JPEG"), ("png", "PNG"), ("webp", "WEBP"), ("bmp", "BMP"), ("tif", "TIFF"))
    for n in range(WHOLE - len(found) - 4):  # two more are behind a link, two in a TIFF
        suffix, kind = kinds[n % len(kinds)]
        height, width = (int(side) for side in RNG.integers(16, 49, 2))
        found[b"holiday/%04d.%s" % (n, suffix.encode())] = encoded(photograph(height, width), kind)
    return found


def bad_ones() -> dict[str, bytes]:
    """Files with the suffix of an image that hold none, or one that would lose something."""
    whole = encoded(photograph(40, 40), "PNG")
    deep = b"".join(
        b"\0" + RNG.integers(0, 255, 16 * 6, dtype=np.uint8).tobytes() for _ in "x" * 16
    )
    return {
        "empty.jpg": b"",
        "page.jpg": b"<html>404</html>",
        "half.jpg": encoded(photograph(40, 40), "JPEG")[:300],
        "half.png": whole[: len(whole) // 2],
        "zeros.png": b"\0" * 4096,
        "another kind.png": frames("GIF"),
        "colour of 16 bits.png": png(16, 16, 16, 2, deep),
        "far too large.png": png(30_000, 30_000, 8, 0, b"\0" * 1000),
        "header alone.png": whole[:33],
        "pickle.png": b"\x80\x04cposix\nsystem\n(S'touch executed'\ntR.",
    }


def fill(folder: Path) -> None:
    """Everything above, and what else lies about in such a folder."""

    def put(name: bytes, data: bytes) -> None:
        path = folder / os.fsdecode(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)

    for name, data in good_ones().items():
        put(name, data)
    for text, data in bad_ones().items():
        put(text.encode(), data)
    other = folder.parent / "another disk"
    other.mkdir()
    for n in range(2):
        (other / f"{n}.png").write_bytes(encoded(photograph(20, 20), "PNG"))
    (folder / "linked").symlink_to(other)
    (folder / "gone.jpg").symlink_to("nowhere.jpg")
    (folder / "itself.jpg").symlink_to("itself.jpg")
    (folder / "device.png").symlink_to("/dev/zero")
    (folder / "holiday" / "up").symlink_to(folder)
    os.mkfifo(folder / "pipe.png")
    (folder / "folder.png").mkdir()
    for name in (b".DS_Store", b"holiday/._0001.jpg", b"anim.gif", b"phone.HEIC", b"web.avif"):
        put(name, b"x")
    for name in (b"Thumbs.db", b"notes.txt", b"album.zip", b"clip.mp4", b"labels.csv"):
        put(name, b"x")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("pictures") / "photographs"
    place.mkdir()
    fill(place)
    return place


Pack = Callable[..., Done]


@pytest.fixture
def pack(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], folder: Path) -> Pack:
    def run(*words: object) -> Done:
        source = f"folder:{folder}"
        return colddiff_here(monkeypatch, capsys, "data", "pack", source, *words)

    return run


LEFT_OUT = {
    "hidden files": 2,
    "images of a format that is not read": 3,
    "images whose further pages or frames are not read": 1,
    "links to a folder that contains them": 1,
    "links to what is no file": 3,
    "other files": 5,
    "pipes, devices and sockets": 1,
}


def test_one_command_packs_what_is_whole_and_says_what_it_left_out(
    pack: Pack, folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "set"
    done = pack("--out", out, "--image-size", "16", "--skip-broken", "--shard-size", "64")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("packed 300 images 3x16x16 (8 bit) in 5 shards")
    said = [line for line in done.stderr.splitlines() if line.startswith("left out: ")]
    counts = {why: int(count) for why, count in (_counted(line) for line in said)}
    assert counts == {**LEFT_OUT, "images that cannot be packed": len(bad_ones())}
    assert all(line.isprintable() and len(line) < 2000 for line in said)
    manifest = read_manifest(LocalStore(out))
    assert {name for name, _ in manifest.settings["skipped"]} == set(bad_ones())
    assert {reason["why"]: reason["count"] for reason in manifest.settings["left_out"]} == LEFT_OUT
    images = open_shards(str(out), str(tmp_path / "cache")).images(0, WHOLE)
    assert images.shape == (WHOLE, 3, 16, 16)
    assert not list(folder.rglob("executed"))
    again = pack(
        "--out", out, "--image-size", "16", "--skip-broken", "--shard-size", "64", "--json"
    )
    assert "is already packed" in again.stderr
    found = json.loads(again.stdout)
    assert (found["count"], len(found["skipped"])) == (WHOLE, len(bad_ones()))
    assert {reason["why"]: reason["count"] for reason in found["left_out"]} == LEFT_OUT


def _counted(line: str) -> tuple[str, str]:
    why, _, rest = line.removeprefix("left out: ").partition(": ")
    return why, rest.split()[0]


def test_without_leave_to_skip_all_bad_ones_are_named_at_once(pack: Pack, tmp_path: Path) -> None:
    out = tmp_path / "set"
    done = pack("--out", out, "--image-size", "16")
    assert (done.returncode, done.stdout) == (2, "")
    *lines, last = done.stderr.splitlines()
    assert all(any(name in line for line in (*lines, last)) for name in bad_ones())
    assert not any(line.strip() in last for line in lines), "named once"
    assert f"{len(bad_ones())} images cannot be packed" in last
    assert "--skip-broken" in last
    assert not out.exists() or not list(out.iterdir())
