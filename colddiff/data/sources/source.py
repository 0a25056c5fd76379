"""The interface of a source of images to pack: entries are listed first, then loaded one by one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from colddiff.data.pil_images import Pixels


@dataclass(frozen=True, slots=True)
class SourceEntry:
    """One image of a source: its name, its class label, and the source's own index for it."""

    name: str
    label: int | None = None
    index: int = 0
    size: int = 0
    """Its size in the source, bytes: detects changes of the source without loading images."""


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

    def entries(self, split: str | None) -> Sequence[SourceEntry]:
        """All images, or those of one official split; raises DataError if there are none."""

    def load(self, entry: SourceEntry) -> Pixels:
        """Decode the image, [H, W, C]; raises DataError naming it if that fails."""
