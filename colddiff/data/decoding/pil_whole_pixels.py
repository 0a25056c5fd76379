"""The pixels of a PNG or JPEG whose metadata, or whose end marker, is damaged or missing."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator

from PIL import Image

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
PIXEL_CHUNKS = (b"IHDR", b"PLTE", b"tRNS", b"IDAT")
JPEG_START, JPEG_END = b"\xff\xd8", b"\xff\xd9"
SCAN, ADOBE, PROGRESSIVE = 0xDA, 0xEE, 0xC2
METADATA = {*range(0xE0, 0xF0), 0xFE} - {ADOBE}
"""Application segments and comments; Adobe's says how the colours are stored."""


def bare_pixels(data: bytes) -> Iterator[bytes]:
    """Versions of a file that may be decoded where it was not: with its pixel data alone.

    None for a file of another format, or whose pixels themselves are cut or changed.
    """
    if data.startswith(PNG_SIGNATURE):
        bare = _png_without_metadata(data)
        if bare is not None:
            yield bare
    elif data.startswith(JPEG_START):
        bare = _jpeg_without_metadata(data)
        yield bare
        if JPEG_END not in data[-64:] and not _is_progressive(bare):
            yield from _with_end(bare)


def _png_without_metadata(data: bytes) -> bytes | None:
    parts, at = [PNG_SIGNATURE], len(PNG_SIGNATURE)
    while at + 12 <= len(data):
        (length,) = struct.unpack(">I", data[at : at + 4])
        chunk = data[at : at + 12 + length]
        kind = chunk[4:8]
        if kind in PIXEL_CHUNKS:
            whole = len(chunk) == 12 + length
            if not whole or zlib.crc32(chunk[4:-4]) != struct.unpack(">I", chunk[-4:])[0]:
                return None
            parts.append(chunk)
        at += 12 + length
    return b"".join([*parts, b"\0\0\0\0IEND\xaeB`\x82"])


def _jpeg_without_metadata(data: bytes) -> bytes:
    parts, at = [JPEG_START], 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        (length,) = struct.unpack(">H", data[at + 2 : at + 4])
        if marker == SCAN:
            break
        if marker not in METADATA:
            parts.append(data[at : at + 2 + length])
        at += 2 + max(length, 2)
    return b"".join([*parts, data[at:]])


def _is_progressive(data: bytes) -> bool:
    """Whether the pixels come in several scans: then a missing one would not be noticed."""
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF and data[at + 1] != SCAN:
        if data[at + 1] == PROGRESSIVE:
            return True
        at += 2 + max(int.from_bytes(data[at + 2 : at + 4], "big"), 2)
    return False


def _with_end(data: bytes) -> Iterator[bytes]:
    """``data`` with the missing end marker, if nothing but that is missing.

    A decoder fills pixels that are cut off with grey. Where none is cut off, bytes between the
    last of them and the marker make no difference.
    """
    cut = data.rstrip(b"\xff")
    ended = cut + JPEG_END
    if _pixels(ended) is not None and _pixels(ended) == _pixels(cut + b"\x5a" * 64 + JPEG_END):
        yield ended


def _pixels(data: bytes) -> bytes | None:
    try:
        return Image.open(io.BytesIO(data), formats=["JPEG"]).tobytes()
    except (OSError, ValueError, SyntaxError, struct.error, Image.DecompressionBombError):
        return None
