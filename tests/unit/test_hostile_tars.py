"""Tars that are damaged or made to do harm: nothing in them runs, no image is lost silently."""

from __future__ import annotations

import io
import tarfile
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from colddiff.data.manifest import make_manifest, write_manifest
from colddiff.data.pil_images import encode_png
from colddiff.data.sources.webdataset_source import WebdatasetSource
from colddiff.data.tars import shard_entry, shard_key
from colddiff.errors import DataError
from colddiff.ports import ImageFormat, Store
from colddiff.stores.memory_store import MemoryStore
from tests.numbered_shards import numbered, numbers, opened, pixels_of


@pytest.fixture(params=["mapped", "streamed"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def tar_with(*members: tarfile.TarInfo, contents: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        for member in members:
            content = contents.get(member.name, b"")
            if member.isreg():
                member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return file.getvalue()


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


def set_of(data: bytes, count: int) -> Store:
    store = MemoryStore()
    store.put("a.tar", data)
    write_manifest(store, make_manifest(ImageFormat(1, 2, 2), [shard_entry("a.tar", count, data)]))
    return store


def test_what_could_do_harm_is_passed_over(kind: str, tmp_path: Path) -> None:
    image = encode_png(pixels_of(7))
    mark = tmp_path / "executed"
    pickle = f"cposix\nsystem\n(S'touch {mark}'\ntR.".encode()
    names = ["1.pyd", "1.pkl", "1.pickle", "1.pt", "1.npy", "1.png", "1.json", "../2.png"]
    contents = dict.fromkeys(names, pickle) | {"1.png": image, "1.json": b"{}", "../2.png": image}
    data = tar_with(
        *(member(name) for name in names),
        member("/etc/3.png"),
        member("4.png", tarfile.SYMTYPE, "/etc/passwd"),
        member("5.png", tarfile.LNKTYPE, "1.png"),
        member("6.png", tarfile.FIFOTYPE),
        member("7.png", tarfile.CHRTYPE),
        member("8.png", tarfile.DIRTYPE),
        contents=contents,
    )
    source = opened(kind, set_of(data, 1), tmp_path / "cache")
    assert numbers(source.images(0, 1)) == [7]
    assert not mark.exists()


def sparse_bomb() -> bytes:
    """A tar of 1.5 kB whose one member says it has 8 GiB."""
    info = member("1.png")
    info.pax_headers = {
        "GNU.sparse.major": "1",
        "GNU.sparse.minor": "0",
        "GNU.sparse.name": "1.png",
        "GNU.sparse.realsize": str(2**33),
    }
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as tar:
        table = b"1\n0\n1\n".ljust(512, b"\0") + b"x"
        info.size = len(table)
        tar.addfile(info, io.BytesIO(table))
    return file.getvalue()


def test_a_member_larger_than_its_tar_is_passed_over(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds 0 images"):
        opened("mapped", set_of(sparse_bomb(), 1), tmp_path).images(0, 1)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"not a tar at all" * 1000, "not a tar, or damaged"),
        (
            tar_with(member("1.png"), member("1.jpg"), contents={}),
            "1 has more than one image",
        ),
        (tar_with(member("1.png"), member("1.png"), contents={}), "duplicate file name"),
        (tar_with(member("1.png"), contents={"1.png": b"\x80\x04"}), "not a supported image"),
        (
            tar_with(
                member("1.png"), contents={"1.png": encode_png(np.zeros((3, 2, 1), np.uint8))}
            ),
            "is 2x3 with 1 channels of 8 bits, the manifest says 2x2",
        ),
        (numbered(9).get(shard_key(0))[:1600], "truncated|not a tar"),
        (
            numbered(9).get(shard_key(0))[:1024] + b"\xff" * 512 + bytes(2048),
            "damaged at byte 1024",
        ),
    ],
)
def test_a_tar_that_is_none_is_named(kind: str, data: bytes, said: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=rf"memory://store/a\.tar: .*{said}"):
        opened(kind, set_of(data, 1), tmp_path).images(0, 1)


def test_a_compressed_tar_is_not_unpacked(tmp_path: Path) -> None:
    import gzip

    data = gzip.compress(numbered(9).get(shard_key(0)))
    with pytest.raises(DataError, match="not a tar"):
        opened("mapped", set_of(data, 9), tmp_path).images(0, 1)


def test_a_member_too_large_to_be_what_it_says_is_refused(tmp_path: Path) -> None:
    contents = {"1.png": encode_png(pixels_of(1)), "1.json": b" " * (2**20 + 1)}
    data = tar_with(*(member(name) for name in contents), contents=contents)
    with pytest.raises(DataError, match=r"a\.tar: 1\.json has 1048577 bytes, more than"):
        opened("mapped", set_of(data, 1), tmp_path).images(0, 1)


@pytest.mark.parametrize(("name", "content"), [("1.json", b"{"), ("1.cls", b"cat")])
def test_a_description_that_does_not_parse_is_named(name: str, content: bytes) -> None:
    contents = {"1.png": encode_png(pixels_of(1)), name: content}
    store = set_of(tar_with(*(member(n) for n in contents), contents=contents), 1)
    with pytest.raises(DataError, match=r"a\.tar: 1: cannot parse its json or cls member"):
        WebdatasetSource(store).entries(None)


def sized(name: str, size: bytes, kind: bytes = tarfile.REGTYPE) -> bytes:
    """A member's header whose size field is these 12 bytes."""
    header = bytearray(member(name, kind).tobuf(tarfile.USTAR_FORMAT))
    header[124:136] = size
    header[148:156] = b"        "
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header)


