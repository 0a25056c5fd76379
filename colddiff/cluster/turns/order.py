"""Which of the jobs that wait for a cluster is next: by priority, as they came, where they fit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from colddiff.jobs.runner import Capacity, workers_text

NAMED = 3
"""Jobs that a message names."""


@dataclass(frozen=True, slots=True)
class Ticket:
    """A job on a cluster, from when it came until its driver ends."""

    number: int
    """In the order in which jobs came."""
    job_id: str
    storage: str = ""
    """Where it is: another STORAGE may have the same job."""
    user: str = ""
    """Who submitted it."""
    priority: int = 0
    """Higher ones go first."""
    wanted: Mapping[str, float] = field(default_factory=dict)
    """What one worker reserves, by Ray's names."""
    count: int = 1
    """The fewest workers that it runs with."""
    at_most: int | None = None
    """Jobs of its user at once, itself among them."""
    runs: bool = False
    """Whether it has had its turn."""
    beat: int = 0
    """Counts up while its driver lives."""
    driver: str = ""
    """What Ray calls its driver."""

    @property
    def place(self) -> tuple[int, int]:
        """Sorts the tickets that wait."""
        return -self.priority, self.number

    def needs(self, name: str) -> float:
        """How much of a resource all its workers reserve."""
        return self.wanted.get(name, 0.0) * self.count


def why_wait(ticket: Ticket, others: Sequence[Ticket], capacity: Capacity) -> str:
    """What ``ticket`` waits for, beginning with ``for``; "" if it is its turn.

    A job goes before others where there is room for it and for all that are before it. One that is
    held back by its user's limit, or that the machines could not hold if they were idle, keeps
    nobody waiting; the latter asks for machines at once, as does every job where the cluster grows.
    """
    # One that had its turn and does not fit has no workers, and holds nothing.
    ahead = [other for other in others if other.runs and _may_run(other, capacity)]
    waiting = sorted((other for other in others if not other.runs), key=lambda one: one.place)
    for other in waiting:
        if other.place < ticket.place and not _over_limit(other, ahead) and _fits(other, capacity):
            ahead.append(other)
    if _over_limit(ticket, ahead):
        own = [other for other in ahead if other.user == ticket.user]
        return (
            f"for a job of {ticket.user or 'the same user'} to end, of whom at most "
            f"{ticket.at_most} run at once: {_names(own)}"
        )
    if capacity.grows or not _fits(ticket, capacity):
        return ""
    for name in ticket.wanted:
        total = sum(machine.get(name, 0.0) for machine in capacity.machines)
        taken = [other for other in ahead if other.needs(name)]
        if sum(other.needs(name) for other in taken) + ticket.needs(name) > total + 1e-9:
            asked = workers_text(ticket.wanted, ticket.count)
            return f"for {asked}; {_queue_text(taken)}: {_names(taken)}"
    return ""


def _over_limit(ticket: Ticket, ahead: Sequence[Ticket]) -> bool:
    own = sum(other.user == ticket.user for other in ahead)
    return ticket.at_most is not None and own >= ticket.at_most


def _may_run(ticket: Ticket, capacity: Capacity) -> bool:
    return capacity.grows or _fits(ticket, capacity)


def _fits(ticket: Ticket, capacity: Capacity) -> bool:
    return capacity.fits(ticket.wanted) >= ticket.count


def _queue_text(ahead: Sequence[Ticket]) -> str:
    runs = sum(other.runs for other in ahead)
    parts = [f"{runs} running"] * (runs > 0) + [f"{len(ahead) - runs} before it"] * (
        runs < len(ahead)
    )
    return " and ".join(parts)


def _names(jobs: Sequence[Ticket]) -> str:
    more = f" and {len(jobs) - NAMED} more" if len(jobs) > NAMED else ""
    return ", ".join(job.job_id for job in jobs[:NAMED]) + more
