"""The three verbs run once by the present code, and storages that hold what an old one wrote."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.compat import wholes
from tests.compat.running import RECORDED, storage_in


@dataclass(frozen=True)
class Present:
    """What the present code made of ``tiny.yaml``."""

    storage: Path
    ids: dict[str, str]
    left: dict[str, Any]
    """As ``wholes.json`` describes what earlier code made of it."""


@pytest.fixture(scope="session")
def present(tmp_path_factory: pytest.TempPathFactory, tracker_database: Path) -> Present:
    """A training, an evaluation and a generation by the present code."""
    with storage_in(tmp_path_factory.mktemp("present")) as storage:
        shutil.copy(tracker_database, storage / "mlflow.db")
        ids = wholes.run(storage)
        return Present(storage, ids, wholes.describe(storage, ids))


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    """An empty folder with a storage in it, which the environment names."""
    with storage_in(tmp_path):
        yield tmp_path


@pytest.fixture
def storage(root: Path, present: Present, tracker_database: Path) -> Path:
    """A storage that holds the packed digits and an empty tracker alone."""
    shutil.copy(tracker_database, root / "runs" / "mlflow.db")
    shutil.copytree(present.storage / "data", root / "runs" / "data")
    return root / "runs"


@pytest.fixture(scope="session")
def recorded() -> Callable[[str], Any]:
    """A recording by its name."""
    return lambda name: json.loads((RECORDED / name).read_text())
