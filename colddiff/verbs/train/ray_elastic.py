"""Room for workers on Ray: for more of an elastic training, and what dead processes reserve."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import ray
from ray import ActorID, PlacementGroupID
from ray._private.state import state
from ray.core.generated.gcs_pb2 import PlacementGroupTableData  # type: ignore[attr-defined]
from ray.util.placement_group import PlacementGroup, remove_placement_group

from colddiff.cluster.turns.turn import any_waits
from colddiff.errors import Unreachable
from colddiff.jobs.folder import JobFolder

log = logging.getLogger(__name__)

COORDINATOR = "AutoscalingCoordinator"
"""Name and namespace of the actor in which Ray Train reserves machines for its runs."""
ANSWER_S = 30.0
ASKED_TWICE = 2
"""A machine that has room once may be about to be filled by what waits for it."""
NOT_AGAIN_S = 600.0
"""After workers left for room that they could then not use."""


def free_by_machine() -> dict[str, dict[str, float]]:
    """What is free on each machine of the cluster, those about to be preempted left out.

    On them no worker is started any more, but what others leave free is still reported.
    """
    leaving = state.get_draining_nodes()
    found: dict[str, dict[str, float]] = state.available_resources_per_node()  # type: ignore[no-untyped-call]
    return {machine: free for machine, free in found.items() if machine not in leaving}


class RoomForMore:
    """Whether the cluster of this process has had room for another worker, twice in a row.

    What other jobs wait for is no room.

    Args:
        wanted: what one worker reserves, by Ray's names.
        free: what is free by machine; default: asks the cluster, which takes milliseconds.
        queued: whether a job waits for its turn; default: asks the cluster.
        after_s: from when on, in seconds from now, there may be room.
    """

    def __init__(
        self,
        wanted: Mapping[str, float],
        free: Callable[[], Mapping[str, Mapping[str, float]]] = free_by_machine,
        queued: Callable[[], bool] = any_waits,
        after_s: float = 0.0,
    ) -> None:
        self._wanted, self._free, self._queued, self._in_a_row = wanted, free, queued, 0
        self._from = time.monotonic() + after_s

    def __call__(self) -> bool:
        if time.monotonic() < self._from:
            return False
        fits = not self._queued() and any(
            all(machine.get(name, 0.0) >= count for name, count in self._wanted.items())
            for machine in self._free().values()
        )
        self._in_a_row = self._in_a_row + 1 if fits else 0
        return self._in_a_row >= ASKED_TWICE


def free_abandoned() -> None:
    """Removes the placement groups of this driver's job whose creator, an actor, has died.

    Ray keeps what a dead controller of Ray Train reserved until the driver ends; its own clean-up
    asks the dashboard, which not every cluster has. Groups that the driver itself created, such as
    those of Ray Tune's trials, have no such actor, which Ray calls a dead one too.
    """
    job = ray.get_runtime_context().get_job_id()
    accessor: Any = state._connect_and_get_accessor()
    for data in accessor.get_placement_group_table():
        group = PlacementGroupTableData.FromString(data)
        removed = group.state == PlacementGroupTableData.REMOVED
        by_dead_actor = group.creator_actor_dead and not ActorID(group.creator_actor_id).is_nil()
        if by_dead_actor and group.creator_job_id.hex() == job and not removed:
            remove_placement_group(PlacementGroup(PlacementGroupID(group.placement_group_id)))


def reserve_anew(folder: JobFolder, requester: str) -> None:
    """Gives back what earlier starts reserved, and notes that ``requester`` is about to reserve.

    Ray gives a reservation back when its run ends, and 180 s after its driver was killed. An
    elastic training that is started again by then would wait for what it itself reserved. Machines
    that came or went since Ray last looked, every 20 s, are looked at now.
    """
    prefix = folder.key("ray/reserved/")
    try:
        earlier = list(folder.store.list(prefix))
        folder.store.put(prefix + requester, b"")
        if _cancelled([item.key.removeprefix(prefix) for item in earlier]):
            for item in earlier:
                folder.store.delete(item.key)
    except Unreachable as error:
        log.warning("cannot give back what an earlier start reserved, for up to 180 s: %s", error)


def _cancelled(requesters: Sequence[str]) -> bool:
    try:
        coordinator: Any = ray.get_actor(COORDINATOR, namespace=COORDINATOR)
    except ValueError:
        return True  # another cluster, or one that was started since: nothing is reserved there
    calls: list[Any] = [coordinator.cancel_request.remote(requester) for requester in requesters]
    calls.append(coordinator.get_reserved_resources.remote("", recompute=True))
    ready, _ = ray.wait(calls, num_returns=len(calls), timeout=ANSWER_S)
    if len(ready) < len(calls):
        log.warning("Ray's coordinator does not answer: workers may wait for up to 180 s")
    return len(ready) == len(calls)


def train_requester(trainer: Any) -> str:
    """What the coordinator calls the run of a ``TorchTrainer`` of Ray Train v2."""
    return f"train-{trainer.train_run_context.run_id}"
