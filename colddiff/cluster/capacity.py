"""The machines of a cluster: what they hold, and which were lost.

Asked over its dashboard, or by a driver that runs on it.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from colddiff.jobs.runner import Capacity

AUTOSCALER_STATUS = "__autoscaling_status"
"""Where Ray keeps its autoscaler's report, which a cluster without one has too."""
UNMANAGED = re.compile(r"node_?[0-9a-f]{56}", re.IGNORECASE)
"""Type of a machine that no autoscaler has started: Ray names it after its id."""
SHUT_DOWN = (1, 4)
"""Ray's reasons for the end of a machine that was meant to end: by command, or as it was idle."""
NOTICE_S = 20.0
"""How long what used a machine may have failed before Ray notices that the machine is lost: it is
asked every 3 s, and five times."""
LOOK_S = 0.5


def connected_capacity() -> Capacity:
    """Of the cluster that this process is connected to."""
    from ray.experimental.internal_kv import _internal_kv_get

    found = _internal_kv_get(AUTOSCALER_STATUS)
    report = (json.loads(found) if found else {}).get("autoscaler_report") or {}
    machines = tuple(node["Resources"] for node in _machines() if node["Alive"])
    return Capacity(machines, grows=_is_managed(report.get("active_nodes") or ()))


def reported_capacity(nodes: Iterable[Mapping[str, Any]], status: Mapping[str, Any]) -> Capacity:
    """From the dashboard's list of nodes and its autoscaler status (empty before the first)."""
    report = status.get("autoscalerReport") or {}
    machines = tuple(node["resources_total"] for node in nodes if node["state"] == "ALIVE")
    return Capacity(machines, grows=_is_managed(report.get("activeNodes") or ()))


def machines_up() -> list[str]:
    """Ray's ids of the machines that are up, of the cluster that this process is connected to.

    Without those that are about to be taken away: when they go, they are not lost without notice.
    """
    leaving = _leaving()
    found = (node["NodeID"] for node in _machines() if node["Alive"])
    return [machine for machine in found if machine not in leaving]


def is_gone() -> bool:
    """Whether the cluster that this process is connected to has ended, or its machine in it."""
    import ray

    try:
        here = ray.get_runtime_context().get_node_id()
        return not any(node["NodeID"] == here and node["Alive"] for node in _machines())
    except Exception:
        return True  # nobody answers


def lost_machines(
    machines: Iterable[str],
    within_s: float = 0.0,
    *,
    now: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> list[str]:
    """Names of those of ``machines``, by their ids, that were lost and not shut down on purpose.

    What used such a machine often fails before Ray has noticed the loss: up to ``within_s`` seconds
    are waited until any is lost.
    """
    wanted = set(machines)
    until = now() + within_s
    while True:
        lost = [node for node in _machines() if node["NodeID"] in wanted and _is_lost(node)]
        if lost or now() >= until:
            return sorted(_name_of(node) for node in lost)
        sleep(LOOK_S)


def _machines() -> list[dict[str, Any]]:
    import ray

    found: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    return found


def _leaving() -> Mapping[str, Any]:
    from ray._private.state import state

    found: Mapping[str, Any] = state.get_draining_nodes()
    return found


def _is_lost(node: Mapping[str, Any]) -> bool:
    return not node["Alive"] and node.get("DeathReason") not in SHUT_DOWN


def _name_of(node: Mapping[str, Any]) -> str:
    """Host name and address; the id tells machines of one host apart."""
    host, address = node.get("NodeManagerHostname") or "", node["NodeManagerAddress"]
    name = f"{host} ({address})" if host and host != address else address
    return f"{name}, node {node['NodeID'][:8]}"


def _is_managed(types: Iterable[str]) -> bool:
    """Whether an autoscaler has started any machine, by the types of those that are up."""
    return any(not UNMANAGED.fullmatch(name) for name in types)
