"""How many workers are asked for, by job and cluster; their GPU hours are counted by it too."""

from __future__ import annotations

from typing import Any

import pytest
import ray

from colddiff.cluster.worker_count import most_workers
from colddiff.errors import SpecError
from colddiff.jobs.device import refuse_idle_gpu
from colddiff.jobs.job import ResourcesSpec
from colddiff.spec import parse
from colddiff.verbs.evaluate.job import EvaluateJob
from colddiff.verbs.generate.job import GenerateJob
from colddiff.verbs.train.job import TrainJob


@pytest.mark.parametrize("kind", [TrainJob, EvaluateJob, GenerateJob])
@pytest.mark.parametrize(
    ("workers", "resources", "cluster", "expected"),
    [
        (3, {}, {}, 3),
        ([2, 5], {"gpus": 1}, {"GPU": 1}, 5),
        ("all", {}, {"CPU": 8}, 7),
        ("all", {"cpus": 3}, {"CPU": 8}, 2),
        ("all", {"cpus": 0}, {"CPU": 8}, 1),
        ("all", {"gpus": 1}, {"CPU": 64, "GPU": 4}, 4),
        ("all", {"gpus": 0.5, "cpus": 1}, {"CPU": 64, "GPU": 4}, 8),
        ("all", {"gpus": 1, "cpus": 4}, {"CPU": 8, "GPU": 4}, 2),
        ("all", {"gpus": 2}, {"CPU": 64, "GPU": 1}, 1),
        ("all", {"gpus": 1}, {"CPU": 64}, 1),
    ],
)
def test_most_workers(
    kind: Any,
    workers: Any,
    resources: dict[str, Any],
    cluster: dict[str, float],
    expected: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ray, "cluster_resources", lambda: cluster)
    fields = {"data": "digits"} if kind is TrainJob else {"checkpoint": "train-x"}
    job = parse(kind, {**fields, "workers": workers, "resources": resources})
    assert most_workers(job) == expected


def test_a_gpu_that_torch_cannot_use_is_not_paid_for(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    refuse_idle_gpu(ResourcesSpec())
    with pytest.raises(SpecError, match=r"resources.gpus: is 0.5, but torch .* can use no GPU"):
        refuse_idle_gpu(ResourcesSpec(gpus=0.5))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    refuse_idle_gpu(ResourcesSpec(gpus=0.5))
