"""Pixels to PNG and back: an allow-list of formats, with a bound on what is decoded."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Sequence
from typing import Any, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from colddiff.errors import DataError

Pixels: TypeAlias = "NDArray[np.uint8] | NDArray[np.uint16]"
"""One image, [H, W, C], C = 1 or 3; 16 bit only where C = 1."""

MAX_PIXELS = 64 * 2**20
"""Largest image that is decoded: a small file can unpack to more than memory holds."""
MEMBER_FORMATS = ("PNG", "JPEG")
FILE_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "PPM")
# Deflate of level 6 without a search for better filters: the same bytes on every run.
PNG_SETTINGS: dict[str, Any] = {"format": "PNG", "compress_level": 6, "optimize": False}
PNG_HEADER = 33
"""Bytes of a PNG's signature and IHDR chunk."""
SIXTEEN_BIT = ("I;16", "I;16L", "I;16B")
GREY = ("1", "L", "LA", "La")


def encode_png(pixels: Pixels) -> bytes:
    """Lossless PNG of [H, W, C] pixels; the same bytes for the same pixels (and Pillow build)."""
    if pixels.dtype == np.uint16 and pixels.shape[2] != 1:
        raise DataError("16-bit images have one channel; use bits=8 for colour")
    plane = pixels[:, :, 0] if pixels.shape[2] == 1 else pixels
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(plane)).save(file, **PNG_SETTINGS)
    return file.getvalue()


def with_png_text(png: bytes, keyword: str, text: str) -> bytes:
    """The PNG with an uncompressed text chunk (ASCII) right after its header."""
    body = keyword.encode("ascii") + b"\0" + text.encode("ascii")
    kind = b"tEXt"
    checksum = struct.pack(">I", zlib.crc32(kind + body))
    chunk = struct.pack(">I", len(body)) + kind + body + checksum
    return png[:PNG_HEADER] + chunk + png[PNG_HEADER:]


def png_text(data: bytes, keyword: str) -> str | None:
    """What ``with_png_text`` wrote under ``keyword``; None for any other file.

    Decodes no pixels.
    """
    try:
        image = Image.open(io.BytesIO(data), formats=["PNG"])
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None
    found = image.info.get(keyword)
    return found if isinstance(found, str) else None


def decode_image(data: bytes, where: str, formats: Sequence[str] = MEMBER_FORMATS) -> Pixels:
    """[H, W, C] pixels of an encoded image: C = 1 for grey, 3 for everything else.

    Alpha is dropped, a palette looked up, and a camera's orientation applied. Raises DataError
    naming ``where`` for what is not one of ``formats``, is damaged, has more than MAX_PIXELS, or
    has a depth that would be lost.
    """
    try:
        image: Image.Image = Image.open(io.BytesIO(data), formats=list(formats))
        width, height = image.size
        if width * height > MAX_PIXELS:
            raise DataError(
                f"{where}: {width}x{height} pixels are more than the {MAX_PIXELS} that are decoded"
            )
        _refuse_lost_depth(image, data, where)
        ImageOps.exif_transpose(image, in_place=True)
        return _array(image)
    except DataError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise DataError(
            f"{where}: has more pixels than the {MAX_PIXELS} that are decoded"
        ) from None
    except UnidentifiedImageError:
        raise DataError(
            f"{where}: is not an image that is read here ({', '.join(formats)}), or is damaged"
        ) from None
    except (OSError, ValueError, SyntaxError, struct.error, EOFError, MemoryError) as error:
        raise DataError(f"{where}: does not decode ({error}); the file is damaged") from None


def _refuse_lost_depth(image: Image.Image, data: bytes, where: str) -> None:
    # Pillow reads 16-bit colour PNG as 8 bit without a word: byte 24 of a PNG is its depth.
    sixteen_bit_colour = image.format == "PNG" and data[24] == 16 and image.mode not in SIXTEEN_BIT
    if sixteen_bit_colour or image.mode in ("I", "F", "I;16N"):
        raise DataError(
            f"{where}: only grey images keep more than 8 bits here; convert this one to 8 bit per "
            "channel, or to 16-bit grey PNG"
        )


def _array(image: Image.Image) -> Pixels:
    if image.mode in SIXTEEN_BIT:
        return np.asarray(image).astype(np.uint16)[:, :, None]
    if image.mode in GREY:
        return np.asarray(image if image.mode == "L" else image.convert("L"))[:, :, None]
    return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))


def fitted(pixels: Pixels, size: int) -> Pixels:
    """``pixels`` at ``size`` x ``size``: the centre square, then bilinear (antialiased) resizing.

    16-bit images are resized in float32, which holds them exactly, and rounded.
    """
    height, width = pixels.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    square = pixels[top : top + side, left : left + side]
    if side == size:
        return square
    deep = square.dtype == np.uint16
    plane = square[:, :, 0] if square.shape[2] == 1 else square
    image = Image.fromarray(np.ascontiguousarray(plane.astype(np.float32) if deep else plane))
    resized = np.asarray(image.resize((size, size), Image.Resampling.BILINEAR))
    if deep:
        resized = np.rint(np.clip(resized, 0, 65535)).astype(np.uint16)
    return resized if resized.ndim == 3 else resized[:, :, None]


def with_channels(pixels: Pixels, channels: int) -> Pixels:
    """``pixels`` with 1 or 3 channels: grey repeated, or ITU-R 601 luma of colour."""
    if pixels.shape[2] == channels:
        return pixels
    if channels == 3:
        return cast("Pixels", np.repeat(pixels, 3, axis=2))
    return np.asarray(Image.fromarray(np.ascontiguousarray(pixels)).convert("L"))[:, :, None]
