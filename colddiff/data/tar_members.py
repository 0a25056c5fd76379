"""The members of a tar that anybody may have made: in bounded time, or an error that names it."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from typing import BinaryIO, Self

from colddiff.errors import DataError

MAX_HEADER_BYTES = 2**20
"""Largest extended header (long names, pax records) that is read."""
EXTENDED = (
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
)


class _SizeError(Exception):
    pass


class _Member(tarfile.TarInfo):
    """A member whose header says a size that can be."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        member = super().frombuf(buf, encoding, errors)
        # tarfile goes back by a negative size and reads the same members for ever.
        if member.size < 0:
            raise _SizeError(f"{member.name} has a size of {member.size} bytes")
        if member.type in EXTENDED and member.size > MAX_HEADER_BYTES:
            raise _SizeError(f"a header of {member.size} bytes, more than {MAX_HEADER_BYTES}")
        return member


def tar_members(file: BinaryIO, where: str) -> Iterator[tarfile.TarInfo]:
    """The members of an uncompressed tar, in order; their content is not read.

    Raises DataError naming ``where`` if it is no tar, compressed, truncated or damaged.
    """
    size = file.seek(0, 2)
    file.seek(0)
    end = 0
    try:
        # "r:" rather than "r": a compressed tar could unpack to any size.
        with tarfile.open(fileobj=file, mode="r:", tarinfo=_Member) as tar:
            for member in tar:
                # A pax record may give another size than the header does.
                if member.size < 0 or tar.offset <= end:
                    raise _SizeError(f"{member.name} has a size of {member.size} bytes")
                end = tar.offset
                if end > size:
                    break
                yield member
            else:
                end = tar.offset
    except (tarfile.TarError, _SizeError, RecursionError, OverflowError) as error:
        raise DataError(f"{where}: {_kind(file)} ({str(error)[:200]})") from None
    except (ValueError, IndexError, EOFError, MemoryError):
        # What tarfile lets through of malformed sparse maps and pax records.
        raise DataError(f"{where}: not a tar, or damaged (a header is malformed)") from None
    if end > size:
        raise DataError(f"{where}: truncated at {size} bytes, its members extend to {end}")
    _refuse_trailing_data(file, end, where)


def _kind(file: BinaryIO) -> str:
    file.seek(0)
    start = file.read(6)
    compressed = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd")
    if start.startswith(compressed):
        return "not a tar but compressed, which is not supported: uncompress it first"
    return "not a tar, or damaged"


def _refuse_trailing_data(file: BinaryIO, end: int, where: str) -> None:
    # tarfile treats a damaged header in the middle as the end of the archive.
    file.seek(end)
    while block := file.read(2**20):
        if block.strip(b"\0"):
            raise DataError(f"{where}: damaged at byte {end}, where no member header was found")
