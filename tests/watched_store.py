"""A store on a disk under a test's eyes: each call can be noted, held up or made to fail."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from colddiff.stores.local_store import LocalStore

Before = Callable[[str, str], None]


class Watched(LocalStore):
    """A store on a disk that calls ``before(operation, key)`` first; it may raise or wait."""

    def __init__(self, root: Path, before: Before) -> None:
        super().__init__(root)
        self.before = before

    def get(self, key: str) -> bytes:
        self.before("get", key)
        return super().get(key)

    def put(self, key: str, data: bytes) -> None:
        self.before("put", key)
        super().put(key, data)

    def put_new(self, key: str, data: bytes) -> None:
        self.before("put_new", key)
        super().put_new(key, data)

    def size(self, key: str) -> int | None:
        self.before("size", key)
        return super().size(key)
