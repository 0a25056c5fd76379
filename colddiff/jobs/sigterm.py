"""SIGTERM as a request to stop: a machine that is shut down announces it so."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from colddiff.errors import ColddiffError
from colddiff.jobs.attempt import STOP_GRACE_S
from colddiff.jobs.folder import JobFolder
from colddiff.jobs.log import say


@contextmanager
def stop_on_sigterm(folder: JobFolder, attempt: int) -> Iterator[None]:
    """Within ``with``, SIGTERM has the attempt take a checkpoint and end as stopped."""
    if threading.current_thread() is not threading.main_thread():
        yield  # signals are the main thread's
        return

    def ask() -> None:
        say("SIGTERM: asking for a checkpoint and an end")
        with suppress(ColddiffError):
            folder.request_stop(attempt, STOP_GRACE_S)

    def handler(*_: object) -> None:
        # In a thread: a store may take its time, and the main thread may hold a lock it needs.
        threading.Thread(target=ask, name="sigterm", daemon=True).start()

    before = signal.signal(signal.SIGTERM, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
