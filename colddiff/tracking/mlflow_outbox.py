"""What waits for delivery to MLflow: in memory, and in the job's storage while MLflow is down."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence

from colddiff.errors import DataError, Missing, StoreError, TrackerError
from colddiff.ports import Store
from colddiff.retry import Backoff
from colddiff.tracking.address import TrackingAddress, checked_uri
from colddiff.tracking.mlflow_run import MlflowRun, Refused, connect
from colddiff.tracking.mlflow_service import load_mlflow
from colddiff.tracking.spool import Entry, RunHeader, Spool, decode, undelivered

RETRY = Backoff(first_s=1.0, longest_s=60.0)
BATCH = 5000

Talk = Callable[[str], None]
log = logging.getLogger("colddiff.tracking")


class Outbox:
    """Delivers entries in the order they were logged, older sessions' before its own.

    Not a thread of its own: ``work`` is called by one thread again and again, ``rescue`` by any.
    """

    def __init__(
        self, address: TrackingAddress, spool: Spool, *, timeout_s: float, talk: Talk
    ) -> None:
        self.run_id = ""
        self.delivered = 0
        self.talk = talk
        self.address = address
        self._spool = spool
        self._timeout_s = timeout_s
        self._waiting: list[Entry] = []
        self._keeping = threading.Lock()
        self._kept = True  # until a look at the storage has shown that nothing is there
        self._run: MlflowRun | None = None
        self._failures = 0  # of the tracker, in a row
        self._next_try = 0.0
        self._said: set[str] = set()

    @property
    def clean(self) -> bool:
        """Whether everything that came here has been delivered."""
        return not self._waiting and not self._kept

    def work(self, take: Callable[[], list[Entry]], *, urgent: bool) -> None:
        """One round: takes what is new, and delivers it or makes it durable.

        ``urgent`` tries a tracker that was down at once, and looks for what others left behind.
        """
        self._waiting += take()
        self._kept |= urgent
        if self.clean:
            return
        is_down = self._failures > 0
        try:
            if is_down:
                self._keep()
            if is_down and not urgent and time.monotonic() < self._next_try:
                return
            try:
                self.drain(take)
                self._deliver_waiting()
            except TrackerError as error:
                self._down(f"{error}; what is logged waits in {self._spool.storage} and follows")
                self._keep()
            else:
                self._up()
        except StoreError as error:
            # In memory until the next round; training, which needs the storage, will end by itself.
            self._say_once(f"tracking: {error}")

    def drain(self, take: Callable[[], list[Entry]] = list) -> None:
        """Delivers what is in the storage, oldest first; what is taken meanwhile queues behind."""
        run = self._connected()
        while self._kept:
            keys = self._spool.backlog()
            self._kept = bool(keys)
            for key in keys:
                try:
                    header, entries = self._spool.read(key)
                except Missing:
                    continue  # another process of the job has delivered it
                except DataError as error:
                    self._say_once(f"{error}; set aside as {self._spool.set_aside(key)}")
                    continue
                self._deliver(run, entries, header.start_ms)
                self._spool.discard(key)
                self._waiting += take()
                self._keep()

    def rescue(self, entries: Sequence[Entry]) -> None:
        """Makes durable what waits, also while ``work`` hangs; to deliver twice changes nothing."""
        with self._keeping:
            self._waiting += entries
            try:
                self._spool.keep(list(self._waiting))
                self._kept = True
            except StoreError as error:
                self._say_once(f"tracking: {error}")

    def _deliver_waiting(self) -> None:
        run = self._connected()
        while self._waiting:
            batch = self._waiting[:BATCH]
            self._deliver(run, batch, self._spool.header.start_ms)
            del self._waiting[: len(batch)]

    def _deliver(self, run: MlflowRun, entries: Sequence[Entry], since_ms: int) -> None:
        refused: Refused = run.deliver(entries, since_ms)
        self.delivered += len(entries) - len(refused)
        for entry, reason in refused:
            key = self._spool.refuse(entry, reason)
            self._say_once(f"tracker refuses {entry.kind} {entry.key!r} ({reason}); see {key}")

    def _connected(self) -> MlflowRun:
        if self._run is None:
            self._run = connect(self.address, self._spool, timeout_s=self._timeout_s)
            self.run_id = self._run.run_id
        return self._run

    def _keep(self) -> None:
        with self._keeping:
            if not self._waiting:
                return
            self._spool.keep(self._waiting)
            self._waiting.clear()
            self._kept = True

    def _down(self, problem: str) -> None:
        self._run = None
        self._failures += 1
        self._next_try = time.monotonic() + RETRY.pause_s(self._failures)
        self._say_once(problem)

    def _up(self) -> None:
        if self._failures:
            self.talk(f"tracker {self.address} is back; what waited has been delivered")
            self._said.clear()
        self._failures = 0

    def _say_once(self, line: str) -> None:
        if line not in self._said:
            self._said.add(line)
            self.talk(line)


def replay(
    store: Store,
    job_id: str,
    uri: str,
    *,
    artifact_root: str | None = None,
    timeout_s: float = 10.0,
    talk: Talk = log.warning,
) -> int:
    """Delivers what a job that no longer runs has left in its storage; returns how many entries.

    Creates the run where no attempt has met the tracker. A second call, and one after a kill in
    the middle, changes nothing that is delivered. Raises SpecError, StoreError, TrackerError.
    """
    address = TrackingAddress(checked_uri(uri), artifact_root)
    header = _first_header(store, job_id)
    if header is None:
        return 0
    load_mlflow(address.uri)
    outbox = Outbox(address, Spool(store, header), timeout_s=timeout_s, talk=talk)
    outbox.drain()
    return outbox.delivered


def _first_header(store: Store, job_id: str) -> RunHeader | None:
    for key in undelivered(store, job_id):
        try:
            return decode(key, store.get(key))[0]
        except (DataError, Missing):
            continue
    return None
