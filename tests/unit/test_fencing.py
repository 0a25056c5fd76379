"""Writers of checkpoints taken for dead: fenced off, and what they did is whole or unseen."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from colddiff.checkpoints import writer as checkpoint_writer
from colddiff.checkpoints.format import Checkpoints, Snapshot
from colddiff.checkpoints.kept import COMMIT
from colddiff.checkpoints.writer import CheckpointWriter
from colddiff.errors import ColddiffError, Unreachable
from colddiff.jobs.folder import JobFolder
from colddiff.stores.local_store import LocalStore
from colddiff.tracking.memory_tracker import MemoryTracker
from tests.unit.test_train import folder_in, job, trainer
from tests.watched_store import Watched


def state_of(value: float) -> dict[str, Any]:
    return {"job": {}, "value": value}


def snapshot(value: float, step: int = 3) -> Snapshot:
    return Snapshot(step, {"model": {"w": torch.full((4,), value)}}, state_of(value))


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
def test_a_superseded_writer_in_mid_upload_spoils_nothing(
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
    assert found.state == state_of(2.0)
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


def test_a_later_start_of_the_same_attempt_fences_the_one_before(tmp_path: Path) -> None:
    folder = folder_in(tmp_path)

    def before(operation: str, key: str) -> None:
        if key.endswith("step_00000003/state.json"):
            folder.take_fencing_token(1, {})

    with pytest.raises(ColddiffError, match="superseded by a later attempt of the job"):
        trainer(JobFolder(Watched(tmp_path, before), folder.job_id), job()).run()
    assert checkpoints_of(folder).steps() == []


def test_the_writer_of_checkpoints_is_fenced_by_a_later_start_not_by_its_own(
    tmp_path: Path,
) -> None:
    folder = folder_in(tmp_path)
    writers = []
    for _ in range(2):
        writer = CheckpointWriter(job(), folder, checkpoints_of(folder), MemoryTracker())
        writer.begin(1, folder.take_fencing_token(1, {}))
        writers.append(writer)
    earlier, later = writers
    assert (earlier.superseded(), later.superseded()) == (True, False)
    earlier.save(3, lambda: snapshot(1.0), needed=True)
    with pytest.raises(ColddiffError, match="superseded by a later attempt of the job"):
        earlier.wait()
    assert checkpoints_of(folder).steps() == []
    later.save(3, lambda: snapshot(2.0), needed=True)
    later.wait()
    assert checkpoints_of(folder).load(3, ("model",)).state == state_of(2.0)


def test_earlier_writers_are_fenced_off_before_a_checkpoint_is_chosen(tmp_path: Path) -> None:
    trainer(folder_in(tmp_path), job(num_steps=3)).run()
    starts: list[list[int]] = []

    def before(operation: str, key: str) -> None:
        if operation == "get" and key.endswith(COMMIT):
            starts.append(folder_in(tmp_path).fencing_tokens(2))

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
    writer = CheckpointWriter(job(), folder, checkpoints, Noting())
    writer.begin(1, folder.take_fencing_token(1, {}))
    writer.save(3, lambda: snapshot(1.0), needed=True)
    writer.wait()
    assert checkpoints.steps() == [3]
    assert happened[0] == "delivered"
    assert "written" in happened


def test_what_could_not_be_spooled_is_tried_again_with_the_checkpoint(tmp_path: Path) -> None:
    """A tracker of a worker keeps entries in the same store: it is away for both."""
    happened: list[str] = []

    class Noting(MemoryTracker):
        def flush(self, timeout_s: float = 30.0) -> bool:
            happened.append("spooled" if "refused" in happened else "not spooled")
            return "refused" in happened

    def before(operation: str, key: str) -> None:
        if operation == "put_new" and "/checkpoints/" in key and "refused" not in happened:
            happened.append("refused")
            raise Unreachable("the store is away")

    folder = JobFolder(Watched(tmp_path, before), "train-test-00000000")
    writer = CheckpointWriter(job(), folder, checkpoints_of(folder), Noting())
    writer.begin(1, folder.take_fencing_token(1, {}))
    writer.save(3, lambda: snapshot(1.0), needed=True)
    writer.wait()
    assert checkpoints_of(folder).steps() == [3]
    assert happened == ["not spooled", "refused", "spooled"]


def test_training_does_not_wait_long_for_a_write_that_hangs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(checkpoint_writer, "PATIENCE_S", 0.2)
    answers = threading.Event()

    def before(operation: str, key: str) -> None:
        if operation == "put_new" and "step_00000003" in key:
            answers.wait()

    folder = JobFolder(Watched(tmp_path, before), "train-test-00000000")
    checkpoints = checkpoints_of(folder)
    writer = CheckpointWriter(job(), folder, checkpoints, MemoryTracker())
    writer.begin(1, folder.take_fencing_token(1, {}))
    for step in (3, 6, 9):
        writer.save(step, partial(snapshot, 1.0, step), needed=False)
    assert [line for line in caplog.messages if "skipping" in line] == [
        f"skipping the checkpoint of step {step}: the previous one is still being written"
        for step in (6, 9)
    ]
    # What hung goes on, and the next one is written again.
    answers.set()
    writer.wait()
    writer.save(12, lambda: snapshot(1.0, 12), needed=False)
    writer.wait()
    assert checkpoints.steps() == [3, 12]


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
        checkpoints.prune(lambda steps: steps[:-1])
    assert deleted == [checkpoints.key(3, COMMIT)]
    assert checkpoints.steps() == [6]
