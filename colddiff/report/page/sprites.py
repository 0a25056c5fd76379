"""Sprite sheets: many small images in one picture, which a page shows one cell at a time."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

LOSSLESS_SIDE = 64
"""Images up to this side are kept exactly; larger ones as lossy WebP."""
QUALITY = 82
Grid = NDArray[np.uint8]


def sprite_sheet(cells: Grid) -> bytes:
    """A WebP of ``cells``, uint8 [rows, columns, C, H, W], side by side without gaps.

    Images with other than 1 or 3 channels are shown as the mean over their channels.
    """
    rows, columns, channels, height, width = cells.shape
    if channels not in (1, 3):
        cells = cells.mean(axis=2, keepdims=True).round().astype(np.uint8)
    sheet = cells.transpose(0, 3, 1, 4, 2).reshape(rows * height, columns * width, -1)
    picture = Image.fromarray(np.broadcast_to(sheet, (*sheet.shape[:2], 3)).copy(), "RGB")
    buffer = io.BytesIO()
    if max(height, width) <= LOSSLESS_SIDE:
        picture.save(buffer, "WEBP", lossless=True, quality=60, method=4)
    else:
        picture.save(buffer, "WEBP", quality=QUALITY, method=4)
    return buffer.getvalue()


def cells_of(sheet: bytes, rows: int, columns: int) -> Grid:
    """The cells of a sheet, uint8 [rows, columns, 3, H, W]."""
    with Image.open(io.BytesIO(sheet)) as picture:
        pixels = np.asarray(picture.convert("RGB"))
    height, width = pixels.shape[0] // rows, pixels.shape[1] // columns
    cells = pixels.reshape(rows, height, columns, width, 3)
    return np.ascontiguousarray(cells.transpose(0, 2, 4, 1, 3))


def last_column(sheet: bytes, rows: int, columns: int) -> Grid:
    """The cells of the last column of a sheet, uint8 [rows, 3, H, W]."""
    return cells_of(sheet, rows, columns)[:, -1]
