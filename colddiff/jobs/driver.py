"""The driver of an attempt, the same for every verb: log, signals, limits, tracking, verdict."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from colddiff.errors import ColddiffError
from colddiff.jobs.attempt import Attempt
from colddiff.jobs.status import verdict_line
from colddiff.jobs.tracking_run import begin_tracking, ended_with_work
from colddiff.jobs.verb import VERBS

log = logging.getLogger(__name__)


def drive(attempt: Attempt, *, on_ray: bool) -> int:
    """Exit code of ``attempt``: 0 done, 1 failed, 4 stopped; its verdict is logged and written.

    SIGTERM has it take a checkpoint, where its verb has any, and end as stopped.
    """
    verb = VERBS[attempt.resolved.verb]

    def work() -> dict[str, Any]:
        attempt.phase("preparing")
        prepared = verb.prepare(attempt)
        attempt.tracker = begin_tracking(attempt.resolved, attempt.folder)
        attempt.phase("")
        with ended_with_work(attempt.tracker):
            result = verb.run(attempt, prepared, on_ray=on_ray)
        tracking = {"uri": attempt.resolved.tracking_uri, "run_id": attempt.tracker.run_id}
        common = {"id": attempt.resolved.id, "pictures": attempt.pictures, "tracking": tracking}
        return {**common, **result}

    with _stop_on_sigterm(attempt):
        code = attempt.drive(work)
    log.info("%s", verdict_line(attempt.resolved.id, attempt.status, verb.unit))
    return code


@contextmanager
def _stop_on_sigterm(attempt: Attempt) -> Iterator[None]:
    """Within ``with``, SIGTERM is a request to stop: a machine that shuts down sends it first."""
    if threading.current_thread() is not threading.main_thread():
        yield  # signals are the main thread's
        return

    def ask() -> None:
        log.info("SIGTERM: asking for a checkpoint and an end")
        with suppress(ColddiffError):
            attempt.request_stop()

    def handler(*_: object) -> None:
        # In a thread: a store may take its time, and the main thread may hold a lock it needs.
        threading.Thread(target=ask, name="sigterm", daemon=True).start()

    before = signal.signal(signal.SIGTERM, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
