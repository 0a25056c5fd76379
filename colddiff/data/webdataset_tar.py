"""Reads webdataset tars safely: an allow-list of member types with size limits.

webdataset's own decoders can unpickle and import what a tar names, so none of them is used; only
its rule for grouping members into samples is.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from mmap import mmap
from typing import Any, BinaryIO, TypeAlias

from colddiff.data.pil_images import Pixels, decode_image, with_channels
from colddiff.data.tar_members import tar_members
from colddiff.errors import DataError
from colddiff.ports import ImageFormat

Buffer: TypeAlias = "bytes | mmap"

PassedOver: TypeAlias = Callable[[str, str], None]
"""Called with (why, name of the member) for each member that is left out."""

IMAGE_SUFFIXES = ("png", "jpg", "jpeg")
LABEL_SUFFIXES = ("json", "cls")
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


def tar_samples(
    file: BinaryIO, where: str, passed_over: PassedOver = lambda why, name: None
) -> list[TarSample]:
    """List the images of an uncompressed tar in order, without decoding any.

    Members that are not regular files, have absolute paths or ``..``, are of an unknown type, or
    have no key by webdataset's rule are skipped, and reported to ``passed_over``. Raises DataError
    naming ``where`` for a damaged or truncated tar, a member that is too large, or two images under
    one name, wherever they are in the tar.
    """
    samples: dict[str, TarSample] = {}
    for group in _groups(file, where, passed_over):
        sample = _sample(group, where)
        if sample is None:
            for suffix in LABEL_SUFFIXES:
                if suffix in group:
                    passed_over("labels whose image is not beside them", f"{group['']}.{suffix}")
        elif sample.name in samples:
            raise DataError(
                f"{where}: duplicate file name: two images of the name {sample.name}; rename one"
            )
        else:
            samples[sample.name] = sample
    return list(samples.values())


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


def _groups(file: BinaryIO, where: str, passed_over: PassedOver) -> Iterator[dict[str, Any]]:
    """Neighbouring members of one key, by suffix; the key itself is under ``""``."""
    from webdataset.tariterators import base_plus_ext

    group: dict[str, Any] = {}
    for name, span in _members(file, where, passed_over):
        key, suffix = base_plus_ext(name)
        if key is None:
            passed_over("names that have no key, such as hidden ones", name)
            continue
        suffix = suffix.lower()
        if group and group[""] != key:
            yield group
            group = {}
        group[""] = key
        if suffix not in MAX_BYTES:
            passed_over("names with a dot before the suffix, where their key ends", name)
            continue
        if suffix in group:
            raise DataError(f"{where}: {name}: duplicate file name; rename one of the two")
        group[suffix] = span
    if group:
        yield group


def _members(file: BinaryIO, where: str, passed_over: PassedOver) -> Iterator[tuple[str, Span]]:
    for member in tar_members(file, where):
        suffix = member.name.rpartition(".")[2].lower()
        # A sparse member can claim to be far larger than the tar that contains it.
        if not member.isreg() or member.issparse():
            if not member.isdir():
                passed_over("links and other members that are no files", member.name)
        elif suffix not in MAX_BYTES:
            passed_over("members that are not .png, .jpg, .jpeg, .json or .cls", member.name)
        elif member.name.startswith("/") or ".." in member.name.split("/"):
            passed_over("absolute names and names with ..", member.name)
        elif member.size > MAX_BYTES[suffix]:
            raise DataError(
                f"{where}: {member.name} has {member.size} bytes, more than the limit of "
                f"{MAX_BYTES[suffix]}"
            )
        else:
            yield member.name, Span(member.offset_data, member.size)


def _sample(group: dict[str, Any], where: str) -> TarSample | None:
    images = [group[suffix] for suffix in IMAGE_SUFFIXES if suffix in group]
    if len(images) > 1:
        raise DataError(f"{where}: {group['']} has more than one image")
    if not images:
        return None
    return TarSample(group[""], images[0], group.get("json"), group.get("cls"))
