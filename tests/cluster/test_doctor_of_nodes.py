"""`colddiff doctor` of a cluster: each node says what it does not reach."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.conftest import RunningCluster
from tests.in_process import Done

pytestmark = pytest.mark.cluster
SILENT = "http://127.0.0.1:9"


def test_each_node_says_what_it_reaches(
    colddiff_here: Callable[..., Done], cluster: RunningCluster, storage: Path
) -> None:
    def nodes(**env: str) -> list[dict[str, Any]]:
        done = colddiff_here("doctor", "--address", cluster.address, "--json", **env)
        found = json.loads(done.stdout)["findings"]
        return [one for one in found if one["name"].startswith("node")]

    (found,) = nodes()
    assert found["state"] == "ok", found
    assert f"reaches {storage} and sqlite:///{storage}/mlflow.db" in found["what"]
    assert not [path for path in storage.glob("probes/*") if path.is_file()]
    (found,) = nodes(MLFLOW_TRACKING_URI=SILENT)
    assert found["state"] == "wrong"
    assert f"tracker: tracker {SILENT} does not respond" in found["what"]
