"""A job's turn on its cluster: its driver takes a ticket, waits, says for what, and holds it."""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, fields, replace
from typing import Protocol

import ray
from ray._private.state import jobs
from ray.experimental.internal_kv import (
    _internal_kv_del,
    _internal_kv_get,
    _internal_kv_list,
    _internal_kv_put,
)

from colddiff.cluster.capacity import connected_capacity
from colddiff.cluster.turns.order import Ticket, why_wait
from colddiff.cluster.worker_count import most_workers
from colddiff.errors import SpecError, Stopped
from colddiff.jobs.attempt import Attempt
from colddiff.jobs.runner import Capacity, fewest_workers, requested
from colddiff.jobs.status import AGAIN

PER_USER = "COLDDIFF_JOBS_PER_USER"
"""In the cluster's environment: how many jobs of one user run at once."""
POLL_S = 1.0
POLL_PER_TICKET_S = 0.1
"""Each driver that waits reads all tickets: with more of them, less often."""
BEAT_S = 5.0
OUTAGE_LOOKS = 60
"""So often in a row the control store may not answer."""
GONE_S = 30.0
"""How long a ticket may not change, while it is watched, before its driver counts as dead. Where
whoever watches was itself held up, such as on a machine that was suspended, that is not counted."""
NAMESPACE, PREFIX = "colddiff", "turn/"

log = logging.getLogger(__name__)


class Board(Protocol):
    """Where the tickets of a cluster are, for all its drivers."""

    def me(self) -> str:
        """What the cluster calls the calling driver."""

    def dead(self) -> Collection[str]:
        """Drivers that the cluster knows to have ended, by these names."""

    def add(self, number: int, text: str) -> bool:
        """Puts a ticket where there is none of this number; False if there is."""

    def put(self, number: int, text: str) -> None:
        """Replaces a ticket."""

    def read(self) -> dict[int, str]:
        """All tickets."""

    def remove(self, number: int) -> None:
        """Removes a ticket, if it is there."""


class RayBoard:
    """In the key-value store of Ray's control store, which ends with the cluster."""

    def me(self) -> str:
        return str(ray.get_runtime_context().get_job_id())

    def dead(self) -> Collection[str]:
        return {str(job["JobID"]) for job in jobs() if job["IsDead"]}  # type: ignore[no-untyped-call]

    def add(self, number: int, text: str) -> bool:
        return not _internal_kv_put(_key(number), text, overwrite=False, namespace=NAMESPACE)

    def put(self, number: int, text: str) -> None:
        _internal_kv_put(_key(number), text, namespace=NAMESPACE)

    def read(self) -> dict[int, str]:
        found = {}
        for key in _internal_kv_list(PREFIX, namespace=NAMESPACE):
            text = _internal_kv_get(key, namespace=NAMESPACE)
            if text is not None:  # removed meanwhile
                found[int(key.decode().removeprefix(PREFIX))] = text.decode()
        return found

    def remove(self, number: int) -> None:
        _internal_kv_del(_key(number), namespace=NAMESPACE)


def any_waits(board: Board | None = None) -> bool:
    """Whether a job on the cluster waits for its turn, whose driver lives."""
    board = RayBoard() if board is None else board
    waiting = [ticket for ticket in map(_read, board.read().values()) if not ticket.runs]
    if not waiting:
        return False
    dead = set(board.dead())
    return any(ticket.driver not in dead for ticket in waiting)


@contextmanager
def job_turn(
    attempt: Attempt,
    board: Board | None = None,
    capacity: Callable[[], Capacity] = connected_capacity,
) -> Iterator[None]:
    """Enters once it is the job's turn on the cluster, and holds that until it is left.

    Meanwhile its status says what it waits for, and ``limits.queue_hours`` counts. Raises Stopped
    if a stop was requested.
    """
    turn = _Turn(attempt, RayBoard() if board is None else board)
    try:
        turn.wait(capacity)
        with turn.held():
            yield
    finally:
        turn.end()


