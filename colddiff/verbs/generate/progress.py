"""How far a generation is: images, rate, what is left to wait, for status, log and tracker."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from colddiff.verbs.generate.dispatch import Finished, Tally

WRITE_S = 1.0
SAY_S = 10.0
WINDOW_S = 60.0


class Progress:
    """Called after every shard and now and then; tells each listener no more often than is useful.

    The rate is that of the last minute. ``write`` gets what goes into the status, ``log`` metrics
    by number of images, ``talk`` a line.
    """

    def __init__(
        self,
        tally: Tally,
        num_samples: int,
        num_shards: int,
        *,
        write: Callable[[dict[str, Any]], None],
        log: Callable[[Mapping[str, float], int], None],
        talk: Callable[[str], None],
    ) -> None:
        self._tally, self._num_samples, self._num_shards = tally, num_samples, num_shards
        self._write, self._log, self._talk = write, log, talk
        now = time.monotonic()
        self._window: deque[tuple[float, int]] = deque([(now, 0)])
        self._written = self._said = now
        self._logged = -1

    def __call__(self, finished: Finished | None) -> None:
        now = time.monotonic()
        self._window.append((now, self._tally.made))
        while len(self._window) > 2 and now - self._window[1][0] > WINDOW_S:
            self._window.popleft()
        if now - self._written >= WRITE_S:
            self._written = now
            self._write(self.status())
        if now - self._said >= SAY_S:
            self._said = now
            self._tell()

    def close(self) -> None:
        """Tells everybody how it ended."""
        self._write(self.status())
        self._tell()

    @property
    def images_per_s(self) -> float:
        """Images made per second, over the last minute."""
        (began, before), (now, made) = self._window[0], self._window[-1]
        return (made - before) / (now - began) if now > began else 0.0

    def status(self) -> dict[str, Any]:
        """What the attempt's status takes over."""
        tally, rate = self._tally, self.images_per_s
        detail = f"{tally.shards}/{self._num_shards} shards"
        if tally.retries:
            detail += f", {tally.retries} tried again"
        if tally.dead:
            detail += f", {len(tally.dead)} given up"
        left = self._num_samples - tally.images
        return {
            "step": tally.images,
            "num_steps": self._num_samples,
            "images_per_s": rate,
            "eta_s": left / rate if rate > 0 else None,
            "phase": "generating" if tally.made or tally.images else "starting workers",
            "detail": detail,
        }

    def _tell(self) -> None:
        tally, rate = self._tally, self.images_per_s
        self._talk(
            f"{tally.images}/{self._num_samples} images, {self.status()['detail']}, "
            f"{rate:.1f} img/s"
        )
        if tally.images > self._logged:
            self._logged = tally.images
            self._log(
                {
                    "generate/images": tally.images,
                    "generate/images_per_s": rate,
                    "generate/shards": tally.shards,
                    "generate/retries": tally.retries,
                },
                tally.images,
            )
