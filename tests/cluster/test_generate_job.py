"""`submit generate` on a real cluster: actors and drivers killed, the same bytes; done once."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cluster.conftest import RunningCluster
from tests.in_process import Done
from tests.kills import DRIVER
from tests.soak.generate import ACTOR, Trial
from tests.unit.generation.trained import train_tiny

pytestmark = pytest.mark.cluster


@pytest.fixture
def trial(cluster: RunningCluster, storage: Path, tmp_path: Path) -> Trial:
    checkpoint = train_tiny(storage)["job"]
    env = cluster.env | {"COLDDIFF_STORAGE": str(storage)}
    env.pop("MLFLOW_TRACKING_URI", None)
    fields = ("num_samples=605", "shard_size=20", "batch_size=5")
    return Trial(cluster.home, cluster.record, checkpoint, tmp_path, fields, env)


def test_killed_actors_and_a_killed_driver_leave_the_same_bytes(
    trial: Trial, colddiff_here: Callable[..., Done]
) -> None:
    alone = colddiff_here(*trial.words("whole", 1), "--local")
    assert alone.returncode == 0, alone.stderr
    whole = trial.checked("whole", 605)
    trial.killed("killed", 2, actors=2, drivers=1, pause_s=0.5)
    assert trial.kills == {ACTOR: 2, DRIVER: 1}
    assert trial.checked("killed", 605) == whole
    # Typed once more, it is done.
    again = colddiff_here(*trial.words("killed", 2))
    assert again.returncode == 0, again.stderr
    assert "is done (605 of 605 images)" in again.stderr
    outcome = json.loads(again.stdout)
    assert (outcome["state"], outcome["attempt"]) == ("done", 2)
    records = [json.loads(p.read_text()) for p in (trial.out("killed") / "records").iterdir()]
    assert {record["machine"]["torch"] for record in records}
