"""Progress of a generation job (images, rate, ETA), for status, log and tracker."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from colddiff.jobs.work_queue import QueueCounts
from colddiff.machine.logged_progress import LOG_EVERY_S
from colddiff.verbs.generate.missing import ShardCounts

log = logging.getLogger(__name__)

WRITE_EVERY_S = 1.0
WINDOW_S = 60.0
FINISH_S = 20.0
"""After a stop, how long shards in progress are waited for, if any will be committed by then; the
others are abandoned, and made again when the job goes on: at most those that workers held."""


class GenerationProgress:
    """Called after every shard and periodically; looks once a second, and writes as often.

    Images of shards in progress count as far as they are made. The rate is that of the last
    minute. ``write`` is called with the status fields every second, ``track`` with metrics at a
    number of committed images, and a line logged, every ten. ``begun``: ``Workers.begun``.
    """

    def __init__(
        self,
        counts: ShardCounts,
        queue: QueueCounts,
        num_samples: int,
        shard_size: int,
        *,
        begun: Callable[[], Sequence[float]],
        write: Callable[[dict[str, Any]], None],
        track: Callable[[Mapping[str, float], int], None],
    ) -> None:
        self._counts, self._queue = counts, queue
        self._num_samples, self._shard_size = num_samples, shard_size
        self._num_shards = -(-num_samples // shard_size)
        self._ask, self._write, self._track = begun, write, track
        self._begun: Sequence[float] = ()
        now = time.monotonic()
        self._window: deque[tuple[float, float]] = deque([(now, 0.0)])
        self._written_at = self._logged_at = now
        self._tracked_images = -1
        self._closed = False
        self._told_of_stop = self._has_begun = False

    def __call__(self) -> None:
        now = time.monotonic()
        if now - self._written_at < WRITE_EVERY_S:
            return
        self._written_at = now
        self._look(now)
        self._write(self.status())
        if now - self._logged_at >= LOG_EVERY_S:
            self._logged_at = now
            self._log()

    def close(self) -> None:
        """Writes, logs and tracks the final progress, of committed images alone."""
        self._begun, self._closed = (), True
        self._window.append((time.monotonic(), self._counts.made))
        self._write(self.status())
        self._log()

    @property
    def images_per_s(self) -> float:
        """Images made per second, over the last minute."""
        (began, before), (now, made) = self._window[0], self._window[-1]
        # What a worker had made of a shard is lost where it dies.
        return max(0.0, made - before) / (now - began) if now > began else 0.0

    def finish_s(self) -> float:
        """How many seconds to wait for shards in progress: 0 where none will end in FINISH_S."""
        if not self._begun:
            return 0.0
        rate = self.images_per_s / len(self._begun)
        nearest = self._shard_size - max(self._begun)
        return FINISH_S if not rate or nearest / rate <= FINISH_S else 0.0

    def status(self) -> dict[str, Any]:
        """The progress fields of the attempt's status."""
        counts, rate = self._counts, self.images_per_s
        made = min(counts.images + sum(self._begun), self._num_samples)
        return {
            "step": int(made),
            "num_steps": self._num_samples,
            "images_per_s": rate,
            "eta_s": (self._num_samples - made) / rate if rate > 0 else None,
            "phase": self._phase(),
            "detail": self._detail(),
        }

    def _look(self, now: float) -> None:
        self._begun = self._ask()
        if not self._has_begun:
            self._has_begun = bool(self._begun or self._counts.made)
            # What it takes to start workers is no part of the rate. What they made since the last
            # look is: of a small set it may be all.
            if not self._counts.made + sum(self._begun):
                self._window.clear()
        self._window.append((now, self._counts.made + sum(self._begun)))
        while len(self._window) > 2 and now - self._window[1][0] > WINDOW_S:
            self._window.popleft()
        if self._queue.stopping and not self._told_of_stop:
            self._told_of_stop = True
            log.info("stop requested: %s", self._detail())

    def _phase(self) -> str:
        if self._queue.stopping:
            return "stopping"
        return "generating" if self._has_begun else "starting workers"

    def _detail(self) -> str:
        queue = self._queue
        parts = [f"{self._counts.shards}/{self._num_shards} shards"]
        if self._has_begun and queue.in_flight and not self._closed:
            parts.append(f"{queue.in_flight} in progress")
            if queue.stopping:
                parts[-1] += f" (committed within {FINISH_S:g} s, or made again later)"
        if queue.retries:
            parts.append(f"{queue.retries} retried")
        if queue.dead:
            parts.append(f"{len(queue.dead)} failed")
        return ", ".join(parts)

    def _log(self) -> None:
        counts, rate, status = self._counts, self.images_per_s, self.status()
        log.info(
            "%d/%d images, %s, %.1f img/s",
            status["step"],
            self._num_samples,
            status["detail"],
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
