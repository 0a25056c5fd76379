"""Encodes and decodes images with Pillow: an allow-list of formats and a cap on pixels."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from colddiff.data.decoding.pil_depth import (
    SIXTEEN_BIT,
    has_further_frames,
    quiet_pillow,
    refuse_lost_depth,
    upright_levels,
)
from colddiff.data.decoding.pil_whole_pixels import bare_pixels
from colddiff.errors import DataError

PilImage: TypeAlias = Image.Image
Pixels: TypeAlias = "NDArray[np.uint8] | NDArray[np.uint16]"
"""One image, [H, W, C], C = 1 or 3; 16 bit only if C = 1."""

MAX_PIXELS = 64 * 2**20
"""Largest image that is decoded: a small file can decompress to more than fits in memory."""
MEMBER_FORMATS = ("PNG", "JPEG")
FILE_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "PPM")
# Deflate level 6 without filter optimisation: the same bytes on every run.
PNG_SETTINGS: dict[str, Any] = {"format": "PNG", "compress_level": 6, "optimize": False}
PNG_HEADER = 33
"""Bytes of a PNG's signature and IHDR chunk."""
PNG_END = b"IEND\xaeB`\x82"
DAMAGED = (OSError, ValueError, SyntaxError, struct.error, EOFError)
"""What Pillow raises for files that are damaged."""
GREY = ("1", "L", "LA", "La")
OPAQUE = 255
"""The highest alpha."""


def encode_png(pixels: Pixels) -> bytes:
    """Lossless PNG of [H, W, C] pixels; byte-identical for equal pixels (and Pillow build)."""
    if pixels.dtype == np.uint16 and pixels.shape[2] != 1:
        raise DataError("16-bit images have one channel; use bits=8 for colour")
    plane = pixels[:, :, 0] if pixels.shape[2] == 1 else pixels
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(plane)).save(file, **PNG_SETTINGS)
    return file.getvalue()


def with_png_text(png: bytes, keyword: str, text: str) -> bytes:
    """``png`` with an uncompressed text chunk (ASCII) inserted right after its header."""
    body = keyword.encode("ascii") + b"\0" + text.encode("ascii")
    kind = b"tEXt"
    checksum = struct.pack(">I", zlib.crc32(kind + body))
    chunk = struct.pack(">I", len(body)) + kind + body + checksum
    return png[:PNG_HEADER] + chunk + png[PNG_HEADER:]


def png_text(data: bytes, keyword: str) -> str | None:
    """The text that ``with_png_text`` wrote under ``keyword``, or None; decodes no pixels."""
    quiet_pillow()
    try:
        image = Image.open(io.BytesIO(data), formats=["PNG"])
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None
    found = image.info.get(keyword)
    return found if isinstance(found, str) else None


@dataclass(frozen=True, slots=True)
class Decoded:
    """A decoded image, and what of its file is not in its pixels."""

    pixels: Pixels
    multiframe: bool
    """Whether there are further pages or frames."""
    transparent: bool = False
    """Whether an alpha was dropped that is not opaque everywhere."""


def decode_image(
    data: bytes, where: str, formats: Sequence[str] = MEMBER_FORMATS, *, strictly: bool = False
) -> Pixels:
    """Decode an image to pixels [H, W, C]: C = 1 for grey, 3 for everything else.

    Drops alpha, expands palettes and applies the EXIF orientation. Damaged metadata around whole
    pixels is ignored, unless ``strictly``. Raises DataError naming ``where`` if the data is not one
    of ``formats``, is damaged, has more than MAX_PIXELS pixels, or has a depth that would be lost.
    """
    decode = _decoded if strictly else decode_file
    return decode(data, where, formats).pixels


def decode_file(data: bytes, where: str, formats: Sequence[str] = MEMBER_FORMATS) -> Decoded:
    """As ``decode_image``, and what of the file is not in its pixels."""
    try:
        return _decoded(data, where, formats)
    except _DamagedError as error:
        for whole in bare_pixels(data):
            try:
                return _decoded(whole, where, formats)
            except DataError:
                continue
        raise DataError(str(error)) from None


