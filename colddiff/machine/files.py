"""Reads files that others made: regular ones only, and no more bytes than allowed."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path


class NotAFile(OSError):
    """The path is a device, a pipe or a socket, which may never end."""


def read_regular(path: str | os.PathLike[str], limit: int | None = None) -> bytes:
    """The content of a regular file, through links; opening never waits for another process.

    Raises OSError, whose ``strerror`` says why in a few words: NotAFile for a device, pipe or
    socket, IsADirectoryError for a folder, EFBIG for more than ``limit`` bytes.
    """
    with open(_opened(path), "rb", buffering=0) as file:
        if limit is None:
            return file.readall()
        if os.fstat(file.fileno()).st_size > limit:
            raise OSError(errno.EFBIG, f"has more than the limit of {limit} bytes", str(path))
        # Files of /proc have no size, and a file may grow while it is read.
        data = _read_at_most(file.fileno(), limit + 1)
    if len(data) > limit:
        raise OSError(errno.EFBIG, f"has more than the limit of {limit} bytes", str(path))
    return data


def read_start(path: str | os.PathLike[str], count: int) -> bytes:
    """The first ``count`` bytes of a regular file, or all it has; raises as ``read_regular``."""
    handle = _opened(path)
    try:
        return _read_at_most(handle, count)
    finally:
        os.close(handle)


def is_regular(path: Path) -> bool:
    """Whether there is a regular file, through links; False also for links in a circle."""
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except (OSError, ValueError):
        return False


def is_folder(path: str | os.PathLike[str]) -> bool:
    """Whether there is a folder, through links; False also for a name that no file can have."""
    try:
        return Path(path).is_dir()
    except (OSError, ValueError):
        return False


def _opened(path: str | os.PathLike[str]) -> int:
    # Without O_NONBLOCK, opening a pipe that nobody writes to waits for ever.
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    mode = os.fstat(handle).st_mode
    if stat.S_ISREG(mode):
        return handle
    os.close(handle)
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, "is a folder", str(path))
    raise NotAFile(errno.EINVAL, "is not a regular file", str(path))


def _read_at_most(handle: int, count: int) -> bytes:
    parts = []
    while count and (part := os.read(handle, min(count, 2**24))):
        parts.append(part)
        count -= len(part)
    return b"".join(parts)
