"""Progress of a generation job (images, rate, ETA), for status, log and tracker."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from colddiff.jobs.work_queue import QueueCounts
from colddiff.verbs.generate.missing import ShardCounts

log = logging.getLogger(__name__)

WRITE_EVERY_S = 1.0
LOG_EVERY_S = 10.0
WINDOW_S = 60.0


class GenerationProgress:
    """Called after every shard and periodically; limits how often each output is written.

    The rate is that of the last minute. ``write`` is called with the status fields every second,
    ``track`` with metrics at a number of images, and a line logged, every ten.
    """

    def __init__(
        self,
        counts: ShardCounts,
        queue: QueueCounts,
        num_samples: int,
        num_shards: int,
        *,
        write: Callable[[dict[str, Any]], None],
        track: Callable[[Mapping[str, float], int], None],
    ) -> None:
        self._counts, self._queue = counts, queue
        self._num_samples, self._num_shards = num_samples, num_shards
        self._write, self._track = write, track
        now = time.monotonic()
        self._window: deque[tuple[float, int]] = deque([(now, 0)])
        self._written_at = self._logged_at = now
        self._tracked_images = -1

    def __call__(self) -> None:
        now = time.monotonic()
        self._window.append((now, self._counts.made))
        while len(self._window) > 2 and now - self._window[1][0] > WINDOW_S:
            self._window.popleft()
        if now - self._written_at >= WRITE_EVERY_S:
            self._written_at = now
            self._write(self.status())
        if now - self._logged_at >= LOG_EVERY_S:
            self._logged_at = now
            self._log()

    def close(self) -> None:
        """Writes, logs and tracks the final progress."""
        self._write(self.status())
        self._log()

    @property
    def images_per_s(self) -> float:
        """Images made per second, over the last minute."""
        (began, before), (now, made) = self._window[0], self._window[-1]
        return (made - before) / (now - began) if now > began else 0.0

    def status(self) -> dict[str, Any]:
        """The progress fields of the attempt's status."""
        counts, queue, rate = self._counts, self._queue, self.images_per_s
        detail = f"{counts.shards}/{self._num_shards} shards"
        if queue.retries:
            detail += f", {queue.retries} retried"
        if queue.dead:
            detail += f", {len(queue.dead)} failed"
        remaining = self._num_samples - counts.images
        return {
            "step": counts.images,
            "num_steps": self._num_samples,
            "images_per_s": rate,
            "eta_s": remaining / rate if rate > 0 else None,
            "phase": "generating" if counts.made or counts.images else "starting workers",
            "detail": detail,
        }

    def _log(self) -> None:
        counts, rate = self._counts, self.images_per_s
        log.info(
            "%d/%d images, %s, %.1f img/s",
            counts.images,
            self._num_samples,
            self.status()["detail"],
            rate,
        )
        if counts.images > self._tracked_images:
            self._tracked_images = counts.images
            self._track(
                {
                    "generate/images": counts.images,
                    "generate/images_per_s": rate,
                    "generate/shards": counts.shards,
                    "generate/retries": self._queue.retries,
                },
                counts.images,
            )
