"""A store in memory, a test double for the real ones."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Iterator

from colddiff.errors import Exists, Missing
from colddiff.ports import StoredObject
from colddiff.stores.keys import checked_key, checked_prefix


class MemoryStore:
    """Implements ``Store``; safe to share between threads."""

    def __init__(self, name: str = "store") -> None:
        self._uri = f"memory://{name}"
        self._objects: dict[str, bytes] = {}
        self._modified: dict[str, float] = {}
        self._lock = threading.Lock()

    @property
    def uri(self) -> str:
        return self._uri

    def get(self, key: str) -> bytes:
        try:
            return self._objects[checked_key(key)]
        except KeyError:
            raise Missing(f"{self.uri}/{key}: no such object") from None

    def put(self, key: str, data: bytes) -> None:
        with self._lock:
            self._objects[checked_key(key)] = bytes(data)
            self._modified[key] = time.time()

    def put_new(self, key: str, data: bytes) -> None:
        with self._lock:
            if checked_key(key) in self._objects:
                raise Exists(f"{self.uri}/{key}: is already there")
            self._objects[key] = bytes(data)
            self._modified[key] = time.time()

    def size(self, key: str) -> int | None:
        data = self._objects.get(checked_key(key))
        return None if data is None else len(data)

    def list(self, prefix: str = "") -> Iterator[StoredObject]:
        checked_prefix(prefix)
        with self._lock:
            found = {key: data for key, data in self._objects.items() if key.startswith(prefix)}
        for key, data in sorted(found.items()):
            version = hashlib.sha256(data).hexdigest()
            yield StoredObject(key, len(data), self._modified[key], version)

    def folders(self, prefix: str) -> Iterator[str]:
        below = (item.key.removeprefix(prefix).split("/") for item in self.list(prefix))
        yield from dict.fromkeys(name for name, *rest in below if rest)

    def delete(self, key: str) -> None:
        with self._lock:
            self._objects.pop(checked_key(key), None)

    def clear(self, prefix: str) -> None:
        for item in self.list(prefix):
            self.delete(item.key)
