"""One local cluster for all cluster tests of a session, started and ended by colddiff itself."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from colddiff.cluster import local_cluster
from colddiff.cluster.address import Cluster
from colddiff.cluster.home import ClusterRecord, Home
from tests.cluster.canary import CANARY

HERE = Path(__file__).parent
# Ray warns about itself; only our own warnings are errors here.
THIRD_PARTY = ("ray", "requests", "urllib3", "aiohttp", "mlflow", "torch", "sqlalchemy", "alembic")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            for module in THIRD_PARTY:
                item.add_marker(pytest.mark.filterwarnings(rf"ignore:::{module}(\.|$)"))


@dataclass(frozen=True)
class RunningCluster:
    """A local cluster, and how to reach it from this process or from a command's environment."""

    home: Home
    record: ClusterRecord

    @property
    def address(self) -> str:
        return self.record.address

    @property
    def cluster(self) -> Cluster:
        return local_cluster.local(self.home, self.record)

    @property
    def env(self) -> dict[str, str]:
        """For ``colddiff`` and for Ray's own clients, which must find no other cluster."""
        others = ("COLDDIFF_ADDRESS", "RAY_ADDRESS", "RAY_API_SERVER_ADDRESS")
        return {name: value for name, value in os.environ.items() if name not in others} | {
            "COLDDIFF_HOME": str(self.home.path),
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(self.home.token_path),
        }


@pytest.fixture(scope="session")
def cluster() -> Iterator[RunningCluster]:
    # Short and private: Ray's sockets live in it, and a socket's path ends at 107 bytes.
    home = Home(Path(tempfile.mkdtemp(prefix="cdt-", dir="/tmp")))
    home.make()
    # In the environment of every job on it, and nowhere else (`tests/cluster/canary.py`).
    home.credentials_path.touch(mode=0o600)
    home.credentials_path.write_text(f"MLFLOW_TRACKING_PASSWORD={CANARY}\n")
    try:
        yield RunningCluster(home, local_cluster.start(home))
    finally:
        local_cluster.stop(home)
        shutil.rmtree(home.path)
