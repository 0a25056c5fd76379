"""One process's session with a job's tracking run: entries go to an outbox in a thread."""

from __future__ import annotations

import atexit
import logging
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol

from colddiff.background import in_context
from colddiff.machine.credentials import masked
from colddiff.ports import TrackedDataset
from colddiff.tracking.spool import Entry, now_ms

log = logging.getLogger(__name__)

ENDS = ("FINISHED", "FAILED", "KILLED")


class Outbox(Protocol):
    """Where a session's entries go: ``work`` is called by one thread, ``rescue`` by any."""

    @property
    def every_s(self) -> float:
        """Seconds from one round of work to the next."""

    @property
    def run_id(self) -> str:
        """The run's id; empty where it is not known."""

    @property
    def clean(self) -> bool:
        """Whether nothing is left to do."""

    def work(self, take: Callable[[], list[Entry]], *, urgent: bool, last: bool = False) -> None:
        """One round: takes new entries and moves them on; ``urgent`` without backoff."""

    def rescue(self, entries: Sequence[Entry]) -> None:
        """Keeps ``entries`` as safe as can be while ``work`` hangs."""


class Session:
    """Implements ``Tracker``: one process's session with the job's one run.

    Logging puts an entry into memory and returns; a thread moves the entries on. The driver's
    session delivers them to MLflow (``MlflowOutbox``); those of the other processes of a job spool
    them for it in the job's storage (``Relay``), and neither import MLflow nor reach for it.
    ``flush`` returns when everything is delivered or spooled: called before a checkpoint is
    committed, it ensures that a kill only loses entries that the resumed run logs again (nothing is
    logged twice either: see ``MlflowRun.deliver``).
    """

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox
        self._lock = threading.Condition()
        self._entries: list[Entry] = []
        self._asked = self._answered = 0
        self._ended = False
        self._thread = threading.Thread(target=in_context(self._work), name="tracking", daemon=True)
        self._thread.start()
        atexit.register(self.close, timeout_s=10.0)

    @property
    def run_id(self) -> str:
        """The run's id; empty until the tracker has responded, and in other processes."""
        return self._outbox.run_id

    def connect(self) -> None:
        """Reaches for the tracker now instead of with the next round; returns at once."""
        with self._lock:
            self._asked += 1
            self._lock.notify_all()

    def log_params(self, params: Mapping[str, str]) -> None:
        self._add(Entry("param", key, str(value), now_ms()) for key, value in params.items())

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        now = now_ms()
        self._add(Entry.metric(key, value, step, now) for key, value in metrics.items())

    def set_tags(self, tags: Mapping[str, str]) -> None:
        self._add(Entry("tag", key, str(value), now_ms()) for key, value in tags.items())

    def set_parent(self, job_id: str) -> None:
        self._add([Entry("parent", "parent", job_id, now_ms())])

    def log_artifact(self, name: str, data: bytes) -> None:
        self._add([Entry.artifact(name, data, now_ms())])

    def log_image(self, key: str, data: bytes, step: int) -> None:
        self._add([Entry.image(key, data, step, now_ms())])

    def log_dataset(self, dataset: TrackedDataset) -> None:
        self._add([Entry.dataset(dataset, now_ms())])

    def set_running(self) -> None:
        """Sets the run's status to running, also if it had ended."""
        self._add([Entry("status", "status", "RUNNING", now_ms())])

    def flush(self, timeout_s: float = 30.0) -> bool:
        with self._lock:
            self._asked += 1
            mine = self._asked
            self._lock.notify_all()
            in_time = self._lock.wait_for(lambda: self._answered >= mine, timeout_s)
        if not in_time:
            # The thread hangs in a request: spool the entries from this thread instead.
            self._outbox.rescue(self._take())
        return in_time and self._outbox.clean

    def finish(self, status: str) -> None:
        if status not in ENDS:
            raise ValueError(f"a run ends as one of {', '.join(ENDS)}, not {status!r}")
        self._add([Entry("status", "status", status, now_ms())])
        self.close()

    def close(self, timeout_s: float = 30.0) -> None:
        with self._lock:
            if self._ended:
                return
            self._ended = True
        self.flush(timeout_s)
        atexit.unregister(self.close)

    def _add(self, entries: Iterable[Entry]) -> None:
        with self._lock:
            if self._ended:
                log.warning("tracking: ignoring what is logged after the end of the run")
                return
            self._entries.extend(entries)

    def _take(self) -> list[Entry]:
        with self._lock:
            entries, self._entries = self._entries, []
        return entries

    def _work(self) -> None:
        ended = False
        while not ended:
            with self._lock:
                self._lock.wait_for(lambda: self._asked > self._answered, self._outbox.every_s)
                asked, urgent, ended = self._asked, self._asked > self._answered, self._ended
            try:
                self._outbox.work(self._take, urgent=urgent, last=ended)
            except Exception as error:
                # Must never stop the training; the entries are still pending.
                log.warning("tracking: %s: %s", type(error).__name__, masked(str(error)))
            with self._lock:
                self._answered = asked
                self._lock.notify_all()
