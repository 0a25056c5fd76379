"""Training through faults: stores that are full, away or raced for, and writers taken for dead."""

from __future__ import annotations

import logging
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
from colddiff.errors import ColddiffError, StoreError
from colddiff.jobs.folder import JobFolder
from colddiff.stores.local_store import LocalStore
from colddiff.stores.open import open_store
from colddiff.stores.s3_store import S3Store
from colddiff.tracking.memory_tracker import MemoryTracker
from colddiff.verbs.train.local_context import LocalContext
from colddiff.verbs.train.trainer import Trainer, TrainingEnd
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
    number = folder.take_fencing_token(1, {})
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
def test_a_writer_presumed_dead_in_mid_upload_spoils_nothing(
    tmp_path: Path, at: str, caplog: pytest.LogCaptureFixture
) -> None:
    with paused_writer(tmp_path, at) as (folder, raised, release):
        successor = begun(folder)
        checkpoints_of(folder).save(snapshot(2.0), successor, "1-2")
        release()
        assert "superseded by a later attempt of the job" in raised[0]
    found = checkpoints_of(folder).newest(("model",))
    assert not caplog.records
    assert found
    assert found.state == {"value": 2.0}
    assert found.tensors["model"]["w"].tolist() == [2.0] * 4


def test_the_commit_itself_is_won_by_one_and_is_whole(tmp_path: Path) -> None:
    # Both write the same step, the first has passed the fence: one record, one set of files.
    with paused_writer(tmp_path, COMMIT) as (folder, raised, release):
        successor = begun(folder)
        checkpoints_of(folder).save(snapshot(2.0), successor, "1-2")
        release()
        assert "superseded" in raised[0]
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
    assert trainer(folder, job(), attempt=2).run() == TrainingEnd(8)
    assert checkpoints_of(folder).steps() == [3, 6, 8]
    assert not list(folder.store.list(folder.key("checkpoints/step_00000099")))
    whole = folder_in(tmp_path / "whole")
    trainer(whole, job()).run()
    assert_equal(tensors(whole, 8), tensors(folder, 8))


def test_a_damaged_checkpoint_is_logged_and_written_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "colddiff")
    folder = folder_in(tmp_path)
    trainer(folder, job(num_steps=6)).run()
    before = tensors(folder, 6)
    key = folder.key("checkpoints/step_00000006/model.safetensors")
    folder.store.put(key, b"x" * 100)
    caplog.clear()
    Trainer(job(), source(), folder, LocalContext(), MemoryTracker(), attempt=2).run()
    said = caplog.messages
    assert "checkpoint of step 6 is damaged, falling back to the previous one" in said[0]
    assert "model.safetensors" in said[0]
    assert "resuming from the checkpoint of step 3" in said[1]
    assert_equal(before, tensors(folder, 6))
    assert folder.fence(2, 1)["step"] == 3


def test_a_later_start_of_the_same_attempt_fences_the_one_before(tmp_path: Path) -> None:
    folder = folder_in(tmp_path)

    def before(operation: str, key: str) -> None:
        if key.endswith("step_00000003/state.json"):
            folder.take_fencing_token(1, {})

    with pytest.raises(ColddiffError, match="superseded by a later attempt of the job"):
        trainer(JobFolder(Watched(tmp_path, before), folder.job_id), job()).run()
    assert checkpoints_of(folder).steps() == []


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


def test_a_full_disk_is_named_and_the_last_good_checkpoint_stays(
    small_disk: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = folder_in(small_disk)
    full = Trainer(
        job(num_steps=1000, checkpoint_every=1, keep=100, store_patience_s=0.2),
        source(),
        folder,
        LocalContext(),
        MemoryTracker(),
        attempt=1,
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
    caplog.clear()
    found = checkpoints_of(folder).newest(("model", "ema", "optimizer"))
    assert not caplog.records
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
    with pytest.raises(
        ColddiffError, match=r"checkpoint of step 0: still failing after 0 s.*no way"
    ):
        broken.run()


def test_a_store_that_is_away_holds_nothing_up(
    s3_service: S3Service, caplog: pytest.LogCaptureFixture
) -> None:
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
        made_away: list[int] = []
        run = Trainer(
            job(num_steps=120, checkpoint_every=10),
            source(),
            folder,
            LocalContext(),
            MemoryTracker(),
            attempt=1,
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
        assert run.run() == TrainingEnd(120)
        assert len(made_away) > 15
        assert any("retrying in" in line for line in caplog.messages)
        assert any("the previous one waits for the store" in line for line in caplog.messages)
        assert checkpoints_of(folder).steps()[-1] == 120


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
