"""File cache of one machine: shared by its processes, bounded in bytes, evicting by last use."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from colddiff.errors import SpecError, StoreError
from colddiff.stores.paths import absolute_path, expanded

TEMPORARY = ".tmp-"
LOCKS = 64
DEFAULT_MAX_BYTES = 32 * 2**30

Make = Callable[[BinaryIO], None]


def default_folder() -> Path:
    """COLDDIFF_CACHE, else ``colddiff`` in the user's cache folder."""
    folder = os.environ.get("COLDDIFF_CACHE")
    if folder:
        return absolute_path(folder, "set COLDDIFF_CACHE")
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return expanded(base, "set COLDDIFF_CACHE") / "colddiff"


def default_max_bytes() -> int:
    """COLDDIFF_CACHE_BYTES, else 32 GiB."""
    text = os.environ.get("COLDDIFF_CACHE_BYTES", "")
    if not text:
        return DEFAULT_MAX_BYTES
    if not text.isdecimal():
        raise SpecError(f"COLDDIFF_CACHE_BYTES {text!r}: must be a whole number of bytes")
    return int(text)


class LocalCache:
    """Complete files by name below ``folder``, with least-recently-used eviction.

    All processes together stay within ``max_bytes``, including files being written; a file larger
    than that is kept alone. An evicted file that a process still has open is freed when closed.

    A file appears under its name by an atomic rename. If several processes want it, one makes it
    while the others wait. Locks are released when their process dies, so a kill leaves nothing to
    clean up by hand.
    """

    def __init__(self, folder: str | os.PathLike[str], max_bytes: int | None = None) -> None:
        self.folder = absolute_path(folder, "set COLDDIFF_CACHE")
        self.max_bytes = default_max_bytes() if max_bytes is None else max_bytes

    def open(self, name: str, size: int, make: Make) -> BinaryIO:
        """Open the file ``name`` of ``size`` bytes, calling ``make`` to write it if missing.

        The open file stays readable if it is evicted later. Raises StoreError naming the path if
        it cannot be written, and whatever ``make`` raises.
        """
        path = self.folder / name
        try:
            # Images of this user's, whatever the permissions of the store they are from.
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            path.parent.mkdir(parents=True, exist_ok=True)
            while True:
                file = _complete(path, size)
                if file is not None:
                    return file
                with self._locked(_bucket(name)) as alone:
                    file = _complete(path, size)
                    if file is not None:
                        return file
                    self._make(path, size, make, alone)
        except OSError as error:
            why = os.strerror(error.errno) if error.errno else str(error)
            raise StoreError(
                f"{path}: cannot write to the cache ({why}); set COLDDIFF_CACHE to a folder with "
                f"{size} free bytes"
            ) from None

    def _make(self, path: Path, size: int, make: Make, alone: bool) -> None:
        if alone:
            for left in path.parent.glob(f"{TEMPORARY}{path.name}-*"):
                left.unlink(missing_ok=True)
        temporary = path.parent / f"{TEMPORARY}{path.name}-{uuid.uuid4().hex}"
        try:
            with self._reserved(temporary, size) as file:
                make(file)
                file.flush()
                os.fsync(file.fileno())
                if file.tell() != size:
                    raise OSError(errno.EIO, f"{file.tell()} bytes written, {size} expected")
                # Not while somebody counts: under neither name would the file be found.
                with self._locked("room"):
                    temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise

    def _reserved(self, temporary: Path, size: int) -> BinaryIO:
        """Create the file ``temporary`` once there is room for it.

        It has its final size from the start, so that other processes count it, and is locked while
        open, so that they can tell whether it is still being written.
        """
        while True:
            with self._locked("room") as alone:
                if self._evict(size) or not alone:
                    file = temporary.open("xb")
                    file.truncate(size)
                    _lock(file)
                    return file
            time.sleep(0.01)  # until files that other processes are writing can be evicted

    def _evict(self, size: int) -> bool:
        """Remove files until ``size`` more bytes fit; False if they do not fit yet."""
        kept, total = [], size
        for path in self.folder.rglob("*"):
            with suppress(FileNotFoundError):
                if path.name.startswith(".lock") or not path.is_file():
                    continue
                if path.name.startswith(TEMPORARY) and not _being_written(path):
                    path.unlink()  # left by a killed process
                    continue
                stat = path.stat()
                total += stat.st_size
                if not path.name.startswith(TEMPORARY):
                    kept.append((stat.st_mtime, stat.st_size, path))
        for _, length, path in sorted(kept):
            if total <= self.max_bytes:
                break
            path.unlink(missing_ok=True)
            total -= length
        # A file larger than the limit is allowed when the cache is otherwise empty.
        return total <= max(self.max_bytes, size)

    @contextmanager
    def _locked(self, what: str) -> Iterator[bool]:
        with (self.folder / f".lock-{what}").open("wb") as lock:
            # Without file-system locks, each process makes its own files.
            yield _lock(lock)


def _lock(file: BinaryIO, wait: bool = True) -> bool:
    """Lock ``file`` until closed; False if another process holds it or locks are unsupported."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError:
        return False
    return True


def _being_written(path: Path) -> bool:
    with path.open("rb") as file:
        return not _lock(file, wait=False)


def _bucket(name: str) -> str:
    return f"{hashlib.sha256(name.encode()).digest()[0] % LOCKS:02d}"


def _complete(path: Path, size: int) -> BinaryIO | None:
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return None
    if os.fstat(file.fileno()).st_size != size:
        file.close()
        return None
    # The modification time records the last use.
    with suppress(OSError):
        os.utime(path)
    return file
