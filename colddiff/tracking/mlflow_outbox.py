"""The outbox of a job's driver: delivers its entries and those its other processes spooled."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from colddiff.errors import DataError, Missing, StoreError, TrackerError
from colddiff.ports import Store
from colddiff.retry import Backoff
from colddiff.tracking.address import TrackingAddress, checked_uri
from colddiff.tracking.mlflow_run import MlflowRun, Refused, connect
from colddiff.tracking.mlflow_service import WAY_OUT, load_mlflow
from colddiff.tracking.spool import PAGE_BYTES, Entry, RunHeader, Spool, decode, undelivered

RETRY = Backoff(first_s=1.0, longest_s=60.0)
BATCH = 5000
BUSY_S, IDLE_S = 4.0, 8.0
"""Between listings of what the job's other processes spooled: after one that found any, or none."""

log = logging.getLogger(__name__)


@dataclass
class _Load:
    """Spooled objects that are delivered together."""

    since_ms: int
    """Start of their session."""
    keys: list[str] = field(default_factory=list)
    entries: list[Entry] = field(default_factory=list)

    def takes(self, since_ms: int) -> bool:
        """Whether an object of the session that began at ``since_ms`` can be added."""
        size = sum(len(entry.value) for entry in self.entries)
        return since_ms == self.since_ms and len(self.entries) < BATCH and size < PAGE_BYTES


