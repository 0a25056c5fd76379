"""Tests that share something costly are in one group, and no pattern has become empty."""

from __future__ import annotations

from pathlib import Path

import pytest

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
