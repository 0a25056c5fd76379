"""What searches in this process share: digits packed and split once, and decoded once."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from colddiff.jobs.resolve import resolve
from colddiff.spec import parse
from colddiff.verbs.search.job import SearchJob
from tests.unit.search.tiny_search import tiny_search


@pytest.fixture(scope="session")
def split_digits(packed: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``data`` of a STORAGE in which tiny searches find what they would pack."""
    root = tmp_path_factory.mktemp("split")
    shutil.copytree(Path(packed["data"]).parents[1], root / "data")
    resolve(parse(SearchJob, tiny_search()), "tiny", storage=str(root))
    return root / "data"


@pytest.fixture
def storage(storage: Path, split_digits: Path) -> Path:
    """A STORAGE of this test's own, with digits that are packed and split."""
    shutil.copytree(split_digits, storage / "data")
    return storage
