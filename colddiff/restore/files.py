"""Input files of a restoration: finds them, names their results, reads and converts them."""

from __future__ import annotations

import glob
import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from colddiff.data.pil_images import (
    FILE_FORMATS,
    Pixels,
    crop_and_resize,
    decode_image,
    with_channels,
)
from colddiff.data.sources.image_folder import MAX_FILE_BYTES, SUFFIXES
from colddiff.errors import DataError, SpecError
from colddiff.stores.paths import expanded
from colddiff.types import ImageShape


@dataclass(frozen=True, slots=True)
class ImageFile:
    """A file, and the name of its result: its path below the source folder, without suffix."""

    path: Path
    name: str


@dataclass(frozen=True, slots=True)
class Picture:
    """A decoded file: pixels [H, W, C], uint8 or uint16, and the sha256 of the file."""

    pixels: Pixels
    sha256: str


def found_images(sources: Sequence[str], out: Path | None = None) -> list[ImageFile]:
    """Find the image files in ``sources``: files, folders (recursively) and glob patterns.

    Hidden files and files below ``out`` are skipped.

    Raises:
        DataError: a source without images.
        SpecError: two files whose results would have the same name.
    """
    files: dict[str, Path] = {}
    for source in sources:
        for path, name in _of(source, out):
            first = files.setdefault(name, path)
            if first != path:
                raise SpecError(
                    f"{first} and {path} would both become {name}.png; restore them into two "
                    "folders, or use their common parent folder as the source"
                )
    return [ImageFile(path, name) for name, path in sorted(files.items())]


def _of(source: str, out: Path | None) -> list[tuple[Path, str]]:
    path = expanded(source)
    if path.is_dir():
        found = [(item, _name(item.relative_to(path))) for item in _below(path, out)]
    elif path.exists():
        return [(path, _name(Path(path.name)))]
    else:
        matches = sorted(Path(match) for match in _matches(str(path)))
        found = [(item, _name(Path(item.name))) for item in matches if _is_image(item)]
    if not found:
        what = "no such file or folder" if not path.is_dir() else "no images found"
        raise DataError(f"{source}: {what} (files ending in {', '.join(sorted(SUFFIXES))})")
    return found


def _matches(pattern: str) -> list[str]:
    # A quoted pattern arrives unexpanded, and Path.glob does not accept absolute patterns.
    return glob.glob(pattern, recursive=True)  # noqa: PTH207


def _below(folder: Path, out: Path | None) -> Iterable[Path]:
    for path in sorted(folder.rglob("*")):
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        inside_out = out is not None and out.absolute() in path.absolute().parents
        if _is_image(path) and not hidden and not inside_out:
            yield path


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and path.is_file()


def _name(relative: Path) -> str:
    return str(PurePosixPath(*relative.parts).with_suffix(""))


def read_picture(path: Path) -> Picture:
    """Read and decode the file; raises DataError naming it."""
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise DataError(f"{path}: more than the limit of {MAX_FILE_BYTES} bytes")
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None
    pixels = decode_image(data, str(path), FILE_FORMATS)
    return Picture(pixels, hashlib.sha256(data).hexdigest())


def conformed(
    pixels: Pixels, shape: ImageShape, where: str, *, fit: bool = False, any_size: bool = False
) -> Pixels:
    """Convert ``pixels`` for a checkpoint trained on images of ``shape``.

    Grey is repeated for a checkpoint of colour images. Raises DataError for a colour image if the
    checkpoint takes grey ones, and for another size unless ``fit`` (centre crop, then resize) or
    ``any_size`` is set.
    """
    pixels = _channels(pixels, shape, where)
    height, width = pixels.shape[:2]
    if (height, width) == (shape.height, shape.width) or any_size:
        return pixels
    if fit:
        return crop_and_resize(pixels, shape.height)
    raise DataError(
        f"{where}: is {height}x{width} px, the checkpoint takes {shape.height}x{shape.width}; "
        "--fit crops the centre square and resizes it, --any-size restores at the original size, "
        "for which the network was not trained"
    )


def _channels(pixels: Pixels, shape: ImageShape, where: str) -> Pixels:
    found = pixels.shape[2]
    if found == shape.channels:
        return pixels
    if found == 1:
        if pixels.dtype == np.uint16:
            raise DataError(
                f"{where}: a 16-bit grey image, but the checkpoint produces colour images, which "
                "have 8 bits; convert it to 8 bit first"
            )
        return with_channels(pixels, shape.channels)
    # Many programs write grey images with three equal channels; dropping two loses nothing.
    if bool((pixels == pixels[:, :, :1]).all()):
        return with_channels(pixels, 1)
    raise DataError(
        f"{where}: a colour image, but the checkpoint takes grey images; convert it to grey first"
    )
