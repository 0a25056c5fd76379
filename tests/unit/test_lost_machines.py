"""Which machines of a cluster were lost; what Ray knows of them is planted."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import ray

from colddiff.cluster import capacity
from colddiff.cluster.capacity import is_gone, lost_machines, machines_up

EXPECTED, UNEXPECTED, PREEMPTED, IDLE = 1, 2, 3, 4


def node(name: str, reason: int | None = None, host: str = "") -> dict[str, Any]:
    return {
        "NodeID": f"{name}-00112233",
        "Alive": reason is None,
        "DeathReason": reason or 0,
        "NodeManagerHostname": host,
        "NodeManagerAddress": "192.0.2.7",
    }


@pytest.fixture
def nodes(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    monkeypatch.setattr(capacity, "_machines", lambda: found)
    monkeypatch.setattr(capacity, "_leaving", lambda: {"z-00112233": 1})
    return found


def test_only_what_was_up_and_did_not_end_on_purpose_is_lost(nodes: list[dict[str, Any]]) -> None:
    # The last one is about to be taken away.
    nodes += [node("a"), node("b"), node("c"), node("d"), node("e", UNEXPECTED), node("z")]
    before = machines_up()
    assert before == ["a-00112233", "b-00112233", "c-00112233", "d-00112233"]
    nodes[:] = [
        node("a", UNEXPECTED, "worker-1"),
        node("b", EXPECTED),
        node("c", IDLE),
        node("d", PREEMPTED, "192.0.2.7"),
        node("e", UNEXPECTED),
        node("f", UNEXPECTED),
    ]
    assert lost_machines(before) == [
        "192.0.2.7, node d-001122",
        "worker-1 (192.0.2.7), node a-001122",
    ]


def test_a_loss_may_be_noticed_a_little_later(nodes: list[dict[str, Any]]) -> None:
    nodes += [node("a")]
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        if sum(slept) >= 3.0:
            nodes[:] = [node("a", UNEXPECTED)]

    def now() -> float:
        return sum(slept)

    assert lost_machines(["a-00112233"], 2.0, now=now, sleep=sleep) == []
    assert sum(slept) == 2.0
    assert lost_machines(["a-00112233"], 10.0, now=now, sleep=sleep) == ["192.0.2.7, node a-001122"]
    assert sum(slept) == 3.0


def test_a_cluster_is_gone_with_the_drivers_own_machine_or_where_nobody_answers(
    nodes: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    here = SimpleNamespace(get_node_id=lambda: "a-00112233")
    monkeypatch.setattr(ray, "get_runtime_context", lambda: here)
    nodes += [node("a"), node("b", UNEXPECTED)]
    assert not is_gone()
    nodes[:] = [node("a", EXPECTED), node("b")]
    assert is_gone()
    nodes[:] = [node("a")]
    monkeypatch.setattr(capacity, "_machines", lambda: 1 / 0)
    assert is_gone()
