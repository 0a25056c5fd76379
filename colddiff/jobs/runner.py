"""Where attempts of a job run, as the protocol sees it: a cluster, or this process."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:
    from colddiff.jobs.resolve import ResolvedJob


@dataclass(frozen=True, slots=True)
class DriverState:
    """The driver of an attempt, as the place that runs it knows it."""

    ended: bool
    ending: Literal["", "exited", "killed", "stopped"] = ""
    """How it ended: by itself, by a signal, or because it was told to."""
    detail: str = ""
    """More about that, such as ``exit code 1``."""


class Runner(Protocol):
    """Runs attempts. Every method raises ClusterError where its cluster does not answer."""

    outlives_client: bool
    """Whether an attempt goes on when whoever submitted it is interrupted."""

    @property
    def where(self) -> str:
        """For messages: an address, or ``this process``."""

    def claim(self) -> dict[str, Any]:
        """What the claim of an attempt records about where it runs (JSON-ready)."""

    def start(self, resolved: ResolvedJob, attempt: int, accepted: Callable[[], None]) -> None:
        """Starts the attempt; calls ``accepted`` once it is certain that it will run.

        Returns when the attempt is under way or, where it runs in this process, when it has ended.
        """

    def find(self, job_id: str, attempt: int) -> DriverState | None:
        """The driver of an attempt; None where this place does not know it."""

    def stop(self, job_id: str, attempt: int) -> None:
        """Ends the driver, by force if need be, and waits until it has ended."""

    def log(self, job_id: str, attempt: int) -> str:
        """What the driver printed, where this place has kept it."""

    def is_down(self) -> bool:
        """Whether the place itself is gone for good, with all its drivers."""
