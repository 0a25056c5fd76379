"""A probe at a cluster's address: what the token is given to, and what a proxy is asked for."""

from __future__ import annotations

import json
import platform
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from colddiff.cluster.address import Cluster, probe
from colddiff.cluster.versions import refuse_other_versions
from colddiff.errors import ClusterError, SpecError
from tests.in_process import colddiff_here


class Dashboard(ThreadingHTTPServer):
    """Answers as Ray's dashboard does, or sends on to ``elsewhere``; notes the tokens it got."""

    daemon_threads = True

    def __init__(self, elsewhere: str | None = None) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.elsewhere = elsewhere
        self.says: dict[str, Any] = {"/api/version": {"ray_version": "2"}}
        self.tokens: list[str | None] = []
        self.address = f"http://127.0.0.1:{self.server_address[1]}"
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()


class _Answer(BaseHTTPRequestHandler):
    server: Dashboard

    def do_GET(self) -> None:
        self.server.tokens.append(self.headers.get("Authorization"))
        said = self.server.says.get(self.path)
        body = b"" if self.server.elsewhere else json.dumps(said).encode()
        self.send_response(307 if self.server.elsewhere else 200 if said else 404)
        if self.server.elsewhere:
            self.send_header("Location", self.server.elsewhere + self.path)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def dashboard() -> Iterator[Dashboard]:
    with Dashboard() as server:
        yield server
        server.shutdown()


def test_the_token_is_not_carried_to_where_an_answer_points(dashboard: Dashboard) -> None:
    with Dashboard(elsewhere=dashboard.address) as first:
        with pytest.raises(ClusterError, match=r"not a Ray dashboard \(HTTP 307\)"):
            probe(Cluster(first.address, "hush"))
        first.shutdown()
    assert first.tokens == ["Bearer hush"]
    assert dashboard.tokens == []


def test_no_proxy_is_asked_for_what_runs_on_this_machine(
    dashboard: Dashboard, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        for name in ("http_proxy", "HTTP_PROXY"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{nobody.getsockname()[1]}")
        for name in ("no_proxy", "NO_PROXY"):
            monkeypatch.delenv(name, raising=False)
        cluster = Cluster(dashboard.address)
        assert probe(cluster) == cluster
    assert len(dashboard.tokens) == 1


def runs(dashboard: Dashboard, ray: str, python: str | None) -> Cluster:
    dashboard.says["/api/version"] = {"ray_version": ray}
    if python is not None:
        about = {"result": True, "data": {"rayVersion": ray, "pythonVersion": python}}
        dashboard.says["/api/v0/cluster_metadata"] = about
    return Cluster(dashboard.address)


def test_ray_or_python_of_another_minor_version_is_refused(dashboard: Dashboard) -> None:
    ray, python = version("ray"), platform.python_version()
    refuse_other_versions(runs(dashboard, ray, None))
    refuse_other_versions(runs(dashboard, ray, python))
    same = [".".join([*text.split(".")[:2], "999"]) for text in (ray, python)]
    refuse_other_versions(runs(dashboard, *same))
    refuse_other_versions(runs(dashboard, ray, "unknown"))
    dashboard.says.clear()
    with pytest.raises(ClusterError, match=r"does not say its versions \(HTTP 404\)"):
        refuse_other_versions(Cluster(dashboard.address))
    with pytest.raises(SpecError, match=r"runs Ray 2\.9\.1, .* install 'ray==2\.9\.\*'"):
        refuse_other_versions(runs(dashboard, "2.9.1", python))
    with pytest.raises(SpecError, match=r"runs Python 3\.9\.18, .*use Python 3\.9 here"):
        refuse_other_versions(runs(dashboard, ray, "3.9.18"))


def test_a_submit_to_a_cluster_of_other_versions_ends_before_anything_is_written(
    dashboard: Dashboard,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    address = runs(dashboard, "2.9.1", None).address
    words = ("submit", "train", "quickstart", "--address", address, "--shared-path")
    storage = tmp_path / "runs"
    place = {"COLDDIFF_STORAGE": str(storage), "COLDDIFF_HOME": str(tmp_path / "home")}
    done = colddiff_here(monkeypatch, capsys, *words, **place)
    assert (done.returncode, done.stdout) == (2, "")
    assert "runs Ray 2.9.1, this is Ray" in done.stderr
    assert not storage.exists()
