"""Tests that share something costly are in one group, and no pattern has become empty."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.conftest import pytest_collection_modifyitems
from tests.groups import FIRST, GROUPS, group_of

TESTS = Path(__file__).resolve().parents[1]


def using(*words: str) -> set[str]:
    """The groups of the test files that name one of ``words``."""
    files = [path for path in TESTS.rglob("test_*.py") if path != Path(__file__)]
    found = [path for path in files if any(word in path.read_text() for word in words)]
    return {group_of(path.relative_to(TESTS.parent)).name for path in found}


def test_three_processes_use_a_cluster_and_one_the_s3_server() -> None:
    clusters = {"cluster", "faults", "searches on a cluster"}
    assert using("cluster: RunningCluster", "colddiff_here: Callable") == clusters
    assert using("s3_server: S3Server", "real_s3_service") == {"s3"}


@pytest.mark.parametrize("name", GROUPS)
def test_a_group_is_of_files_that_are_there(name: str) -> None:
    assert name in FIRST
    for pattern in GROUPS[name]:
        assert list(TESTS.glob(pattern)), pattern


def test_a_file_of_its_own_comes_after_the_groups() -> None:
    alone, shared = (
        group_of(Path("tests/unit", name)) for name in ("test_rng.py", "test_train.py")
    )
    assert alone.name == "tests/unit/test_rng"
    assert shared.rank < alone.rank


def test_in_a_group_what_needs_no_cluster_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """An idle cluster takes CPU from the tests beside it, and ends after its last test."""
    needs = {
        "tests/cluster/test_faults.py::test_kills": ["cluster"],
        "tests/unit/test_rng.py::test_draws": [],
        "tests/cluster/test_wheel.py::test_wheel": [],
        "tests/cluster/test_new_verb.py::test_verb": ["cluster"],
        "tests/cluster/test_faults.py::test_more": ["cluster"],
    }
    items: list[Any] = [SimpleNamespace(nodeid=n, fixturenames=f) for n, f in needs.items()]
    monkeypatch.setenv("PYTEST_XDIST_WORKER", "gw0")
    pytest_collection_modifyitems(items)
    order = [item.nodeid.rpartition("_")[2] for item in items]
    assert order == ["verb", "wheel", "kills", "more", "draws"]
