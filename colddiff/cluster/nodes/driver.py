"""`python -m colddiff.cluster.nodes.driver places.json`: asks each node what it reaches."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from colddiff.cluster.nodes.places import unreached
from colddiff.spec.documents import read_json_object

ANSWER_S = 30.0


def answers(places: Mapping[str, Any], wait_s: float = ANSWER_S) -> Iterator[dict[str, Any]]:
    """``node`` and what it does not reach, for each node as it answers; all within ``wait_s``."""
    deadline = time.monotonic() + wait_s
    asked: dict[Any, str] = {}
    nodes = [node for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
    for node, name in zip(nodes, names_of(nodes), strict=True):
        on_it = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        task: Any = ray.remote(unreached).options(
            scheduling_strategy=on_it, num_cpus=0, max_retries=0
        )
        reference = task.remote(
            places["storage"], places["tracker"], places["make"], places["mark"]
        )
        asked[reference] = name
    while asked:
        left_s = max(deadline - time.monotonic(), 0.0)
        ready, _ = ray.wait(list(asked), timeout=left_s)
        for reference in ready or list(asked):
            node = asked.pop(reference)
            yield {"node": node, "unreached": _answer(reference) if ready else [_late(wait_s)]}


def names_of(nodes: Sequence[Mapping[str, Any]]) -> list[str]:
    """Their addresses; of several nodes of one machine, with the beginnings of their ids in Ray."""
    addresses = [str(node["NodeManagerAddress"]) for node in nodes]
    return [
        address if addresses.count(address) == 1 else f"{address} (node {node['NodeID'][:8]})"
        for node, address in zip(nodes, addresses, strict=True)
    ]


def _answer(reference: Any) -> list[str]:
    try:
        return list(ray.get(reference))
    except Exception as error:  # a node may go, or lack what its workers need
        return [f"{type(error).__name__}: {str(error).strip().splitlines()[-1]}"]


def _late(wait_s: float) -> str:
    return (
        f"no answer in {wait_s:.0f} s: it is busy or hangs, or waits for the store or the tracker; "
        "see its logs in Ray's dashboard"
    )


def main() -> None:
    """Prints a line of JSON for each node."""
    ray.init(log_to_driver=False)
    for answer in answers(read_json_object(Path(sys.argv[1]).read_bytes())):
        sys.stdout.write(f"{json.dumps(answer)}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
