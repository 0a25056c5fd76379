"""Workers are started again for as long as their job gets on; what would come again ends it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from ray.exceptions import ActorDiedError, RayActorError
from ray.train import WorkerGroupError

from colddiff.checkpoints.format import Checkpoints, Snapshot
from colddiff.errors import ColddiffError, SpecError, StoreDenied, StoreError
from colddiff.jobs.folder import JobFolder
from colddiff.verbs.train import ray_elastic, ray_restarts
from colddiff.verbs.train.failures import Failures
from colddiff.verbs.train.ray_elastic import RoomForMore
from colddiff.verbs.train.ray_restarts import Growth, fit_until_ended
from tests.unit.test_train import folder_in, job

Round = Callable[[], None]


@pytest.fixture
def folder(tmp_path: Path) -> JobFolder:
    return folder_in(tmp_path)


def commit(folder: JobFolder, step: int) -> None:
    checkpoints = Checkpoints(folder.store, folder.key("checkpoints"))
    checkpoints.save(Snapshot(step, {"model": {"w": torch.zeros(1)}}, {}))


def failing(*causes: Exception) -> Round:
    def fit() -> None:
        raise WorkerGroupError("workers failed", dict(enumerate(causes)))

    return fit


def died(*, preempted: bool = False) -> RayActorError:
    error = RayActorError()
    error._preempted = preempted
    return error


def run(
    folder: JobFolder,
    *rounds: Round,
    max_failures: int = 2,
    lost: Callable[[Sequence[str], float], list[str]] = lambda machines, within_s: [],
    say: Callable[[str], None] = ray_restarts.log.warning,
) -> list[int]:
    """Numbers of the rounds that were begun; the last one has to end the loop."""
    begun: list[int] = []

    def fit(number: int) -> None:
        begun.append(number)
        rounds[number - 1]()

    fit_until_ended(
        fit,
        job(max_failures=max_failures),
        folder,
        1,
        say=say,
        up=lambda: [f"machine of {len(begun) + 1}"],
        lost=lost,
        sleep=lambda pause_s: None,
    )
    return begun


def ended() -> None:
    pass


def test_failures_without_progress_are_counted(folder: JobFolder) -> None:
    crash = failing(RuntimeError("no memory"))
    with pytest.raises(ColddiffError) as caught:
        run(folder, crash, crash, crash, ended)
    assert "failed 3 times without progress since step 0" in str(caught.value)
    assert "max_failures=2" in str(caught.value)
    assert "RuntimeError: no memory" in str(caught.value)


def test_who_follows_the_job_is_told_why_its_workers_failed(folder: JobFolder) -> None:
    told: list[str] = []
    run(folder, failing(RuntimeError("no memory")), ended, say=told.append)
    assert len(told) == 1
    assert "workers failed" in told[0]
    assert "no memory" in told[0]
    assert "failure 1 since step 0, max_failures=2" in told[0]


def test_a_job_that_gets_on_survives_any_number(folder: JobFolder) -> None:
    def getting_on(step: int) -> Round:
        def fit() -> None:
            commit(folder, step)
            failing(died())()

        return fit

    rounds = [getting_on(step) for step in range(1, 8)]
    assert run(folder, *rounds, ended, max_failures=1) == list(range(1, 9))


def test_a_snapshot_from_which_it_went_on_is_progress(folder: JobFolder) -> None:
    def started_at(step: int) -> Round:
        def fit() -> None:
            token = folder.take_fencing_token(1, {"world_size": 1})
            folder.write_fence(1, token, {"world_size": 1, "step": step})
            failing(died())()

        return fit

    getting_on = [started_at(step) for step in range(1, 6)]
    assert run(folder, *getting_on, ended, max_failures=1) == list(range(1, 7))
    with pytest.raises(ColddiffError, match="failed 3 times without progress since step 5"):
        run(folder, *(started_at(5) for _ in range(3)), max_failures=2)


def test_no_failure_is_allowed_where_the_job_says_so(folder: JobFolder) -> None:
    with pytest.raises(ColddiffError, match="failed 1 times"):
        run(folder, failing(died()), ended, max_failures=0)


def test_a_machine_that_was_taken_away_counts_as_none(folder: JobFolder) -> None:
    gone = failing(died(preempted=True), RuntimeError("connection reset by peer"))
    assert run(folder, gone, gone, gone, ended, max_failures=0) == [1, 2, 3, 4]


def test_a_machine_that_was_lost_counts_as_none_and_is_named(
    folder: JobFolder, caplog: pytest.LogCaptureFixture
) -> None:
    asked: list[float] = []

    def lost(machines: Sequence[str], within_s: float) -> list[str]:
        asked.append(within_s)
        return [name for name in machines if name != "machine of 4"]

    cut_off = failing(RuntimeError("Connection closed by peer"))
    died_there = failing(ActorDiedError(), RuntimeError("Connection closed by peer"))
    with pytest.raises(ColddiffError, match="failed 1 times"):
        run(folder, cut_off, died_there, cut_off, cut_off, max_failures=0, lost=lost)
    assert next(line for line in caplog.messages if "lost without notice" in line) == (
        "lost without notice: machine of 1; continuing from step 0, not a failure"
    )
    # Where a process died Ray knows at once whether its machine did.
    assert asked == [20.0, 0.0, 20.0, 20.0]


def test_a_training_that_takes_down_each_machine_ends(folder: JobFolder) -> None:
    rounds = [failing(ActorDiedError())] * 12
    with pytest.raises(ColddiffError, match="failed 1 times"):
        run(folder, *rounds, max_failures=0, lost=lambda machines, within_s: list(machines))
    assert Failures(0, 0).excuses_loss(0)


def test_the_death_of_the_controller_is_tried_again_like_a_workers(
    folder: JobFolder, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "colddiff")

    def without_controller() -> None:
        raise ActorDiedError()

    assert run(folder, without_controller, ended, max_failures=1) == [1, 2]
    assert "workers failed (Ray Train's controller died: The actor died" in caplog.messages[0]
    with pytest.raises(ColddiffError, match=r"failed 2 times.*controller died"):
        run(folder, without_controller, without_controller, ended, max_failures=1)


def test_workers_that_left_before_a_machine_goes_are_started_again(folder: JobFolder) -> None:
    def leaving() -> None:
        folder.write_outcome(1, {"step": 5, "left": "preempted"})

    def ending() -> None:
        folder.write_outcome(1, {"step": 8, "left": ""})

    assert run(folder, leaving, ending, max_failures=0) == [1, 2]


def test_growing_ends_where_it_does_not_help(folder: JobFolder) -> None:
    growth = Growth(folder, 1)
    helps = []
    for size, left in ((1, "growing"), (2, "growing"), (2, "growing"), (3, "growing")):
        folder.take_fencing_token(1, {"world_size": size})
        folder.write_outcome(1, {"step": 1, "left": left})
        growth.ended()
        helps.append(growth.helps)
    assert helps == [True, True, False, True]
    # Machines that were lost since make room that may be of use.
    folder.take_fencing_token(1, {"world_size": 3})
    growth.failed()
    folder.take_fencing_token(1, {"world_size": 1})
    growth.ended()
    assert growth.helps
    folder.write_outcome(1, {"step": 1, "left": "preempted"})
    growth.ended()
    assert growth.helps


def test_room_for_more_is_asked_for_twice() -> None:
    free = {"a": {"CPU": 1.0}, "b": {"CPU": 1.0}}
    queue = list[str]()
    room = RoomForMore({"CPU": 2.0}, lambda: free, lambda: bool(queue))
    assert [room(), room()] == [False, False]  # not on one machine
    free["b"] = {"CPU": 2.0, "GPU": 1.0}
    assert [room(), room(), room()] == [False, True, True]
    free["b"] = {}
    assert not room()
    free["b"] = {"CPU": 3.0}
    assert [room(), room()] == [False, True]
    queue.append("a larger job")  # which the room may be for
    assert not room()
    queue.clear()
    assert [room(), room()] == [False, True]
    later = RoomForMore({"CPU": 2.0}, lambda: free, lambda: False, after_s=3600)
    assert [later(), later()] == [False, False]


def test_a_machine_about_to_be_preempted_is_no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    there = {"a": {"CPU": 1.0}, "b": {"CPU": 4.0}}
    told = SimpleNamespace(
        get_draining_nodes=lambda: {"b": 1}, available_resources_per_node=lambda: there
    )
    monkeypatch.setattr(ray_elastic, "state", told)
    assert ray_elastic.free_by_machine() == {"a": {"CPU": 1.0}}


def test_what_would_come_again_is_not_tried_again(folder: JobFolder) -> None:
    collateral = RuntimeError("connection closed by peer")
    with pytest.raises(ColddiffError) as caught:
        run(folder, failing(collateral, SpecError("global_batch_size: is 2 for 3 workers")), ended)
    assert str(caught.value) == "global_batch_size: is 2 for 3 workers"


def test_a_store_that_does_not_answer_may_come_back(folder: JobFolder) -> None:
    away = failing(StoreError("s3://b does not answer"))
    assert run(folder, away, away, ended) == [1, 2, 3]


def test_a_store_that_denies_access_is_tried_once_more(folder: JobFolder) -> None:
    """A retry may run on a machine that has credentials; progress says that it has."""
    collateral = RuntimeError("connection closed by peer")
    denied = failing(collateral, StoreDenied("node 10.0.0.3 cannot reach s3://b: no credentials"))

    def later() -> None:
        commit(folder, 5)
        denied()

    assert run(folder, denied, later, ended) == [1, 2, 3]
    with pytest.raises(ColddiffError) as caught:
        run(folder, denied, denied, ended, max_failures=9)
    assert str(caught.value) == "node 10.0.0.3 cannot reach s3://b: no credentials"


def test_stacks_of_ranks_that_hung_are_logged_once(
    folder: JobFolder, caplog: pytest.LogCaptureFixture
) -> None:
    def hanging() -> None:
        folder.write_stacks(1, 3, "no step for 9 s, all threads:\nFile x in wait")
        failing(died())()

    assert run(folder, hanging, failing(died()), ended) == [1, 2, 3]
    assert caplog.text.count("rank 3 hung: no step for 9 s, all threads:\nFile x in wait") == 1


def test_pauses_grow_with_failures_in_a_row() -> None:
    failures = Failures(10, 0)
    pauses = []
    for step in (0, 0, 0, 5):
        failures.may_retry(step)
        pauses.append(failures.pause_s)
    assert pauses == [0, 1, 2, 0]
