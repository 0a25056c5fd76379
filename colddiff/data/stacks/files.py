"""Files that hold many images, by suffix: how many each holds, and single ones as pixels."""

from __future__ import annotations

import importlib
import importlib.util
import shutil
import tempfile
import threading
import weakref
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from colddiff.data.decoding.pil_depth import needs_tiff_reader
from colddiff.data.left_out import LeftOut
from colddiff.data.pil_images import Decoded
from colddiff.data.problems import AlikeError
from colddiff.data.stacks.frames import MAX_STACK_BYTES, Frames, Levels, said
from colddiff.errors import DataError, Missing, SpecError, StoreError
from colddiff.ports import Store
from colddiff.stores.local_store import LocalStore

INSTALL = "pip install 'colddiff[medical]'"


@dataclass(frozen=True, slots=True)
class StackFormat:
    """A format of files that hold many images, and the module that reads it."""

    name: str
    suffixes: tuple[str, ...]
    module: str
    needs: str | None = None
    """A package of the extra ``medical``."""

    def reader(self, where: str) -> Any:
        """The module; SpecError naming the command that installs what it needs."""
        if self.needs is not None and importlib.util.find_spec(self.needs) is None:
            raise SpecError(f"{where}: {self.name} is read by {self.needs}: {INSTALL}")
        try:
            return importlib.import_module(f"colddiff.data.stacks.{self.module}")
        except ImportError as error:  # one that does not fit another package, for example
            raise SpecError(
                f"{where}: {self.name} is read by {self.needs}, which cannot be imported "
                f"({error}): {INSTALL}"
            ) from None


TIFF = StackFormat(
    "a TIFF of several pages or of floats", (".tif", ".tiff"), "tifffile_pages", "tifffile"
)
DICOM = StackFormat("DICOM", (".dcm", ".dicom"), "pydicom_slices", "pydicom")
FORMATS = (
    StackFormat("a NumPy array", (".npy", ".npz"), "numpy_arrays"),
    DICOM,
    StackFormat("NIfTI", (".nii", ".nii.gz"), "nibabel_volumes", "nibabel"),
)
SUFFIXES = frozenset(suffix for form in FORMATS for suffix in form.suffixes)
"""Of files that may hold many images, besides TIFF."""
DICOM_MAGIC = slice(128, 132), b"DICM"
DIRECTORY = "DICOMDIR"


