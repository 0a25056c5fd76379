"""Which images of a source are packed: its parts, what is held out, the order, how many."""

from __future__ import annotations

import hashlib
import re
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from colddiff.data.sources.source import ImageSource, SourceEntry
from colddiff.errors import DataError, SpecError
from colddiff.spec import Spec


class PackSettings(Spec):
    """Which images of a source are packed, and how they are stored."""

    split: Annotated[
        Literal["train", "test"] | None, Field(description="which part; null for everything")
    ] = None
    image_size: Annotated[
        int | None,
        Field(ge=1, le=8192, description="side, px: centre square, then bilinear resizing"),
    ] = None
    channels: Annotated[
        Literal[1, 3] | None, Field(description="null keeps those of the first image")
    ] = None
    bits: Literal[8, 16] = 8
    range: Annotated[
        tuple[float, float] | None,
        Field(description="what 0 and the largest stored value stand for; recorded, not applied"),
    ] = None
    holdout: Annotated[
        float | None, Field(gt=0, lt=1, description="part of the images that is the test split")
    ] = None
    group_by: Annotated[
        str | None,
        Field(description="regex on names: images it finds the same text in are not separated"),
    ] = None
    limit: Annotated[int | None, Field(ge=1, description="at most so many images")] = None
    shard_size: Annotated[int, Field(ge=1, description="images per shard")] = 1000

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.range is not None and not self.range[0] < self.range[1]:
            raise SpecError([("range", f"must rise, got {self.range[0]:g},{self.range[1]:g}")])
        if self.bits == 16 and self.channels == 3:
            raise SpecError([("bits", "16-bit images have one channel: use channels=1 or bits=8")])
        if self.group_by is not None:
            try:
                re.compile(self.group_by)
            except re.error as error:
                raise SpecError([("group_by", f"is not a regular expression: {error}")]) from None
        return self


def selected(source: ImageSource, settings: PackSettings) -> list[SourceEntry]:
    """The images of ``source`` that are packed, in the order they are packed in.

    An official split is taken as it is. Elsewhere each image, or group of images, is held out by a
    hash of its name: train and test are disjoint, together everything, and stay so when images are
    added. A folder, whose neighbours are alike, is mixed by another hash.
    """
    official, holdout = bool(source.splits), settings.holdout or source.default_holdout
    if official and settings.holdout is not None:
        raise SpecError(f"{source.uri} has its own train and test parts; leave holdout out")
    if not official and settings.split is None and settings.holdout is not None:
        raise SpecError("holdout: say which part to pack, split train or test")
    if not official and settings.split is not None and holdout is None:
        raise SpecError(f"{source.uri} has no parts of its own; give holdout, such as 0.1")
    entries = list(source.entries(settings.split))
    if not official and settings.split is not None and holdout is not None:
        wanted = settings.split == "test"
        entries = [e for e in entries if _held_out(e, holdout, settings.group_by) == wanted]
    if source.sorted_by_name:
        entries.sort(key=lambda entry: _hash("order", entry.name))
    if not entries:
        raise DataError(
            f"{source.uri}: no images in its {settings.split} part with holdout {holdout}; there "
            "are too few images or groups, choose another holdout"
        )
    return entries[: settings.limit]


def _held_out(entry: SourceEntry, holdout: float, group_by: str | None) -> bool:
    group = entry.name
    if group_by is not None:
        match = re.search(group_by, entry.name)
        if match is None:
            raise DataError(f"{entry.name}: group_by {group_by!r} finds nothing in this name")
        group = match.group(1) if match.re.groups else match.group(0)
    return int.from_bytes(_hash("holdout", group)[:8], "big") < holdout * 2**64


def _hash(purpose: str, name: str) -> bytes:
    return hashlib.sha256(f"{purpose}/{name}".encode(errors="surrogateescape")).digest()
