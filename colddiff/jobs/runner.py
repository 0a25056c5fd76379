"""The interface of a place where attempts of a job run: a cluster, or this process."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

from colddiff.machine.wording import counted

if TYPE_CHECKING:
    from colddiff.jobs.folder import JobFolder
    from colddiff.jobs.job import ResourcesSpec, Workers
    from colddiff.jobs.resolve import ResolvedJob


MOST_WORKERS = 10_000
"""A job asks for no more."""


@dataclass(frozen=True, slots=True)
class Capacity:
    """The machines of a cluster, with all that they hold, whether it is in use now or not."""

    machines: tuple[Mapping[str, float], ...]
    """Resources by name, as Ray has them: ``CPU``, ``GPU``, ``accelerator_type:A100``."""
    grows: bool = False
    """Whether an autoscaler adds machines when they are asked for."""

    def room(self, resources: ResourcesSpec) -> int:
        """How many workers that hold ``resources`` fit at once; each on one machine."""
        return self.fits(requested(resources))

    def fits(self, wanted: Mapping[str, float]) -> int:
        """``room``, for what ``requested`` says; ``MOST_WORKERS`` of those that hold nothing."""
        if not wanted:
            return MOST_WORKERS
        return sum(
            min(int(machine.get(name, 0.0) / count + 1e-9) for name, count in wanted.items())
            for machine in self.machines
        )

    def most(self, name: str) -> float:
        """The most of a resource that one machine has."""
        return max((machine.get(name, 0.0) for machine in self.machines), default=0.0)


def requested(resources: ResourcesSpec) -> dict[str, float]:
    """What one worker reserves, by Ray's names; never empty where a job asks for a CPU or a GPU."""
    wanted = {"CPU": float(resources.cpus), "GPU": resources.num_gpus}
    if resources.accelerator is not None:
        # As Ray itself asks for a type: every machine that has it, has 1 of it.
        wanted[f"accelerator_type:{resources.accelerator}"] = 0.001
    return {name: count for name, count in wanted.items() if count}


def fewest_workers(workers: Workers) -> int:
    """The smallest number of workers that a job runs with; of ``all``, one is enough."""
    if workers == "all":
        return 1
    return workers[0] if isinstance(workers, tuple) else workers


def workers_text(wanted: Mapping[str, float], count: int) -> str:
    """``2 workers with 1 GPU and 4 CPU``."""
    types = [name.partition(":")[2] for name in wanted if ":" in name]
    parts = [f"{wanted[name]:g} {name}" for name in ("GPU", "CPU") if name in wanted]
    held = " and ".join(parts) + "".join(f" on {name}" for name in types)
    return f"{counted(count, 'worker')} with {held or 'nothing reserved'}"


def fit_line(resources: ResourcesSpec, workers: Workers, capacity: Capacity) -> str:
    """Whether a job that a cluster takes can run on it as it is: one line."""
    wanted = requested(resources)
    fewest = fewest_workers(workers)
    asked, room = workers_text(wanted, fewest), capacity.fits(wanted)
    if room >= fewest:
        return f"fits: {asked}; the cluster has room for {min(room, MOST_WORKERS)} at once"
    by_whom = ", which the cluster does" if capacity.grows else ""
    return f"fits once machines are added{by_whom}: {asked}; the cluster has room for {room}"


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

        ``user``, ``host`` and ``pid`` are the claimant's, which is also the driver if ``address``
        is missing.
        """

    def owns(self, claim: Mapping[str, Any]) -> bool:
        """Whether a claim is of this runner: only then is a driver that it does not know gone."""

    def start(self, resolved: ResolvedJob, attempt: int, accepted: Callable[[], None]) -> None:
        """Starts the attempt; calls ``accepted`` once it is certain that it will run.

        Returns when the attempt is running or, if it runs in this process, when it has ended.
        """

    def find(self, folder: JobFolder, attempt: int) -> DriverState | None:
        """The driver of an attempt; None if this runner does not know it."""

    def stop(self, folder: JobFolder, attempt: int) -> None:
        """Ends the driver, by force if necessary, and waits until it has ended."""

    def log(self, folder: JobFolder, attempt: int) -> str:
        """The driver's output as far as this runner has kept it."""

    def is_down(self) -> bool:
        """Whether the cluster itself has ended for good, with all its drivers."""

    def capacity(self) -> Capacity | None:
        """What its machines hold; None for this process, where nothing is reserved."""
