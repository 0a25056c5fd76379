"""The worker context of a Ray Train worker."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from typing import Any

import ray.train
import ray.train.torch
import torch
import torch.distributed as dist
from torch import Tensor, nn

from colddiff.ports import Left

log = logging.getLogger(__name__)


class RayContext:
    """WorkerContext of one worker of a TorchTrainer; its process group is initialised.

    ``room``: whether the cluster has room for more workers, on all ranks where a start may end for
    that; only rank 0 asks.
    """

    def __init__(self, room: Callable[[], bool] | None = None) -> None:
        self._room = room
        context = ray.train.get_context()
        self.rank: int = context.get_world_rank()
        self.world_size: int = context.get_world_size()
        self.device: torch.device = ray.train.torch.get_device()

    def wrap(self, model: nn.Module) -> nn.Module:
        if self.world_size == 1:
            return model
        ids = [self.device.index] if self.device.type == "cuda" else None
        return nn.parallel.DistributedDataParallel(
            model, device_ids=ids, gradient_as_bucket_view=True
        )

    def all_reduce(self, values: Tensor) -> Tensor:
        if self.world_size > 1:
            dist.all_reduce(values)
        return values

    def broadcast(self, value: Any) -> Any:
        if self.world_size == 1:
            return value
        # As bytes, not as an object: torch's object collectives unpickle what they receive.
        text = json.dumps(value).encode() if self.rank == 0 else b""
        size = torch.tensor([len(text)], device=self.device)
        dist.broadcast(size, src=0)
        data = torch.zeros(int(size), dtype=torch.uint8, device=self.device)
        if self.rank == 0:
            data.copy_(torch.frombuffer(bytearray(text), dtype=torch.uint8))
        dist.broadcast(data, src=0)
        return json.loads(bytes(data.tolist()))

    def leaves(self) -> Left:
        # An alpha API, in which all workers meet: without it, or if it fails, a lost machine costs
        # only the steps since the last checkpoint.
        try:
            if ray.train.get_preemption_info() is not None:
                return "preempted"
        except Exception as error:
            log.debug("cannot ask whether a machine is preempted: %s", error)
        if self._room is None:
            return ""
        return "growing" if self.broadcast(self.rank == 0 and self._fits_more()) else ""

    def _fits_more(self) -> bool:
        assert self._room is not None
        try:
            return self._room()
        except Exception as error:
            # The others wait for rank 0's answer, and it is asked again soon.
            log.debug("cannot ask whether there is room for more workers: %s", error)
            return False
