"""Bit depth, levels and frames of a file that Pillow opened: what it would lose without a word."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Sequence
from typing import IO, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from colddiff.errors import DataError

SIXTEEN_BIT = ("I;16", "I;16L", "I;16B")
BITS_PER_SAMPLE, PHOTOMETRIC = 258, 262
"""Tags of a TIFF."""
MIN_IS_WHITE = 0
_PILLOW = r"PIL\."
_PNM = re.compile(rb"P[1-6](?:\s+|#[^\n]*\n)*(\d+)(?:\s+|#[^\n]*\n)+(\d+)(?:\s+|#[^\n]*\n)+(\d+)")
"""Header of a PGM or PPM: width, height and largest value."""


def quiet_pillow() -> None:
    """Keeps Pillow's warnings about metadata off the terminal; cheap to call for every image."""
    known = (getattr(entry[3], "pattern", entry[3]) for entry in warnings.filters)
    if _PILLOW not in known:
        warnings.filterwarnings("ignore", module=_PILLOW)


def refuse_lost_depth(image: Image.Image, data: bytes, where: str) -> None:
    """Raises DataError for more bits per channel than are read: 16 if grey, else 8.

    Pillow reads 16-bit colour in PNG, TIFF and PPM as 8 bit and says nothing. ``data`` is the file,
    or empty where only the opened image is known: then that of a PNG or PPM is not seen.
    """
    deep_colour = image.mode not in SIXTEEN_BIT and _bits(image, data) > 8
    grey_pnm = image.mode == "I" and image.format == "PPM"
    if (deep_colour and not grey_pnm) or (image.mode in ("I", "F", "I;16N") and not grey_pnm):
        raise DataError(
            f"{where}: more than 8 bits per channel are supported for grey images only; convert it "
            "to 8 bit per channel, or to 16-bit grey PNG"
        )


def upright_levels(image: Image.Image, pixels: NDArray[np.uint16]) -> NDArray[np.uint16]:
    """``pixels`` with 0 as black: Pillow does not invert a 16-bit TIFF in which 0 is white."""
    if image.format != "TIFF" or _tag(image, PHOTOMETRIC) != (MIN_IS_WHITE,):
        return pixels
    largest = 2 ** max(_tag(image, BITS_PER_SAMPLE) or (16,)) - 1
    inverted: NDArray[np.uint16] = (largest - pixels.astype(np.int64)).clip(0).astype(np.uint16)
    return inverted


def has_further_frames(image: Image.Image, data: bytes) -> bool:
    """Whether the file has more than the one page or frame that is read."""
    if image.format != "TIFF":
        return int(getattr(image, "n_frames", 1)) > 1
    # Counting all pages would follow a chain of any length.
    try:
        with Image.open(io.BytesIO(data), formats=["TIFF"]) as probe:
            probe.seek(1)
    except EOFError:
        return False
    except Exception:  # there is a second page, however damaged
        return True
    return True


def needs_tiff_reader(file: IO[bytes]) -> bool:
    """Whether the file is a TIFF that Pillow reads in part or not: of several pages, of floats."""
    try:
        with Image.open(file, formats=["TIFF"]) as image:
            if image.mode in ("F", "I"):
                return True
            image.seek(1)
    except EOFError:
        return False
    except UnidentifiedImageError:
        return _begins_as_tiff(file)
    except Image.DecompressionBombError:
        return False  # the same is said, with the reason, where the image is read
    except Exception:  # there is a second page, however damaged
        return True
    return True


def _begins_as_tiff(file: IO[bytes]) -> bool:
    """Whether a file that Pillow does not know has a TIFF's header, and is not cut off before it.

    Pillow knows no colour in separate planes, for example.
    """
    file.seek(0)
    start = file.read(8)
    if start[:2] not in (b"II", b"MM"):
        return False
    order: Literal["little", "big"] = "little" if start[:2] == b"II" else "big"
    version, offset = (int.from_bytes(part, order) for part in (start[2:4], start[4:]))
    return version == 43 or (version == 42 and 8 <= offset < file.seek(0, io.SEEK_END))


def _bits(image: Image.Image, data: bytes) -> int:
    if image.format == "PNG":
        return data[24] if data else 8
    if image.format == "TIFF":
        return max(_tag(image, BITS_PER_SAMPLE) or (1,))
    if image.format == "PPM":
        header = _PNM.match(data[:4096])
        return 16 if header and data[1:2] in b"2356" and int(header.group(3)) > 255 else 8
    return 8


def _tag(image: Image.Image, tag: int) -> tuple[int, ...]:
    value = getattr(image, "tag_v2", {}).get(tag, ())
    values: Sequence[object] = value if isinstance(value, tuple) else (value,)
    return tuple(item for item in values if isinstance(item, int))
