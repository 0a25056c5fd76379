"""Files made once per machine, shared by its processes, and bounded in bytes."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from colddiff.errors import StoreError

TEMPORARY = ".tmp-"
LOCKS = 64
DEFAULT_MAX_BYTES = 32 * 2**30

Make = Callable[[BinaryIO], None]


def default_folder() -> Path:
    """COLDDIFF_CACHE, else ``colddiff`` in the user's cache folder."""
    given = os.environ.get("COLDDIFF_CACHE")
    if given:
        return Path(given).expanduser().absolute()
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "colddiff"


class LocalCache:
    """Complete files by name below ``folder``; the least recently used ones make room.

    A file appears under its name by one rename. Of several processes that want it, one makes it
    while the others wait; a lock dies with its process, so a kill leaves nothing to clean by hand.
    """

    def __init__(self, folder: str | os.PathLike[str], max_bytes: int = DEFAULT_MAX_BYTES) -> None:
        self.folder = Path(folder).expanduser().absolute()
        self._max_bytes = max_bytes

    def open(self, name: str, size: int, make: Make) -> BinaryIO:
        """The file ``name`` of ``size`` bytes, made by ``make`` where it is not there.

        The open file stays readable when it is pruned later. Raises StoreError naming the path
        where it cannot be written, and whatever ``make`` raises.
        """
        path = self.folder / name
        try:
            while True:
                file = _complete(path, size)
                if file is not None:
                    return file
                with self._locked(name) as alone:
                    file = _complete(path, size)
                    if file is not None:
                        return file
                    self._make(path, size, make, alone)
        except OSError as error:
            why = os.strerror(error.errno) if error.errno else str(error)
            raise StoreError(
                f"{path}: cannot be cached there ({why}); set COLDDIFF_CACHE to a folder with "
                f"{size} free bytes"
            ) from None

    def _make(self, path: Path, size: int, make: Make, alone: bool) -> None:
        if alone:
            for left in path.parent.glob(f"{TEMPORARY}{path.name}-*"):
                left.unlink(missing_ok=True)
        self._make_room(size)
        temporary = path.parent / f"{TEMPORARY}{path.name}-{uuid.uuid4().hex}"
        try:
            with temporary.open("xb") as file:
                make(file)
                file.flush()
                os.fsync(file.fileno())
                if file.tell() != size:
                    raise OSError(errno.EIO, f"{file.tell()} bytes were made, {size} promised")
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise

    def _make_room(self, size: int) -> None:
        found = []
        for path in self.folder.rglob("*"):
            with suppress(FileNotFoundError):
                if path.is_file() and not path.name.startswith((TEMPORARY, ".lock")):
                    stat = path.stat()
                    found.append((stat.st_mtime, stat.st_size, path))
        total = size + sum(item[1] for item in found)
        for _, length, path in sorted(found):
            if total <= self._max_bytes:
                return
            path.unlink(missing_ok=True)
            total -= length

    @contextmanager
    def _locked(self, name: str) -> Iterator[bool]:
        (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
        bucket = hashlib.sha256(name.encode()).digest()[0] % LOCKS
        with (self.folder / f".lock-{bucket:02d}").open("wb") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX)
            except OSError:
                # A file system without locks: then each process makes a file of its own.
                yield False
                return
            yield True


def _complete(path: Path, size: int) -> BinaryIO | None:
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return None
    if os.fstat(file.fileno()).st_size != size:
        file.close()
        return None
    # Its age is that of its last use.
    with suppress(OSError):
        os.utime(path)
    return file
