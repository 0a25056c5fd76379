"""Snapshots in memory: a killed training goes on from seconds before, bit for bit."""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from colddiff.checkpoints import snapshot_places, snapshots
from colddiff.checkpoints.format import Snapshot
from colddiff.checkpoints.snapshots import Snapshots
from colddiff.errors import CheckpointError, DivergedError
from colddiff.jobs.folder import JobFolder
from colddiff.machine import memory as memory_of_machine
from colddiff.tracking.memory_tracker import MemoryTracker
from colddiff.verbs.train.trainer import Trainer, TrainingEnd
from tests.ranks import run_ranks
from tests.unit.test_train import (
    GlooContext,
    assert_equal,
    folder_in,
    job,
    source,
    tensors,
    trainer,
)

OFTEN = 1e-9
"""Seconds: a snapshot at every step."""


class Killed(BaseException):
    """Ends a training like a signal: nothing handles it."""


class KilledAt(MemoryTracker):
    """A tracker in which a training dies when it logs ``step``, before that is kept."""

    def __init__(self, step: int) -> None:
        super().__init__()
        self.step = step

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        if step == self.step:
            raise Killed
        super().log_metrics(metrics, step)


@pytest.fixture(autouse=True)
def memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What is the machine's memory here."""
    place = tmp_path / "memory"
    place.mkdir()
    use_as_memory(place, monkeypatch.setattr)
    return place


def use_as_memory(place: Path, set_to: Callable[[object, str, object], None] = setattr) -> None:
    set_to(snapshot_places, "MEMORY", place)
    set_to(snapshots, "SHARE", 1e9)


def files(memory: Path) -> list[Path]:
    found = (path for path in memory.rglob("*") if path.is_file())
    return sorted(path for path in found if path.name != snapshot_places.RECORD)


def killed(folder: JobFolder, at: int, **changes: Any) -> None:
    the_job = job(**{"checkpoint_every": 100, "snapshot_every_s": OFTEN, **changes})
    with pytest.raises(Killed):
        trainer(folder, the_job, tracker=KilledAt(at)).run()


def start(folder: JobFolder, attempt: int = 2) -> dict[str, Any]:
    return folder.fence(attempt, folder.fencing_tokens(attempt)[-1])


def test_a_killed_training_goes_on_from_it_bit_for_bit(
    tmp_path: Path, memory: Path, caplog: pytest.LogCaptureFixture
) -> None:
    # Logged every four steps: a snapshot between has the sums of the steps before it.
    every = {"log_every": 4, "num_steps": 9, "checkpoint_every": 100}
    whole, parts = folder_in(tmp_path / "whole"), folder_in(tmp_path / "parts")
    undisturbed, resumed = MemoryTracker(), MemoryTracker()
    trainer(whole, job(**every, snapshot_every_s=0.0), tracker=undisturbed).run()
    assert files(memory) == []

    killed(parts, 8, **every)
    (kept,) = files(memory)
    step = int(kept.stem)
    assert 5 <= step <= 7
    with caplog.at_level(logging.INFO, "colddiff"):
        assert trainer(parts, job(**every), attempt=2, tracker=resumed).run() == TrainingEnd(9)
    assert f"resuming from the snapshot in memory of step {step}" in caplog.text
    assert start(parts)["step"] == step
    assert start(parts)["repeated_steps"] == 0
    assert_equal(tensors(whole, 9), tensors(parts, 9))
    key = "checkpoints/step_00000009/state.json"
    ended = [json.loads(folder.store.get(folder.key(key))) for folder in (whole, parts)]
    assert ended[0]["losses"] == ended[1]["losses"]
    names = {row.key for row in undisturbed.run.metrics if row.key.startswith("train/loss")}
    for name in names:
        expected = [(at, value) for at, value in undisturbed.run.history(name) if at > 4]
        assert resumed.run.history(name) == expected, name
    assert files(memory) == []


def test_two_ranks_go_on_from_the_same_snapshot(tmp_path: Path) -> None:
    whole, parts = folder_in(tmp_path / "whole"), folder_in(tmp_path / "parts")
    run_ranks(_killed_and_resumed, 2, str(tmp_path))
    assert 4 <= start(parts)["step"] <= 5
    assert_equal(tensors(whole, 8), tensors(parts, 8))


def _killed_and_resumed(rank: int, world_size: int, root: str) -> None:
    torch.set_num_threads(1)
    context = GlooContext(rank, world_size, f"{root}/group")
    use_as_memory(Path(root) / "memory")

    def prepared(name: str, attempt: int, every_s: float) -> Trainer:
        the_job = job(checkpoint_every=100, log_every=3, snapshot_every_s=every_s)
        folder = folder_in(Path(root) / name)
        return Trainer(the_job, source(), folder, context, MemoryTracker(), attempt=attempt)

    prepared("whole", 1, 0.0).run()
    dying = prepared("parts", 1, OFTEN)
    calls: list[int] = []

    def die_in_the_sixth_step(*_: object) -> None:
        calls.append(1)
        if len(calls) == 1 + 6:  # the first one warms up
            raise Killed

    dying.restorer.register_forward_pre_hook(die_in_the_sixth_step)
    with pytest.raises(Killed):
        dying.run()
    context.broadcast(None)  # rank 0 has written its snapshot
    prepared("parts", 2, 0.0).run()
    context.end()


