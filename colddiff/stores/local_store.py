"""A store in a local folder: every write is one rename or one link of a complete file."""

from __future__ import annotations

import errno
import os
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from io import BufferedWriter
from pathlib import Path
from typing import NoReturn

from colddiff.errors import Exists, Missing, StoreError
from colddiff.machine.files import NotAFile, is_regular, read_regular
from colddiff.ports import StoredObject
from colddiff.stores.keys import TEMPORARY, below_root, checked_prefix
from colddiff.stores.paths import absolute_path

WAYS_OUT_READING = {
    errno.EACCES: "permission denied; this user may not read it",
    errno.EPERM: "not permitted; this user may not read it",
}
WAYS_OUT = {
    errno.ENOSPC: "the disk is full; free some space or use another location",
    errno.EDQUOT: "the disk quota is used up; free some space or use another location",
    errno.EACCES: "permission denied; use a location this user may write to",
    errno.EPERM: "not permitted; use a location this user may write to",
    errno.EROFS: "the file system is read-only; use another location",
    errno.ENOTDIR: "a part of this path is a file, not a folder; use another location",
    errno.EEXIST: "a part of this path is a file, not a folder; use another location",
    errno.EISDIR: "is a folder, not an object",
    errno.ENAMETOOLONG: "the name is too long for this file system",
    errno.ELOOP: "its links lead in a circle",
}
# A concurrent delete may prune a folder between its creation and the write into it.
ATTEMPTS = 100


class LocalStore:
    """Implements ``Store`` below ``root``, which is created on the first write.

    A write goes to a temporary file in the same folder, is flushed to disk and then renamed
    (``put``) or linked (``put_new``) to its name; remains of a crash are never listed. Requires a
    file system with hard links and atomic renames.

    What is made in a folder is as private as the folder: nobody may read or write it who may not
    do so with ``root`` (or the nearest folder above, until there is a ``root``), nor whom the
    umask excludes. ``make_private`` makes a ``root`` of this user's own.
    """

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self.root = absolute_path(root)

    @property
    def uri(self) -> str:
        return str(self.root)

    def path(self, key: str) -> Path:
        """The object's path on the disk; raises SpecError for an invalid key."""
        return self.root / below_root(key)

    def make_private(self) -> None:
        """Creates ``root`` as a folder of this user alone (0700); one that is there is kept."""
        try:
            self.root.parent.mkdir(parents=True, exist_ok=True)
            self.root.mkdir(mode=0o700)
        except FileExistsError:
            return  # a file is named by the first write
        except OSError as error:
            _refused(self.root, error)

    def _others(self) -> int:
        """Permission bits of group and others that what is made here may have."""
        for folder in (self.root, *self.root.parents):
            with suppress(FileNotFoundError, NotADirectoryError):
                return folder.stat().st_mode & 0o077
        return 0

    def get(self, key: str) -> bytes:
        path = self.path(key)
        try:
            return read_regular(path)
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            raise Missing(f"{path}: no such object") from None
        except NotAFile as error:
            raise StoreError(f"{path}: {error.strerror}, so it is not read") from None
        except MemoryError:
            raise StoreError(f"{path}: is too large for the memory of this machine") from None
        except OSError as error:
            _refused(path, error, reading=True)

    def put(self, key: str, data: bytes) -> None:
        path = self.path(key)
        try:
            temporary = _written(path, data, self._others())
            try:
                temporary.replace(path)
            except OSError:
                temporary.unlink(missing_ok=True)
                raise
            _flush_folder(path.parent)
        except OSError as error:
            _refused(path, error)

    def put_new(self, key: str, data: bytes) -> None:
        path = self.path(key)
        try:
            if path.exists():
                raise Exists(f"{path}: is already there")
            temporary = _written(path, data, self._others())
            try:
                # A link, unlike a rename, fails if the name exists: exactly one racer wins.
                path.hardlink_to(temporary)
            except FileExistsError:
                raise Exists(f"{path}: is already there") from None
            finally:
                temporary.unlink(missing_ok=True)
            _flush_folder(path.parent)
        except OSError as error:
            _refused(path, error)

    def size(self, key: str) -> int | None:
        path = self.path(key)
        try:
            return path.stat().st_size if is_regular(path) else None
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            _refused(path, error, reading=True)

    def list(self, prefix: str = "") -> Iterator[StoredObject]:
        folder, _, start = checked_prefix(prefix).rpartition("/")
        base = f"{folder}/" if folder else ""
        return _walk(self.root / folder, base, start, ())

    def folders(self, prefix: str) -> Iterator[str]:
        folder = self.root / checked_prefix(prefix)
        try:
            found = [entry.name for entry in os.scandir(folder) if entry.is_dir()]
            yield from sorted(name for name in found if any((folder / name).iterdir()))
        except (FileNotFoundError, NotADirectoryError):
            return
        except OSError as error:
            _refused(folder, error)

    def list_all(self, passed_over: Callable[[str, str], None]) -> Iterator[StoredObject]:
        """As ``list``; ``passed_over(key, why)`` is called for what is no regular file."""
        return _walk(self.root, "", "", (), passed_over)

    def unfinished_writes(self) -> Iterator[StoredObject]:
        """Temporary files of writes that go on, or that were killed; ``list`` leaves them out."""
        for folder, _, names in os.walk(self.root):
            for name in names:
                if not name.startswith(TEMPORARY):
                    continue
                path = Path(folder) / name
                with suppress(FileNotFoundError):  # it has its name by now
                    found = path.lstat()
                    key = path.relative_to(self.root).as_posix()
                    yield StoredObject(key, found.st_size, found.st_mtime)

    def clear(self, prefix: str) -> None:
        _remove_empty(self.root / checked_prefix(prefix))
        for item in list(self.list(prefix)):
            self.delete(item.key)

    def delete(self, key: str) -> None:
        path = self.path(key)
        try:
            path.unlink(missing_ok=True)
            for folder in path.parents:
                if folder == self.root or self.root not in folder.parents:
                    break
                folder.rmdir()  # the first folder that is not empty ends the pruning
        except (NotADirectoryError, IsADirectoryError):
            return
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOENT):
                _refused(path, error)


