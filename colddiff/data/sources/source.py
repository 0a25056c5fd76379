"""The interface of a source of images to pack: entries are listed first, then loaded one by one."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from colddiff.data.left_out import LeftOut
from colddiff.data.pil_images import Pixels
from colddiff.errors import DataError
from colddiff.ports import Store
from colddiff.spec import digest
from colddiff.stores.local_store import LocalStore
from colddiff.stores.paths import nearest_folder


@dataclass(frozen=True, slots=True)
class SourceEntry:
    """One image of a source: its name, its class label, and the source's own index for it."""

    name: str
    label: int | None = None
    index: int = 0
    size: int = 0
    """Its size in the source, bytes: detects changes of the source without loading images."""
    group: str = ""
    """The file that holds it among others, all of which belong into one split."""


class ImageSource(Protocol):
    """A source of images to pack; listing is cheap, loading decodes one image."""

    @property
    def uri(self) -> str:
        """The source as written on the command line, such as ``mnist:/data/mnist``."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the labels; empty if there are none."""

    @property
    def splits(self) -> tuple[str, ...]:
        """Names of the official splits, the default first; empty if there are none."""

    @property
    def sorted_by_name(self) -> bool:
        """Whether neighbouring entries are similar (a folder), so that packing must shuffle."""

    @property
    def default_holdout(self) -> float | None:
        """Holdout fraction used if a split is requested without ``holdout``; None: required."""

    @property
    def left_out(self) -> LeftOut:
        """What listing the entries passed over."""

    @property
    def multiframe(self) -> Collection[str]:
        """Names of the loaded images that have further pages or frames, which are not read."""

    @property
    def transparent(self) -> Collection[str]:
        """Names of the loaded images with transparency, whose alpha is dropped."""

    @property
    def earlier(self) -> ImageSource | None:
        """The source as versions saw it that read fewer formats; None where that is the same."""

    def entries(self, split: str | None) -> Sequence[SourceEntry]:
        """All images, or those of one official split; raises DataError if there are none."""

    def load(self, entry: SourceEntry) -> Pixels:
        """Decode the image, [H, W, C]; raises DataError naming it if that fails."""


class WholeSource:
    """The part of ``ImageSource`` of a set in a layout of its own, where nothing is passed over."""

    left_out = LeftOut()
    multiframe: Collection[str] = frozenset()
    transparent: Collection[str] = frozenset()
    earlier: ImageSource | None = None


def listing_digest(entries: Sequence[SourceEntry]) -> str:
    """sha256 over the names, labels and sizes of images in order: changes with the source."""
    return digest([[entry.name, entry.label, entry.size] for entry in entries])


def nothing_found(kind: str, store: Store, what: str, left_out: LeftOut) -> DataError:
    """The error of a source without images: what was given instead of the folder, or passed over.

    ``kind`` is its prefix, ``what`` the reason where the folder is there.
    """
    place, root = store.uri, Path(store.uri) if isinstance(store, LocalStore) else None
    folder, _, name = place.rpartition("/")
    use = f"give the folder that holds it, {kind}:{folder}"
    if root is not None and root.is_file():
        return DataError(f"{kind}:{place}: is a file; {use}, all of which is read")
    if any(sign in name for sign in "*?[{"):
        return DataError(f"{kind}:{place}: is a pattern; {use}, all of which is read")
    if root is not None and not root.exists():
        return DataError(f"{kind}:{place}: no such folder{nearest_folder(root)}")
    if root is None and name.endswith(".tar"):
        return DataError(f"{kind}:{place}: no objects below it; if it is one tar, {use}")
    passed = f"; passed over: {left_out}" if left_out else ""
    return DataError(f"{kind}:{place}: {what}{passed}")
