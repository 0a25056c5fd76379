"""The output folder of a restoration: existing results, and what each was made from."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from colddiff.data.pil_images import PNG_END, Pixels, decode_image, png_text, with_png_text
from colddiff.data.problems import Problems
from colddiff.errors import DataError, Missing, SpecError
from colddiff.ports import ListedKey
from colddiff.report.sheets import SheetColumn, draw_sheet, png
from colddiff.restoration.files import ImageFile
from colddiff.restoration.marks import RECORD, STRIP, is_result
from colddiff.restoration.scores import Score
from colddiff.stores.local_store import LocalStore
from colddiff.types import Image

WITHOUT = {"precision": "fp32"}
"""Settings of results whose record lacks them: it was written before they could be chosen."""
WAY_OUT = "use --overwrite to replace it, or another --out"
IMAGE_FIELDS = ("input_sha256", "omega_sha256")
"""Fields of the record that differ per image; the others are the command's settings."""


@dataclass(frozen=True, slots=True)
class Results:
    """Results below ``store``: one PNG per image, written atomically."""

    store: LocalStore
    settings: Mapping[str, Any]
    strip: bool

    def key(self, name: str) -> str:
        """Key of the result of ``name``, relative to the output folder."""
        # The name is that of a file of the user's, which has rules of its own.
        return ListedKey(f"{name}{STRIP if self.strip else '.png'}")

    def path(self, name: str) -> Path:
        """Path of the result of ``name``."""
        return self.store.path(self.key(name))

    def existing(self, files: Sequence[ImageFile], overwrite: bool) -> dict[str, dict[str, Any]]:
        """Records of existing results, by name.

        Raises DataError naming all that were made with other settings: neither skipping nor
        replacing them would be safe.
        """
        found: dict[str, dict[str, Any]] = {}
        problems = Problems()
        for file in files:
            record = self._record(file.name)
            if record is None or overwrite:
                continue
            differs = [
                f"{name} {record.get(name)!r}, not {value!r}"
                for name, value in self.settings.items()
                if record.get(name) != value
            ]
            if differs:
                problems.add(
                    f"{self.path(file.name)} already exists and was made with {'; '.join(differs)}"
                )
            found[file.name] = record
        problems.refuse("results were made with other settings", WAY_OUT)
        return found

    def refuse_another(
        self, name: str, record: Mapping[str, Any], image: Mapping[str, Any]
    ) -> None:
        """Raises SpecError if ``name`` was made from another image or omega."""
        for part in IMAGE_FIELDS:
            if record.get(part) != image.get(part):
                different = part.removesuffix("_sha256")
                raise SpecError(
                    f"{self.path(name)} already exists and was made from a different {different}; "
                    f"{WAY_OUT}"
                )

    def write(self, name: str, png_file: bytes, image: Mapping[str, Any]) -> None:
        """Write the finished PNG, with the record of what it was made from."""
        record = json.dumps({**self.settings, **image}, sort_keys=True)
        self.store.put(self.key(name), with_png_text(png_file, RECORD, record))

    def _record(self, name: str) -> dict[str, Any] | None:
        """The record of a result; {} for a file without one, None if it has to be made.

        A result that is cut off or damaged has to be made again.
        """
        try:
            data = self.store.get(self.key(name))
        except Missing:
            return None
        try:
            decode_image(data, name, strictly=True)
            whole = data.endswith(PNG_END)
        except DataError:
            whole = False
        if not whole:
            return None if is_result(self.path(name)) else {}
        text = png_text(data, RECORD)
        try:
            found = json.loads(text or "{}")
        except (ValueError, RecursionError):
            return {}
        return {**WITHOUT, **found} if isinstance(found, dict) and found else {}


def to_pixels(x: Image, like: np.dtype[Any]) -> Pixels:
    """Pixels [H, W, C] of one image [C, H, W]: clamped to [-1, 1], rounded to dtype ``like``."""
    full = np.iinfo(like).max
    scaled = torch.round((x.double().clamp(-1, 1) + 1) * (full / 2))
    levels: NDArray[Any] = scaled.numpy().astype(like)
    return np.ascontiguousarray(levels.transpose(1, 2, 0))


def draw_strip(
    rows: Mapping[str, Mapping[str, Pixels]],
    scores: Mapping[str, Score],
    title: str = "",
    note: str = "",
) -> bytes:
    """A PNG of images [H, W, C] by row label and column label, with scores below if known.

    ``note`` stands below them, in lines as short as a few images are wide.
    """
    columns = [
        SheetColumn(
            label,
            np.stack([_eight_bit(row[label]) for row in rows.values()]),
            scores[label].lines() if label in scores else (),
        )
        for label in next(iter(rows.values()))
    ]
    labels = list(rows) if len(rows) > 1 else ()
    return png(draw_sheet(columns, labels, title=title, notes=[note] * bool(note)))


def _eight_bit(pixels: Pixels) -> NDArray[np.uint8]:
    """uint8 [C, H, W], for display."""
    if pixels.dtype == np.uint16:
        pixels = np.rint(pixels / 257).astype(np.uint8)
    return np.ascontiguousarray(pixels.transpose(2, 0, 1).astype(np.uint8))
