"""Training through faults: stores that are full, away or raced for, and writers taken for dead."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

import colddiff
from colddiff.checkpoints.format import COMMIT, Checkpoints, Snapshot
from colddiff.checkpoints.writer import CheckpointWriter
from colddiff.errors import ColddiffError, SpecError, StoreError
from colddiff.jobs.folder import JobFolder
from colddiff.retry import patiently
from colddiff.stores.local_store import LocalStore
from colddiff.stores.open import open_store
from colddiff.stores.s3_store import S3Store
from colddiff.tracking.memory_tracker import MemoryTracker
from colddiff.verbs.train.local_context import LocalContext
from colddiff.verbs.train.trainer import Outcome, Trainer
from tests.conftest import S3Service
from tests.faulty_s3 import FaultyS3, Proxy, Relay
from tests.unit.test_run import job as tiny_job
from tests.unit.test_train import assert_equal, folder_in, job, source, tensors, trainer

Before = Callable[[str, str], None]


class Watched(LocalStore):
    """A store on a disk that calls ``before(operation, key)`` first; it may raise or wait."""

    def __init__(self, root: Path, before: Before) -> None:
        super().__init__(root)
        self.before = before

    def get(self, key: str) -> bytes:
        self.before("get", key)
        return super().get(key)

    def put(self, key: str, data: bytes) -> None:
        self.before("put", key)
        super().put(key, data)

    def put_new(self, key: str, data: bytes) -> None:
        self.before("put_new", key)
        super().put_new(key, data)

    def size(self, key: str) -> int | None:
        self.before("size", key)
        return super().size(key)


def snapshot(value: float, step: int = 3) -> Snapshot:
    return Snapshot(step, {"model": {"w": torch.full((4,), value)}}, {"value": value})


def checkpoints_of(folder: JobFolder) -> Checkpoints:
    return Checkpoints(folder.store, folder.key("checkpoints"))


def begun(folder: JobFolder) -> Callable[[], bool]:
    """A new start of attempt 1, as the question whether it is superseded."""
    number = folder.begin_start(1, {})
    return lambda: folder.superseded(1, number)


@contextmanager
def paused_writer(tmp_path: Path, at: str) -> Iterator[tuple[JobFolder, list[str], Any]]:
    """A writer that stands still before it writes ``at`` until the block ends; what it raised."""
    reached, go_on = threading.Event(), threading.Event()

    def before(operation: str, key: str) -> None:
        if operation == "put_new" and key.endswith(at):
            reached.set()
            assert go_on.wait(30)

    slow = JobFolder(Watched(tmp_path, before), "train-test-00000000")
    fenced, raised = begun(slow), list[str]()

    def write() -> None:
        try:
            checkpoints_of(slow).save(snapshot(1.0), fenced, "1-1")
        except ColddiffError as error:
            raised.append(str(error))

    thread = threading.Thread(target=write)
    thread.start()
    assert reached.wait(30)

    def release() -> None:
        go_on.set()
        thread.join(30)

    try:
        yield folder_in(tmp_path), raised, release
    finally:
        release()


@pytest.mark.parametrize("at", ["model.safetensors", "state.json"])
def test_a_writer_taken_for_dead_in_mid_upload_spoils_nothing(tmp_path: Path, at: str) -> None:
    with paused_writer(tmp_path, at) as (folder, raised, release):
        successor = begun(folder)
        checkpoints_of(folder).save(snapshot(2.0), successor, "1-2")
        release()
        assert "a later attempt of the job took over" in raised[0]
    found = checkpoints_of(folder).newest(("model",), pytest.fail)
    assert found
    assert found.state == {"value": 2.0}
    assert found.tensors["model"]["w"].tolist() == [2.0] * 4


def test_the_commit_itself_is_won_by_one_and_is_whole(tmp_path: Path) -> None:
    # Both write the same step, the first has passed the fence: one record, one set of files.
    with paused_writer(tmp_path, COMMIT) as (folder, raised, release):
        successor = begun(folder)
        checkpoints_of(folder).save(snapshot(2.0), successor, "1-2")
        release()
        assert "took over" in raised[0]
    found = checkpoints_of(folder).load(3, ("model",))
    assert found.state["value"] == found.tensors["model"]["w"][0].item() == 2.0


def test_losing_the_commit_to_a_last_breath_is_no_failure(tmp_path: Path) -> None:
    folder = folder_in(tmp_path)
    begun(folder)
    successor = begun(folder)
    late = checkpoints_of(folder)

    def before(operation: str, key: str) -> None:
        if operation == "put_new" and key.endswith(COMMIT):
            late.save(snapshot(1.0), writer="1-1")

    racing = JobFolder(Watched(tmp_path, before), folder.job_id)
    checkpoints_of(racing).save(snapshot(2.0), successor, "1-2")
    found = late.load(3, ("model",))
    assert found.state["value"] == found.tensors["model"]["w"][0].item() == 1.0


def test_an_upload_cut_short_is_invisible_and_the_next_attempt_clears_it(tmp_path: Path) -> None:
    folder = folder_in(tmp_path)

    def before(operation: str, key: str) -> None:
        if "step_00000006/optimizer" in key:
            raise KeyboardInterrupt  # the process ends here

    cut = JobFolder(Watched(tmp_path, before), folder.job_id)
    with pytest.raises(KeyboardInterrupt):
        trainer(cut, job(num_steps=6)).run()
    assert checkpoints_of(folder).steps() == [3]
    left = [item.key for item in folder.store.list(folder.key("checkpoints/step_00000006/"))]
    assert len(left) == 2
    folder.store.put(folder.key("checkpoints/step_00000099/model.safetensors"), b"half")
    assert trainer(folder, job(), attempt=2).run() == Outcome(8)
    assert checkpoints_of(folder).steps() == [3, 6, 8]
    assert not list(folder.store.list(folder.key("checkpoints/step_00000099")))
    whole = folder_in(tmp_path / "whole")
    trainer(whole, job()).run()
    assert_equal(tensors(whole, 8), tensors(folder, 8))


def test_a_damaged_checkpoint_is_told_and_written_again(tmp_path: Path) -> None:
    folder = folder_in(tmp_path)
    trainer(folder, job(num_steps=6)).run()
    before = tensors(folder, 6)
    key = folder.key("checkpoints/step_00000006/model.safetensors")
    folder.store.put(key, b"x" * 100)
    said: list[str] = []
    Trainer(
        job(), source(), folder, LocalContext(), MemoryTracker(), attempt=2, talk=said.append
    ).run()
    assert "checkpoint of step 6 is damaged, going back to the one before" in said[0]
    assert "model.safetensors" in said[0]
    assert "going on from the checkpoint of step 3" in said[1]
    assert_equal(before, tensors(folder, 6))
    assert folder.start(2, 1)["step"] == 3


def test_a_later_start_of_the_same_attempt_fences_the_one_before(tmp_path: Path) -> None:
    folder = folder_in(tmp_path)

    def before(operation: str, key: str) -> None:
        if key.endswith("step_00000003/state.json"):
            folder.begin_start(1, {})

    with pytest.raises(ColddiffError, match="a later attempt of the job took over"):
        trainer(JobFolder(Watched(tmp_path, before), folder.job_id), job()).run()
    assert checkpoints_of(folder).steps() == []


def test_the_writer_of_checkpoints_is_fenced_by_a_later_start_not_by_its_own(
    tmp_path: Path,
) -> None:
    folder = folder_in(tmp_path)
    writers = []
    for _ in range(2):
        writer = CheckpointWriter(
            job(), folder, checkpoints_of(folder), MemoryTracker(), lambda line: None
        )
        writer.begin(1, folder.begin_start(1, {}))
        writers.append(writer)
    earlier, later = writers
    assert (earlier.superseded(), later.superseded()) == (True, False)
    earlier.save(3, lambda: snapshot(1.0), needed=True)
    with pytest.raises(ColddiffError, match="a later attempt of the job took over"):
        earlier.wait()
    assert checkpoints_of(folder).steps() == []
    later.save(3, lambda: snapshot(2.0), needed=True)
    later.wait()
    assert checkpoints_of(folder).load(3, ("model",)).state == {"value": 2.0}


def test_earlier_writers_are_fenced_off_before_a_checkpoint_is_chosen(tmp_path: Path) -> None:
    trainer(folder_in(tmp_path), job(num_steps=3)).run()
    starts: list[list[int]] = []

    def before(operation: str, key: str) -> None:
        if operation == "get" and key.endswith(COMMIT):
            starts.append(folder_in(tmp_path).starts(2))

    slow = JobFolder(Watched(tmp_path, before), "train-test-00000000")
    trainer(slow, job(num_steps=4), attempt=2).run()
    assert starts
    assert all(numbers == [1] for numbers in starts)


def test_a_fenced_writer_clears_nothing_away(tmp_path: Path) -> None:
    folder = folder_in(tmp_path)
    checkpoints = checkpoints_of(folder)
    for step in (3, 6):
        checkpoints.save(snapshot(1.0, step))
    fenced = begun(folder)
    begun(folder)
    checkpoints.clear_after(3, fenced)
    assert checkpoints.steps() == [3, 6]
    checkpoints.clear_after(3, lambda: False)
    assert checkpoints.steps() == [3]


def test_what_was_logged_is_delivered_before_a_checkpoint_is_committed(tmp_path: Path) -> None:
    happened: list[str] = []

    class Noting(MemoryTracker):
        def flush(self, timeout_s: float = 30.0) -> bool:
            happened.append("delivered")
            return super().flush(timeout_s)

    def before(operation: str, key: str) -> None:
        if operation == "put_new" and "/checkpoints/" in key:
            happened.append("written")

    folder = JobFolder(Watched(tmp_path, before), "train-test-00000000")
    checkpoints = checkpoints_of(folder)
    writer = CheckpointWriter(job(), folder, checkpoints, Noting(), lambda line: None)
    writer.begin(1, folder.begin_start(1, {}))
    writer.save(3, lambda: snapshot(1.0), needed=True)
    writer.wait()
    assert checkpoints.steps() == [3]
    assert happened[0] == "delivered"
    assert "written" in happened


def test_a_checkpoint_that_is_pruned_stops_being_one_first(tmp_path: Path) -> None:
    """A process that dies in between leaves leftovers, and no checkpoint that lacks a file."""
    deleted: list[str] = []

    class Dying(LocalStore):
        def delete(self, key: str) -> None:
            if deleted:
                raise KeyboardInterrupt
            deleted.append(key)
            super().delete(key)

    folder = JobFolder(Dying(tmp_path), "train-test-00000000")
    checkpoints = checkpoints_of(folder)
    for step in (3, 6):
        checkpoints.save(snapshot(1.0, step))
    with pytest.raises(KeyboardInterrupt):
        checkpoints.prune(1)
    assert deleted == [checkpoints.key(3, COMMIT)]
    assert checkpoints.steps() == [6]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 4 MB."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small disk takes root")
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(place)]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("this machine mounts no tmpfs")
    try:
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True)


def test_a_full_disk_is_named_and_the_last_good_checkpoint_stays(small_disk: Path) -> None:
    folder = folder_in(small_disk)
    said: list[str] = []
    full = Trainer(
        job(num_steps=1000, checkpoint_every=1, keep=100, store_patience_s=0.2),
        source(),
        folder,
        LocalContext(),
        MemoryTracker(),
        attempt=1,
        talk=said.append,
    )
    with pytest.raises(ColddiffError) as caught:
        full.run()
    message = str(caught.value)
    assert str(small_disk) in message
    assert "the disk is full" in message
    assert "\n" not in message
    assert not isinstance(caught.value, StoreError)  # tried for long enough: not tried again
    steps = checkpoints_of(folder).steps()
    assert 1 <= len(steps) < 20
    found = checkpoints_of(folder).newest(("model", "ema", "optimizer"), pytest.fail)
    assert found
    assert found.step == steps[-1]


def test_a_failing_write_ends_the_training_before_the_next_checkpoint(tmp_path: Path) -> None:
    def before(operation: str, key: str) -> None:
        if "checkpoints/" in key and operation == "put_new":
            raise StoreError("no way")

    folder = JobFolder(Watched(tmp_path, before), "train-test-00000000")
    endless = job(num_steps=1_000_000, checkpoint_every=500_000, store_patience_s=0)
    broken = trainer(folder, endless)
    broken.checkpoints.steps = lambda: []  # type: ignore[method-assign]
    broken.writer.save(0, lambda: snapshot(1.0, 0), needed=True)
    with pytest.raises(ColddiffError, match=r"checkpoint of step 0: gave up after 0 s.*no way"):
        broken.run()


def test_a_store_that_is_away_holds_nothing_up(s3_service: S3Service) -> None:
    """Every connection is reset for four seconds of the run; steps are made meanwhile."""
    bucket = s3_service.new_bucket()
    away = threading.Event()

    def behave(relay: Relay) -> None:
        if away.is_set():
            relay.reset()
        else:
            relay.respond(relay.forward())

    with Proxy(s3_service.endpoint, behave) as proxy:
        store = S3Store(bucket, endpoint_url=proxy.endpoint, max_attempts=1)
        folder = JobFolder(store, "train-test-00000000")
        said: list[str] = []
        made_away: list[int] = []
        run = Trainer(
            job(num_steps=120, checkpoint_every=10),
            source(),
            folder,
            LocalContext(),
            MemoryTracker(),
            attempt=1,
            talk=said.append,
        )

        update = run.ema.update

        def after(step: int) -> None:
            if step == 15:
                away.set()
                threading.Timer(4, away.clear).start()
            if away.is_set():
                made_away.append(step)
                time.sleep(0.03)
            update(step)

        run.ema.update = after  # type: ignore[method-assign]
        assert run.run() == Outcome(120)
        assert len(made_away) > 15
        assert any("trying again in" in line for line in said)
        assert any("the one before waits for the store" in line for line in said)
        assert checkpoints_of(folder).steps()[-1] == 120


def test_patience_is_bounded_and_for_services_that_do_not_answer_only() -> None:
    calls: list[float] = []

    def away() -> None:
        raise StoreError("nobody home")

    with pytest.raises(ColddiffError, match=r"the log: gave up after 0\.05 s.*nobody home"):
        patiently(away, "the log", 0.05, lambda line: None, sleep=lambda s: time.sleep(0.02))

    def wrong() -> None:
        calls.append(1)
        raise SpecError("wrong")

    with pytest.raises(SpecError):
        patiently(wrong, "x", 60, pytest.fail)
    assert calls == [1]


def test_pauses_grow_and_what_is_back_is_used() -> None:
    left, pauses = [4], list[float]()

    def away() -> str:
        left[0] -= 1
        if left[0]:
            raise StoreError("nobody home")
        return "here"

    assert patiently(away, "x", 60, lambda line: None, sleep=pauses.append) == "here"
    assert pauses == [0.5, 1.0, 2.0]


def test_a_service_that_fails_now_and_then_changes_no_weight(
    s3_service: S3Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One call in twenty fails and one body in a hundred is truncated: data and checkpoints."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    monkeypatch.setenv("COLDDIFF_CACHE", str(tmp_path / "cache"))
    found = []
    with FaultyS3(s3_service.endpoint, seed=4) as faulty:
        monkeypatch.setenv("AWS_ENDPOINT_URL", faulty.endpoint)
        for storage in (str(tmp_path / "runs"), f"s3://{s3_service.new_bucket()}/runs"):
            the_job = tiny_job(storage=storage, num_steps=20, evaluation={"num_images": 2})
            result = colddiff.train(the_job, "faulty")
            folder = JobFolder(open_store(storage), result["id"])
            found.append(tensors(folder, 20))
    assert faulty.counts.total() - faulty.counts["served"] >= 3
    assert_equal(*found)
