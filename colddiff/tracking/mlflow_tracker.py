"""A tracker that logs to MLflow from a background thread, and spools what it cannot deliver."""

from __future__ import annotations

import atexit
import logging
import threading
from collections.abc import Iterable, Mapping

from colddiff.background import in_context
from colddiff.ports import Store, TrackedDataset
from colddiff.tracking.address import TrackingAddress, checked_uri, masked
from colddiff.tracking.mlflow_outbox import Outbox
from colddiff.tracking.mlflow_service import load_mlflow
from colddiff.tracking.spool import Entry, RunHeader, Spool, now_ms

log = logging.getLogger(__name__)

INTERVAL_S = 2.0
ENDS = ("FINISHED", "FAILED", "KILLED")


class MlflowTracker:
    """Implements ``Tracker``: one process's session with the job's one MLflow run.

    Logging puts an entry into memory and returns. Every two seconds a thread delivers the entries;
    while the tracker is down they are spooled to the job's storage, and delivered from there, in
    order, once it is back. ``flush`` returns when everything is delivered or spooled: called before
    a checkpoint is committed, it ensures that a kill only loses entries that the resumed run logs
    again (nothing is logged twice either: see ``MlflowRun.deliver``).
    """

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox
        self._lock = threading.Condition()
        self._entries: list[Entry] = []
        self._asked = self._answered = 0
        self._ended = False
        self._thread = threading.Thread(
            target=in_context(self._work), name="mlflow-tracker", daemon=True
        )
        self._thread.start()
        atexit.register(self.close, timeout_s=10.0)

    @property
    def run_id(self) -> str:
        """The MLflow run's id; empty until the tracker has responded."""
        return self._outbox.run_id

    def connect(self) -> None:
        """Reaches for the tracker now instead of within two seconds; returns at once."""
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
                self._lock.wait_for(lambda: self._asked > self._answered, INTERVAL_S)
                asked, urgent, ended = self._asked, self._asked > self._answered, self._ended
            try:
                self._outbox.work(self._take, urgent=urgent, last=ended)
            except Exception as error:
                # Must never stop the training; the entries are still pending.
                log.warning("tracking: %s: %s", type(error).__name__, masked(str(error)))
            with self._lock:
                self._answered = asked
                self._lock.notify_all()


def open_run(
    uri: str,
    experiment: str,
    job_id: str,
    run_name: str,
    *,
    spool: Store,
    artifact_root: str | None = None,
    join: bool = False,
    wait: bool = True,
    timeout_s: float = 10.0,
) -> MlflowTracker:
    """Opens a session with the job's one MLflow run, shared by all attempts and processes.

    Waits up to ``timeout_s`` for the tracker; if it does not respond, entries are spooled and the
    run is created once it does. Call ``initialise`` first to get an error instead. Without ``wait``
    the session's thread imports MLflow, which takes seconds, and reaches for the tracker.

    Args:
        uri: tracking URI, including any credentials.
        experiment: MLflow experiment for a new run.
        job_id: tag by which the run is found again, with the URI of ``spool``.
        run_name: name for a new run.
        spool: the job's STORAGE.
        artifact_root: where a new experiment stores artifacts; None leaves that to a server.
        join: another process has opened the run and will finish it: its status is not changed.
        wait: return once the tracker has responded.
        timeout_s: longest wait for the first response, and for each later request.

    Raises:
        SpecError: an invalid address. StoreError: the spool cannot be used.
    """
    address = TrackingAddress(checked_uri(uri), artifact_root)
    if wait:
        load_mlflow(address.uri)
    header = RunHeader(job_id, experiment, run_name, now_ms())
    tracker = MlflowTracker(Outbox(address, Spool(spool, header), timeout_s=timeout_s))
    if not join:
        tracker.set_running()
    if not wait:
        tracker.connect()
        return tracker
    try:
        tracker.flush(timeout_s)
    except BaseException:  # an interrupt: no one else has the tracker, to end the run
        if not join:
            tracker.finish("KILLED")
        raise
    return tracker
