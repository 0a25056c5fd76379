"""Tars that anybody may have made: packed, indexed, and read as a data set."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import strategies as st

from colddiff.data.manifest import left_out_of, make_manifest, write_manifest
from colddiff.data.open import open_shards
from colddiff.data.pack import pack
from colddiff.data.pack_settings import PackSettings
from colddiff.data.pil_images import encode_png
from colddiff.data.sources.webdataset_source import WebdatasetSource, index_tars
from colddiff.data.tars import shard_entry
from colddiff.errors import DataError
from colddiff.ports import ImageFormat
from colddiff.spec import parse
from colddiff.stores.memory_store import MemoryStore
from tests.fuzz.harness import Target
from tests.fuzz.odd import NUMBERS, TEXT, VALUES, broken

PNG = encode_png(np.arange(16, dtype=np.uint8).reshape(4, 4, 1))
STEMS = st.sampled_from(["a", "b", "c", "d/a", "a.b", "../a", "/a", ".a", "a\n", "a\x1b[31m"])
SUFFIXES = st.sampled_from(["png", "PNG", "jpg", "jpeg", "json", "cls", "txt", "pkl", "tar", ""])
KINDS = st.sampled_from(
    [
        *[tarfile.REGTYPE] * 8,
        tarfile.AREGTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE,
        tarfile.CONTTYPE, tarfile.GNUTYPE_SPARSE, tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE,
        tarfile.XGLTYPE, b"Z",
    ]
)  # fmt: skip
PAX = st.dictionaries(
    st.sampled_from(
        [
            "path", "size", "linkpath", "GNU.sparse.major", "GNU.sparse.minor", "GNU.sparse.name",
            "GNU.sparse.realsize", "GNU.sparse.map", "GNU.sparse.size", "hdrcharset", "mtime",
        ]
    ),
    st.sampled_from(["0", "1", "-1", "8589934592", "x", "1,2,3", "a.png", "1e99", "9" * 40]) | TEXT,
    max_size=2,
)  # fmt: skip
SIZES = st.none() | st.sampled_from(
    [
        b"\xff" * 12, b"\xff" + (2**88 - 512).to_bytes(11, "big"), b"77777777777\0",
        b"\x80" + (2**63).to_bytes(11, "big"), b"zzzzzzzzzzz\0", b"\0" * 12, b"00000000001\0",
    ]
)  # fmt: skip
"""What is written over the size in a header."""


@st.composite
def contents(draw: st.DrawFn) -> bytes:
    """The content of a member, mostly what its reader wants."""
    kind = draw(st.integers(0, 9))
    if kind < 4:
        return PNG
    if kind < 6:
        return draw(broken(PNG))
    if kind == 6:
        return json.dumps({"label": draw(VALUES), "source": draw(VALUES)}).encode()
    if kind == 7:
        return str(draw(NUMBERS)).encode()
    return draw(st.binary(max_size=60))


@st.composite
def member(draw: st.DrawFn) -> bytes:
    """Header and content of a member."""
    name = f"{draw(STEMS)}.{draw(SUFFIXES)}"
    info = tarfile.TarInfo(name if draw(st.integers(0, 19)) else draw(TEXT))
    info.type, info.linkname = draw(KINDS), draw(st.sampled_from(["", "a.png", "/etc/passwd"]))
    data = draw(contents())
    info.size = len(data)
    info.pax_headers = draw(st.just({}) | PAX)
    try:
        header = bytearray(info.tobuf(tarfile.PAX_FORMAT, errors="surrogateescape"))
    except (ValueError, UnicodeError, OverflowError):
        header = bytearray(tarfile.TarInfo("a.png").tobuf())
    size = draw(SIZES)
    if size is not None:
        _set_size(header, size)
    return bytes(header) + data.ljust(-(-len(data) // 512) * 512, b"\0")


def _set_size(header: bytearray, size: bytes) -> None:
    """In the last block, with a checksum that agrees."""
    start = len(header) - 512
    header[start + 124 : start + 136] = size
    header[start + 148 : start + 156] = b" " * 8
    total = sum(header[start : start + 512])
    header[start + 148 : start + 156] = b"%06o\0 " % total


@st.composite
def tars(draw: st.DrawFn) -> bytes:
    """A whole tar, mostly with its end."""
    data = b"".join(draw(st.lists(member(), min_size=1, max_size=5)))
    data += draw(st.sampled_from([b"\0" * 1024] * 6 + [b"", b"\0" * 512, b"x" * 512]))
    return draw(broken(data)) if draw(st.integers(0, 4)) == 0 else data


def whole_tar() -> bytes:
    """One that all readers take."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        for name, data in (("a.png", PNG), ("a.json", b'{"label": 1}'), ("b.png", PNG)):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return file.getvalue()


def _check(folder: Path, data: bytes) -> None:
    problems = []
    for read in (_index, _pack, _as_shard):
        try:
            read(data, folder)
        except DataError as error:
            problems.append(str(error))
    if problems:
        raise DataError(problems[0])


def _store(data: bytes) -> MemoryStore:
    store = MemoryStore()
    store.put("a.tar", data)
    return store


def _index(data: bytes, folder: Path) -> None:
    left_out_of(index_tars(_store(data)))


def _pack(data: bytes, folder: Path) -> None:
    source = WebdatasetSource(_store(data))
    for skip in (False, True):
        out = MemoryStore()
        found = pack(source, out, parse(PackSettings, {}), workers=1, skip_broken=skip)
        left_out_of(found.manifest)


def _as_shard(data: bytes, folder: Path) -> None:
    """As both readers take it: whole in memory, and streamed."""
    store = _store(data)
    write_manifest(store, make_manifest(ImageFormat(1, 4, 4), [shard_entry("a.tar", 2, data)]))
    for bound in (2**30, 0):
        open_shards(store, str(folder / "cache"), max_decoded_bytes=bound).images(0, 2)


def target(folder: Path) -> Target:
    """The fuzzer's target ``tar``."""

    def check(data: Any) -> None:
        _check(folder, data)

    _check(folder, whole_tar())
    return Target("tar", tars(), check)
