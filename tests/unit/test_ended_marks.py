"""The mark that a job has ended: never what is not true, whoever writes at the same time."""

from __future__ import annotations

import json
import threading
from itertools import combinations

import pytest

from colddiff.cluster.operate import delete
from colddiff.jobs.folder import JobFolder
from colddiff.jobs.listing.ended import mark_key, marks, read_mark
from colddiff.jobs.status import Status
from colddiff.stores.memory_store import MemoryStore

ID = "train-x-00000000"
DONE, QUEUED = Status("done", 1, step=9), Status("queued", 2)


class InTurns(MemoryStore):
    """A store whose calls by the threads A and B happen in the order of ``turns``."""

    def __init__(self) -> None:
        super().__init__()
        self.turns: list[str] = []
        self._changed = threading.Condition()

    def get(self, key: str) -> bytes:
        self._wait()
        return super().get(key)

    def put(self, key: str, data: bytes) -> None:
        self._wait()
        super().put(key, data)

    def left(self, name: str) -> None:
        """Nothing more comes of this thread."""
        with self._changed:
            self.turns = [turn for turn in self.turns if turn != name]
            self._changed.notify_all()

    def _wait(self) -> None:
        name = threading.current_thread().name
        with self._changed:
            if not self._changed.wait_for(
                lambda: not self.turns or self.turns[0] == name, timeout=30
            ):
                raise AssertionError("its turn never came")
            if self.turns:
                self.turns.pop(0)
            self._changed.notify_all()


def a_job(store: MemoryStore) -> JobFolder:
    folder = JobFolder(store, ID)
    folder.write_job({"id": ID, "slug": "x", "verb": "train", "spec": {"seed": 1}})
    return folder


# Of the five calls, at most, of who ends a job, and the three of who starts it again.
ORDERS = [["AB"[n in places] for n in range(8)] for places in combinations(range(8), 3)]


@pytest.mark.parametrize("turns", ORDERS, ids="".join)
def test_the_mark_is_true_in_every_order_of_two_writers(turns: list[str]) -> None:
    store = InTurns()
    folder = a_job(store)
    folder.write_status(Status("running", 1))

    def write(name: str, writer: JobFolder, status: Status) -> None:
        try:
            writer.write_status(status)
        finally:
            store.left(name)

    store.turns = list(turns)
    threads = [
        threading.Thread(target=write, name=name, args=(name, writer, status))
        for name, writer, status in (("A", folder, DONE), ("B", JobFolder(store, ID), QUEUED))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    mark, status = read_mark(store, ID), json.loads(store.get(folder.key("status.json")))
    assert mark is None or mark["status"] == status
    if status["state"] == "queued":
        assert marks(store) == {}


def test_a_job_that_ended_has_a_mark_and_one_that_goes_on_has_none() -> None:
    store = MemoryStore()
    folder = a_job(store)
    folder.write_status(Status("running", 1))
    assert marks(store) == {}
    folder.write_status(DONE)
    first = marks(store)
    mark = read_mark(store, ID)
    assert mark is not None
    assert mark["status"]["step"] == 9
    assert mark["job"] == {"slug": "x", "spec": {"seed": 1}}
    folder.write_status(Status("running", 2))
    assert (marks(store), read_mark(store, ID)) == ({}, None)
    folder.write_status(Status("done", 2, step=9))
    assert marks(store) != first
    assert list(marks(store)) == [ID]
    delete(folder)
    assert list(store.list()) == []


def test_a_lost_job_and_one_without_its_description_have_none() -> None:
    store = MemoryStore()
    a_job(store).write_status(Status("lost", 1))
    JobFolder(store, "train-y-00000000").write_status(DONE)
    assert marks(store) == {}


def test_a_beat_costs_one_write(monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[str] = []
    store, now = MemoryStore(), [0.0]
    monkeypatch.setattr("colddiff.jobs.listing.ended.time.monotonic", lambda: now[0])
    folder = a_job(store)
    put = store.put

    def noted(key: str, data: bytes) -> None:
        written.append(key)
        put(key, data)

    monkeypatch.setattr(store, "put", noted)
    for beat in range(100):
        now[0] = float(beat)
        folder.write_status(Status("running", 1, step=beat))
    assert written.count(folder.key("status.json")) == 100
    # Two as it starts, and one a minute: another program may have taken it for dead.
    assert written.count(mark_key(ID)) == 3
