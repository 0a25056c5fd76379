"""One local cluster for all cluster tests of a session, started and ended by colddiff itself."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from colddiff.cluster import local_cluster
from colddiff.cluster.address import Cluster
from colddiff.cluster.home import ClusterRecord, Home
from tests import in_process
from tests.cluster.canary import CANARY
from tests.in_process import Done

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


@pytest.fixture
def storage(tmp_path: Path, tracker_database: Path) -> Path:
    """A STORAGE of this test's own, with its own tracker."""
    place = tmp_path / "runs"
    place.mkdir()
    shutil.copy(tracker_database, place / "mlflow.db")
    return place


@pytest.fixture
def colddiff_here(
    cluster: RunningCluster,
    storage: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Callable[..., Done]:
    """``colddiff WORDS`` for the cluster and ``storage``, without a process of its own."""
    for name in (
        "COLDDIFF_ADDRESS",
        "RAY_ADDRESS",
        "RAY_API_SERVER_ADDRESS",
        "MLFLOW_TRACKING_URI",
    ):
        monkeypatch.delenv(name, raising=False)
    places = {
        "COLDDIFF_HOME": str(cluster.home.path),
        "COLDDIFF_STORAGE": str(storage),
        "COLDDIFF_CACHE": str(tmp_path / "cache"),
    }

    def run(*words: object, **env: str) -> Done:
        return in_process.colddiff_here(monkeypatch, capsys, *words, **{**places, **env})

    return run


# Not of the session: an idle cluster takes a tenth of a core from the tests after it.
@pytest.fixture(scope="package")
def cluster() -> Iterator[RunningCluster]:
    # Short and private: Ray's sockets live in it, and a socket's path ends at 107 bytes.
    home = Home(Path(tempfile.mkdtemp(prefix="cdt-", dir="/tmp")))
    home.make()
    # In the environment of every job on it, and nowhere else (`tests/cluster/canary.py`).
    home.credentials_path.touch(mode=0o600)
    home.credentials_path.write_text(f"MLFLOW_TRACKING_PASSWORD={CANARY}\n")
    try:
        with pytest.MonkeyPatch.context() as patch:
            # Figures of the machine once a minute: nobody looks at the dashboard.
            patch.setenv("REPORTER_UPDATE_INTERVAL_MS", "60000")
            record = local_cluster.start(home)
        yield RunningCluster(home, record)
    finally:
        local_cluster.stop(home)
        shutil.rmtree(home.path)
