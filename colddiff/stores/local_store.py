"""A store in a local folder: every write is one rename or one link of a complete file."""

from __future__ import annotations

import errno
import os
import uuid
from collections.abc import Iterator
from contextlib import suppress
from io import BufferedWriter
from pathlib import Path
from typing import NoReturn

from colddiff.errors import Exists, Missing, StoreError
from colddiff.ports import StoredObject
from colddiff.stores.keys import TEMPORARY, checked_key, checked_prefix
from colddiff.stores.paths import absolute_path

WAYS_OUT = {
    errno.ENOSPC: "the disk is full; free some space or use another location",
    errno.EDQUOT: "the disk quota is used up; free some space or use another location",
    errno.EACCES: "permission denied; use a location this user may write to",
    errno.EPERM: "not permitted; use a location this user may write to",
    errno.EROFS: "the file system is read-only; use another location",
    errno.ENOTDIR: "a part of this path is a file, not a folder",
    errno.EEXIST: "a part of this path is a file, not a folder",
    errno.EISDIR: "is a folder, not an object",
    errno.ENAMETOOLONG: "the name is too long for this file system",
}
# A concurrent delete may prune a folder between its creation and the write into it.
ATTEMPTS = 100


class LocalStore:
    """Implements ``Store`` below ``root``, which is created on the first write.

    A write goes to a temporary file in the same folder, is flushed to disk and then renamed
    (``put``) or linked (``put_new``) to its name; remains of a crash are never listed. Requires a
    file system with hard links and atomic renames.
    """

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self.root = absolute_path(root)

    @property
    def uri(self) -> str:
        return str(self.root)

    def path(self, key: str) -> Path:
        """The object's path on the disk; raises SpecError for an invalid key."""
        return self.root / checked_key(key)

    def get(self, key: str) -> bytes:
        path = self.path(key)
        try:
            # A pipe or a device has no end.
            if path.exists() and not (path.is_file() or path.is_dir()):
                raise StoreError(f"{path}: is not a regular file")
            return path.read_bytes()
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            raise Missing(f"{path}: no such object") from None
        except OSError as error:
            _refused(path, error)

    def put(self, key: str, data: bytes) -> None:
        path = self.path(key)
        try:
            temporary = _written(path, data)
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
            temporary = _written(path, data)
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
            return path.stat().st_size if path.is_file() else None
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            _refused(path, error)

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


def _written(path: Path, data: bytes) -> Path:
    """A flushed file with ``data`` beside ``path``, under a temporary name."""
    temporary = path.parent / f"{TEMPORARY}{uuid.uuid4().hex}"
    try:
        with _opened(temporary) as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise
    return temporary


def _opened(path: Path) -> BufferedWriter:
    for _ in range(ATTEMPTS):
        try:
            _make_folder(path.parent)
            return path.open("xb")
        except FileNotFoundError:
            continue
        except FileExistsError:
            # Created and pruned by others in between, or a file is in the way.
            if path.parent.exists() and not path.parent.is_dir():
                raise
    raise FileNotFoundError(errno.ENOENT, "its folder keeps disappearing")


def _make_folder(folder: Path) -> None:
    missing = [part for part in (folder, *folder.parents) if not part.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for part in missing:
        _flush_folder(part.parent)


def _flush_folder(folder: Path) -> None:
    # Without it a crash of the machine may lose the name although the bytes were kept.
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        # Some network file systems cannot flush folders and return EINVAL.
        with suppress(OSError):
            os.fsync(handle)
    finally:
        os.close(handle)


def _walk(
    folder: Path, base: str, start: str, above: tuple[tuple[int, int], ...]
) -> Iterator[StoredObject]:
    try:
        here = folder.stat()
        # A link to a folder is followed, unless it leads back to a parent folder.
        if (here.st_dev, here.st_ino) in above:
            return
        with os.scandir(folder) as found:
            entries = [entry for entry in found if _listed(entry, start)]
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        _refused(folder, error)
    within = (*above, (here.st_dev, here.st_ino))
    # Key order: ``a-b`` < ``a/b`` < ``a0``, so a folder sorts as its name with the slash.
    named = sorted((entry.name + "/" * _is_folder(entry), entry) for entry in entries)
    for name, entry in named:
        if name.endswith("/"):
            yield from _walk(folder / entry.name, base + name, "", within)
        elif _is_file(entry):
            with suppress(FileNotFoundError):
                yield StoredObject(base + name, entry.stat().st_size)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False  # a link to itself


def _is_file(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_file()
    except OSError:
        return False


def _listed(entry: os.DirEntry[str], start: str) -> bool:
    return entry.name.startswith(start) and not entry.name.startswith(TEMPORARY)


def _refused(path: Path, error: OSError) -> NoReturn:
    why = WAYS_OUT.get(error.errno or 0, error.strerror or str(error))
    raise StoreError(f"{path}: {why}") from None
