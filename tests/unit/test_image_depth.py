"""Images as files have them: depth is kept or refused, damage around whole pixels is none."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from colddiff.data.pil_images import FILE_FORMATS, decode_image
from colddiff.errors import DataError


def colour(size: int = 16) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 255, (size, size, 3), dtype=np.uint8)


def tiff(array: NDArray[Any], bits: int, photometric: int, sample_format: int = 1) -> bytes:
    raw, (height, width) = array.tobytes(), array.shape[:2]
    samples = array.shape[2] if array.ndim == 3 else 1
    ifd = 8 + len(raw)
    extra = ifd + 2 + 11 * 12 + 4
    many = samples > 2
    tags = [
        (256, 4, 1, width),
        (257, 4, 1, height),
        (258, 3, samples, extra if many else bits),
        (259, 3, 1, 1),
        (262, 3, 1, photometric),
        (273, 4, 1, 8),
        (277, 3, 1, samples),
        (278, 4, 1, height),
        (279, 4, 1, len(raw)),
        (284, 3, 1, 1),
        (339, 3, samples, extra + 2 * samples if many else sample_format),
    ]
    table = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    rest = struct.pack(f"<{2 * samples}H", *[bits] * samples, *[sample_format] * samples)
    start = b"II*\0" + struct.pack("<I", ifd)
    return start + raw + struct.pack("<H", len(tags)) + table + bytes(4) + rest


DEEP = (np.arange(256, dtype=np.uint16) * 257).reshape(16, 16)
DEEP_COLOUR = np.stack([DEEP, DEEP, DEEP], axis=-1)


@pytest.mark.parametrize(
    "data",
    [
        tiff(DEEP_COLOUR, 16, photometric=2),
        tiff(DEEP_COLOUR.astype(np.float32), 32, photometric=2, sample_format=3),
        tiff(DEEP.astype(np.float32), 32, photometric=1, sample_format=3),
        tiff(DEEP.astype(np.int32), 32, photometric=1, sample_format=2),
        tiff((DEEP.astype(np.int32) - 2**15).astype(np.int16), 16, 1, sample_format=2),
        b"P6\n16 16\n65535\n" + DEEP_COLOUR.astype(">u2").tobytes(),
        b"P6 # a comment\n16 # more\n16 4095\n" + DEEP_COLOUR.astype(">u2").tobytes(),
        b"P3 16 16 1023 " + b" ".join(b"%d" % (v % 1024) for v in DEEP_COLOUR.flatten()),
    ],
    ids=["tiff", "tiff-float", "float", "int32", "int16", "ppm", "ppm-12-bit", "ppm-text"],
)
def test_a_depth_that_would_be_lost_is_refused(data: bytes) -> None:
    with pytest.raises(DataError, match=r"here: (more than 8 bits|not a supported image)"):
        decode_image(data, "here", FILE_FORMATS)


def test_sixteen_bits_of_grey_are_kept_upright() -> None:
    for data in (
        tiff(DEEP, 16, photometric=1),
        tiff(65535 - DEEP, 16, photometric=0),  # 0 is white
        b"P5\n16 16\n65535\n" + DEEP.astype(">u2").tobytes(),
    ):
        pixels = decode_image(data, "here", FILE_FORMATS)
        assert pixels.dtype == np.uint16
        np.testing.assert_array_equal(pixels[:, :, 0], DEEP)
    shallow = (DEEP // 257).astype(np.uint8)
    inverted = decode_image(tiff(255 - shallow, 8, photometric=0), "here", FILE_FORMATS)
    np.testing.assert_array_equal(inverted[:, :, 0], shallow)


# --- damage around whole pixels


def chunk(kind: bytes, data: bytes) -> bytes:
    body = kind + data
    return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))


def test_broken_metadata_around_whole_pixels_is_no_damage() -> None:
    pixels = colour()
    for kind, settings in (("PNG", {}), ("JPEG", {"quality": 90}), ("JPEG", {"progressive": True})):
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, kind, **settings)
        whole = file.getvalue()
        expected = decode_image(whole, "whole")
        if kind == "PNG":
            broken = chunk(b"tEXt", b"a\0b")[:-1] + b"?"
            profile = chunk(b"iCCP", b"x\0\0junk")
            exif = chunk(b"eXIf", b"MM\0*\xff\xff\xff\xff" * 3)
            changed = [whole[:33] + part + whole[33:] for part in (broken, profile, exif)]
            changed += [whole[:-12], whole[:-5]]
        else:
            app = [b"\xff\xe1\0\x10Exif\0\0MM\0*\xff\xff\xff\xff", b"\xff\xe2\0\x08ICC_PR"]
            changed = [whole[:2] + part + whole[2:] for part in app]
            changed += [whole + b"trailing"]
            if not settings.get("progressive"):
                changed += [whole[:-2], whole[:-1]]
        for data in changed:
            np.testing.assert_array_equal(decode_image(data, "here"), expected)
        for cut in (len(whole) // 2, len(whole) - 60):
            with pytest.raises(DataError, match="damaged"):
                decode_image(whole[:cut], "here")
