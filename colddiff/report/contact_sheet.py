"""Contact sheet: images of a set in a grid, without labels."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from colddiff.errors import DataError
from colddiff.report.sheets import PAPER, png, tile

GAP = 2
TILE = 64
"""Smaller images are enlarged by an integer factor to about this side, px."""


def contact_sheet(images: NDArray[np.uint8]) -> bytes:
    """A PNG of ``images``, uint8 [N, C, H, W], row by row in a nearly square grid.

    Raises DataError for no images or a wrong shape.
    """
    if images.ndim != 4 or not len(images):
        raise DataError(f"contact sheet: expected images [N, C, H, W], got {list(images.shape)}")
    count, _, height, width = images.shape
    columns = math.ceil(math.sqrt(count))
    rows = -(-count // columns)
    factor = max(1, round(TILE / max(height, width)))
    wide, tall = width * factor + GAP, height * factor + GAP
    sheet = Image.new("RGB", (columns * wide + GAP, rows * tall + GAP), PAPER)
    for number, image in enumerate(images):
        row, column = divmod(number, columns)
        shown = tile(image).resize((wide - GAP, tall - GAP), Image.Resampling.NEAREST)
        sheet.paste(shown, (GAP + column * wide, GAP + row * tall))
    return png(sheet)