def test_a_later_checkpoint_wins(tmp_path: Path, memory: Path) -> None:
    folder = folder_in(tmp_path / "runs")
    killed(folder, 4, checkpoint_every=100)
    (kept,) = files(memory)
    data = kept.read_bytes()
    trainer(folder, job(num_steps=6, checkpoint_every=100), attempt=2).run()
    kept.parent.mkdir(parents=True)
    kept.write_bytes(data)
    trainer(folder, job(), attempt=3).run()
    assert (start(folder)["step"], start(folder, 3)["step"]) == (int(kept.stem), 6)


@pytest.mark.parametrize("damage", ["cut", "empty", "other", "later format"])
def test_a_damaged_one_is_passed_over(
    tmp_path: Path, memory: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    folder = folder_in(tmp_path / "runs")
    killed(folder, 6, checkpoint_every=3)
    (kept,) = files(memory)
    data = kept.read_bytes()
    kept.write_bytes(
        {
            "cut": data[: len(data) // 2],
            "empty": b"",
            "other": data.replace(b'\\"step\\": ', b'\\"stop\\": '),
            "later format": data.replace(b"colddiff-snapshot-1", b"colddiff-snapshot-2"),
        }[damage]
    )
    with pytest.raises(CheckpointError, match=str(kept)):
        Snapshots("any", 0.0, lambda: None).read(str(kept), ("model",))
    with caplog.at_level(logging.INFO, "colddiff"):
        trainer(folder, job(), attempt=2).run()
    assert "goes back to a checkpoint" in caplog.text
    assert start(folder)["step"] == 3


def test_steps_that_are_trained_again_are_counted(tmp_path: Path) -> None:
    folder = folder_in(tmp_path / "runs")
    killed(folder, 6, checkpoint_every=2, snapshot_every_s=0.0)
    reached = folder.progress(1)["step"]
    assert folder.repeated_steps() == []
    for item in list(folder.store.list(folder.key("checkpoints/"))):
        folder.store.delete(item.key)
    trainer(folder, job(), attempt=2).run()
    assert folder.repeated_steps() == [reached]
    folder.store.put(folder.key("attempts/2/starts/1.json"), b"damaged")
    assert folder.repeated_steps() == []


def test_that_of_a_deleted_job_is_not_taken(tmp_path: Path, memory: Path) -> None:
    folder = folder_in(tmp_path / "runs")
    killed(folder, 6)
    assert files(memory)
    for item in list(folder.store.list("")):
        folder.store.delete(item.key)
    trainer(folder, job()).run()
    assert start(folder, 1)["step"] == 0


@pytest.mark.parametrize("runs", [False, True])
def test_those_of_other_jobs_go_only_if_they_are_deleted_and_nobody_makes_them(
    memory: Path, runs: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("runs/jobs/kept", "runs/jobs/gone", "elsewhere/jobs/gone"):
        one = Snapshots(name, OFTEN, lambda: None)
        one.begin("1-1-1.0")
        saved(one, 1)
    damaged = snapshot_places.place_of("elsewhere/jobs/gone").path / snapshot_places.RECORD
    damaged.write_text('{"job": "runs/jobs/gone", "pid": 1}')
    if not runs:
        monkeypatch.setattr(snapshot_places, "process", lambda pid: None)
    Snapshots("third", OFTEN, lambda: None).begin("1-1-1.0", lambda job: job == "runs/jobs/gone")
    assert len(files(memory)) == (3 if runs else 2)
    assert snapshot_places.place_of("runs/jobs/gone").path.exists() == runs


def test_a_diverged_training_leaves_none(tmp_path: Path, memory: Path) -> None:
    diverging = job(optimizer={"lr": 1e30}, snapshot_every_s=OFTEN, num_steps=60)
    with pytest.raises(DivergedError):
        trainer(folder_in(tmp_path / "runs"), diverging).run()
    assert files(memory) == []


def test_a_folder_of_others_is_neither_read_nor_written(
    tmp_path: Path, memory: Path, caplog: pytest.LogCaptureFixture
) -> None:
    own = memory / f"colddiff-{os.getuid()}"
    own.mkdir(mode=0o777)
    own.chmod(0o777)
    with caplog.at_level(logging.INFO, "colddiff"):
        trainer(folder_in(tmp_path / "runs"), job(snapshot_every_s=OFTEN)).run()
    assert "is not a folder of this user alone" in caplog.text
    assert files(memory) == []
    own.rmdir()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir(mode=0o700)
    own.symlink_to(elsewhere)
    trainer(folder_in(tmp_path / "more"), job(snapshot_every_s=OFTEN)).run()
    assert files(elsewhere) == []


@pytest.mark.parametrize("lack", ["place", "room"])
def test_without_a_place_or_room_training_goes_on(
    tmp_path: Path,
    memory: Path,
    lack: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    if lack == "place":
        memory.rmdir()
    else:
        monkeypatch.setattr(snapshots, "ROOM", 1e12)
    with caplog.at_level(logging.INFO, "colddiff"):
        trainer(folder_in(tmp_path / "runs"), job(snapshot_every_s=OFTEN)).run()
    said = [line for line in caplog.messages if "no snapshots in memory" in line]
    assert len(said) == 1
    assert ("is not there" if lack == "place" else "has room for") in said[0]


def test_free_memory_is_what_a_container_allows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "cgroups"
    place.mkdir()
    monkeypatch.setattr(memory_of_machine, "CGROUPS", place)
    whole = memory_of_machine.free_memory()
    assert whole > 2**20
    (place / "memory.current").write_text("1000\n")
    (place / "memory.max").write_text("max\n")
    assert memory_of_machine.free_memory() > 2**20
    (place / "memory.max").write_text("5000\n")
    assert memory_of_machine.free_memory() == 4000
    (place / "memory").mkdir()
    (place / "memory/memory.limit_in_bytes").write_text("700\n")
    (place / "memory/memory.usage_in_bytes").write_text("900\n")
    assert memory_of_machine.free_memory() == 0


def a_snapshot(step: int) -> Snapshot:
    return Snapshot(step, {"model": {"w": torch.full((2,), float(step))}}, {"step": step})


def saved(of: Snapshots, step: int) -> None:
    of.save(lambda: a_snapshot(step))
    of.end(keep=True)


def test_a_superseded_start_leaves_those_of_its_successor(memory: Path) -> None:
    first, second = (Snapshots("runs/jobs/one", OFTEN, lambda: None) for _ in range(2))
    first.begin("1-1-1.0")
    saved(first, 3)
    second.begin("1-2-2.0")
    saved(second, 4)
    assert [path.stem for path in files(memory)] == ["00000004"]
    saved(first, 5)  # it does not know yet
    assert [path.parent.name for path in files(memory)] == ["1-1-1.0", "1-2-2.0"]
    found = Snapshots("runs/jobs/one", 0.0, lambda: None)
    assert Path(found.newest(0, lambda start: start == "1-2-2.0") or "").stem == "00000004"
    assert found.newest(4, lambda start: start == "1-2-2.0") is None


def test_only_rank_0_deletes_them(memory: Path) -> None:
    one, other_rank = (Snapshots("job", OFTEN, lambda: None) for _ in range(2))
    one.begin("1-1-1.0")
    saved(one, 1)
    unfinished = files(memory)[0].with_suffix(".part")
    unfinished.write_bytes(b"of a kill")
    other_rank.end(keep=False)
    assert len(files(memory)) == 2
    following = Snapshots("job", OFTEN, lambda: None)
    following.begin("1-2-2.0")
    saved(following, 2)
    assert [path.stem for path in files(memory)] == ["00000002"]
    following.end(keep=False)
    assert files(memory) == []


def test_abandoned_ones_go_after_an_hour(memory: Path) -> None:
    for name in ("old", "young"):
        one = Snapshots(name, OFTEN, lambda: None)
        one.begin("1-1-1.0")
        saved(one, 1)
    old = next(path for path in files(memory) if path.is_relative_to(Snapshots("old", 0, int)._job))
    before = time.time() - snapshots.ABANDONED_S - 1
    for path in (*old.parents[1].rglob("*"), old.parents[1]):
        os.utime(path, (before, before))
    Snapshots("third", OFTEN, lambda: None).begin("1-1-1.0")
    assert len(files(memory)) == 1
    assert not old.exists()


def test_what_was_logged_is_kept_before_a_snapshot_counts(memory: Path) -> None:
    seen = []
    one = Snapshots("job", OFTEN, lambda: seen.append(files(memory)))
    one.begin("1-1-1.0")
    saved(one, 1)
    assert [path.suffix for (path,) in seen] == [".part"]
    assert [path.suffix for path in files(memory)] == [".safetensors"]


def test_large_states_are_copied_more_seldom(memory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshots, "SHARE", 1e-9)
    one = Snapshots("job", OFTEN, lambda: None)
    one.begin("1-1-1.0")
    assert one.due()
    saved(one, 1)
    later = Snapshots("job", OFTEN, lambda: None)
    later.begin("1-1-1.0")
    later.save(lambda: a_snapshot(2))
    later._background.wait()
    assert not later.due()
