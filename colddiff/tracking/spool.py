"""The spool of undelivered tracking entries: small immutable objects in the job's storage.

``jobs/<id>/tracking/`` holds ``spool/<session>/<n>.jsonl`` (delivered in key order, then deleted),
``runs/<tracker>-<n>.json`` (the job's run on a tracker, the first writer wins) and ``refused/``
(entries that the tracker will never accept).
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, get_args

from colddiff.errors import DataError, Exists, RecordError
from colddiff.ports import Store, TrackedDataset
from colddiff.spec.documents import DocumentError, as_record, read_json_object

Kind = Literal["metric", "param", "tag", "artifact", "image", "dataset", "status", "parent"]
FORMAT = 1
PAGE_BYTES = 4_000_000


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing to log; ``value`` is a float's repr (metric), base64 (artifact, image), JSON
    (dataset) or plain text.

    That of a ``parent`` is a job's id: its run may not exist yet, so it is looked up on delivery.
    """

    kind: Kind
    key: str
    value: str
    time_ms: int
    step: int = 0

    @classmethod
    def metric(cls, key: str, value: float, step: int, time_ms: int) -> Entry:
        """A metric; repr keeps every bit of the value, nan and inf included."""
        return cls("metric", key, repr(float(value)), time_ms, step)

    @classmethod
    def artifact(cls, name: str, data: bytes, time_ms: int) -> Entry:
        """A small file."""
        return cls("artifact", name, base64.b64encode(data).decode("ascii"), time_ms)

    @classmethod
    def image(cls, key: str, data: bytes, step: int, time_ms: int) -> Entry:
        """A PNG of a series."""
        return cls("image", key, base64.b64encode(data).decode("ascii"), time_ms, step)

    @classmethod
    def dataset(cls, dataset: TrackedDataset, time_ms: int) -> Entry:
        """An image set that the job reads."""
        return cls("dataset", dataset.use, json.dumps(asdict(dataset)), time_ms)

    @property
    def number(self) -> float:
        """A metric's value."""
        return float(self.value)

    @property
    def data(self) -> bytes:
        """Bytes of an artifact or image."""
        return base64.b64decode(self.value)


@dataclass(frozen=True, slots=True)
class RunHeader:
    """What a session needs to create the job's run, even much later; ``start_ms``: its start.

    A session is one process's use of the run: an attempt has several, one more for each restart.
    """

    job_id: str
    experiment: str
    run_name: str
    start_ms: int


@dataclass(frozen=True, slots=True)
class _RunRecord:
    n: int
    run_id: str


