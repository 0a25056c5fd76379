"""The slices of a NIfTI volume, axial, with the front of the body at the top."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from numpy.typing import NDArray

from colddiff.data.stacks.frames import (
    MAX_DEFLATE,
    Frames,
    refuse_cut,
    refuse_size,
    said,
    whole_levels,
)
from colddiff.errors import DataError

# Its remarks on files that are read all the same; what is wrong with others is in the error.
logging.getLogger("nibabel.global").setLevel(logging.CRITICAL)


def count_frames(path: Path, where: str, passed_over: Callable[[str, str], None]) -> int:
    """Number of axial slices, over all volumes of a 4-d file. Raises DataError."""
    image = _opened(path, where)
    shape = [int(side) for side in image.shape]
    axes = _axes(image)
    if axes is not None:
        shape[:3] = [side for _, side in sorted(zip(axes, shape[:3], strict=True))]
    width, height, *others = [*shape, 1, 1][: max(len(shape), 2)]
    count = math.prod(others)
    itemsize = max(image.get_data_dtype().itemsize, 1)
    refuse_size(height, width, count, itemsize, where)
    packed = MAX_DEFLATE if path.name.lower().endswith(".gz") else 1
    start = int(getattr(image.dataobj, "offset", 0))
    size = path.stat().st_size
    if size * packed < start + count * height * width * itemsize:
        refuse_cut(size, start + count * height * width * itemsize, where)
    return count


def read_frames(path: Path, where: str) -> Frames:
    """All slices, [N, H, W]; of a volume that is scaled, its physical values. Raises DataError."""
    image = _opened(path, where)
    try:
        if _axes(image) is not None:
            image = nibabel.as_closest_canonical(image)
        values = np.asanyarray(image.dataobj)
    except Exception as error:  # cut off, or damaged anywhere
        raise DataError(f"{where}: cannot be read ({said(error)}); is it cut off?") from None
    if values.dtype.names:
        values = _colours(values, where)
        # x, y, z, ..., channel -> ..., z, y, x, channel
        turned = values.transpose(*range(values.ndim - 2, -1, -1), values.ndim - 1)
        turned = turned.reshape(-1, *turned.shape[-3:])[:, ::-1]
        return Frames(turned, 255)
    turned = values.transpose(*range(values.ndim - 1, -1, -1))
    turned = turned.reshape(-1, *turned.shape[-2:])[:, ::-1]
    if turned.dtype.kind not in "biuf":
        raise DataError(f"{where}: holds {turned.dtype}, not real numbers")
    return Frames(turned, whole_levels(turned.dtype), physical=True)


def _opened(path: Path, where: str) -> Any:
    try:
        image = nibabel.load(path)
    except Exception as error:  # a damaged header may be anything
        raise DataError(f"{where}: not a NIfTI file, or damaged ({said(error)})") from None
    if any(side < 0 for side in image.shape):
        raise DataError(f"{where}: damaged: its shape is {list(image.shape)}")
    if len(image.shape) < 2 or not all(image.shape):
        raise DataError(f"{where}: holds no images: its shape is {list(image.shape)}")
    return image


def _axes(image: Any) -> list[int] | None:
    """Where the first three axes go so that they point right, to the front and up.

    None for an image, or a file that does not say how its axes lie.
    """
    if len(image.shape) < 3:
        return None
    try:
        places = nibabel.io_orientation(image.affine)[:, 0]
    except Exception:  # an affine with NaN has no axes
        return None
    if np.isnan(places).any():
        return None
    return [int(place) for place in places]


def _colours(values: NDArray[Any], where: str) -> NDArray[np.uint8]:
    """RGB(A) values, which NIfTI stores as records, as uint8 [..., 3]."""
    names = values.dtype.names or ()
    if names[:3] != ("R", "G", "B") or values.dtype["R"] != np.uint8:
        raise DataError(f"{where}: holds {values.dtype}, not real numbers")
    return np.stack([values[name] for name in names[:3]], axis=-1)
