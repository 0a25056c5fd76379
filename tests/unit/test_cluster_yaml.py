"""`cluster.yaml` is what Ray's cluster launcher takes, and keeps its promises about security."""

from __future__ import annotations

import copy
import re
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def cluster() -> dict[str, Any]:
    config: dict[str, Any] = yaml.safe_load((ROOT / "cluster.yaml").read_text())
    return config


def _validated(config: dict[str, Any]) -> dict[str, Any]:
    """The configuration as `ray up` works it out, without contacting anybody."""
    from ray.autoscaler._private.util import prepare_config, validate_config

    prepared: dict[str, Any] = prepare_config(copy.deepcopy(config))
    validate_config(prepared)
    return prepared


def test_ray_accepts_it(cluster: dict[str, Any]) -> None:
    prepared = _validated(cluster)
    assert set(prepared["available_node_types"]) == {"head", "gpu"}
    assert prepared["available_node_types"]["gpu"]["min_workers"] == 0
    # Nothing of Ray's own defaults is left, such as a nightly wheel or an open dashboard.
    assert prepared["worker_setup_commands"] == cluster["setup_commands"]
    assert prepared["head_start_ray_commands"] == cluster["head_start_ray_commands"]


def test_ray_would_refuse_a_wrong_one(cluster: dict[str, Any]) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    with pytest.raises(jsonschema.ValidationError, match="worker_count"):
        _validated({**cluster, "worker_count": 3})


def test_images_run_the_pinned_ray_on_its_python(cluster: dict[str, Any]) -> None:
    pinned = re.search(r"^ray==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert pinned is not None
    assert pinned.group(1) == version("ray")
    docker = cluster["docker"]
    assert docker["head_image"] == f"rayproject/ray:{pinned.group(1)}-py311-cpu"
    assert docker["worker_image"] == f"rayproject/ray:{pinned.group(1)}-py311-gpu"


def test_the_token_is_asked_for_everywhere_and_written_nowhere(cluster: dict[str, Any]) -> None:
    assert "-e RAY_AUTH_MODE=token" in cluster["docker"]["run_options"]
    assert cluster["file_mounts"]["/home/ray/.ray/auth_token"] == "~/.ray/auth_token"
    text = (ROOT / "cluster.yaml").read_text()
    assert not re.search(r"RAY_AUTH_TOKEN=|AWS_SECRET|aws_secret|[?&]token=", text)


def test_the_dashboard_listens_on_loopback(cluster: dict[str, Any]) -> None:
    (start,) = (c for c in cluster["head_start_ray_commands"] if "ray start" in c)
    assert "--dashboard-host=127.0.0.1" in start.split()
    assert "0.0.0.0" not in (ROOT / "cluster.yaml").read_text()


def test_nodes_install_this_package_within_its_constraints(cluster: dict[str, Any]) -> None:
    (install,) = (c for c in cluster["setup_commands"] if "pip install" in c)
    folder = "/home/ray/colddiff"
    assert cluster["file_mounts"][folder] == "."
    assert install.split()[-3:] == ["-c", f"{folder}/constraints.txt", folder]
    assert cluster["file_mounts_sync_continuously"] is False