class Spool:
    """The undelivered entries of this session and earlier ones, and the record of the job's run."""

    def __init__(self, store: Store, header: RunHeader) -> None:
        self.header = header
        self._store = store
        self._base = f"jobs/{header.job_id}/tracking/"
        self._session = f"{header.start_ms:013d}-{os.urandom(4).hex()}"
        self._next = 0

    @property
    def storage(self) -> str:
        """The store's URI: equal job ids in two stores are two jobs."""
        return self._store.uri

    def of_job(self, job_id: str) -> Spool:
        """The spool of another job in the same store and experiment."""
        return Spool(self._store, replace(self.header, job_id=job_id, run_name=job_id))

    def keep(self, entries: Sequence[Entry]) -> None:
        """Writes ``entries`` to the store; repeat it with the same entries after a StoreError."""
        for page in _pages(entries):
            lines = [json.dumps({"format": FORMAT, **asdict(self.header)})]
            lines += [json.dumps(asdict(entry)) for entry in page]
            self._store.put(
                f"{self._base}spool/{self._session}/{self._next:08d}.jsonl",
                "\n".join(lines).encode(),
            )
            self._next += 1

    def backlog(self) -> list[str]:
        """Keys of spooled objects, in the order they were logged."""
        return undelivered(self._store, self.header.job_id)

    def read(self, key: str) -> tuple[RunHeader, list[Entry]]:
        """One spooled object; DataError if it is damaged, Missing if it was deleted."""
        return decode(key, self._store.get(key))

    def discard(self, key: str) -> None:
        """Deletes a delivered object."""
        self._store.delete(key)

    def set_aside(self, key: str) -> str:
        """Moves a damaged object to ``refused/``, so that it does not block the others."""
        target = f"{self._base}refused/{key.rpartition('/')[2]}"
        self._store.put(target, self._store.get(key))
        self._store.delete(key)
        return target

    def refuse(self, entry: Entry, reason: str) -> str:
        """Stores an entry that the tracker will never accept, named by the hash of its content."""
        data = json.dumps({**asdict(entry), "reason": reason}).encode()
        key = f"{self._base}refused/{hashlib.sha256(data).hexdigest()[:16]}.json"
        self._store.put(key, data)
        return key

    def known_run(self, tracker: str) -> tuple[int, str] | None:
        """(n, id) of the latest run recorded for a tracker."""
        found = [s.key for s in self._store.list(f"{self._base}runs/{_hash(tracker)}-")]
        if not found:
            return None
        record = self._record(found[-1])
        return record.n, record.run_id

    def runs_elsewhere(self, tracker: str) -> list[str]:
        """Ids of the runs recorded for other trackers, such as this one before it was moved."""
        prefix = f"{self._base}runs/"
        keys = [item.key for item in self._store.list(prefix)]
        here = f"{prefix}{_hash(tracker)}-"
        return [self._record(key).run_id for key in reversed(keys) if not key.startswith(here)]

    def claim_run(self, tracker: str, n: int, run_id: str) -> str:
        """Records ``run_id`` as the ``n``-th run on a tracker; returns the id recorded first."""
        key = f"{self._base}runs/{_hash(tracker)}-{n:04d}.json"
        record = {"n": n, "run_id": run_id, "tracker": tracker}
        try:
            self._store.put_new(key, json.dumps(record).encode())
        except Exists:
            return self._record(key).run_id
        return run_id

    def _record(self, key: str) -> _RunRecord:
        try:
            return as_record(_RunRecord, read_json_object(self._store.get(key)))
        except DocumentError as error:
            raise RecordError(
                f"{self._store.uri}/{key} {error}; delete it, and the job's next attempt finds its "
                "run again or begins another"
            ) from None


def now_ms() -> int:
    """Milliseconds since 1970, the unit of ``time_ms`` and ``start_ms``."""
    return time.time_ns() // 1_000_000


def undelivered(store: Store, job_id: str) -> list[str]:
    """Keys of a job's spooled objects, in the order they were logged."""
    return [stored.key for stored in store.list(f"jobs/{job_id}/tracking/spool/")]


def keep_end(store: Store, job_id: str, experiment: str, status: str) -> bool:
    """Spools the end of a job's run, for an attempt that could not; False if it has no run."""
    if next(iter(store.list(f"jobs/{job_id}/tracking/")), None) is None:
        return False
    now = now_ms()
    header = RunHeader(job_id, experiment, job_id, now)
    Spool(store, header).keep([Entry("status", "status", status, now)])
    return True


def decode(key: str, data: bytes) -> tuple[RunHeader, list[Entry]]:
    """A spooled object's header and entries; DataError if it is not a valid one."""
    try:
        first, *rest = (read_json_object(line) for line in data.decode().splitlines())
        if first.pop("format") != FORMAT:
            raise ValueError("unknown format")
        first.pop("tags", None)  # earlier versions wrote them, always empty
        return RunHeader(**first), [_entry(line) for line in rest]
    except (ValueError, TypeError, KeyError, DocumentError) as error:
        raise DataError(f"{key}: not a spooled tracking object ({error})") from None


def _entry(line: Mapping[str, Any]) -> Entry:
    entry = Entry(**line)
    if entry.kind not in get_args(Kind):
        raise ValueError(f"unknown kind {entry.kind!r}")
    return entry


def _pages(entries: Sequence[Entry]) -> Iterator[list[Entry]]:
    page: list[Entry] = []
    size = 0
    for entry in entries:
        if page and size + len(entry.value) > PAGE_BYTES:
            yield page
            page, size = [], 0
        page.append(entry)
        size += len(entry.value) + 100
    if page:
        yield page


def has_run(store: Store, job_id: str, run_id: str) -> bool:
    """Whether the job in this store has recorded ``run_id`` as its run."""
    spool = Spool(store, RunHeader(job_id, "", "", 0))
    return run_id in spool.runs_elsewhere("")


def _hash(tracker: str) -> str:
    return hashlib.sha256(tracker.encode()).hexdigest()[:8]