class MlflowOutbox:
    """Implements ``Outbox``: delivers entries as they were logged, those of earlier sessions first.

    Those are what this process spooled while the tracker was down, what earlier attempts left, and
    what the job's other processes relay all the time. Logs once each that the tracker is down, that
    it is back, and what it rejects.
    """

    every_s = 2.0

    def __init__(self, address: TrackingAddress, spool: Spool, *, timeout_s: float) -> None:
        self.run_id = ""
        self.delivered = 0
        self.address = address
        self._spool = spool
        self._timeout_s = timeout_s
        self._pending: list[Entry] = []
        self._spooling = threading.Lock()
        self._spooled = True  # until everything that a listing found has been delivered
        self._collect_at = 0.0
        self._run: MlflowRun | None = None
        self._failures = 0  # consecutive failures of the tracker
        self._next_try = 0.0
        self._late: dict[tuple[str, str, int], tuple[Entry, str]] = {}
        """Artifacts that had no place to go to, and where they are set aside, by what they are."""
        self._late_at = 0.0
        self._logged: set[str] = set()

    @property
    def clean(self) -> bool:
        """Whether everything has been delivered."""
        return not self._pending and not self._spooled

    def work(self, take: Callable[[], list[Entry]], *, urgent: bool, last: bool = False) -> None:
        """One round: takes new entries, and delivers or spools them.

        ``urgent`` retries a tracker that was down without backoff, and lists the storage for
        entries spooled by other processes; ``last``: artifacts that it could not keep, too.
        """
        if self._late and (last or time.monotonic() > self._late_at):
            self._late_at = time.monotonic() + RETRY.longest_s
            self._pending[:0] = [entry for entry, _ in self._late.values()]
        self._pending += take()
        self._spooled |= urgent or time.monotonic() >= self._collect_at
        if self.clean:
            return
        is_down = self._failures > 0
        try:
            if is_down:
                self._spool_pending()
            if is_down and not urgent and time.monotonic() < self._next_try:
                return
            try:
                self.drain(take)
                self._deliver_pending()
            except TrackerError as error:
                why = str(error).removesuffix(f"; {WAY_OUT}")  # of a submission, not of a job
                self._down(f"{why}; entries are spooled in {self._spool.storage} until it is back")
                self._spool_pending()
            else:
                self._up()
        except StoreError as error:
            # Kept in memory until the next round; without its storage, training ends by itself.
            self._warn_once(f"tracking: {error}")

    def drain(self, take: Callable[[], list[Entry]] = list) -> None:
        """Delivers spooled entries, oldest first; new ones are spooled behind them.

        Raises TrackerError, StoreError.
        """
        run = self._connected()
        while self._spooled:
            self._spooled = False  # before the listing: meanwhile `rescue` may spool more
            try:
                found = self._deliver_spooled(run, take)
            except BaseException:
                self._spooled = True
                raise
            self._collect_at = time.monotonic() + (BUSY_S if found else IDLE_S)

    def _deliver_spooled(self, run: MlflowRun, take: Callable[[], list[Entry]]) -> bool:
        """Delivers what one listing finds; returns whether it found any."""
        found = False
        for load in self._loads(self._spool.backlog()):
            if found:
                # This may take minutes: what is logged meanwhile is spooled behind the rest.
                self._pending += take()
                self._spool_pending()
            self._deliver(run, load.entries, load.since_ms)
            for key in load.keys:
                self._spool.discard(key)
            found = True
        return found

    def _loads(self, keys: Sequence[str]) -> Iterator[_Load]:
        """Spooled objects in their order, as many at once as belong to one session.

        A server takes as long for one row as for a thousand: the objects of an outage, delivered
        one by one, would take longer than it did.
        """
        load: _Load | None = None
        for key in keys:
            try:
                header, entries = self._spool.read(key)
            except Missing:
                continue  # another driver of the job has delivered it
            except DataError as error:
                self._warn_once(f"{error}; moved to {self._spool.set_aside(key)}")
                continue
            if load is not None and not load.takes(header.start_ms):
                yield load
                load = None
            load = load or _Load(header.start_ms)
            load.keys.append(key)
            load.entries += entries
        if load is not None:
            yield load

    def rescue(self, entries: Sequence[Entry]) -> None:
        """Spools all pending entries, even while ``work`` hangs; delivery is idempotent."""
        with self._spooling:
            self._pending += entries
            try:
                self._spool.keep(list(self._pending))
                self._spooled = True
            except StoreError as error:
                self._warn_once(f"tracking: {error}")

    def _deliver_pending(self) -> None:
        run = self._connected()
        while self._pending:
            batch = self._pending[:BATCH]
            self._deliver(run, batch, self._spool.header.start_ms)
            del self._pending[: len(batch)]

    def _deliver(self, run: MlflowRun, entries: Sequence[Entry], since_ms: int) -> None:
        refused: Refused = run.deliver(entries, since_ms)
        self.delivered += len(entries) - len(refused)
        if self._late:
            # Taken now, or replaced, or set aside again below.
            for entry in entries:
                if late := self._late.pop(_what(entry), None):
                    self._spool.discard(late[1])
        for item in refused:
            entry = item.entry
            key = self._spool.refuse(entry, item.reason)
            does = "rejects" if item.for_good else "cannot keep"
            self._warn_once(f"tracker {does} {entry.kind} {entry.key!r} ({item.reason}); see {key}")
            if not item.for_good:
                self._late[_what(entry)] = (entry, key)
                self._late_at = time.monotonic() + RETRY.longest_s

    def _connected(self) -> MlflowRun:
        if self._run is None:
            self._run = connect(self.address, self._spool, timeout_s=self._timeout_s)
            self.run_id = self._run.run_id
        return self._run

    def _spool_pending(self) -> None:
        with self._spooling:
            if not self._pending:
                return
            self._spool.keep(self._pending)
            self._pending.clear()
            self._spooled = True

    def _down(self, problem: str) -> None:
        self._run = None
        self._failures += 1
        self._next_try = time.monotonic() + RETRY.pause_s(self._failures)
        self._warn_once(problem)

    def _up(self) -> None:
        if self._failures:
            log.warning("tracker %s is back; spooled entries have been delivered", self.address)
            self._logged.clear()
        self._failures = 0

    def _warn_once(self, line: str) -> None:
        if line not in self._logged:
            self._logged.add(line)
            log.warning("%s", line)


def _what(entry: Entry) -> tuple[str, str, int]:
    """What an entry is of: a later one of an artifact replaces it."""
    return entry.kind, entry.key, entry.step


def replay(
    store: Store,
    job_id: str,
    uri: str,
    *,
    artifact_root: str | None = None,
    timeout_s: float = 10.0,
) -> int:
    """Delivers the spooled entries of a job that no longer runs; returns their number.

    Creates the run if no attempt could reach the tracker. Idempotent, also after a kill in the
    middle. Raises SpecError, StoreError, TrackerError.
    """
    address = TrackingAddress(checked_uri(uri), artifact_root)
    header = _first_header(store, job_id)
    if header is None:
        return 0
    load_mlflow(address.uri)
    outbox = MlflowOutbox(address, Spool(store, header), timeout_s=timeout_s)
    outbox.drain()
    return outbox.delivered


def _first_header(store: Store, job_id: str) -> RunHeader | None:
    for key in undelivered(store, job_id):
        try:
            return decode(key, store.get(key))[0]
        except (DataError, Missing):
            continue
    return None
