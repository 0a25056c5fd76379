"""``manifest.json``: what a packed data set is, and the sizes and hashes it can be checked by."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from colddiff.errors import DataError, Missing, SpecError
from colddiff.ports import ImageFormat, Manifest, ShardEntry, Store
from colddiff.spec import Spec, digest, parse

KEY = "manifest.json"
FORMAT = "colddiff-shards/1"


_TAR_KEY = re.compile(r"^(?!/)(?!.*(^|/)\.\.?(/|$))[^\\]+\.tar$")
"""A compiled pattern is matched by Python, whose look-ahead the validator's own engine lacks."""


class _Image(Spec):
    channels: Annotated[int, Field(ge=1, le=4)]
    height: Annotated[int, Field(ge=1, le=8192)]
    width: Annotated[int, Field(ge=1, le=8192)]
    bits: Literal[8, 16] = 8
    range: tuple[float, float] | None = None


class _Shard(Spec):
    # The parts of a key are checked again by the store; here it only must be a tar below us.
    key: Annotated[str, Field(pattern=_TAR_KEY)]
    count: Annotated[int, Field(ge=1)]
    bytes: Annotated[int, Field(ge=1)]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class _Manifest(Spec):
    format: Literal["colddiff-shards/1"]
    count: Annotated[int, Field(ge=1)]
    image: _Image
    shards: Annotated[tuple[_Shard, ...], Field(min_length=1)]
    classes: tuple[str, ...] = ()
    source: str = ""
    settings: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _adds_up(self) -> Self:
        total = sum(shard.count for shard in self.shards)
        if total != self.count:
            raise SpecError([("count", f"is {self.count}, but the shards hold {total} images")])
        keys = [shard.key for shard in self.shards]
        if len(set(keys)) < len(keys):
            twice = next(key for key in keys if keys.count(key) > 1)
            raise SpecError([("shards", f"{twice} is listed twice")])
        return self


def make_manifest(
    image: ImageFormat,
    shards: Sequence[ShardEntry],
    *,
    classes: Sequence[str] = (),
    source: str = "",
    settings: Mapping[str, Any] | None = None,
) -> Manifest:
    """The manifest of ``shards``, in their order; raises SpecError where it could not be read."""
    data = {
        "format": FORMAT,
        "count": sum(shard.count for shard in shards),
        "image": asdict(image),
        "shards": [asdict(shard) for shard in shards],
        "classes": list(classes),
        "source": source,
        "settings": dict(settings or {}),
    }
    return _built(parse(_Manifest, data))


def manifest_digest(image: ImageFormat, shards: Sequence[ShardEntry]) -> str:
    """sha256 over image format and (count, sha256) of the shards in order.

    Names, classes, source and settings are left out: equal bytes are the same data set wherever
    they lie and however they came about.
    """
    fields = {**asdict(image), "range": list(image.range) if image.range else None}
    return digest({"image": fields, "shards": [[shard.count, shard.sha256] for shard in shards]})


def write_manifest(store: Store, manifest: Manifest) -> None:
    """Puts ``manifest.json``: from then on the data set is complete."""
    store.put(KEY, manifest_bytes(manifest))


def manifest_bytes(manifest: Manifest) -> bytes:
    """The content of ``manifest.json``; ``parse_manifest`` is its inverse."""
    data: dict[str, Any] = {"format": FORMAT, **asdict(manifest)}
    del data["digest"]
    return (json.dumps(data, indent=1, allow_nan=False) + "\n").encode()


def read_manifest(store: Store) -> Manifest:
    """The manifest of the data set in ``store``; raises DataError where there is no valid one."""
    try:
        data = store.get(KEY)
    except Missing:
        raise DataError(
            f"{store.uri}: no {KEY}, so this is no packed data set, or packing it did not finish; "
            f"make one with `colddiff data pack SOURCE --out {store.uri}`, or index the tars that "
            f"are there with `colddiff data index {store.uri}`"
        ) from None
    return parse_manifest(data, f"{store.uri}/{KEY}")


def parse_manifest(data: bytes, where: str) -> Manifest:
    """The manifest in ``data``, checked; raises DataError naming ``where`` and every wrong path."""
    way_out = "pack the data again, or index its tars with `colddiff data index`"
    try:
        content = json.loads(data)
    except (ValueError, RecursionError):
        raise DataError(f"{where}: is not JSON; {way_out}") from None
    if not isinstance(content, dict):
        raise DataError(f"{where}: is not a JSON object; {way_out}")
    if content.get("format") != FORMAT:
        raise DataError(
            f"{where}: format is {content.get('format')!r}, this version reads {FORMAT!r}; "
            f"{way_out}"
        )
    try:
        return _built(parse(_Manifest, content))
    except SpecError as error:
        raise DataError(f"{where}: {error}; {way_out}") from None


def _built(spec: _Manifest) -> Manifest:
    image = ImageFormat(**spec.image.model_dump())
    shards = tuple(ShardEntry(**shard.model_dump()) for shard in spec.shards)
    return Manifest(
        count=spec.count,
        image=image,
        shards=shards,
        classes=spec.classes,
        source=spec.source,
        settings=spec.settings,
        digest=manifest_digest(image, shards),
    )
