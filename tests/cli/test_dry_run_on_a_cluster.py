"""`submit --dry-run` with a cluster named: whether the job can ever fit there, and no more."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from tests.in_process import Done, colddiff_here

NODES = [{"state": "ALIVE", "resources_total": {"CPU": 8.0, "GPU": 2.0}} for _ in range(2)]
ANSWERS = {
    "/api/version": {"ray_version": "2"},
    "/api/v0/nodes": {"data": {"result": {"result": NODES}}},
    "/api/cluster_status": {"data": {"clusterStatus": {}}},
}


@pytest.fixture
def dashboard() -> Iterator[str]:
    """A dashboard that answers what a dry run asks."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found = ANSWERS.get(self.path.partition("?")[0])
            self.send_response(200 if found else 404)
            self.end_headers()
            self.wfile.write(json.dumps(found).encode())

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (
            ["train", "data=digits", "workers=4", "resources.gpus=1"],
            "fits: 4 workers with 1 GPU and 1 CPU; the cluster has room for 4 at once",
        ),
        (
            ["train", "data=digits", "workers=[1, 9]", "resources.gpus=2"],
            "fits: 1 worker with 2 GPU and 1 CPU; the cluster has room for 2 at once",
        ),
        (
            ["train", "data=digits", "workers=5", "resources.gpus=1"],
            "can never fit: workers: the job needs 5 workers with 1 GPU and 1 CPU, the cluster has "
            "room for 4; workers=[1, 5] starts with what has room",
        ),
        (
            ["train", "data=digits", "workers=5", "resources.gpus=1", "limits.queue_hours=2"],
            "it waits until machines are added, for limits.queue_hours=2 at most, or until "
            "`colddiff stop` ends it: workers: the job needs 5 workers with 1 GPU and 1 CPU, ",
        ),
        (
            ["train", "data=digits", "workers=all", "resources.gpus=auto"],
            "fits: 1 worker with 1 GPU and 1 CPU; the cluster has room for 4 at once",
        ),
        (
            ["train", "data=digits", "workers=5", "resources.gpus=auto"],
            "can never fit: resources.gpus: is auto: 5 workers need 5 GPUs, the cluster has room "
            "for 4; use workers=[1, 5], or say a number",
        ),
        (
            ["evaluate", "samples=s3://a/b", "reference=s3://a/c", "workers=64"],
            "fits: 1 worker with 1 CPU; the cluster has room for ",
        ),
        (
            ["evaluate", "samples=s3://a/b", "reference=s3://a/c", "resources.accelerator=H100"],
            "can never fit: resources.accelerator: a worker needs H100, no machine of the ",
        ),
    ],
)
def test_it_says_whether_the_job_fits(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    dashboard: str,
    words: list[str],
    line: str,
) -> None:
    for name in os.environ:
        if name.startswith(("COLDDIFF_", "RAY_")):
            monkeypatch.delenv(name)

    def dry_run(*more: Any) -> Done:
        return colddiff_here(monkeypatch, capsys, "submit", *words, "--dry-run", *more)

    # All nodes see the paths of this machine: what they cannot see is another test.
    there = ("--address", dashboard, "--shared-path")
    named = dry_run(*there)
    assert named.returncode == 0, named.stderr
    assert named.stderr.splitlines()[-1].startswith(f"{dashboard}: {line}")
    told = json.loads(dry_run(*there, "--json").stdout)
    assert line in told["cluster"]
    # A job that would wait is none.
    assert told["problems"] == [told["cluster"]] * line.startswith("can never fit")
    assert "fit" not in dry_run().stderr
