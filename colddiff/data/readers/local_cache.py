"""Files made once per machine, shared by its processes, and bounded in bytes."""

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


def default_max_bytes() -> int:
    """COLDDIFF_CACHE_BYTES, else 32 GiB."""
    given = os.environ.get("COLDDIFF_CACHE_BYTES", "")
    if not given:
        return DEFAULT_MAX_BYTES
    if not given.isdecimal():
        raise SpecError(f"COLDDIFF_CACHE_BYTES {given!r}: write a whole number of bytes")
    return int(given)


class LocalCache:
    """Complete files by name below ``folder``; the least recently used ones make room.

    All processes together keep to ``max_bytes``, files under way included; a file larger than that
    is kept alone. What a process still has open when it makes room for others goes when it is let
    go of.

    A file appears under its name by one rename. Of several processes that want it, one makes it
    while the others wait; a lock dies with its process, so a kill leaves nothing to clean by hand.
    """

    def __init__(self, folder: str | os.PathLike[str], max_bytes: int | None = None) -> None:
        self.folder = Path(folder).expanduser().absolute()
        self.max_bytes = default_max_bytes() if max_bytes is None else max_bytes

    def open(self, name: str, size: int, make: Make) -> BinaryIO:
        """The file ``name`` of ``size`` bytes, made by ``make`` where it is not there.

        The open file stays readable when it is pruned later. Raises StoreError naming the path
        where it cannot be written, and whatever ``make`` raises.
        """
        path = self.folder / name
        try:
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
                f"{path}: cannot be cached there ({why}); set COLDDIFF_CACHE to a folder with "
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
                    raise OSError(errno.EIO, f"{file.tell()} bytes were made, {size} promised")
                temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise

    def _reserved(self, temporary: Path, size: int) -> BinaryIO:
        """A new file ``temporary``, once there is room for it.

        It is as large as it will be, so that others see the room it takes, and locked as long as it
        is open, so that they see whether anybody still writes to it.
        """
        while True:
            with self._locked("room") as alone:
                if self._makes_room(size) or not alone:
                    file = temporary.open("xb")
                    file.truncate(size)
                    _lock(file)
                    return file
            time.sleep(0.01)  # until files that others are making can go

    def _makes_room(self, size: int) -> bool:
        kept, total = [], size
        for path in self.folder.rglob("*"):
            with suppress(FileNotFoundError):
                if path.name.startswith(".lock") or not path.is_file():
                    continue
                if path.name.startswith(TEMPORARY) and not _under_way(path):
                    path.unlink()  # its process was killed
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
        # A file larger than the bound is made when nothing else is there.
        return total <= max(self.max_bytes, size)

    @contextmanager
    def _locked(self, what: str) -> Iterator[bool]:
        with (self.folder / f".lock-{what}").open("wb") as lock:
            # On a file system without locks each process makes files of its own.
            yield _lock(lock)


def _lock(file: BinaryIO, wait: bool = True) -> bool:
    """Locks ``file`` until it is closed; False where another has it, or there are no locks."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError:
        return False
    return True


def _under_way(path: Path) -> bool:
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
    # Its age is that of its last use.
    with suppress(OSError):
        os.utime(path)
    return file
