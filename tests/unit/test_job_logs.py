"""The logs of jobs in this process: one per job, the user's own logging as if there were none."""

from __future__ import annotations

import io
import logging
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest

from colddiff.background import Background, Prefetcher, in_context
from colddiff.cli.live_line import live_line
from colddiff.jobs.logs import logged
from colddiff.jobs.work_queue import LocalWorkers
from colddiff.machine.printed_lines import unstamped

LOGGER = logging.getLogger("colddiff")
ANY = logging.getLogger("colddiff.anywhere")
OTHERS = logging.getLogger("colddiff.elsewhere")


@dataclass(frozen=True)
class Named:
    """A task that is only a name."""

    key: str


def lines(text: bytes) -> list[str]:
    """The lines of a log, each of which has its time."""
    found = text.decode().splitlines()
    assert all(unstamped(line) != line for line in found)
    return [unstamped(line) for line in found]


@pytest.fixture
def mine() -> Iterator[io.StringIO]:
    """What the user's own handler gets, whose root logger has level WARNING."""
    stream, root = io.StringIO(), logging.getLogger()
    handler, level = logging.StreamHandler(stream), root.level
    root.addHandler(handler)
    root.setLevel(logging.WARNING)
    yield stream
    root.removeHandler(handler)
    root.setLevel(level)


UNCONFIGURED = """
import logging
from colddiff.jobs.logs import logged
log = logging.getLogger("colddiff.anywhere")
with logged(lambda text: None), logged(lambda text: None):
    log.info("progress")
    log.warning("careful")
    try:
        1 / 0
    except ZeroDivisionError:
        log.exception("crash")
    logging.basicConfig(format="mine: %(message)s")
    log.info("progress")
    log.error("configured")
log.error("afterwards")
"""


def test_without_logging_configured_warnings_and_errors_reach_stderr() -> None:
    done = subprocess.run(
        [sys.executable, "-c", UNCONFIGURED], capture_output=True, text=True, check=True
    )
    lines = done.stderr.splitlines()
    assert lines[:3] == ["careful", "crash", "Traceback (most recent call last):"]
    crash = "ZeroDivisionError: division by zero"
    assert lines[-3:] == [crash, "mine: configured", "mine: afterwards"]
    assert "progress" not in done.stderr


def test_jobs_in_threads_have_their_own_lines_and_all_of_them(mine: io.StringIO) -> None:
    logs: dict[str, list[bytes]] = {"short": [], "long": []}
    both, short_ended = threading.Barrier(2), threading.Event()

    def job(name: str, steps: int) -> None:
        with logged(logs[name].append):
            both.wait(10)
            for step in range(steps):
                if step == 20:
                    assert short_ended.wait(10)
                ANY.info("%s %d", name, step)
        if name == "short":
            short_ended.set()

    level = LOGGER.level
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(job, ("short", "long"), (20, 60)))
    for name, steps in (("short", 20), ("long", 60)):
        expected = [f"{name} {step}" for step in range(steps)]
        assert lines(logs[name][-1]) == expected
    assert LOGGER.level == level
    assert not ANY.isEnabledFor(logging.INFO)
    assert mine.getvalue() == ""


def test_helper_threads_log_for_the_job_that_started_them() -> None:
    ours: list[bytes] = []
    others: list[bytes] = []

    def items() -> Iterator[int]:
        ANY.info("prefetched")
        yield 1

    with logged(others.append):
        other = in_context(lambda: OTHERS.info("other's"))
        with logged(ours.append):
            background = Background("writer")
            background.submit(lambda: ANY.info("written"))
            background.wait()
            assert list(Prefetcher(items())) == [1]
            workers: LocalWorkers[Named, None] = LocalWorkers(lambda task: ANY.info(task.key))
            workers.give(Named("worked"))
            workers.wait(10)
            workers.close()
            other()
    assert lines(ours[-1]) == ["written", "prefetched", "worked"]
    assert lines(others[-1]) == ["other's"]


def test_what_a_thread_of_no_job_logs_is_in_the_log_of_each() -> None:
    one: list[bytes] = []
    two: list[bytes] = []
    with logged(one.append), logged(two.append):
        thread = threading.Thread(target=lambda: ANY.warning("whose?"))
        thread.start()
        thread.join()
    assert lines(one[-1]) == lines(two[-1]) == ["whose?"]


def test_the_users_handlers_get_what_they_would_get_without_a_job(mine: io.StringIO) -> None:
    own = io.StringIO()
    kept: list[bytes] = []
    handler = logging.StreamHandler(own)
    LOGGER.addHandler(handler)
    OTHERS.setLevel(logging.INFO)
    try:
        with logged(kept.append):
            ANY.info("progress")
            ANY.warning("careful")
            OTHERS.info("asked for")
            logging.getLogger().setLevel(logging.INFO)
            ANY.info("asked for now")
            logging.getLogger("users").info("theirs")
        filtered = (handler.filters, logging.getLogger().handlers[-1].filters)
    finally:
        LOGGER.removeHandler(handler)
        OTHERS.setLevel(logging.NOTSET)
    seen = ["careful", "asked for", "asked for now"]
    assert own.getvalue().splitlines() == seen
    assert mine.getvalue().splitlines() == [*seen, "theirs"]
    assert lines(kept[-1]) == ["progress", *seen]
    assert filtered == ([], [])


def test_a_level_that_the_user_sets_during_a_job_stays(mine: io.StringIO) -> None:
    try:
        with logged(lambda _: None):
            LOGGER.setLevel(logging.DEBUG)
            ANY.debug("asked for")
        assert LOGGER.level == logging.DEBUG
    finally:
        LOGGER.setLevel(logging.NOTSET)
    assert mine.getvalue() == "asked for\n"


def test_a_command_in_this_process_leaves_no_level_behind(mine: io.StringIO) -> None:
    stderr = io.StringIO()
    with live_line(stderr):
        with logged(lambda _: None):
            ANY.info("progress")
        ANY.info("done")
    ANY.info("afterwards")
    assert (stderr.getvalue(), mine.getvalue()) == ("progress\ndone\n", "")
