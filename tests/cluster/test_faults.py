"""A training through random kills, and through workers that hang and numbers that are none."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from colddiff.data.open import open_shards, pack_source
from colddiff.jobs.folder import JobFolder
from colddiff.jobs.resolve import ResolvedJob
from colddiff.stores.local_store import LocalStore
from colddiff.tracking.memory_tracker import MemoryTracker
from colddiff.verbs.train.job import TrainJob
from colddiff.verbs.train.trainer import Trainer
from tests.cluster.conftest import RunningCluster
from tests.kills import PATIENCE_S, wait_until
from tests.machines import await_training
from tests.ranks import run_ranks
from tests.soak.train import COLDDIFF, KilledTraining, checkpoints_of, soak
from tests.unit.test_train import GlooContext

pytestmark = pytest.mark.cluster


class KilledBesideRanks(KilledTraining):
    """The training that is left alone has two ranks as well, without a cluster."""

    def whole(self) -> JobFolder:
        resolved = self._folder("killed").job()
        run_ranks(_train, 2, json.dumps(resolved), str(self.place))
        return JobFolder(LocalStore(self.place / "whole"), resolved["id"])


def _train(rank: int, world_size: int, resolved: str, place: str) -> None:
    torch.set_num_threads(1)  # as many as a worker on a cluster has
    found = ResolvedJob.from_dict(json.loads(resolved))
    job, folder = found.job_as(TrainJob), JobFolder(LocalStore(Path(place) / "whole"), found.id)
    assert job.data
    context = GlooContext(rank, world_size, f"{place}/group")
    Trainer(job, open_shards(job.data), folder, context, MemoryTracker(), attempt=1).run()
    context.end()


def test_three_kills_change_nothing(cluster: RunningCluster, tmp_path: Path) -> None:
    env = {k: v for k, v in cluster.env.items() if k != "MLFLOW_TRACKING_URI"}
    training = KilledBesideRanks(tmp_path, cluster.home, env, num_steps=80, every=5)
    findings = soak(training, ["upload", "driver", "worker"], seed=5, talk=print)
    assert len(findings.kills) == 3
    findings.check()


RESERVED = """
import sys
import ray
from ray.data._internal.cluster_autoscaler.default_autoscaling_coordinator import (
    get_or_create_autoscaling_coordinator,
)
from ray.train import ScalingConfig
from ray.train.torch import TorchTrainer
from colddiff.jobs.folder import JobFolder
from colddiff.stores.memory_store import MemoryStore
from colddiff.verbs.train.ray_elastic import reserve_anew, train_requester

ray.init(log_to_driver=False)
coordinator = get_or_create_autoscaling_coordinator()
folder, trainers = JobFolder(MemoryStore(), "job"), []

def reserved(trainer):
    found = ray.get(coordinator.get_reserved_resources.remote(train_requester(trainer)))
    return sum(machine.get("CPU", 0) for machine in found.values())

for start in range(2):
    trainer = TorchTrainer(lambda: None, scaling_config=ScalingConfig(num_workers=(1, 2)))
    trainers.append(trainer)
    reserve_anew(folder, train_requester(trainer))
    ray.get(coordinator.request_resources.remote(train_requester(trainer), [{"CPU": 1}], 180.0))
    print(*map(reserved, trainers))
ray.get(coordinator.cancel_request.remote(train_requester(trainer)))
"""


def test_what_a_killed_driver_reserved_is_given_back(cluster: RunningCluster) -> None:
    """Its training starts again at once, where Ray alone would keep it waiting for 180 s."""
    # Without an address Ray takes the cluster that was started last, by whichever test.
    address = f"127.0.0.1:{cluster.record.ports['port']}"
    run = subprocess.run(
        [sys.executable, "-c", RESERVED],
        env={**cluster.env, "RAY_ADDRESS": address},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    assert run.stdout.splitlines() == ["1", "0 1"]


PLANTED = '''
"""Fades to grey; while a file is there it hangs once, or has no number to give."""

import time
from pathlib import Path
from typing import Literal

from colddiff.degradations import DEGRADATIONS, Degradation, DegradationSpec


@DEGRADATIONS.register
class PlantedSpec(DegradationSpec):
    """Severity t fades the image to grey."""

    kind: Literal["planted"] = "planted"
    place: str

    def build(self, shape):
        return Planted(self, shape)


class Planted(Degradation[PlantedSpec]):
    def _degrade(self, x0, t, omega):
        place = Path(self.spec.place)
        try:
            (place / "hang").unlink()
        except FileNotFoundError:
            pass
        else:
            self.planted_hang()
        time.sleep(0.02)  # it is its faults that are tried
        weight = (t / self.num_timesteps).to(x0.dtype).view(-1, 1, 1, 1)
        return x0 * (1 - weight) * (float("nan") if (place / "nan").exists() else 1.0)

    def planted_hang(self):
        time.sleep(10_000)
'''


def test_stuck_ranks_are_told_and_started_over_and_nan_ends_it_all(
    cluster: RunningCluster, tmp_path: Path
) -> None:
    plugin = tmp_path / "planted.py"
    plugin.write_text(PLANTED)
    env = {k: v for k, v in cluster.env.items() if k != "MLFLOW_TRACKING_URI"}
    env |= {
        "COLDDIFF_STORAGE": str(tmp_path / "runs"),
        "COLDDIFF_CACHE": str(tmp_path / "cache"),
    }
    data = tmp_path / "data"
    pack_source("digits", str(data), image_size=16, channels=1)
    degradation = f"{{kind: planted, num_timesteps: 4, place: {tmp_path}}}"
    command = [
        *(*COLDDIFF, "submit", "train", "--plugin", str(plugin), "--name", "planted"),
        *("image_size=16", "channels=1", f"data={data}", f"degradation={degradation}"),
        *("restorer={kind: convnext_unet, dim: 8, dim_mults: [1, 2]}", "global_batch_size=8"),
        *("num_steps=1000000", "checkpoint_every=10", "workers=2", "hang_timeout_s=8"),
    ]
    process = subprocess.Popen(
        command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    try:
        jobs = tmp_path / "runs" / "jobs"
        wait_until(lambda: list(jobs.glob("train-planted-*")), "the job's folder")
        folder = JobFolder(LocalStore(tmp_path / "runs"), next(jobs.iterdir()).name)
        await_training(folder, workers=2)
        (tmp_path / "hang").touch()
        wait_until(lambda: len(folder.fencing_tokens(1)) == 2, "the start after the hang")
        await_training(folder, workers=2)
        wait_until(lambda: checkpoints_of(folder).steps(), "a checkpoint to go on from")
        (tmp_path / "nan").touch()
        _, talk = process.communicate(timeout=PATIENCE_S)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 1
    log = folder.log(1).decode(errors="replace")
    assert "in planted_hang" in log
    assert {name.rpartition("-")[2] for name in folder.stacks(1)} == {"0.txt", "1.txt"}
    assert folder.fencing_tokens(1) == [1, 2]  # a diverged run is not tried again
    last = checkpoints_of(folder).steps()[-1]
    status = folder.status()
    assert status
    assert re.search(
        r"the loss of optimizer step \d+ is not finite \(severities \d", status.message
    )
    assert f"the last finite checkpoint is that of step {last}" in status.message
    assert f"--from {folder.job_id}@step={last} " in status.message
    assert status.message in talk
