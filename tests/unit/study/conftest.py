"""What studies in this process share: digits packed once."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest


@pytest.fixture
def storage(storage: Path, packed: dict[str, str]) -> Path:
    """A STORAGE of this test's own, with digits that are packed."""
    shutil.copytree(Path(packed["data"]).parents[1], storage / "data")
    return storage
