"""Jobs on a full cluster: by priority, then as they came, and at most so many of a user at once."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from types import SimpleNamespace
from typing import Any

import pytest

from colddiff.cluster.driver import sharing_folders
from colddiff.cluster.turns import turn
from colddiff.cluster.turns.order import Ticket, why_wait
from colddiff.cluster.turns.turn import job_turn
from colddiff.errors import SpecError, Stopped
from colddiff.jobs import driver
from colddiff.jobs.attempt import Attempt
from colddiff.jobs.folder import JobFolder
from colddiff.jobs.job import LimitsSpec, ResourcesSpec
from colddiff.jobs.runner import Capacity
from colddiff.jobs.status import Status
from colddiff.stores.memory_store import MemoryStore
from tests.unit.test_attempt import attempt

TWO_GPUS = Capacity(({"CPU": 8.0, "GPU": 2.0},))


def ticket(number: int, gpus: float = 1, **more: Any) -> Ticket:
    wanted = {"CPU": 1.0, "GPU": gpus} if gpus else {"CPU": 1.0}
    return Ticket(number, f"train-{number}", wanted=wanted, **more)


def next_ones(tickets: list[Ticket], capacity: Capacity = TWO_GPUS) -> list[int]:
    """Numbers of the waiting jobs whose turn it is."""
    return [
        one.number
        for one in tickets
        if not one.runs
        and not why_wait(one, [other for other in tickets if other is not one], capacity)
    ]


def test_as_they_came_while_there_is_room() -> None:
    assert next_ones([ticket(1), ticket(2), ticket(3)]) == [1, 2]
    assert next_ones([ticket(1, runs=True), ticket(2), ticket(3)]) == [2]
    assert next_ones([ticket(1, runs=True), ticket(2, runs=True), ticket(3)]) == []


def test_a_higher_priority_goes_first_and_a_running_job_goes_on() -> None:
    tickets = [ticket(1, runs=True), ticket(2), ticket(3, priority=5)]
    assert next_ones(tickets) == [3]
    assert why_wait(tickets[1], [tickets[0], tickets[2]], TWO_GPUS) == (
        "for 1 worker with 1 GPU and 1 CPU; 1 running and 1 before it: train-1, train-3"
    )


def test_a_large_job_is_not_starved_by_small_ones_that_came_later() -> None:
    large = ticket(2, count=2)
    assert next_ones([ticket(1, runs=True), large, ticket(3)]) == []
    # What the large one does not need, others may have meanwhile.
    assert next_ones([ticket(1, runs=True), large, ticket(3, gpus=0)]) == [3]


def test_a_job_that_never_fits_asks_for_machines_and_keeps_nobody_waiting() -> None:
    assert next_ones([ticket(1, count=3), ticket(2), ticket(3)]) == [1, 2, 3]
    # Nor does one that had its turn: Ray keeps nothing for what does not fit.
    waits = ticket(1, gpus=3, count=2, runs=True, user="ada")
    assert next_ones([waits, ticket(2), ticket(3), ticket(4)]) == [2, 3]
    assert next_ones([waits, ticket(2, user="ada", at_most=1)]) == [2]
    grows = Capacity(TWO_GPUS.machines, grows=True)
    limited = ticket(2, user="ada", at_most=1)
    assert next_ones([ticket(1, count=3, runs=True, user="ada"), limited], grows) == []
    assert next_ones([ticket(number) for number in range(1, 6)], grows) == [1, 2, 3, 4, 5]


def test_at_most_so_many_of_a_user_run_at_once() -> None:
    mine = [ticket(n, gpus=0, user="ada", at_most=2) for n in (1, 2, 3)]
    other = ticket(4, gpus=0, user="bob")
    assert next_ones([*mine, other]) == [1, 2, 4]
    assert why_wait(mine[2], [*mine[:2], other], TWO_GPUS) == (
        "for a job of ada to end, of whom at most 2 run at once: train-1, train-2"
    )
    # One that its user's limit holds back keeps nobody else waiting.
    full = [ticket(1, user="ada", at_most=1, runs=True), ticket(2, user="ada", at_most=1)]
    assert next_ones([*full, ticket(3, user="bob")]) == [3]


def test_nodes_that_share_a_folder_are_warned_of() -> None:
    def node(host: str, socket: str, *, alive: bool = True) -> dict[str, Any]:
        return {"NodeManagerHostname": host, "RayletSocketName": socket, "Alive": alive}

    apart = [node("a", "/tmp/r1/s/sockets/raylet"), node("a", "/tmp/r2/s/sockets/raylet")]
    elsewhere = [node("b", "/tmp/r1/s/sockets/raylet")]
    gone = [node("a", "/tmp/r1/s/sockets/raylet.1", alive=False)]
    assert sharing_folders([*apart, *elsewhere, *gone]) == []
    (line,) = sharing_folders([*apart, node("a", "/tmp/r1/s/sockets/raylet.1")])
    assert line.startswith("2 nodes on a share /tmp/r1/s/sockets: ")
    assert "--temp-dir of its own" in line


class MemoryBoard:
    """A test double of ``RayBoard``."""

    def __init__(self) -> None:
        self.tickets: dict[int, str] = {}
        self.ended: list[str] = []

    def me(self) -> str:
        return f"driver-{len(self.tickets)}"

    def dead(self) -> list[str]:
        return self.ended

    def add(self, number: int, text: str) -> bool:
        return self.tickets.setdefault(number, text) is text

    def put(self, number: int, text: str) -> None:
        self.tickets[number] = text

    def read(self) -> dict[int, str]:
        return dict(self.tickets)

    def remove(self, number: int) -> None:
        self.tickets.pop(number, None)


@pytest.fixture
def board(monkeypatch: pytest.MonkeyPatch) -> MemoryBoard:
    monkeypatch.setattr(turn, "POLL_S", 0.01)
    monkeypatch.setattr(turn, "POLL_PER_TICKET_S", 0.0)
    monkeypatch.setattr(turn, "BEAT_S", 0.05)
    return MemoryBoard()


def submitted(name: str, **limits: Any) -> Attempt:
    folder = JobFolder(MemoryStore(), f"train-{name}-00000000")
    folder.claim(1, {"user": "ada", "address": "http://head:8265"})
    folder.write_status(Status("queued", 1))
    return attempt(folder, limits=LimitsSpec(**limits), resources=ResourcesSpec(gpus=2))


@contextmanager
def held(found: Attempt, board: MemoryBoard) -> Iterator[None]:
    with job_turn(found, board, lambda: TWO_GPUS):
        yield


def test_the_next_job_says_what_it_waits_for_and_begins_as_the_first_ends(
    board: MemoryBoard,
) -> None:
    first, second = submitted("a"), submitted("b")
    said: list[str] = []

    def end_first(what: str) -> None:
        said.append(what)
        if len(said) == 3:
            one.__exit__(None, None, None)

    one = held(first, board)
    one.__enter__()
    second.waiting = end_first  # type: ignore[method-assign]
    with held(second, board):
        assert len(board.tickets) == 1
    assert said[0] == "for 1 worker with 2 GPU and 1 CPU; 1 running: train-a-00000000"
    assert said[-1] == ""
    assert board.tickets == {}


def test_a_stop_ends_the_waiting_and_leaves_no_ticket(board: MemoryBoard) -> None:
    second = submitted("b")
    with held(submitted("a"), board):
        second.request_stop()
        with pytest.raises(Stopped, match="while it waited for 1 worker with 2 GPU"):
            held(second, board).__enter__()
        assert len(board.tickets) == 1


def test_a_driver_that_died_keeps_nobody_waiting(
    board: MemoryBoard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turn, "GONE_S", 0.3)
    dead = held(submitted("dead"), board)
    dead.__enter__()
    (text,) = board.tickets.values()
    dead.__exit__(None, None, None)
    board.tickets[1] = text
    began = time.monotonic()
    with held(submitted("alive"), board):
        # One that lives goes on to be waited for, however long it runs.
        assert time.monotonic() - began > 0.3
        third = submitted("third")
        stop = time.monotonic() + 0.8
        third.stop_requested = lambda: time.monotonic() > stop  # type: ignore[method-assign]
        with pytest.raises(Stopped):
            held(third, board).__enter__()


def test_a_driver_that_was_held_up_takes_no_turn_of_others(
    board: MemoryBoard, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a machine that was suspended nobody beat, and whoever goes on first sees old tickets."""
    monkeypatch.setattr(turn, "GONE_S", 0.2)
    runs = ticket(1, 2, runs=True)
    board.tickets[1] = turn._text(runs)
    late = submitted("late")
    looks: list[Capacity] = []

    def capacity() -> Capacity:
        if not looks:
            time.sleep(0.5)
        else:
            late.request_stop()
        looks.append(TWO_GPUS)
        return TWO_GPUS

    with pytest.raises(Stopped), job_turn(late, board, capacity):
        pass
    assert len(looks) == 2
    assert list(board.tickets) == [1]


