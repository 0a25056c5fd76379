"""A job's folder: one of several claimants wins, silence is loss, and nothing half-written."""

from __future__ import annotations

import json
import threading
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from colddiff.errors import ColddiffError, Missing, RecordError
from colddiff.jobs.folder import JobFolder, list_jobs
from colddiff.jobs.pages.read import read_run
from colddiff.jobs.status import EXIT_CODES, Status
from colddiff.stores.local_store import LocalStore
from colddiff.stores.memory_store import MemoryStore

RUNNING = Status(state="running", attempt=2, step=7, num_steps=10, heartbeat=1000.0, phase="x")


@pytest.fixture
def folder(tmp_path: Path) -> JobFolder:
    return JobFolder(LocalStore(tmp_path), "train-a-0")


def test_of_racing_claimants_exactly_one_wins(folder: JobFolder) -> None:
    answers: list[bool] = []
    gate = threading.Barrier(16)

    def claim(number: int) -> None:
        gate.wait()
        own = JobFolder(LocalStore(Path(folder.store.uri)), folder.job_id)
        answers.append(own.claim(1, {"pid": number}))

    racers = [threading.Thread(target=claim, args=(number,)) for number in range(16)]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join()
    assert sorted(answers) == [False] * 15 + [True]
    assert folder.attempts() == [1]


def test_attempts_rise_and_fence_the_ones_before(folder: JobFolder) -> None:
    assert folder.attempts() == []
    for attempt in (1, 2, 10):
        folder.claim(attempt, {})
    assert folder.attempts() == [1, 2, 10]
    assert folder.superseded(2)
    assert not folder.superseded(10)


def test_a_later_start_of_the_workers_fences_the_ones_before(folder: JobFolder) -> None:
    folder.claim(1, {})
    assert folder.fencing_tokens(1) == []
    assert not folder.superseded(1, 1)
    assert [folder.take_fencing_token(1, {"n": n}) for n in range(11)] == list(range(1, 12))
    assert folder.fencing_tokens(1) == list(range(1, 12))
    assert [folder.superseded(1, start) for start in (1, 9, 10, 11)] == [True, True, True, False]
    # The attempt itself goes on, and starts are counted for each attempt anew.
    assert not folder.superseded(1)
    assert not folder.superseded(2, 1)
    folder.claim(2, {})
    assert folder.superseded(1, 11)
    assert folder.take_fencing_token(2, {}) == 1


def test_a_start_is_numbered_once_however_many_begin_together(folder: JobFolder) -> None:
    numbers: list[int] = []
    gate = threading.Barrier(8)

    def begin(note: int) -> None:
        gate.wait()
        numbers.append(folder.take_fencing_token(1, {"by": note}))

    racers = [threading.Thread(target=begin, args=(note,)) for note in range(8)]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join()
    assert sorted(numbers) == list(range(1, 9))
    assert sorted(folder.fence(1, number)["by"] for number in numbers) == list(range(8))


@pytest.mark.parametrize("state", ["queued", "running", "done", "failed", "stopped", "lost"])
def test_a_status_is_what_was_written(folder: JobFolder, state: str) -> None:
    assert folder.status() is None
    status = replace(RUNNING, state=state)  # type: ignore[arg-type]
    folder.write_status(status)
    assert folder.status() == status
    assert status.finished == (state in EXIT_CODES)


def test_a_status_of_a_later_version_can_be_read(folder: JobFolder) -> None:
    folder.store.put(folder.key("status.json"), b'{"state": "done", "attempt": 1, "colour": "red"}')
    status = folder.status()
    assert status is not None
    assert status.state == "done"


def test_damage_is_named_by_address(folder: JobFolder) -> None:
    folder.store.put(folder.key("status.json"), b"{half")
    with pytest.raises(ColddiffError, match=r"train-a-0/status\.json is not JSON.*; delete this"):
        folder.status()


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        ({"heartbeat": None}, "heartbeat is null, not a number"),
        ({"heartbeat": "now"}, 'heartbeat is "now", not a number'),
        ({"step": [1]}, r"step is \[1\], not a number"),
        ({"step": 1.5}, r"step is 1\.5, not a whole number"),
        ({"step": -1}, "step is -1, not a whole number from 0"),
        ({"started": 1e300}, r"started is 1e\+300, not a number"),
        ({"eta_s": float("inf")}, "eta_s is Infinity, not a number"),
        ({"message": [["x" * 999]]}, r"message is \[\[.x{60,}…, not text"),
        ({"attempt": True}, "attempt is true, not a number"),
        ({"running_s": float("nan")}, "running_s is NaN, not a number"),
        ({"started": "today"}, 'started is "today", not a number'),
        ({"message": 5}, "message is 5, not text"),
        ({"state": ["done"]}, r'state is \["done"\], not one of queued, running, done'),
        ({"state": None}, "state is null, not one of"),
    ],
)
def test_a_status_of_wrong_types_is_named_with_the_way_out(
    folder: JobFolder, damage: dict[str, object], reason: str
) -> None:
    data = json.dumps({**asdict(RUNNING), **damage}).encode()
    folder.store.put(folder.key("status.json"), data)
    pattern = rf"train-a-0/status\.json is damaged: {reason}.*; delete this file and run the same"
    with pytest.raises(ColddiffError, match=pattern):
        folder.status()
    folder.store.delete(folder.key("status.json"))
    assert folder.status() is None


def test_a_status_may_have_no_text_and_a_loss_that_is_not_finite(folder: JobFolder) -> None:
    written = {**asdict(RUNNING), "step": 7.0, "detail": None, "loss": float("inf")}
    folder.store.put(folder.key("status.json"), json.dumps(written).encode())
    assert folder.status() == replace(RUNNING, loss=float("inf"))


@pytest.mark.parametrize("damage", [b'{"host": "a", "p', b'{"pid": null}', b'{"time": "x"}', b"[]"])
def test_a_half_written_claim_is_named_with_the_way_out(folder: JobFolder, damage: bytes) -> None:
    key = folder.key("attempts/1/claim.json")
    folder.store.put(key, damage)
    with pytest.raises(ColddiffError, match=r"attempts/1/claim\.json is .*; delete this file and"):
        folder.read_claim(1)
    folder.store.delete(key)
    assert folder.claim(1, {})


def test_a_job_that_is_not_there(folder: JobFolder) -> None:
    with pytest.raises(Missing, match=r"no job 'train-a-0'.*colddiff list"):
        folder.job()
    assert folder.result() is None
    assert folder.log(1) == b""


def test_stop_requests_are_for_one_attempt(folder: JobFolder) -> None:
    folder.request_stop(1, 5.0)
    assert folder.stop_requested(1)
    assert not folder.stop_requested(2)


def test_jobs_are_listed_by_what_is_in_their_folders(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    assert list_jobs(store) == []
    for job_id in ("train-b-1", "train-a-0"):
        JobFolder(store, job_id).write_job({"id": job_id})
    store.put("data/x/manifest.json", b"{}")
    assert list_jobs(store) == ["train-a-0", "train-b-1"]


def test_a_job_without_a_verb_and_a_start_without_a_time_are_damaged() -> None:
    folder = JobFolder(MemoryStore(), "x")
    folder.store.put(folder.key("job.json"), b'{"id": "x", "spec": {}}')
    with pytest.raises(RecordError, match=r"job\.json is damaged: it says no verb"):
        read_run(folder)
    token = folder.take_fencing_token(1, {"time": "noon"})
    with pytest.raises(RecordError, match=r"1\.json is damaged: time is .*noon.*, not a number"):
        folder.fence(1, token)
