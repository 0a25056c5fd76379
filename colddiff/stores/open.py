"""Addresses of stores: parse, make absolute, open, check."""

from __future__ import annotations

import os
import re
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from colddiff.errors import SpecError
from colddiff.ports import Store
from colddiff.spec.documents import shown
from colddiff.stores.paths import absolute_path

# Any scheme, not just ``x://``: some tools of this field execute what follows ``pipe:``.
BUCKET = re.compile(r"[A-Za-z0-9][^/\s]*(/|$)")
ADDRESS = re.compile(r"([a-z][a-z0-9+.-]+):(//)?(.*)", re.IGNORECASE | re.DOTALL)


def open_store(uri: str) -> Store:
    """The store at a path or ``s3://bucket/prefix``; contacts nothing. Raises SpecError."""
    scheme, rest = _parted(uri)
    if scheme == "s3":
        from colddiff.stores.s3_store import S3Store

        bucket, _, prefix = rest.partition("/")
        return S3Store(bucket, prefix)
    from colddiff.stores.local_store import LocalStore

    return LocalStore(Path(rest))


def object_at(uri: str) -> tuple[Store, str]:
    """The store that the object at a path or URI is in, and its key; contacts nothing."""
    folder, _, name = uri.rpartition("/")
    return open_store(folder or "/"), name


def storage_at(place: str | None = None) -> str:
    """STORAGE as an absolute address: ``place``, else COLDDIFF_STORAGE, else ./runs."""
    return absolute(place or os.environ.get("COLDDIFF_STORAGE") or "./runs")


def absolute(uri: str) -> str:
    """The absolute address: paths made absolute, no trailing slash. Raises SpecError."""
    scheme, rest = _parted(uri)
    return uri.rstrip("/") if scheme == "s3" else str(absolute_path(rest))


def _parted(uri: str) -> tuple[str, str]:
    """Scheme and remainder of an address; a path has the scheme ``file``."""
    if not isinstance(uri, str):
        raise SpecError(f"a storage address is text, got {shown(uri)}; of a Path, str(path)")
    match = ADDRESS.match(uri)
    scheme, slashes, rest = match.groups() if match else ("file", "//", uri)
    # An S3 access point's ARN is a bucket name too; what S3 would say of others, it says itself.
    named = BUCKET.match(rest) if scheme == "s3" else rest
    if not named or not slashes or scheme not in ("file", "s3"):
        raise SpecError(
            f"{uri!r} is not a storage address: use a path (./{uri} if the name has a colon) or "
            "s3://bucket/prefix"
        )
    return scheme, rest


def make_storage(uri: str) -> None:
    """Creates a STORAGE on a disk for this user alone (0700), unless it is there or is in S3.

    One that is shared on purpose is there already, with the permissions that its group needs.
    Raises StoreError.
    """
    scheme, rest = _parted(uri)
    if scheme == "file":
        from colddiff.stores.local_store import LocalStore

        LocalStore(Path(rest)).make_private()


@contextmanager
def probed(uri: str) -> Iterator[str]:
    """Within ``with``, a small object is at ``uri``, by the key that is yielded.

    Raises StoreError if it cannot be written or deleted.
    """
    store = open_store(uri)
    key = f"probes/{uuid.uuid4().hex}"
    store.put(key, b"writable?")
    try:
        yield key
    finally:
        store.delete(key)


def check_writable(uri: str) -> None:
    """Writes and deletes a small object; raises StoreError if that fails."""
    with probed(uri):
        pass


def free_bytes(uri: str) -> int | None:
    """Free space on the disk of a path, in bytes; None if it is unknown, as in S3."""
    scheme, rest = _parted(uri)
    if scheme == "s3":
        return None
    path = Path(rest)
    existing = next((folder for folder in (path, *path.parents) if folder.exists()), None)
    return shutil.disk_usage(existing).free if existing is not None else None
