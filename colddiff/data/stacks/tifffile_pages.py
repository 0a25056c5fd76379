"""The pages of a TIFF of several, the planes of an OME-TIFF, the slices of an ImageJ stack."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from colddiff.data.stacks.frames import Frames, refuse_size, said, whole_levels
from colddiff.errors import DataError

OTHERS = "thumbnails, masks and other images of another size in a TIFF"
MINISWHITE, MINISBLACK, RGB, PALETTE, MASK, YCBCR = 0, 1, 2, 3, 4, 6
GREY = (MINISWHITE, MINISBLACK, MASK)
SAMPLES = {1: GREY, 2: GREY, 3: (RGB, YCBCR), 4: (RGB, YCBCR)}
"""Photometric interpretations that are read, by samples of a pixel; alpha is dropped."""
ALPHA = (1, 2)
"""Kinds of an extra sample that are an alpha; 0 is one of no stated meaning."""
# Its remarks on files that are read all the same; what is wrong with others is in the error.
logging.getLogger("tifffile").setLevel(logging.CRITICAL)


def count_frames(path: Path, where: str, passed_over: Callable[[str, str], None]) -> int:
    """Number of images of the first one's size; reads no pixels. Raises DataError."""
    with _opened(path, where) as tiff:
        chosen, others = _series(tiff, where)
        for _ in range(others):
            passed_over(OTHERS, "")
        return sum(_count(series, where) for series in chosen)


def read_frames(path: Path, where: str) -> Frames:
    """All images; raises DataError, naming the package that brings a missing decoder."""
    with _opened(path, where) as tiff:
        chosen, _ = _series(tiff, where)
        try:
            found = [_images(series) for series in chosen]
            inverted = int(chosen[0].keyframe.photometric) == MINISWHITE
        except Exception as error:  # a decoder may raise anything
            why = said(error)
            if "imagecodecs" in why:
                why = f"{why}: pip install imagecodecs"
            raise DataError(f"{where}: its pages cannot be decoded ({why})") from None
    parts = [images for images, _ in found]
    whole = parts[0] if len(parts) == 1 else np.concatenate(parts)
    transparent = np.concatenate([hidden for _, hidden in found])
    if whole.dtype.kind not in "biuf":
        raise DataError(f"{where}: holds {whole.dtype}, not real numbers")
    return Frames(whole, whole_levels(whole.dtype), inverted=inverted, transparent=transparent)


def _opened(path: Path, where: str) -> Any:
    try:
        return tifffile.TiffFile(path)
    except Exception as error:  # a damaged header may be anything
        raise DataError(f"{where}: not a TIFF, or damaged ({said(error)})") from None


def _series(tiff: Any, where: str) -> tuple[list[Any], int]:
    """The images of the first one's size, in groups; and the number of other groups."""
    try:
        found = [series for series in tiff.series if not series.keyframe.is_reduced]
        first = _key(found[0])
        chosen = [series for series in found if _key(series) == first]
        return chosen, len(tiff.series) - len(chosen)
    except Exception as error:
        why = said(error)
        raise DataError(f"{where}: its pages cannot be listed ({why}); it is damaged") from None


def _key(series: Any) -> tuple[Any, ...]:
    page = series.keyframe
    return page.imagelength, page.imagewidth, page.samplesperpixel, str(series.dtype)


def _count(series: Any, where: str) -> int:
    """Number of images of a group; DataError where they are not read."""
    page = series.keyframe
    samples = int(page.samplesperpixel)
    colours = int(page.photometric)
    if colours not in SAMPLES.get(samples, ()) and (samples, colours) != (1, PALETTE):
        name = getattr(page.photometric, "name", colours)
        raise DataError(
            f"{where}: holds {name} of {samples} samples a pixel; grey, palettes and RGB are read"
        )
    height, width = int(page.imagelength), int(page.imagewidth)
    count = math.prod(map(int, series.shape)) // max(height * width * samples, 1)
    itemsize = np.dtype(series.dtype).itemsize if series.dtype is not None else 1
    refuse_size(height, width, count, itemsize * samples, where)
    return count


def _images(series: Any) -> tuple[Any, Any]:
    """[N, H, W] or [N, H, W, 3], and of each whether its alpha is not opaque everywhere, [N]."""
    values, page = series.asarray(), series.keyframe
    height, width, samples = page.imagelength, page.imagewidth, page.samplesperpixel
    if int(page.photometric) == PALETTE:
        colours = (np.asarray(page.colormap) >> 8).astype(np.uint8).T
        values = colours[values.reshape(-1, height, width)]
        return values, np.zeros(len(values), bool)
    if samples == 1:
        values = values.reshape(-1, height, width)
        return values, np.zeros(len(values), bool)
    values = np.moveaxis(values, series.axes.index("S"), -1)
    whole = values.reshape(-1, height, width, samples)
    hidden = np.zeros(len(whole), bool)
    if tuple(map(int, page.extrasamples))[:1] in {(kind,) for kind in ALPHA}:
        opaque = np.iinfo(whole.dtype).max if whole.dtype.kind in "iu" else 1
        hidden = np.array([bool((image[..., -1] < opaque).any()) for image in whole])
    return whole[..., 0] if samples == 2 else whole[..., :3], hidden
