"""`submit generate` on a real cluster: actors and drivers killed, the same bytes; done once."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cluster.conftest import RunningCluster
from tests.kills import DRIVER, PATIENCE_S
from tests.soak.generate import ACTOR, Trial
from tests.unit.generation.trained import train_tiny

pytestmark = pytest.mark.cluster


@pytest.fixture
def trial(cluster: RunningCluster, tmp_path: Path) -> Trial:
    checkpoint = train_tiny(tmp_path / "runs")["job"]
    env = cluster.env | {"COLDDIFF_STORAGE": str(tmp_path / "runs")}
    env.pop("MLFLOW_TRACKING_URI", None)
    fields = ("num_samples=605", "shard_size=20", "batch_size=5")
    return Trial(cluster.home, cluster.record, checkpoint, tmp_path, fields, env)


def test_killed_actors_and_a_killed_driver_leave_the_same_bytes(trial: Trial) -> None:
    trial.whole("whole", 1)
    whole = trial.checked("whole", 605)
    trial.killed("killed", 2, actors=2, drivers=1, pause_s=0.5)
    assert trial.kills == {ACTOR: 2, DRIVER: 1}
    assert trial.checked("killed", 605) == whole
    # Typed once more, it is done.
    process = trial.start("killed", 2)
    stdout, stderr = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, stderr
    assert "is done (605 of 605 images)" in stderr
    outcome = json.loads(stdout)
    assert (outcome["state"], outcome["attempt"]) == ("done", 2)
    records = [json.loads(p.read_text()) for p in (trial.out("killed") / "records").iterdir()]
    assert {record["machine"]["torch"] for record in records}
