"""One thing that nobody needs any more, and the age of things by the clock of their own store."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from colddiff.ports import Store, StoredObject

Kind = Literal["checkpoint", "upload", "attempt", "ray", "packing", "probe", "temporary", "staging"]


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

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready, for `--json`."""
        return {
            "kind": self.kind,
            "where": self.where,
            "why": self.why,
            "objects": len(self.keys),
            "bytes": self.bytes,
        }

    def delete(self) -> None:
        """Deletes its objects; those that are gone already count as deleted."""
        for key in self.keys:
            self.store.delete(key)


def leftover(
    kind: Kind,
    place: str,
    why: str,
    objects: Iterable[StoredObject],
    store: Store,
    job_id: str = "",
) -> Leftover:
    """Of ``objects``, in their order; ``place`` is their folder or key in ``store``."""
    found = list(objects)
    keys, size = tuple(item.key for item in found), sum(item.size for item in found)
    return Leftover(kind, f"{store.uri}/{place}", why, keys, size, store, job_id)


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

    def old(self, objects: Iterable[StoredObject]) -> bool:
        """Whether none of them was written within the last ``older_than_s`` seconds."""
        return all(self.now - item.modified >= self.older_than_s for item in objects)
