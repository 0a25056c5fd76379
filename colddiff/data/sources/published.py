"""Sources: well-known image sets in their published layouts: MNIST, CIFAR-10."""

from __future__ import annotations

import gzip
import os
import struct
import zlib
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from colddiff.data.pil_images import Pixels
from colddiff.data.sources.source import SourceEntry, WholeSource
from colddiff.errors import DataError
from colddiff.machine.files import is_folder
from colddiff.stores.paths import expanded, nearest_folder

IDX_IMAGES, IDX_LABELS = 2051, 2049
MAX_IDX_BYTES = 2**31
CIFAR_CLASSES = (
    *("airplane", "automobile", "bird", "cat", "deer"),
    *("dog", "frog", "horse", "ship", "truck"),
)
CIFAR_RECORD = 1 + 3 * 32 * 32


class MnistSource(WholeSource):
    """MNIST or a set in its layout: ``{train,t10k}-{images-idx3,labels-idx1}-ubyte[.gz]``."""

    classes = tuple("0123456789")
    splits = ("train", "test")
    sorted_by_name = False
    default_holdout: float | None = None

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = expanded(folder)
        self._images: dict[str, NDArray[np.uint8]] = {}

    @property
    def uri(self) -> str:
        return f"mnist:{self.folder}"

    def entries(self, split: str | None) -> Sequence[SourceEntry]:
        part = split or self.splits[0]
        images_path = self.images_file(part)
        labels_path = self._find(f"{_prefix(part)}-labels-idx1-ubyte")
        self._images[part] = images = read_idx(images_path, IDX_IMAGES)
        labels = read_idx(labels_path, IDX_LABELS)
        if len(labels) != len(images):
            raise DataError(
                f"{labels_path}: {len(labels)} labels for the {len(images)} images of {images_path}"
            )
        if not len(images):
            raise DataError(f"{images_path}: contains no images")
        size = images.shape[1] * images.shape[2]
        return [
            SourceEntry(f"{part}/{n:05d}", int(label), n, size) for n, label in enumerate(labels)
        ]

    def load(self, entry: SourceEntry) -> Pixels:
        pixels: Pixels = self._images[entry.name.partition("/")[0]][entry.index][:, :, None]
        return pixels

    def images_file(self, split: str) -> Path:
        """Where the images of a split are; raises DataError."""
        return self._find(f"{_prefix(split)}-images-idx3-ubyte")

    def _find(self, name: str) -> Path:
        # Also where torchvision puts them; some copies spell the names with a dot.
        for folder in (self.folder, self.folder / "raw", self.folder / "MNIST" / "raw"):
            for spelling in (name, name.replace("-idx", ".idx")):
                for path in (folder / spelling, folder / f"{spelling}.gz"):
                    if path.is_file():
                        return path
        use = "; use the folder of the four MNIST files, such as torchvision's MNIST/raw"
        raise _not_there("mnist", self.folder, f"no {name}[.gz] found", use)


def _prefix(split: str) -> str:
    return "t10k" if split == "test" else "train"


class Cifar10Source(WholeSource):
    """CIFAR-10 in its official binary layout: ``data_batch_{1..5}.bin``, ``test_batch.bin``."""

    splits = ("train", "test")
    sorted_by_name = False
    default_holdout: float | None = None

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = expanded(folder)
        self._batches: dict[str, NDArray[np.uint8]] = {}

    @property
    def uri(self) -> str:
        return f"cifar10:{self.folder}"

    @property
    def classes(self) -> tuple[str, ...]:
        names = self._home() / "batches.meta.txt"
        if not names.is_file():
            return CIFAR_CLASSES
        return tuple(names.read_text(encoding="utf-8", errors="replace").split())

    def entries(self, split: str | None) -> Sequence[SourceEntry]:
        return [
            SourceEntry(f"{path.stem}/{n:05d}", int(record[0]), n, CIFAR_RECORD)
            for path in self.batches(split)
            for n, record in enumerate(self._read(path))
        ]

    def batches(self, split: str | None) -> list[Path]:
        """The files of a split that are there; raises DataError where none is."""
        home = self._home()
        names = ["test_batch"] if split == "test" else [f"data_batch_{n}" for n in range(1, 6)]
        found = [path for name in names if (path := home / f"{name}.bin").is_file()]
        if not found:
            what = f"no {names[0]}.bin found"
            raise _not_there("cifar10", self.folder, what, self._pickled())
        return found

    def load(self, entry: SourceEntry) -> Pixels:
        batch = self._batches[entry.name.partition("/")[0]]
        return batch[entry.index, 1:].reshape(3, 32, 32).transpose(1, 2, 0)

    def _home(self) -> Path:
        inside = self.folder / "cifar-10-batches-bin"
        return inside if inside.is_dir() else self.folder

    def _pickled(self) -> str:
        for folder in (self.folder, self.folder / "cifar-10-batches-py"):
            if (folder / "data_batch_1").is_file():
                return (
                    "; this is the Python version, whose pickles are never loaded: use "
                    "cifar-10-binary.tar.gz"
                )
        return "; use the folder of the official binary version"

    def _read(self, path: Path) -> NDArray[np.uint8]:
        data = _content(path)
        if len(data) % CIFAR_RECORD or not data:
            raise DataError(
                f"{path}: {len(data)} bytes are not a whole number of {CIFAR_RECORD}-byte records; "
                "the file is truncated, or not CIFAR-10's binary version"
            )
        records = np.frombuffer(data, np.uint8).reshape(-1, CIFAR_RECORD)
        if records[:, 0].max() >= len(CIFAR_CLASSES):
            raise DataError(f"{path}: contains a label above 9; this is not CIFAR-10")
        self._batches[path.stem] = records
        return records


def published_in(folder: Path) -> str | None:
    """The SOURCE of the published set whose files ``folder`` holds, such as ``mnist:DIR``."""
    with suppress(DataError):
        MnistSource(folder).images_file("train")
        return f"mnist:{folder}"
    with suppress(DataError):
        Cifar10Source(folder).batches("train")
        return f"cifar10:{folder}"
    return None


def _not_there(kind: str, folder: Path, what: str, use: str) -> DataError:
    """The error of a set that is not in ``folder``, or whose folder is not there."""
    if not is_folder(folder):
        what, use = "no such folder", nearest_folder(folder) or use
    return DataError(f"{kind}:{folder}: {what}{use}")


def read_idx(path: Path, magic: int) -> NDArray[np.uint8]:
    """The unsigned bytes of an idx file, gzipped or not; raises DataError if it is not one."""
    dimensions = magic - 2048
    header = 4 + 4 * dimensions
    data = _content(path)
    found = struct.unpack(">I", data[:4])[0] if len(data) >= header else None
    if found != magic:
        raise DataError(
            f"{path}: magic number is {found}, expected {magic}; not an idx file of this kind"
        )
    shape = struct.unpack(f">{dimensions}I", data[4:header])
    expected = header + int(np.prod(shape, dtype=object))
    if len(data) != expected:
        raise DataError(
            f"{path}: {len(data)} bytes, its header says {expected}; the file is truncated or "
            "damaged"
        )
    return np.frombuffer(data, np.uint8, offset=header).reshape(shape)


def _content(path: Path) -> bytes:
    try:
        if path.suffix != ".gz":
            return path.read_bytes()
        with gzip.open(path) as file:
            data = file.read(MAX_IDX_BYTES)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{path}: damaged ({error})") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from None
    return data
