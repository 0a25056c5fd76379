"""A new verb is one folder, on a real cluster too: staged, driven, followed, extended."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from colddiff.machine.garbage import OBJECTS
from tests.cluster.conftest import RunningCluster
from tests.toy_verb import CopiedPackage

pytestmark = pytest.mark.cluster


def test_a_new_verb_is_submitted_to_a_cluster(
    cluster: RunningCluster, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    storage = str(tmp_path / "runs")
    package = CopiedPackage(tmp_path / "copy", {**cluster.env, "COLDDIFF_STORAGE": storage})
    request.addfinalizer(package.close)
    done = package.run("submit", "count", "goal=3", "--json")
    assert done.returncode == 0, done.stderr
    job = json.loads(done.stdout)
    result = json.loads(Path(job["result"]).read_text())
    # All processes of the job look for garbage as seldom as ours do.
    seldom = f"{OBJECTS} after {OBJECTS} of the driver"
    assert (result["counted"], result["where"]) == (3, f"on ray, {seldom}")
    failed = package.run("submit", "count", "goal=9", "fail=true")
    assert failed.returncode == 1
    assert "a sheep refused to jump" in failed.stderr
    more = package.run("submit", "count", "goal=9")
    assert more.returncode == 0, more.stderr
    assert f"{job['id']} is done (9 of 9 sheep)" in more.stderr
    result = json.loads(Path(job["result"]).read_text())
    told = ["9 sheep have jumped", "pictures:", f"  {result['pictures'][0]}", "next:", "  sleep"]
    assert [line for line in more.stderr.splitlines() if line in told] == told
    assert f"  {result['pictures'][0]}\n" in package.run("logs", job["id"]).stdout
    status = json.loads(package.run("status", job["id"], "--json").stdout)
    assert (status["state"], status["attempt"], status["step"]) == ("done", 3, 9)
