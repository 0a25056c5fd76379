"""What earlier starts of a job still have reserved with Ray Train, given back at once."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import ray

from colddiff.errors import Unreachable
from colddiff.jobs.folder import JobFolder

log = logging.getLogger(__name__)

COORDINATOR = "AutoscalingCoordinator"
"""Name and namespace of the actor in which Ray Train reserves machines for its runs."""
ANSWER_S = 30.0


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
