"""What can be packed: a source of named images, listed first and loaded one by one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from colddiff.data.pil_images import Pixels


@dataclass(frozen=True, slots=True)
class SourceEntry:
    """One image of a source: its name there, its class, and where the source finds it again."""

    name: str
    label: int | None = None
    index: int = 0
    size: int = 0
    """Bytes it takes in the source: a change of the source shows here without loading it."""


class ImageSource(Protocol):
    """Images that can be packed; listing is cheap, loading decodes one image."""

    @property
    def uri(self) -> str:
        """The source as it is written on the command line, such as ``mnist:/data/mnist``."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the labels; empty where there are none."""

    @property
    def splits(self) -> tuple[str, ...]:
        """Names of its official parts, the default one first; empty where it has none."""

    @property
    def sorted_by_name(self) -> bool:
        """Whether neighbours are alike (a folder), so that packing must mix them."""

    @property
    def default_holdout(self) -> float | None:
        """The part held out when a split is asked for without saying how much of it."""

    def entries(self, split: str | None) -> Sequence[SourceEntry]:
        """Its images, or those of one official part; raises DataError where there are none."""

    def load(self, entry: SourceEntry) -> Pixels:
        """The image, [H, W, C]; raises DataError naming what does not decode."""
