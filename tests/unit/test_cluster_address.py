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

from colddiff.cluster.address import Cluster, probe, remote_cluster
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
        self.requires: str | None = None
        self.error_page = b""
        self.tokens: list[str | None] = []
        self.address = f"http://127.0.0.1:{self.server_address[1]}"
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()


class _Answer(BaseHTTPRequestHandler):
    server: Dashboard

    def do_GET(self) -> None:
        self.server.tokens.append(self.headers.get("Authorization"))
        said = self.server.says.get(self.path)
        code = 307 if self.server.elsewhere else 200 if said else 404
        if self.server.requires not in (None, self.server.tokens[-1]):
            code = 403 if self.server.tokens[-1] else 401
        body = json.dumps(said).encode() if code == 200 else self.server.error_page
        self.send_response(code)
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
        with pytest.raises(ClusterError, match=r"not a Ray dashboard \(HTTP 307 of BaseHTTP"):
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


def refused(cluster: Cluster) -> str:
    with pytest.raises(ClusterError) as caught:
        probe(cluster)
    return str(caught.value)


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home without a token, and no variable of Ray's."""
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "folder").mkdir()
    for name, text in {"empty": "\n", "lines": "a\nb\n", "wrong": "hush", "right": "t0k\n"}.items():
        (tmp_path / name).write_text(text)
    return tmp_path


@pytest.mark.parametrize("mode", ["token", ""])
@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("gone", "no such file"),
        ("folder", "is a folder, not a file"),
        ("right/x", "cannot be read (Not a directory)"),
        ("empty", "is empty"),
        ("lines", "holds no token, which is one line of ASCII"),
    ],
)
def test_a_named_file_that_holds_no_token_is_named(
    dashboard: Dashboard,
    files: Path,
    monkeypatch: pytest.MonkeyPatch,
    mode: str,
    name: str,
    problem: str,
) -> None:
    dashboard.requires = "Bearer t0k"
    monkeypatch.setenv("RAY_AUTH_MODE", mode)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(files / name))
    said = refused(remote_cluster(dashboard.address))
    assert f"requires a token ({files / name}: {problem}): set RAY_AUTH_TOKEN_PATH" in said
    assert set(dashboard.tokens) == {None}


def test_a_token_is_rejected_only_where_one_was_sent_and_its_place_is_named(
    dashboard: Dashboard, files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dashboard.requires = "Bearer t0k"
    cluster = remote_cluster(dashboard.address)
    said = refused(cluster)
    assert "requires a token: set RAY_AUTH_TOKEN_PATH" in said
    assert dashboard.tokens == [None]
    (files / ".ray").mkdir()
    (files / ".ray" / "auth_token").write_text("hush")
    assert "rejects the token in ~/.ray/auth_token (Ray's default file); set" in refused(cluster)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(files / "wrong"))
    assert f"rejects the token in {files / 'wrong'} (RAY_AUTH_TOKEN_PATH)" in refused(cluster)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(files / "right"))
    assert probe(cluster).token == "t0k"
    monkeypatch.setenv("RAY_AUTH_TOKEN", "hush")
    said = refused(cluster)
    assert "rejects the token in RAY_AUTH_TOKEN; unset it and set RAY_AUTH_TOKEN_PATH" in said
    assert "hush" not in said


@pytest.mark.parametrize(
    ("page", "what"),
    [
        (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "is an S3 server"),
        (b"See https://www.mlflow.org/docs on how to authenticate", "is an MLflow server"),
    ],
)
def test_a_service_of_another_kind_is_named_and_gets_no_token(
    dashboard: Dashboard, files: Path, monkeypatch: pytest.MonkeyPatch, page: bytes, what: str
) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(files / "right"))
    dashboard.requires, dashboard.error_page = "Basic", page
    said = refused(Cluster(dashboard.address))
    assert f"{dashboard.address} {what}, not a Ray dashboard (HTTP 401 of BaseHTTP/" in said
    assert said.endswith("use the address of the dashboard, whose port is 8265 by default")
    assert dashboard.tokens == [None]


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (b"\x00\x00\x18\x04\x00\x00\x00", "may be the port of Ray's control store (GCS); use the"),
        (b"\x15\x03\x01\x00\x02", "not in plain HTTP; use https:// if"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "answers, but not in HTTP; use the address of the dashboard"),
    ],
)
def test_what_answers_otherwise_than_in_http_is_said_in_a_clean_line(
    answer: bytes, why: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        said = refused(Cluster(f"http://127.0.0.1:{server.getsockname()[1]}"))
        thread.join()
    assert why in said
    assert said.isprintable()
    assert "\\x" not in said


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
