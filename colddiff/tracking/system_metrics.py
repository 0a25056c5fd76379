"""CPU, memory, network and GPU of the machine a job's first worker runs on, as tracked metrics."""

from __future__ import annotations

import threading
import time
from types import TracebackType
from typing import Any, Self

import psutil
import torch

from colddiff.ports import Tracker

Numbers = dict[str, float]


class SystemSampler:
    """Within ``with``, logs a sample every ``every_s`` seconds, the first after one interval.

    Names are those of MLflow's own system metrics, which its UI shows on a separate page. The step
    is the number of seconds since ``since`` (Unix time, the job's first submission): attempts of a
    job never share a step, so that a resumed run continues the curve.
    """

    def __init__(
        self, tracker: Tracker, since: float, every_s: float, device: torch.device | None = None
    ) -> None:
        self._tracker, self._since, self._every_s = tracker, since, every_s
        self._device = device if device is not None and device.type == "cuda" else None
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._work, name="system-metrics", daemon=True)
        self._network = _network()

    def __enter__(self) -> Self:
        psutil.cpu_percent()  # the first call in a process has no interval to measure
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ended.set()
        self._thread.join(timeout=10)

    def sample(self) -> Numbers:
        """Current metrics by name; rates are means since the last sample."""
        memory = psutil.virtual_memory()
        numbers = {
            "system/cpu_utilization_percentage": psutil.cpu_percent(),
            "system/system_memory_usage_megabytes": (memory.total - memory.available) / 1e6,
            "system/system_memory_usage_percentage": memory.percent,
            "system/process_memory_megabytes": psutil.Process().memory_info().rss / 1e6,
        }
        before, self._network = self._network, _network()
        for name, value in self._network.items():
            numbers[f"system/network_{name}_megabytes"] = (value - before[name]) / 1e6
        return numbers | (_gpu(self._device) if self._device is not None else {})

    def _work(self) -> None:
        while not self._ended.wait(self._every_s):
            try:
                # The job may have been made on a machine whose clock is ahead.
                step = max(int(time.time() - self._since), 0)
                self._tracker.log_metrics(self.sample(), step)
            except (OSError, RuntimeError, psutil.Error):
                continue  # a failed reading must not end a job


def _network() -> Numbers:
    counters = psutil.net_io_counters()
    if counters is None:
        return {}
    return {"receive": float(counters.bytes_recv), "transmit": float(counters.bytes_sent)}


def _gpu(device: torch.device) -> Numbers:
    free, total = torch.cuda.mem_get_info(device)
    numbers = {
        "system/gpu_0_memory_usage_megabytes": (total - free) / 1e6,
        "system/gpu_0_memory_usage_percentage": 100 * (total - free) / total,
    }
    readings: dict[str, Any] = {
        "system/gpu_0_utilization_percentage": torch.cuda.utilization,
        "system/gpu_0_power_usage_watts": lambda place: torch.cuda.power_draw(place) / 1000,
    }
    for name, read in readings.items():
        try:
            numbers[name] = float(read(device))
        except (ModuleNotFoundError, RuntimeError):
            # NVIDIA's library for these is not a dependency: without it they are omitted.
            continue
    return numbers
