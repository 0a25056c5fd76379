"""The frames of a DICOM file, with the modality's values: Hounsfield units of a CT, for example."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom.errors import InvalidDicomError
from pydicom.pixels import apply_color_lut, apply_modality_lut, pixel_array

from colddiff.data.stacks.frames import MAX_DEFLATE, Frames, refuse_cut, refuse_size, said
from colddiff.errors import DataError

NO_IMAGE = "DICOM files without an image, such as reports"
FRAGMENT_BYTES = 8
"""Of a compressed frame, besides its data: the tag and length of a fragment."""
DECODERS = "pip install pylibjpeg pylibjpeg-libjpeg pylibjpeg-openjpeg"
_PYDICOM = r"pydicom\."
# Its remarks on files that are read all the same; what is wrong with others is in the error.
logging.getLogger("pydicom").setLevel(logging.CRITICAL)


def count_frames(path: Path, where: str, passed_over: Callable[[str, str], None]) -> int:
    """Number of frames, 0 of a report and the like; reads the header only. Raises DataError."""
    dataset = _read(path, where, stop_before_pixels=True)
    if "Rows" not in dataset:
        passed_over(NO_IMAGE, "")
        return 0
    return _described(dataset, where, path.stat().st_size)[0]


def read_frames(path: Path, where: str) -> Frames:
    """All frames, decoded; raises DataError, naming the package that brings a missing decoder."""
    dataset = _read(path, where)
    count, channels = _described(dataset, where, path.stat().st_size)
    try:
        values = np.asarray(pixel_array(dataset))
        if _text(dataset, "PhotometricInterpretation") == "PALETTE COLOR":
            values = np.asarray(apply_color_lut(values, dataset))
            channels = 3
            if values.dtype == np.uint16:
                values = (values >> 8).astype(np.uint8)
    except Exception as error:  # a decoder may raise anything
        raise DataError(f"{where}: {_why(dataset, error)}") from None
    if channels == 3:
        if values.dtype != np.uint8:
            raise DataError(f"{where}: colour of more than 8 bits per channel; convert it to 8 bit")
        return Frames(values.reshape(count, *values.shape[-3:]), 255)
    values = values.reshape(count, *values.shape[-2:])
    inverted = _text(dataset, "PhotometricInterpretation") == "MONOCHROME1"
    if dataset.get("ModalityLUTSequence"):
        return Frames(apply_modality_lut(values, dataset), None, physical=True, inverted=inverted)
    scales = [_rescale(dataset, n) for n in range(count)]
    if any(scale != (1, 0) for scale in scales):
        slopes, intercepts = (
            np.array(part, np.float64).reshape(-1, 1, 1) for part in zip(*scales, strict=True)
        )
        return Frames(values * slopes + intercepts, None, physical=True, inverted=inverted)
    if values.dtype.kind != "u":
        return Frames(values, None, physical=True, inverted=inverted)
    stored = int(dataset.get("BitsStored", 0) or 8 * values.dtype.itemsize)
    largest = 2**stored - 1 if stored <= 16 else None
    return Frames(values, largest, physical=True, inverted=inverted)


def _rescale(dataset: Any, frame: int) -> tuple[float, float]:
    """Slope and intercept of a frame: the file's, or in an enhanced one those of the frame."""
    groups = [dataset]
    for name in ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"):
        items = dataset.get(name) or ()
        number = frame if name.startswith("Per") else 0
        if number < len(items):
            groups += items[number].get("PixelValueTransformationSequence") or ()
    slope, intercept = 1.0, 0.0
    for group in groups:
        slope = float(group.get("RescaleSlope", slope) or 1)
        intercept = float(group.get("RescaleIntercept", intercept) or 0)
    return slope, intercept


def _read(path: Path, where: str, *, stop_before_pixels: bool = False) -> Any:
    known = (getattr(entry[3], "pattern", entry[3]) for entry in warnings.filters)
    if _PYDICOM not in known:
        # About values outside of the standard, which most scanners write.
        warnings.filterwarnings("ignore", module=_PYDICOM)
    try:
        return pydicom.dcmread(path, stop_before_pixels=stop_before_pixels)
    except InvalidDicomError:
        raise DataError(f"{where}: not a DICOM file, or damaged") from None
    except Exception as error:  # a damaged header may be anything
        raise DataError(f"{where}: damaged ({said(error)})") from None


def _described(dataset: Any, where: str, size: int) -> tuple[int, int]:
    """Number of frames and channels; raises DataError for a file without pixels.

    ``size``: of the file, bytes, which may be too few for the frames that it claims.
    """
    try:
        height, width = int(dataset.get("Rows") or 0), int(dataset.get("Columns") or 0)
        count = int(dataset.get("NumberOfFrames") or 1)
        channels = int(dataset.get("SamplesPerPixel") or 1)
        bits = int(dataset.get("BitsAllocated") or 8)
    except Exception:
        raise DataError(f"{where}: damaged: its size is no number") from None
    if not height or not width:
        raise DataError(f"{where}: damaged: its image is {width}x{height}")
    if channels not in (1, 3):
        raise DataError(f"{where}: has {channels} channels; 1 and 3 are read")
    refuse_size(height, width, count, max(bits // 8, 1) * channels, where)
    refuse_cut(size, _fewest_bytes(dataset, count, height * width * channels * bits), where)
    return count, channels


def _fewest_bytes(dataset: Any, count: int, bits: int) -> int:
    """The least size of a file with ``count`` frames of so many bits each."""
    syntax = getattr(getattr(dataset, "file_meta", None), "TransferSyntaxUID", None)
    if getattr(syntax, "is_encapsulated", False):
        return count * FRAGMENT_BYTES
    if _text(dataset, "PhotometricInterpretation") == "YBR_FULL_422":
        bits = bits * 2 // 3  # two pixels share their colour
    whole = count * bits // 8
    return whole // MAX_DEFLATE if getattr(syntax, "is_deflated", False) else whole


def _text(dataset: Any, name: str) -> str:
    return str(dataset.get(name) or "").strip().upper()


def _why(dataset: Any, error: Exception) -> str:
    """What is wrong with the pixels of a file, and what to do about it."""
    syntax = getattr(getattr(dataset, "file_meta", None), "TransferSyntaxUID", None)
    lacking = ("missing dependencies", "no decoder", "does not support")
    if syntax is not None and any(sign in str(error) for sign in lacking):
        name = getattr(syntax, "name", str(syntax))
        return f"is compressed as {name}, for which no decoder is installed: {DECODERS}"
    return f"its pixels cannot be decoded ({said(error)})"