def _remove_empty(folder: Path) -> None:
    """Removes ``folder`` with the folders in it, but for those that hold something."""
    for inner, _, _ in os.walk(folder, topdown=False):
        with suppress(OSError):
            Path(inner).rmdir()


def _written(path: Path, data: bytes, others: int) -> Path:
    """A flushed file with ``data`` beside ``path``, under a temporary name."""
    temporary = path.parent / f"{TEMPORARY}{uuid.uuid4().hex}"
    try:
        with _opened(temporary, others) as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise
    return temporary


def _opened(path: Path, others: int) -> BufferedWriter:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    for _ in range(ATTEMPTS):
        try:
            _make_folder(path.parent, 0o700 | others)
            return os.fdopen(os.open(path, flags, 0o600 | others & 0o066), "wb")
        except FileNotFoundError:
            continue
        except FileExistsError:
            # Created and pruned by others in between, or a file is in the way.
            if path.parent.exists() and not path.parent.is_dir():
                raise
    gone = any(part.is_symlink() and not part.exists() for part in path.parents)
    why = "links to nothing" if gone else "keeps disappearing"
    raise FileNotFoundError(errno.ENOENT, f"its folder {why}")


def _make_folder(folder: Path, mode: int) -> None:
    missing = [part for part in (folder, *folder.parents) if not part.exists()]
    for part in reversed(missing):
        part.mkdir(mode, exist_ok=True)
    for part in missing:
        _flush_folder(part.parent)


def _flush_folder(folder: Path) -> None:
    # Without it a crash of the machine may lose the name although the bytes were kept.
    try:
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except FileNotFoundError:
        return  # a reader has taken what was written, and pruned the folder, already
    try:
        # Some network file systems cannot flush folders and return EINVAL.
        with suppress(OSError):
            os.fsync(handle)
    finally:
        os.close(handle)


def _walk(
    folder: Path,
    base: str,
    start: str,
    above: tuple[tuple[int, int], ...],
    passed_over: Callable[[str, str], None] = lambda key, why: None,
) -> Iterator[StoredObject]:
    try:
        here = folder.stat()
        # A link to a folder is followed, unless it leads back to a parent folder.
        if (here.st_dev, here.st_ino) in above:
            passed_over(base.rstrip("/"), "links to a folder that contains them")
            return
        with os.scandir(folder) as found:
            entries = [entry for entry in found if _listed(entry, start)]
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        _refused(folder, error, reading=True)
    within = (*above, (here.st_dev, here.st_ino))
    # Key order: ``a-b`` < ``a/b`` < ``a0``, so a folder sorts as its name with the slash.
    named = sorted((entry.name + "/" * _is_folder(entry), entry) for entry in entries)
    for name, entry in named:
        if name.endswith("/"):
            yield from _walk(folder / entry.name, base + name, "", within, passed_over)
        elif (file := _file_stat(entry)) is not None:
            # Every write makes a file of its own.
            version = f"{file.st_ino}-{file.st_mtime_ns}-{file.st_size}"
            yield StoredObject(base + name, file.st_size, file.st_mtime, version)
        else:
            passed_over(base + name, _why_no_file(entry))


def _is_folder(entry: os.DirEntry[str]) -> bool:
    # A link to itself raises OSError.
    try:
        return entry.is_dir()
    except OSError:
        return False


def _file_stat(entry: os.DirEntry[str]) -> os.stat_result | None:
    """Of a regular file, through links; None for anything else."""
    try:
        return entry.stat() if entry.is_file() else None
    except OSError:
        return None


def _why_no_file(entry: os.DirEntry[str]) -> str:
    if entry.is_symlink():
        return "links to what is no file"
    return "pipes, devices and sockets"


def _listed(entry: os.DirEntry[str], start: str) -> bool:
    return entry.name.startswith(start) and not entry.name.startswith(TEMPORARY)


def _refused(path: Path, error: OSError, *, reading: bool = False) -> NoReturn:
    ways = WAYS_OUT | WAYS_OUT_READING if reading else WAYS_OUT
    said = error.strerror or str(error)
    other = said if reading else f"cannot be written ({said}); use another location"
    why = ways.get(error.errno or 0, other)
    raise StoreError(f"{path}: {why}") from None
