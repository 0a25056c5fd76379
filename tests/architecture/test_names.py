"""One name, one meaning: no two public classes of the package share a name."""

from __future__ import annotations

import ast
from collections import defaultdict
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[2] / "colddiff"
KNOWN: dict[str, set[str]] = {}
"""Shared names that are still to be changed, with their files. Nothing is ever added here."""


def homes_of_classes() -> dict[str, set[str]]:
    """The files that define a public class at module level, by its name."""
    homes = defaultdict(set)
    for path in PACKAGE.rglob("*.py"):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                homes[node.name].add(path.relative_to(PACKAGE).as_posix())
    return homes


def test_no_two_classes_share_a_name() -> None:
    shared = {name: files for name, files in homes_of_classes().items() if len(files) > 1}
    new = {name: files for name, files in shared.items() if not files <= KNOWN.get(name, set())}
    assert not new, "name each class for what it is, as there is another of that name"


def test_the_list_of_known_ones_only_shrinks() -> None:
    homes = homes_of_classes()
    settled = [name for name, files in KNOWN.items() if len(homes.get(name, set()) & files) < 2]
    assert not settled, "these are settled: take them off KNOWN"
