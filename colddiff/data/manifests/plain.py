"""``manifest.json`` in one file: a packed data set, with the size and sha256 of every shard."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from colddiff.data.left_out import left_out_lines, skipped_line
from colddiff.errors import DataError, SpecError
from colddiff.ports import ImageFormat, Manifest, ShardEntry
from colddiff.spec import Spec, canonical_json, parse
from colddiff.spec.documents import DocumentError, read_json_object, shown
from colddiff.spec.formats import refuse_later

KEY = "manifest.json"
FORMAT = "colddiff-shards/1"
MAX_BYTES = 2**30
CHECKED_AT_ONCE = 10_000
"""Shards; the manifests of smaller sets are checked whole."""
ENTRY = ("key", "count", "bytes", "sha256")


_TAR_KEY = re.compile(r"^(?!/)(?!.*(^|/)\.\.?(/|$))[^\\]+\.tar$")
"""Compiled, so that Python matches it: pydantic's own regex engine has no look-ahead."""


class _Image(Spec):
    channels: Annotated[int, Field(ge=1, le=4)]
    height: Annotated[int, Field(ge=1, le=8192)]
    width: Annotated[int, Field(ge=1, le=8192)]
    bits: Literal[8, 16] = 8
    range: tuple[float, float] | None = None


class _Shard(Spec):
    # The store validates keys in full; this only requires a tar below the manifest.
    key: Annotated[str, Field(pattern=_TAR_KEY)]
    count: Annotated[int, Field(ge=1, le=10**9)]
    bytes: Annotated[int, Field(ge=1, le=2**50)]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class _Reason(Spec):
    why: str
    count: Annotated[int, Field(ge=1)]
    first: tuple[str, ...]


class _Printed(Spec):
    """Entries of the settings that commands print; the others are only compared."""

    left_out: tuple[_Reason, ...] = ()
    skipped: tuple[tuple[str, str], ...] = ()


class About(Spec):
    """What a manifest says of a set beside its shards, in one file or in pages."""

    count: Annotated[int, Field(ge=1)]
    image: _Image
    classes: tuple[str, ...] = ()
    source: str = ""
    settings: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _says_what_is_left_out(self) -> Self:
        found = {name: self.settings[name] for name in _Printed.model_fields & self.settings.keys()}
        parse(_Printed, found, "settings")
        return self


