"""Trackers for each test: in memory, in a sqlite store of the module, absent, and mute."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from colddiff.tracking.mlflow_service import initialise
from tests.unit.trackers.twins import EXPERIMENT, MemoryTwin, MlflowTwin, Twin


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("mlflow")
    uri = f"sqlite:///{folder}/mlflow.db"
    initialise(uri, EXPERIMENT, artifact_root=str(folder / "artifacts"))
    return uri


@pytest.fixture
def mlflow(uri: str) -> MlflowTwin:
    return MlflowTwin(uri)


@pytest.fixture(params=["memory", "mlflow"])
def twin(request: pytest.FixtureRequest) -> Twin:
    if request.param == "memory":
        return MemoryTwin()
    return MlflowTwin(request.getfixturevalue("uri"))


@pytest.fixture
def nobody() -> str:
    """An address where nothing listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}"


@pytest.fixture
def mute() -> Iterator[str]:
    """A server that takes connections and never answers."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(16)
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