class _DamagedError(DataError):
    """Data that Pillow does not decode as it is."""


def _decoded(data: bytes, where: str, formats: Sequence[str]) -> Decoded:
    quiet_pillow()
    try:
        image: Image.Image = Image.open(io.BytesIO(data), formats=list(formats))
        width, height = image.size
        if width * height > MAX_PIXELS:
            raise DataError(
                f"{where}: {width}x{height} is more than the limit of {MAX_PIXELS} pixels"
            )
        refuse_lost_depth(image, data, where)
        multiframe = has_further_frames(image, data)
        # Pillow reads the orientation from any metadata there is, and raises what that raises.
        with suppress(*DAMAGED, KeyError, TypeError, IndexError, ZeroDivisionError):
            ImageOps.exif_transpose(image, in_place=True)
        return Decoded(_array(image), multiframe, _is_transparent(image))
    except DataError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise DataError(f"{where}: has more than the limit of {MAX_PIXELS} pixels") from None
    except UnidentifiedImageError:
        raise _DamagedError(
            f"{where}: not a supported image ({', '.join(formats)}), or damaged"
        ) from None
    except (*DAMAGED, MemoryError) as error:
        why = str(error)[:200]
        raise _DamagedError(f"{where}: cannot be decoded ({why}); the file is damaged") from None


def _is_transparent(image: Image.Image) -> bool:
    """Whether any pixel shows what is behind it: many programs write an alpha that is opaque."""
    if not image.has_transparency_data or image.mode in SIXTEEN_BIT:
        return False
    try:
        least, _ = image.convert("RGBA").getchannel("A").getextrema()
    except ValueError:  # a mode that Pillow does not convert, whose alpha it does not read either
        return False
    return least != OPAQUE


def opened_image(image: PilImage, where: str) -> Decoded:
    """An image that the caller opened or made, as ``decode_file`` reads files; of its frames only
    the one that is shown is meant.

    Raises DataError naming ``where`` for one that cannot be decoded, or whose depth is not read.
    """
    quiet_pillow()
    try:
        image.load()
        refuse_lost_depth(image, b"", where)
        return Decoded(_array(_upright(image)), False, _is_transparent(image))
    except DataError:
        raise
    except (*DAMAGED, MemoryError) as error:
        raise DataError(f"{where}: cannot be decoded ({str(error)[:200]})") from None


def _upright(image: Image.Image) -> Image.Image:
    """A copy turned as its EXIF orientation says; Pillow raises what damaged metadata raises."""
    with suppress(*DAMAGED, KeyError, TypeError, IndexError, ZeroDivisionError):
        return ImageOps.exif_transpose(image)
    return image


def _array(image: Image.Image) -> Pixels:
    if image.mode in SIXTEEN_BIT:
        return upright_levels(image, np.asarray(image).astype(np.uint16))[:, :, None]
    if image.mode == "I":  # a 16-bit PGM, which Pillow scales to 0..65535
        return np.asarray(image).astype(np.uint16)[:, :, None]
    if image.mode in GREY:
        return np.asarray(image if image.mode == "L" else image.convert("L"))[:, :, None]
    return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))


def crop_and_resize(pixels: Pixels, size: int) -> Pixels:
    """The centre square of ``pixels``, resized bilinearly (antialiased) to ``size`` x ``size``.

    16-bit images are resized in float32, which represents them exactly, then rounded.
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
    """Convert ``pixels`` to 1 or 3 channels: repeat grey, or take the ITU-R 601 luma of colour."""
    if pixels.shape[2] == channels:
        return pixels
    if channels == 3:
        return cast("Pixels", np.repeat(pixels, 3, axis=2))
    return np.asarray(Image.fromarray(np.ascontiguousarray(pixels)).convert("L"))[:, :, None]
