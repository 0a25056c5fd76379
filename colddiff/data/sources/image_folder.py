"""Source: a folder of image files, on disk or in S3; the first subfolder names the class."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

from colddiff.data.pil_images import FILE_FORMATS, Pixels, decode_image
from colddiff.data.sources.source import SourceEntry
from colddiff.errors import DataError
from colddiff.ports import Store, StoredObject

SUFFIXES = frozenset(
    {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".ppm", ".pgm", ".pnm"}
)
MAX_FILE_BYTES = 256 * 2**20


class FolderSource:
    """Image files below a store, by key; other and hidden files are skipped."""

    splits: tuple[str, ...] = ()
    sorted_by_name = True
    default_holdout: float | None = None

    def __init__(self, store: Store) -> None:
        self._store = store

    @property
    def uri(self) -> str:
        return f"folder:{self._store.uri}"

    @property
    def classes(self) -> tuple[str, ...]:
        return tuple(sorted({name for item in self._files if (name := _class(item.key))}))

    def entries(self, split: str | None) -> Sequence[SourceEntry]:
        labels = {name: n for n, name in enumerate(self.classes)}
        return [
            SourceEntry(item.key, labels.get(_class(item.key)), size=item.size)
            for item in self._files
        ]

    def load(self, entry: SourceEntry) -> Pixels:
        where = f"{self._store.uri}/{entry.name}"
        if entry.size > MAX_FILE_BYTES:
            raise DataError(f"{where}: {entry.size} bytes, more than the limit of {MAX_FILE_BYTES}")
        return decode_image(self._store.get(entry.name), where, FILE_FORMATS)

    @cached_property
    def _files(self) -> list[StoredObject]:
        files = [item for item in self._store.list() if _is_image(item.key)]
        if not files:
            raise DataError(
                f"{self.uri}: no images found; a folder is searched with its subfolders for files "
                f"ending in {', '.join(sorted(SUFFIXES))}"
            )
        return files


def _is_image(key: str) -> bool:
    hidden = any(part.startswith(".") for part in key.split("/"))
    return not hidden and any(key.lower().endswith(suffix) for suffix in SUFFIXES)


def _class(key: str) -> str:
    first, separator, _ = key.partition("/")
    return first if separator else ""
