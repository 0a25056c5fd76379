"""Source: a folder of image files, on disk or in S3; the first subfolder names the class."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from functools import cached_property

from colddiff.data.left_out import UNREAD, LeftOut
from colddiff.data.pil_images import FILE_FORMATS, Decoded, Pixels, decode_file
from colddiff.data.sources.source import ImageSource, SourceEntry, nothing_found
from colddiff.data.stacks.files import SUFFIXES as STACK_SUFFIXES
from colddiff.data.stacks.files import TIFF, StackFiles
from colddiff.data.stacks.frames import Levels
from colddiff.errors import DataError, Missing, StoreError
from colddiff.ports import Store, StoredObject
from colddiff.stores.local_store import LocalStore

SUFFIXES = frozenset(
    {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".ppm", ".pgm", ".pnm"}
)
OTHER_IMAGES = frozenset(
    {".gif", ".jfif", ".jpe", ".avif", ".heic", ".heif", ".jxl", ".jp2", ".j2k", ".apng"}
    | {".svg", ".ico", ".tga", ".psd", ".exr", ".hdr", ".dng", ".cr2", ".nef", ".arw", ".npy"}
)
"""Suffixes of images that are not read."""
TIFFS = TIFF.suffixes
MAX_FILE_BYTES = 256 * 2**20


class FolderSource:
    """Image files below a store, by key; other and hidden files are passed over.

    A file with several images, such as a volume, is as many entries. ``levels`` says how physical
    values become pixels; with ``first_frames`` only the first image of each file is read.
    ``one_image_a_file`` passes over formats of many images, as all versions did at first.
    """

    splits: tuple[str, ...] = ()
    sorted_by_name = True
    default_holdout: float | None = None

    def __init__(
        self,
        store: Store,
        levels: Levels | None = None,
        *,
        first_frames: bool = False,
        one_image_a_file: bool = False,
    ) -> None:
        self._store = store
        self._stacks = StackFiles(store, levels or Levels())
        self._first_frames = first_frames
        self._one_image_a_file = one_image_a_file
        self._with_more: set[str] = set()
        self._left_out = LeftOut()
        self._multiframe: set[str] = set()
        self._transparent: set[str] = set()

    @property
    def uri(self) -> str:
        return f"folder:{self._store.uri}"

    @property
    def classes(self) -> tuple[str, ...]:
        return tuple(sorted({name for item in self._files if (name := _class(item.key))}))

    @property
    def left_out(self) -> LeftOut:
        return self._left_out

    @property
    def multiframe(self) -> Collection[str]:
        return self._multiframe

    @property
    def transparent(self) -> Collection[str]:
        return self._transparent

    @property
    def earlier(self) -> ImageSource | None:
        return None if self._one_image_a_file else FolderSource(self._store, one_image_a_file=True)

    def entries(self, split: str | None) -> Sequence[SourceEntry]:
        return self._entries

    @cached_property
    def _entries(self) -> list[SourceEntry]:
        labels = {name: n for n, name in enumerate(self.classes)}
        found = [
            entry
            for item in self._files
            for entry in self._entries_of(item, labels.get(_class(item.key)))
        ]
        if not found:
            raise nothing_found("folder", self._store, "no images found", self._left_out)
        return found

    def _entries_of(self, item: StoredObject, label: int | None) -> list[SourceEntry]:
        """One entry, or one for each image of a file with several."""
        name, count = item.key, None
        if self._one_image_a_file:
            return [SourceEntry(name, label, size=item.size)]
        if self._stacks.holds(name) or (_suffix(name) in TIFFS and not self._first_frames):
            count = self._stacks.count(name, item.size, self._left_out)
        if count is None:
            return [SourceEntry(name, label, size=item.size)]
        if count > 1 and self._first_frames:
            self._with_more.add(name)
            count = 1
        digits = len(str(max(count - 1, 0)))
        return [
            SourceEntry(
                f"{name}#{n:0{digits}d}" if count > 1 else name, label, n, item.size, group=name
            )
            for n in range(count)
        ]

    def load(self, entry: SourceEntry) -> Pixels:
        if entry.group:
            if entry.group in self._with_more:
                self._multiframe.add(entry.name)
            return self._pixels(entry, self._stacks.decoded(entry.group, entry.index))
        where = f"{self._store.uri}/{entry.name}"
        if entry.size > MAX_FILE_BYTES:
            raise DataError(f"{where}: {entry.size} bytes, more than the limit of {MAX_FILE_BYTES}")
        return self._pixels(entry, decode_file(self._read(entry, where), where, FILE_FORMATS))

    def _pixels(self, entry: SourceEntry, decoded: Decoded) -> Pixels:
        """The pixels; what of the file is not in them is remembered."""
        if decoded.multiframe:
            self._multiframe.add(entry.name)
        if decoded.transparent:
            self._transparent.add(entry.name)
        return decoded.pixels

    def _read(self, entry: SourceEntry, where: str) -> bytes:
        try:
            return self._store.get(entry.name)
        except Missing:
            raise DataError(f"{where}: is gone since the folder was listed") from None
        except StoreError as error:
            # On a disk one file may be unreadable; in S3 it is the service.
            if isinstance(self._store, LocalStore):
                raise DataError(str(error)) from None
            raise

    def _holds_images(self, key: str) -> bool:
        return not self._one_image_a_file and self._stacks.holds(key)

    @cached_property
    def _files(self) -> list[StoredObject]:
        files = list(image_files(self._store, self._left_out, self._holds_images))
        if not files:
            raise nothing_found(
                "folder",
                self._store,
                "no images found; a folder is searched with its subfolders for files ending in "
                f"{', '.join(sorted(SUFFIXES | STACK_SUFFIXES))}",
                self._left_out,
            )
        return files


def image_files(
    store: Store, left_out: LeftOut, others: Callable[[str], bool] = lambda key: False
) -> Iterator[StoredObject]:
    """The image files below ``store`` in key order, through links; the rest to ``left_out``.

    ``others`` tells by key what else counts as one.
    """
    if isinstance(store, LocalStore):
        listed = store.list_all(lambda key, why: left_out.add(why, key))
    else:
        listed = store.list()
    for item in listed:
        suffix = item.key.lower().rpartition("/")[2].rpartition(".")
        if any(part.startswith(".") for part in item.key.split("/")):
            left_out.add("hidden files", item.key)
        elif (f".{suffix[2]}" in SUFFIXES and suffix[1]) or others(item.key):
            yield item
        elif f".{suffix[2]}" in OTHER_IMAGES:
            left_out.add(UNREAD, item.key)
        else:
            left_out.add("other files", item.key)


def _suffix(key: str) -> str:
    return f".{key.lower().rpartition('.')[2]}"


def _class(key: str) -> str:
    first, separator, _ = key.partition("/")
    return first if separator else ""