def base_256(number: int) -> bytes:
    return (b"\xff" if number < 0 else b"\x80") + (number % 2**88).to_bytes(11, "big")


SIZES = {
    "-1024": base_256(-1024),
    "-512": base_256(-512),
    "-2^70": base_256(-(2**70)),
    "2^63": base_256(2**63),
    "2^87": base_256(2**87 - 1),
    "8 GiB": b"77777777777\0",
    "no number": b"zzzzzzzzzzz\0",
}
KINDS = [tarfile.REGTYPE, tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_SPARSE]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("member_kind", KINDS)
@pytest.mark.parametrize("first", [True, False])
def test_a_size_that_cannot_be_ends_in_an_error(size: str, member_kind: bytes, first: bool) -> None:
    good = numbered(1).get(shard_key(0))[:1024]
    bad = sized("bad.txt", SIZES[size], member_kind)
    data = (bad + good if first else good + bad) + bytes(1024)
    store = MemoryStore()
    store.put("a.tar", data)
    with pytest.raises(DataError, match=r"memory://store/a\.tar: .*(tar|truncated|damaged)"):
        WebdatasetSource(store).entries(None)


@pytest.mark.parametrize(
    "record", [b"20 size=-1024000000\n", b"%d size=%d\n" % (30, 10**20), b"99999 size=1\n", b"\xff"]
)
def test_a_pax_record_of_nonsense_ends_in_an_error(record: bytes) -> None:
    header = sized("pax", b"%011o\0" % len(record), tarfile.XHDTYPE)
    body = record.ljust(512, b"\0")
    store = MemoryStore()
    store.put("a.tar", header + body + numbered(1).get(shard_key(0)))
    with suppress(DataError):
        WebdatasetSource(store).entries(None)


def test_two_images_of_one_name_are_refused_also_apart(kind: str, tmp_path: Path) -> None:
    names = ["1.png", "2.png", "1.png"]
    contents = {name: encode_png(pixels_of(1)) for name in names}
    data = tar_with(*(member(name) for name in names), contents=contents)
    with pytest.raises(DataError, match=r"a\.tar: duplicate file name: two images of the name 1"):
        opened(kind, set_of(data, 3), tmp_path).images(0, 1)
