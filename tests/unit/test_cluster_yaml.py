"""`cluster.yaml` is what Ray's cluster launcher takes, and keeps its promises about security."""

from __future__ import annotations

import copy
import re
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import yaml

from colddiff.cli.submit import Request, read_job

ROOT = Path(__file__).resolve().parents[2]
ACCOUNT = "123456789012"


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


def test_nodes_run_the_image_of_this_version_and_install_nothing(cluster: dict[str, Any]) -> None:
    docker = cluster["docker"]
    registry = f"{ACCOUNT}.dkr.ecr.{cluster['provider']['region']}.amazonaws.com"
    assert docker["head_image"] == f"{registry}/colddiff:{version('colddiff')}-cpu"
    assert docker["worker_image"] == f"{registry}/colddiff:{version('colddiff')}-cuda"
    commands = [c for key in cluster if key.endswith("_commands") for c in cluster[key]]
    assert not [c for c in commands if "pip install" in c or "apt" in c]
    (login,) = cluster["initialization_commands"]
    assert login.endswith(f"--password-stdin {registry}")
    assert cluster["file_mounts_sync_continuously"] is False


def test_the_head_takes_no_work_and_workers_have_gpus(cluster: dict[str, Any]) -> None:
    prepared = _validated(cluster)["available_node_types"]
    assert prepared["head"]["resources"] == {"CPU": 0, "GPU": 0}
    assert prepared["gpu"]["max_workers"] >= 4  # what the header's job requests
    for node in prepared.values():
        config = node["node_config"]
        assert config["MetadataOptions"] == {"HttpTokens": "required"}
        (tags,) = config["TagSpecifications"]
        assert tags["Tags"] == [{"Key": "project", "Value": "colddiff"}]


def test_the_header_fills_in_every_blank_and_submits_a_valid_job(cluster: dict[str, Any]) -> None:
    text = (ROOT / "cluster.yaml").read_text()
    header = "".join(
        line.removeprefix("#").removesuffix("\\\n").rstrip("\n")
        + (" " if line.endswith("\\\n") else "\n")
        for line in text.splitlines(keepends=True)[
            : text[: text.index("cluster_name:")].count("\n")
        ]
    )
    (sed,) = re.findall(r'sed "(.*?)" cluster.yaml', header)
    filled = subprocess.run(
        ["sed", sed.replace("$account", "1" * 12).replace("$image", "ami-0abc")],
        input=text.partition("cluster_name:")[2],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert ACCOUNT not in filled
    assert "ami-00000" not in filled
    (submit,) = re.findall(r"colddiff submit train (.*) --address", header)
    _, job = read_job("train", Request(words=tuple(submit.split())))
    found = job.to_dict()
    assert found["data"] == "s3://my-bucket/colddiff/data/cifar10"
    assert (found["workers"], found["resources"]["gpus"]) == (4, 1)


def test_the_token_is_asked_for_everywhere_and_written_nowhere(cluster: dict[str, Any]) -> None:
    assert "-e RAY_AUTH_MODE=token" in cluster["docker"]["run_options"]
    assert cluster["file_mounts"]["/home/colddiff/.ray/auth_token"] == "~/.ray/auth_token"
    text = (ROOT / "cluster.yaml").read_text()
    assert not re.search(r"RAY_AUTH_TOKEN=|AWS_SECRET|aws_secret|[?&]token=", text)


def test_the_dashboard_listens_on_loopback(cluster: dict[str, Any]) -> None:
    (start,) = (c for c in cluster["head_start_ray_commands"] if "ray start" in c)
    assert "--dashboard-host=127.0.0.1" in start.split()
    assert "0.0.0.0" not in (ROOT / "cluster.yaml").read_text()
