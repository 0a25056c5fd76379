"""What the machines of a cluster hold: asked over its dashboard, or by a driver that runs on it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from colddiff.jobs.runner import Capacity

AUTOSCALER_STATUS = "__autoscaling_status"
"""Where Ray keeps its autoscaler's report, which a cluster without one has too."""
UNMANAGED = re.compile(r"node_?[0-9a-f]{56}", re.IGNORECASE)
"""Type of a machine that no autoscaler has started: Ray names it after its id."""


def connected_capacity() -> Capacity:
    """Of the cluster that this process is connected to."""
    import ray
    from ray.experimental.internal_kv import _internal_kv_get

    nodes = ray.nodes()  # type: ignore[no-untyped-call]
    found = _internal_kv_get(AUTOSCALER_STATUS)
    report = (json.loads(found) if found else {}).get("autoscaler_report") or {}
    machines = tuple(node["Resources"] for node in nodes if node["Alive"])
    return Capacity(machines, grows=_is_managed(report.get("active_nodes") or ()))


def reported_capacity(nodes: Iterable[Mapping[str, Any]], status: Mapping[str, Any]) -> Capacity:
    """From the dashboard's list of nodes and its autoscaler status (empty before the first)."""
    report = status.get("autoscalerReport") or {}
    machines = tuple(node["resources_total"] for node in nodes if node["state"] == "ALIVE")
    return Capacity(machines, grows=_is_managed(report.get("activeNodes") or ()))


def _is_managed(types: Iterable[str]) -> bool:
    """Whether an autoscaler has started any machine, by the types of those that are up."""
    return any(not UNMANAGED.fullmatch(name) for name in types)
