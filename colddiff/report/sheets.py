"""Sheets of images in labelled columns and rows; grids and strips are built on them."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from colddiff.errors import DataError

TILE = 128
"""Smaller images are enlarged by an integer factor to about this side, px."""
MARGIN, GUTTER, GROUP_GAP = 32, 8, 24
PAPER, INK, SOFT = "#ffffff", "#1c1c1e", "#6e6e73"
FONT = "mpl-data/fonts/ttf/DejaVuSans.ttf"
TITLE, LABEL, SMALL = 22, 17, 14
CAPTION_GAP, CAPTION_PITCH = 12, 22
Tiles = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class SheetColumn:
    """A column: label, images below it, uint8 [N, C, H, W], and caption lines under them."""

    label: str
    images: Tiles
    captions: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Layout:
    """Positions of a sheet's tiles and texts, px."""

    tile: tuple[int, int]
    left: int
    top: int
    lefts: tuple[int, ...]
    tops: tuple[int, ...]
    size: tuple[int, int]


def draw_sheet(
    columns: Sequence[SheetColumn],
    row_labels: Sequence[str] = (),
    *,
    title: str = "",
    subtitle: str = "",
    notes: Sequence[str] = (),
    rows_per_group: int = 0,
) -> Image.Image:
    """An RGB image of the columns side by side, with pixels enlarged without smoothing.

    Args:
        columns: all with the same number of images, of the same shape.
        row_labels: one per row, or none.
        title: heading; ``subtitle`` is a second line in grey.
        notes: sentences below the images, broken into lines of the sheet's width.
        rows_per_group: groups of this many rows are separated by a wider gap.

    Raises:
        DataError: columns of different shapes, or without images.
    """
    rows = _check(columns)
    layout = _layout(columns, row_labels, bool(title), bool(subtitle), rows_per_group or rows)
    lines = [line for note in notes for line in _broken(note, layout.size[0] - 2 * MARGIN)]
    whole = (layout.size[0], layout.size[1] + len(lines) * CAPTION_PITCH)
    sheet = Image.new("RGB", whole, PAPER)
    draw = ImageDraw.Draw(sheet)
    if title:
        draw.text((MARGIN, MARGIN), title, INK, font(TITLE), anchor="lt")
    if subtitle:
        draw.text((MARGIN, MARGIN + 36), subtitle, SOFT, font(SMALL), anchor="lt")
    width, height = layout.tile
    for column, left in zip(columns, layout.lefts, strict=True):
        centre = left + width // 2
        draw.text((centre, layout.top - 12), column.label, INK, font(LABEL), anchor="ms")
        for image, top in zip(column.images, layout.tops, strict=True):
            sheet.paste(tile(image).resize((width, height), Image.Resampling.NEAREST), (left, top))
        below = layout.tops[-1] + height + CAPTION_GAP
        for number, line in enumerate(column.captions):
            place = (centre, below + number * CAPTION_PITCH)
            draw.text(place, line, SOFT, font(SMALL), anchor="mt")
    for label, top in zip(row_labels, layout.tops, strict=False):
        place = (layout.lefts[0] - 14, top + height // 2)
        draw.text(place, label, SOFT, font(SMALL), anchor="rm")
    for number, line in enumerate(lines):
        place = (MARGIN, layout.size[1] - CAPTION_GAP + number * CAPTION_PITCH)
        draw.text(place, line, SOFT, font(SMALL), anchor="lt")
    return sheet


def tile(image: Tiles) -> Image.Image:
    """An RGB picture of an image, uint8 [C, H, W]."""
    if image.shape[0] not in (1, 3):
        # Neither grey nor colour: show the mean over channels.
        image = image.mean(axis=0, keepdims=True).round().astype(np.uint8)
    rgb = np.broadcast_to(image, (3, *image.shape[1:])).transpose(1, 2, 0)
    return Image.fromarray(np.ascontiguousarray(rgb), "RGB")


def png(sheet: Image.Image) -> bytes:
    """Encode a picture as PNG."""
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG")  # `optimize` takes four times as long for 4 % less
    return buffer.getvalue()


@lru_cache(maxsize=8)
def font(size: int) -> ImageFont.FreeTypeFont:
    """That of the plots, of which matplotlib brings a copy: pictures look the same everywhere."""
    package = find_spec("matplotlib")  # importing it takes longer than a sheet
    assert package is not None
    assert package.submodule_search_locations is not None
    return ImageFont.truetype(Path(package.submodule_search_locations[0]) / FONT, size)


def _check(columns: Sequence[SheetColumn]) -> int:
    shapes = {column.images.shape for column in columns}
    if len(shapes) != 1 or len(next(iter(shapes))) != 4 or 0 in next(iter(shapes)):
        raise DataError(
            "pictures: expected columns of equally many images [N, C, H, W], got "
            f"{sorted(map(list, shapes))}"
        )
    return int(next(iter(shapes))[0])


def _layout(
    columns: Sequence[SheetColumn],
    row_labels: Sequence[str],
    title: bool,
    subtitle: bool,
    group: int,
) -> Layout:
    rows, _, height, width = columns[0].images.shape
    factor = max(1, round(TILE / max(height, width)))
    tile_size = (width * factor, height * factor)
    texts = [text for c in columns for text in (c.label, *c.captions)]
    # A column is at least as wide as its texts, so that labels of small tiles do not overlap.
    pitch = max(tile_size[0], *(_width(text, LABEL) for text in texts)) + GUTTER
    names = max((_width(text, SMALL) + 14 for text in row_labels), default=0)
    left = MARGIN + names
    top = MARGIN + 28 + (44 if title else 0) + (26 if subtitle else 0)
    inset = (pitch - GUTTER - tile_size[0]) // 2
    lefts = tuple(left + inset + i * pitch for i in range(len(columns)))
    tops = tuple(
        top + row * (tile_size[1] + GUTTER) + (row // group) * (GROUP_GAP - GUTTER)
        for row in range(rows)
    )
    captions = max(len(column.captions) for column in columns)
    bottom = (
        tops[-1]
        + tile_size[1]
        + (CAPTION_GAP + captions * CAPTION_PITCH if captions else 0)
        + MARGIN
    )
    return Layout(
        tile_size, left, top, lefts, tops, (left + len(columns) * pitch - GUTTER + MARGIN, bottom)
    )


def _broken(text: str, width: int) -> list[str]:
    """``text`` in lines of at most ``width`` px; a word wider than that is a line."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and _width(longer, SMALL) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines


def _width(text: str, size: int) -> int:
    return int(font(size).getlength(text)) + 1
