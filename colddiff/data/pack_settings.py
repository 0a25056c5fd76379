"""Pack settings: split, holdout, order and number of the images of a source that are packed."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Sequence
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from colddiff.data.sources.source import ImageSource, SourceEntry
from colddiff.errors import DataError, SpecError
from colddiff.machine.wording import counted
from colddiff.spec import LATER, Spec

MOST_LEVELS = 2**16


class PackSettings(Spec):
    """Selects the images of a source to pack, and how to store them."""

    split: Annotated[
        Literal["train", "test"] | None, Field(description="split to pack; null for all images")
    ] = None
    image_size: Annotated[
        int | None,
        Field(ge=1, le=8192, description="side, px: centre crop, then bilinear resize"),
    ] = None
    channels: Annotated[Literal[1, 3] | None, Field(description="null: 3 if any is in colour")] = (
        None
    )
    bits: Literal[8, 16] = 8
    range: Annotated[
        tuple[float, float] | None,
        Field(
            description="physical values of black and white: floating images, DICOM and NIfTI are "
            "mapped from them, of others they are only recorded"
        ),
    ] = None
    holdout: Annotated[
        float | None, Field(gt=0, lt=1, description="fraction of images in the test split")
    ] = None
    group_by: Annotated[
        str | None,
        Field(description="regex on image names: images with the same match stay in one split"),
    ] = None
    limit: Annotated[int | None, Field(ge=1, description="maximum number of images")] = None
    shard_size: Annotated[int, Field(ge=1, description="images per shard")] = 1000
    frames: Annotated[
        Literal["all", "first"],
        Field(description="images of a file that holds several, such as a TIFF or a volume"),
        LATER,
    ] = "all"

    @property
    def reduces_depth(self) -> bool:
        """Whether 8 bits were asked for, and are not only the default."""
        return self.bits == 8 and "bits" in self.model_fields_set

    @model_validator(mode="after")
    def _check_combination(self) -> Self:
        if self.range is not None and not self.range[0] < self.range[1]:
            low, high = self.range
            raise SpecError([("range", f"must be increasing, got {low:g},{high:g}")])
        if self.range is not None:
            _refuse_unusable(*self.range)
        if self.bits == 16 and self.channels == 3:
            raise SpecError(
                [("bits", "16-bit images have one channel: use --channels 1 or --bits 8")]
            )
        if self.group_by is not None:
            try:
                re.compile(self.group_by)
            except re.error as error:
                raise SpecError(
                    [("group_by", f"not a valid regular expression: {error}")]
                ) from None
        return self


def _refuse_unusable(low: float, high: float) -> None:
    """SpecError where the arithmetic of ``Levels`` would overflow: all black, or all white."""
    width = high - low
    if not math.isfinite(width):
        raise SpecError([("range", f"is too wide, got {low:g},{high:g}")])
    if not math.isfinite(MOST_LEVELS / width):
        raise SpecError([("range", f"is too narrow, got {low:g},{high:g}")])


def selected(source: ImageSource, settings: PackSettings) -> list[SourceEntry]:
    """The images of ``source`` to pack, in packing order.

    An official split is used as is. Otherwise each image, or group of images, is assigned to train
    or test by a hash of its name, so the split is a partition that stays stable when images are
    added. A folder is shuffled by a second hash, since files with neighbouring names are similar.
    """
    official, holdout = bool(source.splits), settings.holdout or source.default_holdout
    if official and settings.holdout is not None:
        raise SpecError(f"{source.uri} has official train and test splits; leave out --holdout")
    if not official and settings.split is None and settings.holdout is not None:
        raise SpecError("--holdout: also choose --split train, --split test or --split both")
    if not official and settings.split is not None and holdout is None:
        raise SpecError(f"{source.uri} has no official splits; set --holdout, such as 0.1")
    entries = every = list(source.entries(settings.split))
    if not official and settings.split is not None and holdout is not None:
        wanted = settings.split == "test"
        places = [_place(entry, settings.group_by) for entry in every]
        entries = [
            entry
            for entry, place in zip(every, places, strict=True)
            if _held_out(place, holdout) == wanted
        ]
        if every and not entries:
            raise DataError(
                f"{source.uri}: no images in the {settings.split} split with --holdout "
                f"{holdout:g}: {_way_out(places, holdout)}"
            )
    if source.sorted_by_name:
        entries.sort(key=lambda entry: _hash("order", entry.name))
    if not entries:
        raise DataError(f"{source.uri}: no images in the {settings.split} split")
    return entries[: settings.limit]


def _way_out(places: Sequence[int], holdout: float) -> str:
    """How many images there are, and the ``--holdout`` nearest to this that parts them."""
    groups = sorted(set(places))
    images = counted(len(places), "image")
    if len(groups) < len(places):
        images += f" in {counted(len(groups), 'group')}"
    parting = [
        tried
        for tried in (round(n / 100, 2) for n in range(1, 100))
        if _held_out(groups[0], tried) and not _held_out(groups[-1], tried)
    ]
    if not parting:
        return f"it has {images}, which no --holdout parts; add more, or leave it out"
    nearest = min(parting, key=lambda tried: abs(tried - holdout))
    test = sum(_held_out(place, nearest) for place in places)
    return (
        f"it has {images}; use --holdout {nearest:g}, which puts {test} of {len(places)} into "
        "the test split"
    )


def _held_out(place: int, holdout: float) -> bool:
    return place < holdout * 2**64


def _place(entry: SourceEntry, group_by: str | None) -> int:
    """Where an image, or its group, lies in 0..2^64: the lowest are held out."""
    # Slices of a volume are alike: in both splits, they would tell how well it is remembered.
    group = entry.group or entry.name
    if group_by is not None:
        match = re.search(group_by, group)
        if match is None:
            raise DataError(f"{group}: --group-by {group_by!r} does not match this name")
        group = match.group(1) if match.re.groups else match.group(0)
    return int.from_bytes(_hash("holdout", group)[:8], "big")


def _hash(purpose: str, name: str) -> bytes:
    return hashlib.sha256(f"{purpose}/{name}".encode(errors="surrogateescape")).digest()
