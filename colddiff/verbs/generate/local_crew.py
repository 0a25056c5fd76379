"""Workers in threads of this process: the crew of ``--local``, and the twin of actors in tests."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait

from colddiff.data.sample_plan import ShardTask
from colddiff.errors import Unreachable
from colddiff.verbs.generate.dispatch import Failure, Finished
from colddiff.verbs.generate.worker import ShardReport

IN_FLIGHT = 2
"""Shards a worker holds at once: one on the device, one being packed and uploaded."""


IDLE_S = 0.1


def attempted(make: Callable[[ShardTask], ShardReport], task: ShardTask) -> ShardReport | Failure:
    """What ``make`` returns, or why it failed, in a line; only an exit or interrupt is raised."""
    try:
        return make(task)
    except Unreachable as error:
        return Failure("store", str(error))
    except Exception as error:
        return Failure("shard", f"{type(error).__name__}: {error}")


class LocalCrew:
    """Implements ``Crew`` with one worker."""

    def __init__(self, make: Callable[[ShardTask], ShardReport]) -> None:
        self._make = make
        self._pool = ThreadPoolExecutor(IN_FLIGHT, "shard")
        self._under_way: dict[Future[ShardReport | Failure], ShardTask] = {}

    def room(self) -> int:
        return IN_FLIGHT - len(self._under_way)

    def hand(self, task: ShardTask) -> None:
        self._under_way[self._pool.submit(attempted, self._make, task)] = task

    def wait(self, timeout_s: float) -> list[Finished]:
        if not self._under_way:
            time.sleep(min(timeout_s, IDLE_S))
            return []
        done, _ = wait(self._under_way, timeout_s, FIRST_COMPLETED)
        return [Finished(self._under_way.pop(future), future.result()) for future in done]

    def close(self) -> None:
        self._pool.shutdown(cancel_futures=True)
