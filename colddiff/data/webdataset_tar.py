"""Reads webdataset tars safely: an allow-list of member types with size limits.

webdataset's own decoders can unpickle and import what a tar names, so none of them is used; only
its rule for grouping members into samples is.
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from mmap import mmap
from typing import Any, BinaryIO, TypeAlias

from colddiff.data.pil_images import Pixels, decode_image, with_channels
from colddiff.errors import DataError
from colddiff.ports import ImageFormat

Buffer: TypeAlias = "bytes | mmap"

IMAGE_SUFFIXES = ("png", "jpg", "jpeg")
MAX_BYTES = {"png": 256 * 2**20, "jpg": 256 * 2**20, "jpeg": 256 * 2**20, "json": 2**20, "cls": 64}


@dataclass(frozen=True, slots=True)
class Span:
    """Byte range of a member's content in its tar."""

    offset: int
    size: int

    def of(self, tar: Buffer) -> bytes:
        """The content."""
        return bytes(tar[self.offset : self.offset + self.size])


@dataclass(frozen=True, slots=True)
class TarSample:
    """One image of a tar and its metadata members."""

    name: str
    image: Span
    described: Span | None
    """The ``.json`` member."""
    label: Span | None
    """The ``.cls`` member: a number as text."""


def tar_samples(file: BinaryIO, where: str) -> list[TarSample]:
    """List the images of an uncompressed tar in order, without decoding any.

    Members that are not regular files, have absolute paths or ``..``, or are of an unknown type
    are skipped. Raises DataError naming ``where`` for a damaged or truncated tar, a member that is
    too large, or two images under one name.
    """
    from webdataset.tariterators import group_by_keys

    try:
        grouped = list(group_by_keys(_members(file, where)))
    except tarfile.TarError as error:
        raise DataError(f"{where}: not a tar, or damaged ({error})") from None
    except ValueError as error:
        raise DataError(f"{where}: {error.args[0]}") from None
    return [sample for group in grouped if (sample := _sample(group, where)) is not None]


def tar_pixels(tar: Buffer, sample: TarSample, image: ImageFormat, where: str) -> Pixels:
    """Decode ``sample`` to pixels [H, W, C]; raises DataError if its format is not ``image``."""
    place = f"{where}: {sample.name}"
    pixels = decode_image(sample.image.of(tar), place)
    if pixels.shape[2] < image.channels:
        pixels = with_channels(pixels, image.channels)
    found = (*pixels.shape, 8 * pixels.dtype.itemsize)
    expected = (image.height, image.width, image.channels, image.bits)
    if found != expected:
        raise DataError(
            f"{place}: is {found[1]}x{found[0]} with {found[2]} channels of {found[3]} bits, the "
            f"manifest says {expected[1]}x{expected[0]}, {expected[2]}, {expected[3]}"
        )
    return pixels


def tar_description(tar: Buffer, sample: TarSample, where: str) -> dict[str, Any]:
    """Metadata of an image from its json and cls members: ``label`` and ``source``, if any."""
    described: dict[str, Any] = {}
    try:
        if sample.described is not None:
            content = json.loads(sample.described.of(tar))
            described = content if isinstance(content, dict) else {}
        if sample.label is not None:
            described["label"] = int(sample.label.of(tar))
    except (ValueError, RecursionError):
        raise DataError(f"{where}: {sample.name}: cannot parse its json or cls member") from None
    return described


def _members(file: BinaryIO, where: str) -> Iterator[dict[str, Any]]:
    # "r:" rather than "r": a compressed tar could unpack to any size.
    with tarfile.open(fileobj=file, mode="r:") as tar:
        for member in tar:
            suffix = member.name.rpartition(".")[2].lower()
            # A sparse member can claim to be far larger than the tar that contains it.
            if not member.isreg() or member.issparse() or suffix not in MAX_BYTES:
                continue
            if member.name.startswith("/") or ".." in member.name.split("/"):
                continue
            if member.size > MAX_BYTES[suffix]:
                raise DataError(
                    f"{where}: {member.name} has {member.size} bytes, more than the limit of "
                    f"{MAX_BYTES[suffix]}"
                )
            span = Span(member.offset_data, member.size)
            yield {"fname": member.name, "data": span, "__url__": where}
        end = tar.offset
    _refuse_trailing_data(file, end, where)


def _refuse_trailing_data(file: BinaryIO, end: int, where: str) -> None:
    # tarfile treats a damaged header in the middle as the end of the archive.
    size = file.seek(0, 2)
    if end > size:
        raise DataError(f"{where}: truncated at {size} bytes, its members extend to {end}")
    file.seek(end)
    while block := file.read(2**20):
        if block.strip(b"\0"):
            raise DataError(f"{where}: damaged at byte {end}, where no member header was found")


def _sample(group: dict[str, Any], where: str) -> TarSample | None:
    images = [group[suffix] for suffix in IMAGE_SUFFIXES if suffix in group]
    if len(images) > 1:
        raise DataError(f"{where}: {group['__key__']} has more than one image")
    if not images:
        return None
    return TarSample(group["__key__"], images[0], group.get("json"), group.get("cls"))
