"""The heartbeat of an attempt: it misses beats where the store is away, and goes on."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from colddiff.errors import StoreError
from colddiff.jobs.folder import JobFolder
from colddiff.stores.memory_store import MemoryStore
from tests.unit.test_attempt import attempt


class Away(MemoryStore):
    """A store that can be away; counts the writes of a status while it is there, and away."""

    def __init__(self) -> None:
        super().__init__()
        self.away = False
        self.beats: dict[bool, int] = {False: 0, True: 0}

    def put(self, key: str, data: bytes) -> None:
        if key.endswith("status.json"):
            self.beats[self.away] += 1
            if self.away:
                raise StoreError("away")
        super().put(key, data)


def test_the_heartbeat_goes_on_after_a_store_was_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("colddiff.jobs.attempt.HEARTBEAT_S", 0.02)
    store, pause = Away(), threading.Event()

    def beats(away: bool) -> None:
        store.away = away
        wanted = store.beats[away] + 3
        for _ in range(1000):
            if store.beats[away] >= wanted:
                return
            pause.wait(0.01)
        store.away = False
        raise AssertionError(f"no beat within 10 s, store away: {away}")

    def work() -> dict[str, Any]:
        beats(away=False)
        beats(away=True)
        beats(away=False)
        return {}

    folder = JobFolder(store, "train-x-00000000")
    assert attempt(folder).drive(work) == 0
    status = folder.status()
    assert status
    assert (status.state, status.message) == ("done", "")
