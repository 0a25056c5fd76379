"""What generation costs beside its network: wall time of a job's shards over time spent in R."""

from __future__ import annotations

import tempfile
import time
from typing import Any

import torch
from torch import Tensor, nn

from colddiff.data.sample_plan import SamplePlan
from colddiff.degradations import build_degradation
from colddiff.image_maker import ImageMaker
from colddiff.jobs.work_queue import LocalWorkers, WorkQueue
from colddiff.restorers import build_restorer
from colddiff.stores.local_store import LocalStore
from colddiff.terminal import StandardNormal, Terminal
from colddiff.types import ImageShape
from colddiff.verbs.generate.missing import ShardCounts, missing_shards
from colddiff.verbs.generate.worker import ShardWorker

SHAPE = ImageShape(3, 32, 32)
T = 10
BATCH = 16


class Timed(nn.Module):
    """A restorer that adds up the time spent in it, the device drained before and after."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner
        self.seconds = 0.0

    def forward(self, x_t: Tensor, t: Tensor) -> Tensor:
        _drain(x_t)
        began = time.perf_counter()
        x0_hat: Tensor = self.inner(x_t, t)
        _drain(x0_hat)
        self.seconds += time.perf_counter() - began
        return x0_hat


def measure(place: torch.device, shard_s: float = 20.0, shards: int = 2) -> dict[str, Any]:
    """Shards of about ``shard_s`` seconds each, packed and written to a disk as a job does it."""
    D = build_degradation({"kind": "noise", "num_timesteps": T}, SHAPE).to(place)
    R = Timed(build_restorer({"kind": "convnext_unet", "dim": 32}, SHAPE).to(place).eval())
    maker = ImageMaker(R, D, "improved", terminal=Terminal(StandardNormal()), device=place)
    for _ in range(2):  # the second one is warm
        began = time.perf_counter()
        maker.make(maker.start(range(BATCH)))
        batch_s = time.perf_counter() - began
    size = BATCH * max(1, round(shard_s / batch_s))
    plan = _plan(size)
    R.seconds = 0.0
    with tempfile.TemporaryDirectory() as folder:
        store, counts = LocalStore(folder), ShardCounts()
        worker = ShardWorker(plan, maker, store)
        workers = LocalWorkers(worker.make)
        began = time.perf_counter()
        tasks = missing_shards(store, plan, shards * size, counts)
        WorkQueue(tasks, workers, max_failures=1, on_report=counts.committed).run()
        wall_s = time.perf_counter() - began
        workers.close()
        worker.close()
    return {
        "generation": f"{shards} shards of {size}, {SHAPE}, T = {T}, batches of {BATCH}",
        "wall_s": wall_s,
        "network_s": R.seconds,
        "images_per_s": counts.made / wall_s,
        "overhead_percent": 100 * (wall_s / R.seconds - 1),
    }


def _plan(shard_size: int) -> SamplePlan:
    return SamplePlan(
        {
            "checkpoint": "0" * 64,
            "image": {
                "channels": SHAPE.channels,
                "height": SHAPE.height,
                "width": SHAPE.width,
                "bits": 8,
                "range": None,
            },
            "sampler": "improved",
            "severities": T,
            "symmetry_noise": 0.0,
            "first_seed": 0,
            "shard_size": shard_size,
            "batch_size": BATCH,
            "precision": "fp32",
            "writer": "webdataset",
        },
        threads=torch.get_num_threads(),
    )


def _drain(x: Tensor) -> None:
    if x.device.type == "cuda":
        torch.cuda.synchronize()
