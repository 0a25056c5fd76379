"""A probe at a cluster's address: what the token is given to, and what a proxy is asked for."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from colddiff.cluster.address import Cluster, probe
from colddiff.errors import ClusterError


class Dashboard(ThreadingHTTPServer):
    """Answers as Ray's dashboard does, or sends on to ``elsewhere``; notes the tokens it got."""

    daemon_threads = True

    def __init__(self, elsewhere: str | None = None) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.elsewhere = elsewhere
        self.tokens: list[str | None] = []
        self.address = f"http://127.0.0.1:{self.server_address[1]}"
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()


class _Answer(BaseHTTPRequestHandler):
    server: Dashboard

    def do_GET(self) -> None:
        self.server.tokens.append(self.headers.get("Authorization"))
        body = b"" if self.server.elsewhere else json.dumps({"ray_version": "2"}).encode()
        self.send_response(307 if self.server.elsewhere else 200)
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
