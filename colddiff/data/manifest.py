"""``manifest.json``: describes a packed data set, with the size and sha256 of every shard."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import islice
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from colddiff.data.left_out import left_out_lines
from colddiff.errors import DataError, Missing, SpecError
from colddiff.ports import ImageFormat, Manifest, ShardEntry, Store
from colddiff.spec import Spec, digest, parse
from colddiff.spec.documents import DocumentError, read_json_object, shown
from colddiff.spec.formats import refuse_later
from colddiff.stores.local_store import LocalStore

KEY = "manifest.json"
FORMAT = "colddiff-shards/1"
MAX_BYTES = 2**30
LOOKED_AT = 200
"""Files of a folder that is no packed set, to tell what it is."""
SHOWN = 5
"""Skipped images that a line names; the manifest has all."""


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


class _About(Spec):
    """Entries of the settings that commands print; the others are only compared."""

    left_out: tuple[_Reason, ...] = ()
    skipped: tuple[tuple[str, str], ...] = ()


class _Manifest(Spec):
    format: Literal["colddiff-shards/1"]
    count: Annotated[int, Field(ge=1)]
    image: _Image
    shards: Annotated[tuple[_Shard, ...], Field(min_length=1)]
    classes: tuple[str, ...] = ()
    source: str = ""
    settings: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _says_what_is_left_out(self) -> Self:
        found = {name: self.settings[name] for name in _About.model_fields & self.settings.keys()}
        parse(_About, found, "settings")
        return self

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
    """Build the manifest of ``shards``, in their order; raises SpecError if it is invalid."""
    data = {
        "format": FORMAT,
        "count": sum(shard.count for shard in shards),
        "image": asdict(image),
        "shards": [asdict(shard) for shard in shards],
        "classes": list(classes),
        "source": source,
        "settings": dict(settings or {}),
    }
    return _from_spec(parse(_Manifest, data))


def manifest_digest(image: ImageFormat, shards: Sequence[ShardEntry]) -> str:
    """sha256 over the image format and the (count, sha256) of each shard in order.

    Shard names, classes, source and settings are excluded: equal bytes are the same data set,
    wherever it is stored and however it was made.
    """
    fields = {**asdict(image), "range": list(image.range) if image.range else None}
    return digest({"image": fields, "shards": [[shard.count, shard.sha256] for shard in shards]})


def write_manifest(store: Store, manifest: Manifest) -> None:
    """Write ``manifest.json``, which makes the data set complete."""
    store.put(KEY, manifest_bytes(manifest))


def manifest_bytes(manifest: Manifest) -> bytes:
    """The content of ``manifest.json``; ``parse_manifest`` is its inverse."""
    data: dict[str, Any] = {"format": FORMAT, **asdict(manifest)}
    del data["digest"]
    return (json.dumps(data, indent=1, allow_nan=False) + "\n").encode()


def _read(store: Store) -> bytes:
    """The content of ``manifest.json``, of which others may have made one of any size."""
    size = store.size(KEY)
    if size is not None and size > MAX_BYTES:
        raise DataError(f"{store.uri}/{KEY}: has {size} bytes, more than the limit of {MAX_BYTES}")
    return store.get(KEY)


def kept_manifest(store: Store) -> Manifest | None:
    """The manifest that is in ``store``; None if there is none.

    Raises DataError if there is a file of its name that is no manifest of ours.
    """
    try:
        data = _read(store)
    except Missing:
        return None
    try:
        return parse_manifest(data, f"{store.uri}/{KEY}")
    except DataError:
        raise DataError(
            f"{store.uri}/{KEY} is not a manifest of colddiff, or is damaged, and is not replaced; "
            "use another folder, or move that file away"
        ) from None


def refuse_kept_manifest(store: Store) -> None:
    """Raises DataError if there is a manifest.json that indexing must not replace.

    One that indexing wrote may be replaced. One of packing or generating holds classes and
    settings that the tars do not; one of another program is not ours.
    """
    kept = kept_manifest(store)
    if kept is not None and kept.settings.get("source") != "index":
        raise DataError(
            f"{store.uri} is a packed set already, and its {KEY} is not replaced: use it as it is, "
            "or move the tars to another folder to index them anew"
        )


def left_out_of(manifest: Manifest) -> list[str]:
    """A line for each reason why something was left out of the set, by count and first names."""
    lines = left_out_lines(manifest.settings.get("left_out", ()))
    skipped = manifest.settings.get("skipped", ())
    if skipped:
        more = f"; and {len(skipped) - SHOWN} more" if len(skipped) > SHOWN else ""
        shown = "; ".join(why for _, why in skipped[:SHOWN])
        lines.append(f"images that cannot be packed: {len(skipped)} ({shown}{more})")
    return lines


def read_manifest(store: Store) -> Manifest:
    """Read the manifest of the data set in ``store``; raises DataError if missing or invalid."""
    try:
        data = _read(store)
    except Missing:
        if store.size(f"train/{KEY}") is not None:
            raise DataError(
                f"{store.uri} holds two packed sets, the splits of a source: use {store.uri}/train "
                f"or {store.uri}/test"
            ) from None
        if _holds_images(store):
            raise DataError(
                f"{store.uri} is a folder of images and no packed data set: pack it with `colddiff "
                f"data pack folder:{store.uri} --out URI` (a job takes data=folder:{store.uri} too)"
            ) from None
        raise DataError(
            f"{store.uri}: no {KEY}, so this is not a packed data set, or packing did not finish; "
            f"make one with `colddiff data pack SOURCE --out {store.uri}`, or index existing tars "
            f"with `colddiff data index {store.uri}`"
        ) from None
    return parse_manifest(data, f"{store.uri}/{KEY}")


def _holds_images(store: Store) -> bool:
    """Whether a folder on a disk has images in it, as far as its first files tell."""
    if not isinstance(store, LocalStore):
        return False
    first = islice(store.root.rglob("*"), LOOKED_AT)
    return any(path.suffix.lower() in (".png", ".jpg", ".jpeg") for path in first)


def parse_manifest(data: bytes, where: str) -> Manifest:
    """Parse and validate a manifest; raises DataError naming ``where`` and every invalid field."""
    way_out = "pack the data again, or index its tars with `colddiff data index`"
    try:
        content = read_json_object(data, most_bytes=MAX_BYTES)
    except DocumentError as error:
        raise DataError(f"{where}: {error}; {way_out}") from None
    try:
        refuse_later(content, FORMAT)
    except DocumentError as error:
        raise DataError(f"{where} {error}") from None
    if content.get("format") != FORMAT:
        raise DataError(
            f"{where}: format is {shown(content.get('format'))}, this version reads {FORMAT!r}; "
            f"{way_out}"
        )
    try:
        return _from_spec(parse(_Manifest, content))
    except SpecError as error:
        raise DataError(f"{where}: {error}; {way_out}") from None


def _from_spec(spec: _Manifest) -> Manifest:
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
