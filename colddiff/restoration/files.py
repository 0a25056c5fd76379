"""Input files of a restoration: finds them, names their results, reads and converts them."""

from __future__ import annotations

import glob
import hashlib
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from colddiff.data.left_out import LeftOut
from colddiff.data.manifest import KEY
from colddiff.data.pil_images import (
    FILE_FORMATS,
    Pixels,
    crop_and_resize,
    decode_file,
    with_channels,
)
from colddiff.data.problems import Problems
from colddiff.data.sources.image_folder import MAX_FILE_BYTES, SUFFIXES, image_files
from colddiff.errors import DataError
from colddiff.machine.files import is_regular, read_regular
from colddiff.restoration.marks import DEGRADED, is_degraded, is_result
from colddiff.stores.local_store import LocalStore
from colddiff.stores.paths import expanded, nearest_path
from colddiff.types import ImageShape

PACKED = (KEY, f"train/{KEY}", f"test/{KEY}")
"""What tells a folder of packed sets."""
RESULTS = "earlier results of `colddiff restore`"


@dataclass(frozen=True, slots=True)
class ImageFile:
    """A file, and the name of its result: its path below the source folder, without suffix.

    With it where another file beside it has the same name: ``x.jpg`` and ``x.png``.
    """

    path: Path
    name: str

    @property
    def has_double(self) -> bool:
        """Whether the suffix is a part of its name, as it tells the file from another."""
        return PurePosixPath(self.name).name == self.path.name


@dataclass(frozen=True, slots=True)
class Picture:
    """A decoded file: pixels [H, W, C], uint8 or uint16, and the sha256 of the file."""

    pixels: Pixels
    sha256: str
    multiframe: bool = False
    """Whether the file has further pages or frames, which are not restored."""
    transparent: bool = False
    """Whether the file has an alpha that is dropped, and not opaque everywhere."""


def found_images(
    sources: Sequence[str],
    out: Path | None = None,
    left_out: LeftOut | None = None,
) -> list[ImageFile]:
    """Find the image files in ``sources``: files, folders (with subfolders) and glob patterns.

    A folder is searched as ``colddiff data pack`` does, through links. Hidden files, files below
    ``out`` and earlier results of a restoration are passed over, and reported
    to ``left_out``.

    Raises:
        DataError: a source without images, a file that is an earlier result, or files whose
            results would have the same name.
    """
    passed = LeftOut() if left_out is None else left_out
    found: dict[str, dict[Path, None]] = {}
    for source in sources:
        for path, name in _of(source, out, passed):
            found.setdefault(name, {})[path] = None
    files: dict[str, Path] = {}
    problems, apart = Problems(), False
    for name, paths in found.items():
        beside = len(paths) > 1 and len({path.parent for path in paths}) == 1
        for path in paths:
            own = f"{name}{path.suffix}" if beside else name
            first = files.setdefault(own, path)
            if first != path:
                problems.add(f"{first} and {path} would both become {own}.png")
                apart = apart or first.parent != path.parent
    parent = "or use their common parent folder as the source" if apart else "or rename one"
    problems.refuse("results would be of two images", f"restore them into two folders, {parent}")
    return [ImageFile(path, name) for name, path in sorted(files.items())]


def _of(source: str, out: Path | None, left_out: LeftOut) -> list[tuple[Path, str]]:
    path = expanded(source)
    try:
        kind = path.stat().st_mode if path.exists() else None
    except (OSError, ValueError, RuntimeError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise DataError(f"{source:.80}: cannot be found ({why})") from None
    if kind is not None and stat.S_ISDIR(kind):
        found = list(_below(path, out, left_out))
    elif kind is not None:
        if is_result(path):
            raise DataError(
                f"{path}: is an earlier result of `colddiff restore`; give the image that it was "
                "made from"
            )
        return [(path, _name(Path(path.name)))]
    else:
        found = _matching(path, left_out)
    if not found:
        what = "no such file or folder" if kind is None else "no images found"
        if kind is not None and any((path / key).is_file() for key in PACKED):
            raise DataError(
                f"{source}: is a packed set, and restore takes image files: score a checkpoint on "
                "held-out images with `colddiff submit evaluate checkpoint=C "
                f"test_data={path if (path / KEY).is_file() else path / 'test'}`"
            )
        passed = f"; passed over: {left_out}" if left_out else ""
        if kind is not None and any(is_degraded(file) for file in path.glob(f"*{DEGRADED}")):
            passed += f"; images that --degrade made are restored by name: '{path}/*{DEGRADED}'"
        what += nearest_path(path) if kind is None else ""
        suffixes = ", ".join(sorted(SUFFIXES))
        raise DataError(f"{source}: {what} (files ending in {suffixes}){passed}")
    return found


def _matching(pattern: Path, left_out: LeftOut) -> list[tuple[Path, str]]:
    found = []
    for match in sorted(Path(match) for match in _matches(str(pattern))):
        if match.suffix.lower() not in SUFFIXES or not is_regular(match):
            left_out.add("other files", str(match))
        elif is_result(match):
            left_out.add(RESULTS, str(match))
        else:
            found.append((match, _name(Path(match.name))))
    return found


def _matches(pattern: str) -> list[str]:
    # A quoted pattern arrives unexpanded, and Path.glob does not accept absolute patterns.
    return glob.glob(pattern, recursive=True)  # noqa: PTH207


def _below(folder: Path, out: Path | None, left_out: LeftOut) -> Iterator[tuple[Path, str]]:
    inside = _key_of(out, folder)
    for item in image_files(LocalStore(folder), left_out):
        path = folder / item.key
        if inside is not None and item.key.startswith(f"{inside}/"):
            left_out.add("files in the folder of --out", item.key)
        elif is_result(path) or is_degraded(path):
            left_out.add(RESULTS, item.key)
        else:
            yield path, _name(Path(item.key))


def _key_of(out: Path | None, folder: Path) -> str | None:
    """The key of the folder ``out`` below ``folder``; None if it is elsewhere."""
    if out is None:
        return None
    here, there = folder.resolve(), out.resolve()
    return there.relative_to(here).as_posix() if here in there.parents else None


def _name(relative: Path) -> str:
    return str(PurePosixPath(*relative.parts).with_suffix(""))


def read_picture(path: Path) -> Picture:
    """Read and decode the file; raises DataError naming it."""
    try:
        data = read_regular(path, MAX_FILE_BYTES)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None
    decoded = decode_file(data, str(path), FILE_FORMATS)
    sha256 = hashlib.sha256(data).hexdigest()
    return Picture(decoded.pixels, sha256, decoded.multiframe, decoded.transparent)


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
