"""On a CUDA device: the same numbers as on the CPU, no sync in D, and a training step in bf16."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from colddiff.data.readers.memory_shards import MemoryShards
from colddiff.degradations import DegradationSpec
from colddiff.jobs.folder import JobFolder
from colddiff.restorers import build_restorer
from colddiff.sampling import sample
from colddiff.spec import parse
from colddiff.stores.local_store import LocalStore
from colddiff.tracking.memory_tracker import MemoryTracker
from colddiff.types import ImageShape
from colddiff.verbs.train.job import TrainJob
from colddiff.verbs.train.local_context import LocalContext
from colddiff.verbs.train.trainer import Trainer
from tests.laws.cases import images, name, omega, specs

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
SHAPE = ImageShape(3, 32, 32)


@pytest.fixture(autouse=True)
def exact_float32() -> Iterator[None]:
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    yield
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


@pytest.mark.parametrize("spec", specs(), ids=name)
def test_degradations_equal_the_cpu_and_never_sync(spec: DegradationSpec) -> None:
    D = spec.build(SHAPE)
    x0 = images(SHAPE, 4)
    t = torch.tensor([0, 1, spec.num_timesteps // 2, spec.num_timesteps])
    drawn = omega(D, 4, 0)
    expected = D.degrade(x0, t, drawn)
    on_gpu = {name: value.cuda() for name, value in drawn.items()}
    x0, t = x0.cuda(), t.cuda()
    D.to("cuda").degrade(x0, t, on_gpu)  # tables are made and moved on first use
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        found = D.degrade(x0, t, on_gpu)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert found.device.type == "cuda"
    torch.testing.assert_close(found.cpu(), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", ["convnext_unet", "ddpm_unet"])
def test_restorers_equal_the_cpu(kind: str) -> None:
    small = {"dim": 16} if kind == "convnext_unet" else {"ch": 32, "dropout": 0.0}
    R = build_restorer({"kind": kind, **small}, SHAPE).eval()
    x, t = images(SHAPE, 2), torch.tensor([3, 17])
    with torch.no_grad():
        expected = R(x, t)
        found = R.cuda()(x.cuda(), t.cuda())
    torch.testing.assert_close(found.cpu(), expected, rtol=1e-4, atol=1e-4)


def test_sampling_on_the_gpu_follows_the_cpu() -> None:
    D = specs()[0].build(SHAPE)
    R = build_restorer({"kind": "convnext_unet", "dim": 16}, SHAPE).eval()
    x0 = images(SHAPE, 2)
    drawn = omega(D, 2, 0)
    x_T = D.observe(x0, torch.full((2,), D.num_timesteps), drawn)
    expected = sample(R, D, x_T, drawn, severities=3)
    found = sample(R.cuda(), D.to("cuda"), x_T.cuda(), drawn, severities=3)
    torch.testing.assert_close(found.cpu(), expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_training_learns_and_resumes_on_the_gpu(tmp_path: Path, precision: str) -> None:
    job = parse(TrainJob, _job(precision))
    squares = np.zeros((20, 1, 16, 16), dtype=np.uint8)
    for n, image in enumerate(squares):
        image[0, n % 5 : n % 5 + 6, n // 5 : n // 5 + 7] = 200 + n
    tracker = MemoryTracker()
    folder = JobFolder(LocalStore(tmp_path), "train-gpu-00000000")

    def run(steps: int, attempt: int) -> int:
        longer = job.model_copy(update={"num_steps": steps})
        context = LocalContext("cuda")
        return (
            Trainer(longer, MemoryShards(squares), folder, context, tracker, attempt=attempt)
            .run()
            .step
        )

    assert run(40, 1) == 40
    assert run(80, 2) == 80
    losses = [loss for _, loss in tracker.run.history("train/loss_l1")]
    assert losses[-1] < 0.8 * losses[0]


def _job(precision: str) -> dict[str, Any]:
    return {
        "image_size": 16,
        "channels": 1,
        "degradation": {
            "kind": "blur",
            "num_timesteps": 6,
            "kernel_size": 5,
            "sigma": {"kind": "constant", "value": 1.0},
        },
        "restorer": {"kind": "convnext_unet", "dim": 16, "dim_mults": [1, 2]},
        "global_batch_size": 16,
        "optimizer": {"lr": 1e-3},
        "precision": precision,
        "resources": {"gpus": 1},
        "checkpoint_every": 40,
        "log_every": 20,
    }
