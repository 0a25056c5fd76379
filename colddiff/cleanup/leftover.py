"""One thing that nobody needs any more, and the age of things by the clock of their own store."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from colddiff.cleanup.ours import linked
from colddiff.errors import StoreError
from colddiff.ports import Store, StoredObject
from colddiff.stores.local_store import LocalStore

Kind = Literal[
    "checkpoint",
    "upload",
    "attempt",
    "ray",
    "packing",
    "probe",
    "temporary",
    "staging",
    "snapshot",
]


@dataclass(frozen=True, slots=True)
class Leftover:
    """Objects that are deleted together, in this order: a deletion that is interrupted is safe."""

    kind: Kind
    where: str
    """Address, for people."""
    why: str
    keys: Sequence[str] = field(repr=False)
    bytes: int
    store: Store = field(repr=False, compare=False)
    job_id: str = ""
    """The job that it is of, which must be at rest."""
    unchanged: Callable[[], bool] = field(default=lambda: True, repr=False, compare=False)
    """Whether nobody has gone on with it since it was found: asked before each deletion."""

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready, for `--json`."""
        return {
            "kind": self.kind,
            "where": self.where,
            "why": self.why,
            "objects": len(self.keys),
            "bytes": self.bytes,
        }

    def delete(self) -> bool:
        """Deletes its objects; those that are gone already count as deleted.

        False, and the rest is left, where somebody has gone on with it since it was found.
        """
        for key in self.keys:
            if linked(self.store, key) or not self.unchanged():
                return False
            self.store.delete(key)
        return True


def leftover(
    kind: Kind,
    place: str,
    why: str,
    objects: Iterable[StoredObject],
    store: Store,
    job_id: str = "",
    unchanged: Callable[[], bool] = lambda: True,
) -> Leftover:
    """Of ``objects``, in their order; ``place`` is their folder or key in ``store``."""
    found = list(objects)
    keys, size = tuple(item.key for item in found), sum(item.size for item in found)
    where = f"{store.uri}/{place}"
    return Leftover(kind, where, why, keys, size, store, job_id, unchanged)


@dataclass(frozen=True, slots=True)
class Ages:
    """Tells what is old enough, by the store's clock: that of this machine may be wrong."""

    now: float
    older_than_s: float

    @classmethod
    def of(cls, store: Store, older_than_s: float) -> Ages:
        """Reads the store's clock from an object that is written, listed and deleted."""
        key = f"probes/{uuid.uuid4().hex}"
        store.put(key, b"what time is it?")
        try:
            now = max(item.modified for item in store.list(key))
        finally:
            store.delete(key)
        return cls(now, older_than_s)

    @classmethod
    def unwritten(cls, store: Store, older_than_s: float) -> Ages:
        """As ``of`` where nothing may be written, such as of a STORAGE that can only be read.

        On a disk by this machine's clock. In S3, where writing is not allowed, by the newest
        object, which is earlier than now: what looks old then is older.
        """
        if isinstance(store, LocalStore):
            return cls(time.time(), older_than_s)
        try:
            return cls.of(store, older_than_s)
        except StoreError:
            return cls(max((item.modified for item in store.list()), default=0.0), older_than_s)

    def old(self, objects: Iterable[StoredObject]) -> bool:
        """Whether none of them was written within the last ``older_than_s`` seconds."""
        return all(self.now - item.modified >= self.older_than_s for item in objects)
