"""Sessions of the processes of a job that are not its driver: spooled for it to deliver."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from colddiff.errors import StoreError
from colddiff.ports import Store
from colddiff.tracking.session import Session
from colddiff.tracking.spool import Entry, RunHeader, Spool, now_ms

log = logging.getLogger(__name__)


class Relay:
    """Implements ``Outbox``: writes entries to the job's storage, where its driver collects them.

    It never reaches for the tracker: one process of a job imports MLflow and uses its credentials.
    """

    every_s = 5.0
    run_id = ""

    def __init__(self, spool: Spool) -> None:
        self._spool = spool
        self._pending: list[Entry] = []
        self._failed = False

    @property
    def clean(self) -> bool:
        """Whether everything is spooled."""
        return not self._pending

    def work(self, take: Callable[[], list[Entry]], *, urgent: bool, last: bool = False) -> None:
        """Spools new entries; those that the storage does not take stay for the next round."""
        self._pending += take()
        entries = list(self._pending)
        try:
            self._spool.keep(entries)
        except StoreError as error:
            if not self._failed:
                log.warning("tracking: %s", error)
            self._failed = True
            return
        self._failed = False
        del self._pending[: len(entries)]  # `rescue` may have added more behind them

    def rescue(self, entries: Sequence[Entry]) -> None:
        """Keeps them in memory: it is the storage that hangs."""
        self._pending += entries


def join_run(experiment: str, job_id: str, run_name: str, *, spool: Store) -> Session:
    """A session with the run that the job's driver has opened and will end; returns at once."""
    return Session(Relay(Spool(spool, RunHeader(job_id, experiment, run_name, now_ms()))))
