"""Images in NumPy's files: an array of an ``.npy``, the arrays of an ``.npz``. Never unpickled."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from colddiff.data.stacks.frames import (
    MAX_DEFLATE,
    MAX_STACK_BYTES,
    Frames,
    refuse_cut,
    refuse_size,
    said,
    whole_levels,
)
from colddiff.errors import DataError

PassedOver = Callable[[str, str], None]
NO_IMAGES = "arrays of an .npz that hold no images"
KINDS = "biuf"
"""Of dtypes that are read: truth values, integers, floating."""
CHANNELS = (1, 3)
LEAST = {zipfile.ZIP_STORED: 1, zipfile.ZIP_DEFLATED: MAX_DEFLATE}
"""Bytes that one byte in a zip file stands for at most, by compression; others have no bound."""
WITH_ALPHA = 4
"""Length of a last axis of red, green, blue and alpha, after a longer one."""


@dataclass(frozen=True, slots=True)
class _Layout:
    """How the axes of an array make images."""

    count: int
    height: int
    width: int
    channels: int
    """0 for an array without such an axis."""
    first: bool = False
    """Whether the channels come before height and width."""


def count_frames(path: Path, where: str, passed_over: PassedOver) -> int:
    """Number of images in the file; reads headers only. Raises DataError."""
    if path.suffix.lower() != ".npz":
        with path.open("rb") as file:
            shape, dtype, _ = _header(file, where)
            _refuse_cut(file, path, shape, dtype, where)
        return _layout(shape, dtype, where).count
    return sum(layout.count for _, layout in _members(path, where, passed_over))


def read_frames(path: Path, where: str) -> Frames:
    """All images of the file; an ``.npy`` stays on the disk. Raises DataError."""
    if path.suffix.lower() != ".npz":
        with path.open("rb") as file:
            shape, dtype, _ = _header(file, where)
            _refuse_cut(file, path, shape, dtype, where)
        array = np.load(path, mmap_mode="r", allow_pickle=False)
        return Frames(_images(array, _layout(shape, dtype, where)), whole_levels(dtype))
    parts = []
    with zipfile.ZipFile(path) as archive:
        for name, layout in _members(path, where, lambda why, name: None):
            with archive.open(name) as member:
                parts.append(_images(npy.read_array(member, allow_pickle=False), layout))
    whole = parts[0] if len(parts) == 1 else np.concatenate(parts)
    return Frames(whole, whole_levels(whole.dtype))


def _header(file: IO[bytes], where: str) -> tuple[tuple[int, ...], np.dtype[Any], bool]:
    try:
        version = npy.read_magic(file)
        if version == (1, 0):
            shape, fortran, dtype = npy.read_array_header_1_0(file)
        elif version == (2, 0):
            shape, fortran, dtype = npy.read_array_header_2_0(file)
        else:
            raise DataError(f"{where}: is of version {version} of the format, which is not read")
    except DataError:
        raise
    except Exception as error:  # a header may be any text
        raise DataError(f"{where}: not a NumPy array, or damaged ({said(error)})") from None
    if dtype.hasobject:
        raise DataError(
            f"{where}: holds Python objects, which are never loaded; save numbers: "
            "np.save(path, np.stack(images))"
        )
    if dtype.kind not in KINDS:
        raise DataError(f"{where}: holds {dtype}, not real numbers")
    if any(side < 0 for side in shape):
        raise DataError(f"{where}: damaged: its shape is {list(shape)}")
    return shape, dtype, fortran


def _refuse_cut(
    file: IO[bytes], path: Path, shape: tuple[int, ...], dtype: np.dtype[Any], where: str
) -> None:
    refuse_cut(path.stat().st_size, file.tell() + _bytes(shape, dtype), where)


def _bytes(shape: tuple[int, ...], dtype: np.dtype[Any]) -> int:
    total = int(dtype.itemsize)
    for side in shape:
        total *= side
    return total


def _layout(shape: tuple[int, ...], dtype: np.dtype[Any], where: str) -> _Layout:
    """[H, W], [N, H, W], [H, W, C], [N, H, W, C], [N, C, H, W] or [T, Z, H, W]; C is 1 or 3."""
    if len(shape) in (3, 4) and shape[-1] == WITH_ALPHA < shape[-2]:
        raise DataError(
            f"{where}: has the shape {list(shape)}, with 4 channels; 1 and 3 are read: leave alpha "
            "out, array[..., :3]"
        )
    if len(shape) == 2:
        layout = _Layout(1, *shape, channels=0)
    elif len(shape) == 3 and shape[2] in CHANNELS:
        layout = _Layout(1, *shape)
    elif len(shape) == 3:
        layout = _Layout(*shape, channels=0)
    elif len(shape) == 4 and shape[3] in CHANNELS:
        layout = _Layout(*shape)
    elif len(shape) == 4 and shape[1] in CHANNELS:
        layout = _Layout(shape[0], shape[2], shape[3], shape[1], first=True)
    elif len(shape) == 4:
        layout = _Layout(shape[0] * shape[1], shape[2], shape[3], channels=0)
    else:
        raise DataError(
            f"{where}: has the shape {list(shape)}; images are [H, W], [N, H, W], [N, H, W, C] or "
            "[N, C, H, W]"
        )
    size = dtype.itemsize * max(layout.channels, 1)
    refuse_size(layout.height, layout.width, layout.count, size, where)
    return layout


def _images(array: NDArray[Any], layout: _Layout) -> NDArray[Any]:
    """[N, H, W] or [N, H, W, 3], without a copy where there is none to make."""
    if array.ndim == 4 and not layout.channels:
        return array.reshape(-1, *array.shape[2:])
    whole = array if array.ndim == 4 or (array.ndim == 3 and not layout.channels) else array[None]
    if layout.first:
        whole = whole.transpose(0, 2, 3, 1)
    return whole[..., 0] if layout.channels == 1 else whole


def _members(path: Path, where: str, passed_over: PassedOver) -> list[tuple[str, _Layout]]:
    """The arrays of an ``.npz`` that hold images, which must be alike."""
    found: dict[str, tuple[tuple[int, ...], np.dtype[Any]]] = {}
    try:
        with zipfile.ZipFile(path) as archive:
            if sum(info.file_size for info in archive.infolist()) > MAX_STACK_BYTES:
                raise DataError(
                    f"{where}: holds more than {MAX_STACK_BYTES // 2**30} GiB; split the file"
                )
            for info in archive.infolist():
                name = f"{where}: {info.filename}"
                with archive.open(info) as member:
                    shape, dtype, _ = _header(member, name)
                    needed = member.tell() + _bytes(shape, dtype)
                refuse_cut(info.file_size, needed, name)
                if (
                    info.compress_type in LEAST
                    and needed > info.compress_size * LEAST[info.compress_type]
                ):
                    refuse_cut(info.compress_size, needed, name)
                found[info.filename] = shape, dtype
    except DataError:
        raise
    except Exception as error:  # zipfile raises many kinds
        raise DataError(f"{where}: not an .npz file, or damaged ({said(error)})") from None
    # Beside stacks of images, an array with two axes is a table, such as labels.
    fewest = 3 if any(len(shape) > 2 for shape, _ in found.values()) else 2
    for name, (shape, _) in found.items():
        if len(shape) < fewest:
            passed_over(NO_IMAGES, name)
    layouts = [
        (name, _layout(shape, dtype, f"{where}: {name}"))
        for name, (shape, dtype) in found.items()
        if len(shape) >= fewest
    ]
    if not layouts:
        raise DataError(f"{where}: holds no arrays of images")
    kinds = {
        (layout.height, layout.width, max(layout.channels, 1), str(found[name][1]))
        for name, layout in layouts
    }
    if len(kinds) > 1:
        arrays = ", ".join(f"{name} {list(found[name][0])} {found[name][1]}" for name, _ in layouts)
        raise DataError(
            f"{where}: its arrays differ ({arrays}); save those to pack in a file of their own"
        )
    return layouts
