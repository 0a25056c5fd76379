"""How long checkpoints hold the training up, at one per 500 steps, with a paper net."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from colddiff.data.readers.memory_shards import MemoryShards
from colddiff.jobs.folder import JobFolder
from colddiff.spec import parse
from colddiff.stores.local_store import LocalStore
from colddiff.tracking.memory_tracker import MemoryTracker
from colddiff.verbs.train.job import TrainJob
from colddiff.verbs.train.local_context import LocalContext
from colddiff.verbs.train.trainer import Trainer

EVERY = 500
MEASURED = 3


def measure(device: torch.device) -> dict[str, Any]:
    """Steps and checkpoints of one run on a local disk; what holds up is measured, not what runs
    beside it. Between two measured checkpoints lie fewer steps than 500: the share is that of one
    checkpoint in 500 steps of the mean length seen.
    """
    steps = 5 if device.type == "cpu" else 50
    job = parse(
        TrainJob,
        {
            "image_size": 32,
            "degradation": {"kind": "blur", "num_timesteps": 50},
            "restorer": {"kind": "convnext_unet", "dim": 64, "dim_mults": [1, 2, 4, 8]},
            "global_batch_size": 8 if device.type == "cpu" else 128,
            "num_steps": steps * (MEASURED + 1),
            "checkpoint_every": steps,
        },
    )
    images = np.random.default_rng(0).integers(0, 256, (64, 3, 32, 32), dtype=np.uint8)
    held: list[float] = []
    with tempfile.TemporaryDirectory() as place:
        folder = JobFolder(LocalStore(Path(place)), "train-bench-00000000")
        run = Trainer(
            job, MemoryShards(images), folder, LocalContext(device), MemoryTracker(), attempt=1
        )
        update, times = run.ema.update, list[float]()

        def watch(step: int) -> None:
            update(step)
            times.append(time.perf_counter())
            held.append(run.writer.blocked_s)

        run.ema.update = watch  # type: ignore[method-assign]
        run.run()
        stored = sum(item.size for item in folder.store.list(folder.key("checkpoints/")))
        kept = len(run.checkpoints.steps())
    # Before the last step nothing waits for the end.
    step_s = (times[-1] - times[0] - held[-1]) / (len(times) - 1)
    per_checkpoint = held[-1] / MEASURED
    return {
        "case": f"checkpoints, one per {EVERY} steps",
        "checkpoint_mb": stored / kept / 1e6,
        "step_s": step_s,
        "held_up_s_per_checkpoint": per_checkpoint,
        "held_up_percent_of_wall_time": 100 * per_checkpoint / (per_checkpoint + EVERY * step_s),
    }