class _Manifest(About):
    format: Literal["colddiff-shards/1"]
    shards: Annotated[tuple[_Shard, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _adds_up(self) -> Self:
        total = sum(shard.count for shard in self.shards)
        if total != self.count:
            raise SpecError([("count", f"is {self.count}, but the shards hold {total} images")])
        _refuse_twice([shard.key for shard in self.shards])
        return self


def _refuse_twice(keys: Sequence[str]) -> None:
    if len(set(keys)) < len(keys):
        twice = next(key for key, times in Counter(keys).items() if times > 1)
        raise SpecError([("shards", f"{twice} is listed twice")])


def make_manifest(
    image: ImageFormat,
    shards: Sequence[ShardEntry],
    *,
    classes: Sequence[str] = (),
    source: str = "",
    settings: Mapping[str, Any] | None = None,
) -> Manifest:
    """Build the manifest of ``shards``, in their order; raises SpecError if it is invalid."""
    about = {
        "format": FORMAT,
        "image": asdict(image),
        "classes": list(classes),
        "source": source,
        "settings": dict(settings or {}),
    }
    # Part by part: checked all at once, a million shards take gigabytes.
    checked = None
    for start in range(0, max(len(shards), 1), CHECKED_AT_ONCE):
        part = shards[start : start + CHECKED_AT_ONCE]
        count = sum(shard.count for shard in part)
        entries = [{name: getattr(shard, name) for name in ENTRY} for shard in part]
        checked = parse(_Manifest, {**about, "count": count, "shards": entries})
    assert checked is not None
    if len(shards) > CHECKED_AT_ONCE:
        _refuse_twice([shard.key for shard in shards])
    return Manifest(
        count=sum(shard.count for shard in shards),
        image=format_of(checked),
        shards=tuple(shards),
        classes=checked.classes,
        source=checked.source,
        settings=checked.settings,
        digest=manifest_digest(image, shards),
    )


def manifest_digest(image: ImageFormat, shards: Iterable[ShardEntry]) -> str:
    """sha256 over the image format and the (count, sha256) of each shard in order.

    Shard names, classes, source and settings are excluded: equal bytes are the same data set,
    wherever it is stored and however it was made, in one file or in pages.
    """
    hashed = DigestOfShards(image)
    for shard in shards:
        hashed.add(shard.count, shard.sha256)
    return hashed.hexdigest()


class DigestOfShards:
    """``manifest_digest`` of shards that come one by one: sha256 of a canonical JSON text."""

    def __init__(self, image: ImageFormat) -> None:
        fields = {**asdict(image), "range": list(image.range) if image.range else None}
        begin, self._end = canonical_json({"image": fields, "shards": []}).split("[]")
        self._hash, self._between = hashlib.sha256(f"{begin}[".encode()), ""

    def add(self, count: int, sha256: str) -> None:
        """The next shard."""
        self._hash.update(f'{self._between}[{count},"{sha256}"]'.encode())
        self._between = ","

    def hexdigest(self) -> str:
        """Of all shards so far."""
        whole = self._hash.copy()
        whole.update(f"]{self._end}".encode())
        return whole.hexdigest()


def manifest_bytes(manifest: Manifest) -> bytes:
    """The content of ``manifest.json``; ``parse_manifest`` is its inverse."""
    data: dict[str, Any] = {"format": FORMAT, **asdict(manifest)}
    del data["digest"]
    return (json.dumps(data, indent=1, allow_nan=False) + "\n").encode()


def left_out_of(manifest: Manifest) -> list[str]:
    """A line for each reason why something was left out of the set, by count and first names."""
    lines = left_out_lines(manifest.settings.get("left_out", ()))
    skipped = manifest.settings.get("skipped", ())
    if skipped:
        lines.append(skipped_line(skipped))
    return lines


def parse_manifest(
    data: bytes,
    where: str,
    others: Mapping[str, Callable[[dict[str, Any]], Manifest]] | None = None,
) -> Manifest:
    """Parse and validate a manifest; raises DataError naming ``where`` and every invalid field.

    ``others``: what reads other formats that may be there, by their names; may raise SpecError.
    """
    readers = {FORMAT: _read, **(others or {})}
    way_out = "pack the data again, or index its tars with `colddiff data index`"
    try:
        content = read_json_object(data, most_bytes=MAX_BYTES)
    except DocumentError as error:
        raise DataError(f"{where}: {error}; {way_out}") from None
    try:
        refuse_later(content, max(readers))
    except DocumentError as error:
        raise DataError(f"{where} {error}") from None
    found = content.get("format")
    if not (isinstance(found, str) and found in readers):
        known = " or ".join(map(repr, readers))
        raise DataError(f"{where}: format is {shown(found)}, this version reads {known}; {way_out}")
    try:
        return readers[found](content)
    except SpecError as error:
        raise DataError(f"{where}: {error}; {way_out}") from None


def _read(content: dict[str, Any]) -> Manifest:
    spec = parse(_Manifest, content)
    shards = tuple(ShardEntry(**shard.model_dump()) for shard in spec.shards)
    image = format_of(spec)
    return Manifest(
        count=spec.count,
        image=image,
        shards=shards,
        classes=spec.classes,
        source=spec.source,
        settings=spec.settings,
        digest=manifest_digest(image, shards),
    )


def format_of(spec: About) -> ImageFormat:
    """The image format that a manifest states."""
    return ImageFormat(**spec.image.model_dump())