class StackFiles:
    """The files of a store that hold many images; safe to share between threads.

    Images are read in any order, as packing shuffles them: a file that cannot be read image by
    image is decoded once, into a folder for temporary files (TMPDIR).
    """

    def __init__(self, store: Store, levels: Levels) -> None:
        self._store, self._levels = store, levels
        self._spool: str | None = None
        self._locks: dict[str, threading.Lock] = defaultdict(threading.Lock)
        self._lock = threading.Lock()
        self._decoded: dict[str, tuple[Path, Frames]] = {}
        self._counts: dict[str, int] = {}
        self._damaged: dict[str, DataError] = {}
        self._numbers: dict[str, int] = {}

    def holds(self, key: str) -> bool:
        """Whether the file has a suffix in ``SUFFIXES``, or is a DICOM file without a suffix.

        Scanners write such; of a store in S3, which would have to be read, none is one.
        """
        name = key.rpartition("/")[2]
        if "." in name:
            return any(name.lower().endswith(end) and name.lower() != end for end in SUFFIXES)
        if name == DIRECTORY or not isinstance(self._store, LocalStore):
            return False
        try:
            with self._store.path(key).open("rb") as file:
                return file.read(132)[DICOM_MAGIC[0]] == DICOM_MAGIC[1]
        except OSError:
            return False

    def count(self, key: str, size: int, left_out: LeftOut) -> int | None:
        """Number of images in a file; None for a TIFF of one page, which Pillow reads.

        1 for a damaged file, of which ``decoded`` tells what is wrong, and for a TIFF whose reader
        is not installed; 0 for one that is no image, which is left out. Raises SpecError where the
        package of another format is missing.
        """
        form = self._form(key)
        if form is TIFF and not self._needs_reader(key):
            return None
        try:
            reader = form.reader(self._where(key))
        except SpecError as error:
            if form is not TIFF:  # a set of these is nothing without its reader
                raise
            self._damaged[key] = AlikeError(str(error), like=INSTALL)
            self._counts[key] = 1
            return 1

        def passed_over(why: str, part: str) -> None:
            left_out.add(why, f"{key}: {part}" if part else key)

        try:
            if size > MAX_STACK_BYTES:
                raise DataError(f"{self._where(key)}: {size} bytes, more than {MAX_STACK_BYTES}")
            with self._whole(key):
                count: int = reader.count_frames(self._path(key), self._where(key), passed_over)
        except DataError as error:
            self._damaged[key] = error
            count = 1
        self._counts[key] = count
        return count

    def decoded(self, key: str, number: int) -> Decoded:
        """Image ``number`` of a file; raises DataError, or SpecError where `--range` is needed."""
        if key in self._damaged:
            raise copy(self._damaged[key])
        count, where = self._counts[key], self._where(key)
        frames = self._frames(key, keep=count > 1)
        if len(frames.values) < count:
            what = f"holds {len(frames.values)} images, its header says {count}"
            raise DataError(f"{where}: {what}")
        pixels = self._levels.pixels(frames, number, f"{where}#{number}" if count > 1 else where)
        hidden = frames.transparent is not None and bool(frames.transparent[number])
        return Decoded(pixels, multiframe=False, transparent=hidden)

    def _frames(self, key: str, *, keep: bool) -> Frames:
        with self._lock:
            lock = self._locks[key]
        with lock:
            if key in self._damaged:  # by another thread, which waited here for the file
                raise copy(self._damaged[key])
            if key in self._decoded:
                path, about = self._decoded[key]
                return replace(about, values=np.load(path, mmap_mode="r", allow_pickle=False))
            reader = self._form(key).reader(self._where(key))
            try:
                with self._whole(key):
                    frames: Frames = reader.read_frames(self._path(key), self._where(key))
                if keep and not isinstance(frames.values, np.memmap):
                    self._keep(key, frames)
            except DataError as error:
                # Of the file, not of one image: it is not decoded again for each of the others.
                self._damaged[key] = error
                raise
            return frames

    def _keep(self, key: str, frames: Frames) -> None:
        path = self._temporary(key, ".decoded.npy")
        try:
            np.save(path, frames.values, allow_pickle=False)
        except OSError as error:
            path.unlink(missing_ok=True)
            raise DataError(
                f"{self._where(key)}: cannot be decoded to {path.parent} ({error.strerror}); set "
                "TMPDIR to a folder with more room"
            ) from None
        self._decoded[key] = path, replace(frames, values=np.empty(0))

    def _path(self, key: str) -> Path:
        """The file on this machine; one of S3 is fetched once."""
        if isinstance(self._store, LocalStore):
            return self._store.path(key)
        path = self._temporary(key, _suffix(key))
        if not path.exists():
            path.write_bytes(self._store.get(key))
        return path

    def _temporary(self, key: str, suffix: str) -> Path:
        with self._lock:
            if self._spool is None:
                self._spool = tempfile.mkdtemp(prefix="colddiff-pack-")
                weakref.finalize(self, shutil.rmtree, self._spool, ignore_errors=True)
            number = self._numbers.setdefault(key, len(self._numbers))
        return Path(self._spool, f"{number}{suffix}")

    @contextmanager
    def _whole(self, key: str) -> Iterator[None]:
        """Within ``with``, a file that is gone, may not be read or is damaged is a DataError."""
        try:
            yield
        except (DataError, SpecError, StoreError):
            raise
        except Missing:
            raise DataError(f"{self._where(key)}: is gone since the folder was listed") from None
        except OSError as error:
            why = error.strerror or said(error)
            raise DataError(f"{self._where(key)}: cannot be read ({why})") from None
        except Exception as error:  # a field of a damaged file may be anything to its reader
            raise DataError(f"{self._where(key)}: is damaged ({said(error)})") from None

    def _needs_reader(self, key: str) -> bool:
        try:
            path = self._path(key)
            with path.open("rb") as file:
                needed = needs_tiff_reader(file)
            if not needed and not isinstance(self._store, LocalStore):
                path.unlink()  # it is read from its store: copies of all would fill the disk
            return needed
        except (OSError, Missing):
            return False  # said where the image is read

    def _where(self, key: str) -> str:
        return f"{self._store.uri}/{key}"

    def _form(self, key: str) -> StackFormat:
        suffix = _suffix(key)
        return next((form for form in FORMATS if suffix in form.suffixes), TIFF)


def _suffix(key: str) -> str:
    name = key.lower().rpartition("/")[2]
    if "." not in name:
        return DICOM.suffixes[0]
    return ".nii.gz" if name.endswith(".nii.gz") else f".{name.rpartition('.')[2]}"
