"""All that a team runs: two machines, a bucket, and MLflow with a password on PostgreSQL.

A training, its evaluation, images made from it, their evaluation and a report, one after another.
"""

from __future__ import annotations

import json
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from colddiff.stores.open import open_store
from tests.in_process import colddiff_here
from tests.machines import free_port, several_machines
from tests.system import S3Server
from tests.tracking_server import TrackingServer, running_tracking_server

pytestmark = [pytest.mark.system, pytest.mark.cluster]

TRAIN = [
    *("data=digits", "image_size=16", "channels=1", "global_batch_size=8", "workers=2"),
    "degradation={kind: noise, num_timesteps: 3}",
    "restorer={kind: convnext_unet, dim: 8, dim_mults: [1, 2]}",
    *("num_steps=4", "checkpoint_every=2", "log_every=1"),
    "evaluation={num_images: 80, batch_size: 40, severities: 1}",
]
TWICE = """
    select r.name, m.key, m.step, count(*) from metrics m join runs r on r.run_uuid = m.run_uuid
    where m.key not like 'system/%' group by r.name, m.key, m.step having count(*) > 1
"""


def test_a_training_its_images_and_a_report_of_them(
    s3_server: S3Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    s3_server.set(monkeypatch)
    bucket = f"s3://{s3_server.bucket()}"
    dashboard = free_port()
    address = f"http://127.0.0.1:{dashboard}"
    with running_tracking_server(free_port(), f"{bucket}/mlflow") as tracking:
        assert answer(tracking) == 401  # nobody without a password
        for name, value in {
            **tracking.environment,
            "COLDDIFF_STORAGE": f"{bucket}/team",
            "COLDDIFF_CACHE": str(tmp_path / "cache"),
            "COLDDIFF_HOME": str(tmp_path / "home"),
            "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
        }.items():
            monkeypatch.setenv(name, value)
        monkeypatch.delenv("COLDDIFF_PLUGINS", raising=False)
        with several_machines(2, dashboard):
            monkeypatch.setenv("RAY_AUTH_MODE", "disabled")

            def submit(*words: str) -> dict[str, Any]:
                typed = ("submit", *words, "--address", address, "--json")
                done = colddiff_here(monkeypatch, capsys, *typed)
                assert done.returncode == 0, done.stderr
                found: dict[str, Any] = json.loads(done.stdout)
                assert found["state"] == "done"
                return found

            trained = submit("train", *TRAIN, "--name", "chain")["id"]
            evaluated = submit("evaluate", f"checkpoint={trained}@last", "num_images=80")["id"]
            out = f"{bucket}/samples"
            submit("generate", f"checkpoint={trained}@last", f"out={out}", "num_samples=90")
            (reference,) = (
                f"{bucket}/team/{item.key.removesuffix('/manifest.json')}"
                for item in open_store(f"{bucket}/team").list("data/")
                if item.key.endswith("/test/manifest.json")
            )
            measured = submit("evaluate", f"samples={out}", f"reference={reference}")
        # Of STORAGE alone: the cluster is gone.
        words = ("report", trained, evaluated, measured["id"], "--out", tmp_path / "page")
        done = colddiff_here(monkeypatch, capsys, *words)
        assert done.returncode == 0, done.stderr
        page = (tmp_path / "page" / "report.html").read_text()
        assert trained in page
        assert evaluated in page

        assert tracking.rows(TWICE) == []
        ended = tracking.rows("select name, status from runs order by start_time")
        assert [status for _, status in ended] == ["FINISHED"] * 4
        losses = tracking.rows("select step from metrics where key = 'train/loss_l1' order by step")
        assert losses == [(1,), (2,), (3,), (4,)]
        artifacts = {item.key for item in open_store(f"{bucket}/mlflow").list("")}
        assert any(key.endswith("/job.json") for key in artifacts)
        secret = tracking.environment["MLFLOW_TRACKING_PASSWORD"].encode()
        store = open_store(f"{bucket}/team")
        assert not [item.key for item in store.list("jobs/") if secret in store.get(item.key)]


def answer(server: TrackingServer) -> int:
    """What a client without a name gets."""
    uri = f"{server.environment['MLFLOW_TRACKING_URI']}/api/2.0/mlflow/experiments/search"
    try:
        with urllib.request.urlopen(f"{uri}?max_results=1", timeout=60) as found:
            return int(found.status)
    except urllib.error.HTTPError as error:
        return error.code