class _Turn:
    def __init__(self, attempt: Attempt, board: Board) -> None:
        self._attempt, self._board = attempt, board
        self._seen: dict[int, tuple[str, float]] = {}
        """Text of each ticket of others, and for how many watched seconds it has been that."""
        self._looked_at = time.monotonic()
        self._failed = 0
        self._ticket = replace(_ticket(attempt), driver=board.me())
        number = max(board.read(), default=0) + 1
        while True:
            self._ticket = replace(self._ticket, number=number)
            if board.add(number, _text(self._ticket)):
                break
            number += 1

    def wait(self, capacity: Callable[[], Capacity]) -> None:
        """Returns once it is the job's turn."""
        try:
            while True:
                others, reason = self._looked(capacity)
                if not reason:
                    break
                if self._attempt.stop_requested():
                    raise Stopped(f"stopped while it waited {reason}; {AGAIN}")
                if not self._attempt.waits:
                    log.info("waiting %s", reason)
                self._attempt.waiting(reason)
                time.sleep(min(BEAT_S, max(POLL_S, POLL_PER_TICKET_S * len(others))))
        finally:
            self._attempt.waiting("")
        self._ticket = replace(self._ticket, runs=True)
        self._beat()

    def _looked(self, capacity: Callable[[], Capacity]) -> tuple[list[Ticket], str]:
        """The other tickets, and what this one waits for; "" once it is its turn."""
        try:
            others = self._others()
            found = others, why_wait(self._ticket, others, capacity())
            if found[1]:
                self._beat()
        except Exception as error:
            # Ray's control store, which may be restarted: whoever waits asks again.
            self._failed += 1
            if self._failed > OUTAGE_LOOKS:
                raise
            log.debug("cannot see which jobs wait: %s", error)
            return [], "for an answer of the cluster"
        self._failed = 0
        return found

    @contextmanager
    def held(self) -> Iterator[None]:
        """Within ``with``, others see that the driver lives."""
        ended = threading.Event()

        def beat() -> None:
            while not ended.wait(BEAT_S):
                with suppress(Exception):  # the next one says it too; without a cluster nobody asks
                    self._beat()

        thread = threading.Thread(target=beat, name="turn", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join(BEAT_S)

    def end(self) -> None:
        """Lets the next one go."""
        with suppress(Exception):  # without a cluster nobody waits
            self._board.remove(self._ticket.number)

    def _beat(self) -> None:
        self._ticket = replace(self._ticket, beat=self._ticket.beat + 1)
        self._board.put(self._ticket.number, _text(self._ticket))

    def _others(self) -> list[Ticket]:
        """Tickets of drivers that live; those of dead ones and earlier attempts are removed."""
        now, found = time.monotonic(), []
        watched, self._looked_at = min(now - self._looked_at, BEAT_S), now
        dead = set(self._board.dead())
        for number, text in self._board.read().items():
            if number == self._ticket.number:
                continue
            before, unchanged_s = self._seen.get(number, ("", 0.0))
            unchanged_s = unchanged_s + watched if text == before else 0.0
            self._seen[number] = text, unchanged_s
            other = _read(text)
            ours = _job_of(other) == _job_of(self._ticket) and number < self._ticket.number
            if ours or other.driver in dead or unchanged_s > GONE_S:
                self._board.remove(number)
            else:
                found.append(other)
        return found


def _job_of(ticket: Ticket) -> tuple[str, str]:
    return ticket.storage, ticket.job_id


def _ticket(attempt: Attempt) -> Ticket:
    job = attempt.job
    # A search and a study have none: their trials and members are placed one by one.
    resources, workers = getattr(job, "resources", None), getattr(job, "workers", 1)
    claim = attempt.folder.read_claim(attempt.number)
    own: int | None = getattr(getattr(job, "limits", None), "jobs_at_once", None)
    limits = [limit for limit in (own, _per_user()) if limit is not None]
    return Ticket(
        number=0,
        job_id=attempt.resolved.id,
        storage=attempt.resolved.storage,
        user=claim.get("user") or "",
        priority=job.priority,
        wanted=requested(resources) if resources is not None else {},
        # All there are: how many that is, is asked of the cluster.
        count=most_workers(job) if workers == "all" else fewest_workers(workers),  # type: ignore[arg-type]
        at_most=min(limits, default=None),
    )


def _per_user() -> int | None:
    text = os.environ.get(PER_USER, "").strip()
    if not text:
        return None
    if not text.isdecimal() or int(text) < 1:
        raise SpecError(f"{PER_USER} of the cluster is {text!r}, not a whole number from 1")
    return int(text)


def _read(text: str) -> Ticket:
    """A ticket, perhaps of a driver of a later version, which may have more fields."""
    found = json.loads(text)
    return Ticket(**{item.name: found[item.name] for item in fields(Ticket) if item.name in found})


def _text(ticket: Ticket) -> str:
    return json.dumps(asdict(ticket), sort_keys=True)


def _key(number: int) -> str:
    return f"{PREFIX}{number:012d}"
