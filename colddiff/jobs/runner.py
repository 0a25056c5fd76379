"""The interface of a place where attempts of a job run: a cluster, or this process."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:
    from colddiff.jobs.capacity import Capacity
    from colddiff.jobs.resolve import ResolvedJob


@dataclass(frozen=True, slots=True)
class DriverState:
    """The state of an attempt's driver, as its runner reports it."""

    ended: bool
    ending: Literal["", "exited", "killed", "stopped"] = ""
    """How it ended: by itself, by a signal, or on request."""
    detail: str = ""
    """Details of the ending, such as ``exit code 1``."""


class Runner(Protocol):
    """Runs attempts. Every method raises ClusterError if its cluster does not respond."""

    outlives_client: bool
    """Whether an attempt keeps running when the client that submitted it is interrupted."""

    @property
    def where(self) -> str:
        """Name for messages: an address, or ``this process``."""

    def claim(self) -> dict[str, Any]:
        """The record of a claim (JSON-ready): where the attempt runs, and who claims it.

        ``host`` and ``pid`` are the claimant's, which is also the driver if ``address`` is missing.
        """

    def owns(self, claim: Mapping[str, Any]) -> bool:
        """Whether a claim is of this runner: only then is a driver that it does not know gone."""

    def start(self, resolved: ResolvedJob, attempt: int, accepted: Callable[[], None]) -> None:
        """Starts the attempt; calls ``accepted`` once it is certain that it will run.

        Returns when the attempt is running or, if it runs in this process, when it has ended.
        """

    def find(self, job_id: str, attempt: int) -> DriverState | None:
        """The driver of an attempt; None if this runner does not know it."""

    def stop(self, job_id: str, attempt: int) -> None:
        """Ends the driver, by force if necessary, and waits until it has ended."""

    def log(self, job_id: str, attempt: int) -> str:
        """The driver's output as far as this runner has kept it."""

    def is_down(self) -> bool:
        """Whether the cluster itself has ended for good, with all its drivers."""

    def capacity(self) -> Capacity | None:
        """What its machines hold; None for this process, where nothing is reserved."""
