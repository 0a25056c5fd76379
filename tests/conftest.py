"""Fixtures shared by the tests: S3 services and real images; and which tests share a worker."""

from __future__ import annotations

import logging
import os
import signal
import threading
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any

import pytest

from colddiff.machine.garbage import collect_seldom
from colddiff.spec import plugins
from colddiff.spec.plugins import unload_plugin
from tests.groups import Group, group_of
from tests.system import S3Server, running_s3

if (
    threading.current_thread() is threading.main_thread()
    and signal.getsignal(signal.SIGINT) is signal.SIG_IGN
):
    # A shell that starts the tests in the background ignores SIGINT, and so would subprocesses.
    signal.signal(signal.SIGINT, signal.default_int_handler)

# As in every process of ours: a fifth of the time of tests in this process.
collect_seldom()

if "PYTEST_XDIST_WORKER" in os.environ:
    # Before anything loads a BLAS: threads of several workers that wait for each other in turn
    # take ten times as long as one each. Subprocesses inherit it.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    # Ray starts its workers with a niceness of 15: beside tests that compute in their own process
    # they would hardly run at all, and what waits for them would fail.
    os.environ.setdefault("RAY_worker_niceness", "0")


def _group(nodeid: str) -> Group:
    return _group_of_file(nodeid.partition("::")[0])


@cache
def _group_of_file(path: str) -> Group:
    """Twenty tests are in a file, and the patterns of all groups take a ten thousandth each."""
    return group_of(PurePosixPath(path))


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """For ``pytest -n``: the longest groups first, and in each what needs no cluster.

    The cluster of a group ends with its last test, and takes a twentieth of a core until then.
    """
    if "PYTEST_XDIST_WORKER" in os.environ:
        items.sort(key=lambda item: (_group(item.nodeid).rank, _on_cluster(item)))


def _on_cluster(item: pytest.Item) -> bool:
    return "cluster" in getattr(item, "fixturenames", ())


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """For ``pytest -n``: each group on one worker, in its order."""
    from xdist.scheduler import LoadScopeScheduling

    config.option.loadscopereorder = False
    scheduler = LoadScopeScheduling(config, log)
    scheduler._split_scope = lambda nodeid: _group(nodeid).name
    return scheduler


@pytest.fixture
def unloaded_plugins() -> Iterator[None]:
    """Plugins that a test loads are gone after it."""
    before = set(plugins._LOADED)
    yield
    for digest in set(plugins._LOADED) - before:
        unload_plugin(plugins._LOADED[digest])


@dataclass(frozen=True)
class S3Service:
    """An S3 service for which credentials are in the environment."""

    endpoint: str
    secret: str = "a-secret-nobody-may-see"

    def new_bucket(self) -> str:
        """Makes an empty bucket and returns its name."""
        bucket = f"colddiff-test-{uuid.uuid4().hex[:12]}"
        client = _bucket_maker(self.endpoint, os.environ["AWS_ACCESS_KEY_ID"], self.secret)
        client.create_bucket(Bucket=bucket)
        client.close()  # its connections: it is used again
        return bucket


@cache
def _bucket_maker(endpoint: str, user: str, secret: str) -> Any:
    """A client takes a tenth of a second, and there are hundreds of buckets."""
    import boto3.session
    from botocore.config import Config

    return boto3.session.Session(user, secret).client(
        "s3", endpoint_url=endpoint, config=Config(s3={"addressing_style": "path"})
    )


@pytest.fixture(scope="session")
def moto_endpoint() -> Iterator[str]:
    """Address of an S3 server on loopback; it checks neither credentials nor digests."""
    from moto.server import ThreadedMotoServer

    # It has a line for each request, thousands in a search: only those about errors.
    logging.getLogger("werkzeug").setLevel(logging.WARNING)
    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def s3_service(monkeypatch: pytest.MonkeyPatch, moto_endpoint: str) -> S3Service:
    """The loopback service, its address and credentials in the environment."""
    service = S3Service(moto_endpoint)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", service.secret)
    monkeypatch.setenv("AWS_ENDPOINT_URL", service.endpoint)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    return service


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """A real S3 service on loopback (system packages), started when a test first asks for it."""
    with running_s3(tmp_path_factory.mktemp("s3") / "server") as server:
        yield server


@pytest.fixture
def real_s3_service(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> S3Service:
    """The service COLDDIFF_TEST_S3_ENDPOINT and the AWS variables name, else ``s3_server``."""
    endpoint = os.environ.get("COLDDIFF_TEST_S3_ENDPOINT")
    if endpoint:
        return S3Service(endpoint, os.environ.get("AWS_SECRET_ACCESS_KEY", ""))
    server: S3Server = request.getfixturevalue("s3_server")
    server.set(monkeypatch)
    return S3Service(server.endpoint, server.secret)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of golden vectors and real images beside the repository."""
    beside = Path(__file__).resolve().parents[2] / "shared"
    folder = Path(os.environ.get("COLDDIFF_SHARED", beside))
    if not folder.is_dir():
        pytest.skip(f"{folder} is absent; COLDDIFF_SHARED names the folder of vectors and images")
    return folder


@pytest.fixture(scope="session")
def tracker_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An ``mlflow.db`` after MLflow's migrations, which take a second; nothing was logged to it."""
    from colddiff.tracking.mlflow_service import initialise

    database = tmp_path_factory.mktemp("tracker") / "mlflow.db"
    initialise(f"sqlite:///{database}", "another experiment")
    return database
