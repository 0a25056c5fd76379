"""Training through faults: stores that are full or away, uploads cut short, damaged files."""

from __future__ import annotations

import logging
import os
import re
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import colddiff
from colddiff.errors import ColddiffError, StoreError
from colddiff.jobs.folder import JobFolder
from colddiff.stores.open import open_store
from colddiff.stores.s3_store import S3Store
from colddiff.tracking.memory_tracker import MemoryTracker
from colddiff.verbs.train.local_context import LocalContext
from colddiff.verbs.train.trainer import Trainer, TrainingEnd
from tests.conftest import S3Service
from tests.faulty_s3 import FaultyS3, Proxy, Relay
from tests.unit.test_fencing import checkpoints_of, snapshot
from tests.unit.test_run import job as tiny_job
from tests.unit.test_train import assert_equal, folder_in, job, source, tensors, trainer
from tests.watched_store import Watched


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
    assert said[2] == "training: 5 steps of 6 images"
    assert re.fullmatch(r"step 4/8  loss \S+  \S+ img/s  ETA \d+:\d\d:\d\d", said[3])
    assert_equal(before, tensors(folder, 6))
    assert folder.fence(2, 1)["step"] == 3


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
    s3_service: S3Service, tmp_path: Path, tracker_database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One call in ten fails and one body in fifty is truncated: data and checkpoints."""
    database = shutil.copy(tracker_database, tmp_path / "mlflow.db")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{database}")
    monkeypatch.setenv("COLDDIFF_CACHE", str(tmp_path / "cache"))
    found = []
    with FaultyS3(s3_service.endpoint, seed=4, fail=0.1, truncate=0.02) as faulty:
        monkeypatch.setenv("AWS_ENDPOINT_URL", faulty.endpoint)
        for storage in (str(tmp_path / "runs"), f"s3://{s3_service.new_bucket()}/runs"):
            the_job = tiny_job(storage=storage, num_steps=10, evaluation={"num_images": 2})
            result = colddiff.train(the_job, "faulty")
            folder = JobFolder(open_store(storage), result["id"])
            found.append(tensors(folder, 10))
    assert faulty.counts.total() - faulty.counts["served"] >= 3
    assert_equal(*found)
