"""Deterministic tar shards: equal members give equal bytes."""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import Iterable

from colddiff.data.pil_images import Pixels, encode_png
from colddiff.data.tar_members import tar_members
from colddiff.ports import ShardEntry
from colddiff.spec import canonical_json


def shard_key(number: int) -> str:
    """Key of shard ``number`` (0-based) of a data set, such as ``shard-000012.tar``."""
    return f"shard-{number:06d}.tar"


def image_members(
    name: str, pixels: Pixels, described: dict[str, object]
) -> list[tuple[str, bytes]]:
    """The members of one image: ``name.png``, and ``name.json`` with the content ``described``."""
    text = canonical_json(described).encode()
    return [(f"{name}.png", encode_png(pixels)), (f"{name}.json", text)]


def write_tar(members: Iterable[tuple[str, bytes]]) -> bytes:
    """A tar of (name, content) members in order, with fixed time, owner and mode."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.size, member.mode, member.mtime = len(content), 0o644, 0
            tar.addfile(member, io.BytesIO(content))
    return file.getvalue()


def read_tar(data: bytes) -> list[tuple[str, bytes]]:
    """(name, content) of the regular files in a tar; DataError if it is damaged or not a tar."""
    return [
        (member.name, data[member.offset_data : member.offset_data + member.size])
        for member in tar_members(io.BytesIO(data), "a shard")
        if member.isreg() and not member.issparse()
    ]


def shard_entry(key: str, count: int, data: bytes) -> ShardEntry:
    """The manifest entry of the shard ``data`` with ``count`` images."""
    return ShardEntry(key, count, len(data), hashlib.sha256(data).hexdigest())
