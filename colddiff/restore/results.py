"""The folder that results go to: what is there already, and what each file was made from."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from colddiff.data.pil_images import Pixels, png_text, with_png_text
from colddiff.errors import Missing, SpecError
from colddiff.report.sheets import Column, draw_sheet, png
from colddiff.restore.files import ImageFile
from colddiff.restore.scores import Comparison
from colddiff.stores.local_store import LocalStore
from colddiff.types import Image

RECORD = "colddiff-restore"
"""Keyword of the text in each PNG that says what it was made from, as JSON."""
OF_THE_IMAGE = ("input_sha256", "omega_sha256")
"""Parts of the record that differ from image to image; the others are the command's settings."""


@dataclass(frozen=True, slots=True)
class Results:
    """Below ``store``: one PNG for each image, complete or not there."""

    store: LocalStore
    settings: Mapping[str, Any]
    strip: bool

    def key(self, name: str) -> str:
        """Where the result of ``name`` goes, relative to the folder."""
        return f"{name}.strip.png" if self.strip else f"{name}.png"

    def path(self, name: str) -> Path:
        """Where the result of ``name`` goes."""
        return self.store.path(self.key(name))

    def existing(self, files: Sequence[ImageFile], overwrite: bool) -> dict[str, dict[str, Any]]:
        """What the results that are there were made from, by name.

        Raises SpecError where one was made by something else: neither skipping it nor replacing it
        would be what was asked for.
        """
        found: dict[str, dict[str, Any]] = {}
        for file in files:
            record = self._record(file.name)
            if record is None or overwrite:
                continue
            differs = [
                f"{name} {record.get(name)!r}, now {value!r}"
                for name, value in self.settings.items()
                if record.get(name) != value
            ]
            if differs:
                self._refuse(file.name, f"was made with another {'; '.join(differs)}")
            found[file.name] = record
        return found

    def refuse_another(
        self, name: str, record: Mapping[str, Any], image: Mapping[str, Any]
    ) -> None:
        """Raises SpecError where ``name`` was made from another image or omega."""
        for part in OF_THE_IMAGE:
            if record.get(part) != image.get(part):
                self._refuse(name, f"was made from another {part.removesuffix('_sha256')}")

    def write(self, name: str, png_file: bytes, image: Mapping[str, Any]) -> None:
        """Puts the finished PNG in its place, marked with what it was made from."""
        record = json.dumps({**self.settings, **image}, sort_keys=True)
        self.store.put(self.key(name), with_png_text(png_file, RECORD, record))

    def _record(self, name: str) -> dict[str, Any] | None:
        """The record of a result; {} for a file that is none, None where there is nothing."""
        try:
            text = png_text(self.store.get(self.key(name)), RECORD)
        except Missing:
            return None
        try:
            found = json.loads(text or "{}")
        except ValueError:
            return {}
        return found if isinstance(found, dict) else {}

    def _refuse(self, name: str, why: str) -> None:
        raise SpecError(
            f"{self.path(name)} is there already and {why}; --overwrite replaces it, another --out "
            "keeps both"
        )


def to_pixels(x: Image, like: np.dtype[Any]) -> Pixels:
    """[H, W, C] of one image [C, H, W]: clamped to [-1, 1], rounded to the depth of ``like``."""
    full = np.iinfo(like).max
    scaled = torch.round((x.double().clamp(-1, 1) + 1) * (full / 2))
    levels: NDArray[Any] = scaled.numpy().astype(like)
    return np.ascontiguousarray(levels.transpose(1, 2, 0))


def draw_strip(
    rows: Mapping[str, Mapping[str, Pixels]], comparisons: Mapping[str, Comparison], title: str
) -> bytes:
    """A PNG: rows by label of images [H, W, C] by column, PSNR below where it is known."""
    columns = [
        Column(
            label,
            np.stack([_eight_bit(row[label]) for row in rows.values()]),
            comparisons[label].restored.lines() if label in comparisons else (),
        )
        for label in next(iter(rows.values()))
    ]
    return png(draw_sheet(columns, list(rows) if len(rows) > 1 else (), title=title))


def _eight_bit(pixels: Pixels) -> NDArray[np.uint8]:
    """uint8 [C, H, W] to look at."""
    if pixels.dtype == np.uint16:
        pixels = np.rint(pixels / 257).astype(np.uint8)
    return np.ascontiguousarray(pixels.transpose(2, 0, 1).astype(np.uint8))
