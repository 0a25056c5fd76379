"""A restorer without a network, plans and workers over it, and what a finished set holds."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from colddiff.data.sample_plan import SamplePlan, ShardTask
from colddiff.data.tars import read_tar
from colddiff.degradations import build_degradation
from colddiff.image_maker import ImageMaker
from colddiff.ports import Store
from colddiff.terminal import StandardNormal, Terminal
from colddiff.types import ImageShape
from colddiff.verbs.generate.worker import ShardWorker

SHAPE = ImageShape(1, 8, 8)
NOISE = {"kind": "noise", "num_timesteps": 3}


def halfway(x_t: Tensor, t: Tensor) -> Tensor:
    """A restorer that depends on its image and the severity."""
    return 0.5 * x_t + 0.02 * t.view(-1, 1, 1, 1) + 0.1 * x_t.flip(-1)


def maker(**changes: Any) -> ImageMaker:
    D = build_degradation(NOISE, SHAPE)
    settings = {"terminal": Terminal(StandardNormal())} | changes
    return ImageMaker(settings.pop("R", halfway), settings.pop("D", D), "improved", **settings)


def plan(**changes: Any) -> SamplePlan:
    content = {
        "checkpoint": "c" * 64,
        "model": "m" * 64,
        "image": {"channels": 1, "height": 8, "width": 8, "bits": 8, "range": None},
        "sampler": "improved",
        "severities": 3,
        "symmetry_noise": 0.0,
        "first_seed": 0,
        "shard_size": 10,
        "batch_size": 4,
        "precision": "fp32",
        "writer": "webdataset",
    }
    return SamplePlan({**content, **changes}, threads=1)


def make(store: Store, the_plan: SamplePlan, tasks: Sequence[ShardTask], **changes: Any) -> None:
    worker = ShardWorker(the_plan, maker(**changes), store)
    try:
        for task in tasks:
            worker.make(task)
    finally:
        worker.close()


def all_tasks(the_plan: SamplePlan, count: int) -> list[ShardTask]:
    return [the_plan.task(number, count) for number in range(the_plan.num_shards(count))]


def tars(store: Store) -> dict[str, bytes]:
    """Every tar of a set by its key."""
    return {item.key: store.get(item.key) for item in store.list("shard-")}


def seeds(store: Store) -> list[int]:
    """The seeds of all images of a set, as its tars have them."""
    found = []
    for data in tars(store).values():
        for name, content in read_tar(data):
            if name.endswith(".json"):
                seed = json.loads(content)["seed"]
                assert name == f"{seed:012d}.json"
                found.append(seed)
    return found


class Counting(torch.nn.Module):
    """Counts the rows of every forward pass."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[int] = []

    def forward(self, x_t: Tensor, t: Tensor) -> Tensor:
        self.rows.append(len(x_t))
        return halfway(x_t, t)
