"""The driver of an attempt, the same for every verb: log, signals, limits, tracking, verdict."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from typing import Any

from colddiff.background import in_context
from colddiff.errors import ColddiffError
from colddiff.jobs.attempt import Attempt, Gone
from colddiff.jobs.logs import Flush
from colddiff.jobs.pages.write import write_page
from colddiff.jobs.results import log_verdict
from colddiff.jobs.status import EXIT_CODES, Status
from colddiff.jobs.tracking_run import describe_run, ended_with_work, open_tracker
from colddiff.jobs.verb import VERBS, Verb

log = logging.getLogger(__name__)
Within = Callable[[Attempt], AbstractContextManager[None]]


def no_context(attempt: Attempt) -> AbstractContextManager[None]:
    """A ``Within`` that does nothing."""
    return nullcontext()


def drive(
    attempt: Attempt,
    *,
    on_ray: bool,
    turn: Within = no_context,
    gone: Gone = lambda: False,
    flush: Flush = lambda: None,
) -> int:
    """Runs ``attempt`` and returns its exit code: 0 done, 1 failed, 4 stopped.

    Within ``turn`` it is the job's turn where it runs: entering waits for that. ``gone``: see
    ``Attempt.drive``. ``flush`` uploads what was logged so far.

    The final status is logged and written. On SIGTERM the attempt takes a checkpoint, if its verb
    has any, and ends as stopped. So it does on Ctrl-C where this process does the work; that is
    raised as KeyboardInterrupt then, at once if it is pressed again.
    """
    verb = VERBS[attempt.resolved.verb]

    def work() -> dict[str, Any]:
        with turn(attempt):
            return in_turn()

    def in_turn() -> dict[str, Any]:
        attempt.phase("preparing")
        prepared = verb.prepare(attempt)
        # On a cluster this process next waits for others to start, which is time to import MLflow.
        attempt.tracker = open_tracker(attempt.resolved, wait=not on_ray)
        with ended_with_work(attempt.tracker, attempt.superseded):
            describe_run(attempt.tracker, attempt.resolved, attempt.folder, attempt.status.user)
            attempt.phase("")
            found = verb.run(attempt, prepared, on_ray=on_ray)
            if not attempt.tracker.run_id:
                attempt.tracker.flush()
            tracking = {"uri": attempt.resolved.tracking_uri, "run_id": attempt.tracker.run_id}
            common: dict[str, Any] = {"id": attempt.resolved.id, "pictures": attempt.pictures}
            common["tracking"] = tracking
            if not on_ray and attempt.job.tracking.parent is None:  # not run by another job
                common["local"] = True
            result = {**common, **found}
            result["summary"] = _summary(attempt, verb, result)
            if attempt.job.tracking.images:
                attempt.phase("writing its report")
                result["report"] = write_page(attempt.folder, attempt.tracker, result)
        return result

    with _stop_on_sigterm(attempt), _stop_on_interrupt(attempt, on_ray) as interrupted:

        def last_words(status: Status) -> None:
            if not interrupted.is_set() or status.state != "stopped":
                log_verdict(attempt.folder, status)
            flush()

        code = attempt.drive(work, gone, last_words)
    if interrupted.is_set() and code == EXIT_CODES["stopped"]:
        raise KeyboardInterrupt
    return code


def _summary(attempt: Attempt, verb: Verb, result: dict[str, Any]) -> list[str]:
    """The result as text, after its score is in the status; a flaw of either loses no result."""
    try:
        attempt.scored(verb.score(result))
        return list(verb.summary(result))
    except Exception as error:
        log.warning("the result cannot be summarised: %s: %s", type(error).__name__, error)
        return []


@contextmanager
def _stop_on_sigterm(attempt: Attempt) -> Iterator[None]:
    """Within ``with``, SIGTERM requests a stop: a machine that shuts down sends it first."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread can handle signals
        return

    def handler(*_: object) -> None:
        _request_stop(attempt, "SIGTERM: stopping")

    before = signal.signal(signal.SIGTERM, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _stop_on_interrupt(attempt: Attempt, on_ray: bool) -> Iterator[threading.Event]:
    """Within ``with``, the first Ctrl-C requests a stop, and sets the event; the next one raises.

    Not in a driver on a cluster, which nobody types at, nor where the caller handles Ctrl-C.
    """
    interrupted = threading.Event()
    here = threading.current_thread() is threading.main_thread() and not on_ray
    if not here or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield interrupted
        return

    def handler(*_: object) -> None:
        interrupted.set()
        signal.signal(signal.SIGINT, signal.default_int_handler)
        _request_stop(attempt, "Ctrl-C: stopping at the next step; once more to end at once")

    signal.signal(signal.SIGINT, handler)
    try:
        yield interrupted
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _request_stop(attempt: Attempt, why: str) -> None:
    """Requests a stop from a handler of signals."""

    def request() -> None:
        log.info("%s", why)
        with suppress(ColddiffError):
            attempt.request_stop()

    # In a thread: the store may be slow, and the main thread may hold a lock it needs.
    threading.Thread(target=in_context(request), name="stop", daemon=True).start()