def test_an_earlier_attempt_keeps_its_job_waiting_no_more_and_another_storage_does(
    board: MemoryBoard,
) -> None:
    """The same job in another STORAGE is another job."""
    later, elsewhere = submitted("a"), submitted("a")
    elsewhere.resolved = replace(elsewhere.resolved, storage="/another")
    earlier = held(submitted("a"), board)
    earlier.__enter__()
    with held(later, board):
        assert list(board.tickets) == [2]
        elsewhere.request_stop()
        with pytest.raises(Stopped, match="1 running: train-a-00000000"):
            held(elsewhere, board).__enter__()
        assert list(board.tickets) == [2]


def test_a_driver_that_the_cluster_saw_end_keeps_nobody_waiting_at_all(board: MemoryBoard) -> None:
    dead = held(submitted("dead"), board)
    dead.__enter__()
    board.ended = ["driver-0"]
    with held(submitted("alive"), board):
        assert list(board.tickets) == [2]


def test_the_limit_of_a_user_is_the_jobs_or_the_clusters(
    board: MemoryBoard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLDDIFF_JOBS_PER_USER", "3")
    assert turn._ticket(submitted("a")).at_most == 3
    assert turn._ticket(submitted("a", jobs_at_once=2)).at_most == 2
    assert turn._ticket(submitted("a", jobs_at_once=7)).at_most == 3
    monkeypatch.setenv("COLDDIFF_JOBS_PER_USER", "many")
    with pytest.raises(SpecError, match=r"COLDDIFF_JOBS_PER_USER .* 'many'"):
        held(submitted("a"), board).__enter__()


def test_nothing_is_prepared_before_it_is_the_jobs_turn(
    board: MemoryBoard, monkeypatch: pytest.MonkeyPatch
) -> None:
    second = submitted("b")
    seen: list[str] = []

    def prepared(*_: object) -> None:
        raise AssertionError("it was prepared")

    def waiting(what: str) -> None:
        seen.append(what)
        second.request_stop()

    second.waiting = waiting  # type: ignore[method-assign]
    monkeypatch.setattr(driver, "VERBS", {"train": SimpleNamespace(prepare=prepared, unit="steps")})
    with held(submitted("a"), board):
        code = driver.drive(second, on_ray=True, turn=lambda attempt: held(attempt, board))
    assert (code, second.status.state) == (4, "stopped")
    assert second.status.message.startswith("stopped while it waited for 1 worker with 2 GPU")
    assert seen[0].startswith("for 1 worker")


def test_only_a_job_that_lives_and_has_had_no_turn_waits(board: MemoryBoard) -> None:
    assert not turn.any_waits(board)
    with held(submitted("a"), board):
        assert not turn.any_waits(board)  # it runs
        waiting = Ticket(7, "train-b", driver="driver-7")
        board.add(7, json.dumps(asdict(waiting)))
        assert turn.any_waits(board)
        board.ended.append("driver-7")
        assert not turn.any_waits(board)


def test_a_cluster_that_does_not_answer_for_a_while_costs_nothing(
    board: MemoryBoard, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers: Iterator[Any] = iter([ConnectionError("the control store restarts")] * 3)

    def read() -> dict[int, str]:
        for error in answers:
            raise error
        return dict(board.tickets)

    first = submitted("a")
    later = turn._Turn(first, board)
    monkeypatch.setattr(board, "read", read)
    later.wait(lambda: TWO_GPUS)
    assert json.loads(board.tickets[1])["runs"]
    monkeypatch.setattr(turn, "OUTAGE_LOOKS", 2)
    answers = iter([ConnectionError("the control store is gone")] * 9)
    with pytest.raises(ConnectionError):
        later.wait(lambda: TWO_GPUS)
