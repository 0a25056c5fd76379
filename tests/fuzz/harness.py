"""One input after another: each ends in time and memory, by itself or with an error of ours."""

from __future__ import annotations

import contextlib
import faulthandler
import io
import resource
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from colddiff.errors import ColddiffError

MOST_S = 10
"""CPU seconds of an input; a busy machine is slow, and no fault of the input."""
MOST_WALL_S = 60
MOST_BYTES = 2**30
MOST_CHARACTERS = 12_000
"""Of an error, before the command line shortens it."""


@dataclass(frozen=True, slots=True)
class Target:
    """What is fuzzed: how an input is drawn, and what reads it.

    ``check`` may raise a ColddiffError, which is what a bad input deserves, and nothing else.
    """

    name: str
    inputs: st.SearchStrategy[Any]
    check: Callable[[Any], None]


Maker = Callable[[Path], Target]
"""Makes a target, with the files it needs in a folder of its own."""


class TooLong(BaseException):
    """An input took too long; no ``except Exception`` of the product swallows it."""


class BadMessage(AssertionError):
    """An error whose message is not for a terminal."""


def fuzz(target: Target, number: int, count: int) -> None:
    """Gives ``count`` inputs of seed ``number`` to ``target``; raises at the first finding.

    The finding is shrunk, and its notes show the input. Equal numbers give equal inputs.
    """

    def one(drawn: Any) -> None:
        with bounded(), quiet():
            try:
                target.check(drawn)
            except ColddiffError as error:
                check_message(str(error))

    run = settings(
        max_examples=count,
        deadline=None,
        database=None,
        print_blob=False,
        report_multiple_bugs=False,
        # Explaining traces every line, ten times slower.
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )(given(drawn=target.inputs)(one))
    seed(number)(run)()


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Nothing that commands print is shown."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield


def check_message(message: str) -> None:
    """Raises BadMessage unless ``message`` says something, at a length that can be read."""
    if not message.strip():
        raise BadMessage("an error without a word")
    if len(message) > MOST_CHARACTERS:
        raise BadMessage(f"an error of {len(message)} characters: {message[:200]}...")


@contextlib.contextmanager
def bounded() -> Iterator[None]:
    """TooLong after MOST_S of CPU or MOST_WALL_S, MemoryError beyond MOST_BYTES more than before.

    Code that listens to no signal ends the process somewhat later, with its stacks.
    """

    def late(signum: int, frame: object) -> None:
        raise TooLong(f"no end after {MOST_S} s of CPU, or {MOST_WALL_S} s")

    signals = signal.SIGALRM, signal.SIGPROF
    before = [signal.signal(number, late) for number in signals]
    limits = resource.getrlimit(resource.RLIMIT_AS)
    faulthandler.dump_traceback_later(2 * MOST_WALL_S, exit=True)
    resource.setrlimit(resource.RLIMIT_AS, (_address_space() + MOST_BYTES, limits[1]))
    signal.setitimer(signal.ITIMER_REAL, MOST_WALL_S)
    signal.setitimer(signal.ITIMER_PROF, MOST_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)
        resource.setrlimit(resource.RLIMIT_AS, limits)
        faulthandler.cancel_dump_traceback_later()
        for number, handler in zip(signals, before, strict=True):
            signal.signal(number, handler)


def _address_space() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    return pages * resource.getpagesize()
