"""How nodes of a cluster are named to those who start them."""

from __future__ import annotations

from colddiff.cluster.nodes.driver import names_of


def test_nodes_of_one_machine_are_told_apart() -> None:
    nodes = [
        {"NodeManagerAddress": address, "NodeID": digit * 56}
        for address, digit in (("10.0.0.7", "a"), ("10.0.0.8", "b"), ("10.0.0.7", "c"))
    ]
    assert names_of(nodes) == ["10.0.0.7 (node aaaaaaaa)", "10.0.0.8", "10.0.0.7 (node cccccccc)"]
