"""Restarts of Ray Train's workers, for as long as their job makes progress."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import ray.train

from colddiff.checkpoints.format import Checkpoints
from colddiff.cluster.capacity import NOTICE_S, lost_machines, machines_up
from colddiff.errors import ColddiffError, RecordError, StoreDenied, Unreachable
from colddiff.jobs.folder import JobFolder
from colddiff.ports import Left
from colddiff.verbs.train.failures import Failures
from colddiff.verbs.train.job import TrainJob

log = logging.getLogger(__name__)

LONGEST_REASON = 300
GROWING: Left = "growing"


def fit_until_ended(
    fit: Callable[[int], object],
    job: TrainJob,
    folder: JobFolder,
    attempt: int,
    *,
    say: Callable[[str], None] = log.warning,
    up: Callable[[], Sequence[str]] = machines_up,
    lost: Callable[[Sequence[str], float], list[str]] = lost_machines,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Calls ``fit(number)`` until the workers end by themselves, with whatever outcome.

    Only consecutive failures without progress count (a new checkpoint, or a snapshot from which the
    next workers went on), and preemption or loss of a machine is not a failure (Ray would count
    every failure of a run). Errors of our own (a spec, data, a store that stays down) are not
    retried: they would recur; a store that denies access is tried once more. ``say`` gets a line on
    each failure, for those who follow the job too. Raises ColddiffError with the reason.
    """
    checkpoints = Checkpoints.of(folder)
    failures = Failures(job.max_failures, _reached(checkpoints, folder, attempt) or 0)
    number, logged = 0, set[str]()
    while True:
        number += 1
        machines = up()
        try:
            fit(number)
        # The second: Ray Train's controller died, which is an actor beside the workers.
        except (ray.train.TrainingFailedError, ray.exceptions.RayActorError) as error:
            reason = _reason(error)
            _log_stacks(folder, attempt, logged)
            if _preempted(error):
                log.info("preempted (%s): continuing without that machine, not a failure", reason)
                continue
            if any(_is_final(cause) for cause in _causes(error)):
                raise ColddiffError(reason) from error
            reached = _reached(checkpoints, folder, attempt)
            step = failures.step if reached is None else reached
            denied = any(isinstance(cause, StoreDenied) for cause in _causes(error))
            if denied and failures.denied_again(step):
                raise ColddiffError(reason) from error
            gone = lost(machines, 0.0 if denied or _is_death(error) else NOTICE_S)
            if gone and failures.excuses_loss(step):
                lost_ones = "; ".join(gone)
                say(f"lost without notice: {lost_ones}; continuing from step {step}, not a failure")
                log.debug("of that loss the workers said: %s", reason)
                continue
            _count(failures, step, reason, error, say)
            sleep(failures.pause_s)
        else:
            left = (folder.outcome(attempt) or {}).get("left")
            if not left:
                return
            if left == GROWING:
                log.info("there is room for more workers: continuing with them")
            else:
                log.info("a machine is being preempted: continuing without it, not a failure")


def _count(
    failures: Failures, step: int, reason: str, error: Exception, say: Callable[[str], None]
) -> None:
    """Counts a failure and says so; raises ColddiffError if it is one too many."""
    if not failures.may_retry(step):
        raise ColddiffError(
            f"the workers failed {failures.count} times without progress since "
            f"step {failures.step} (max_failures={failures.limit}): {reason}"
        ) from error
    say(
        f"workers failed ({reason}); restarting them in {failures.pause_s:.0f} s: failure "
        f"{failures.count} since step {failures.step}, max_failures={failures.limit}"
    )


class Growth:
    """Whether it helps to leave for more workers: each try costs a restart."""

    def __init__(self, folder: JobFolder, attempt: int) -> None:
        self._folder, self._attempt = folder, attempt
        self.failed()

    def failed(self) -> None:
        """The workers failed: what was tried before says nothing of the machines there are now."""
        self.helps, self._left_with = True, 0

    def ended(self) -> None:
        """The workers ended by themselves. It helps unless it led to as few workers as before."""
        if (self._folder.outcome(self._attempt) or {}).get("left") != GROWING:
            self.failed()
            return
        newest = self._folder.fencing_tokens(self._attempt)[-1]
        size = int(self._folder.fence(self._attempt, newest).get("world_size", 0))
        self.helps, self._left_with = size > self._left_with, size
        if not self.helps:
            log.info("the room for more workers cannot be used: going on with %d for now", size)


def _reached(checkpoints: Checkpoints, folder: JobFolder, attempt: int) -> int | None:
    """The newest checkpoint's step, or that from which the last workers went on, if it is later."""
    try:
        begun = [
            int(folder.fence(attempt, token).get("step", 0))
            for token in folder.fencing_tokens(attempt)[-1:]
        ]
        return max([0, *checkpoints.steps(), *begun])
    except (Unreachable, RecordError):
        return None  # the store is down: progress is unknown


def _log_stacks(folder: JobFolder, attempt: int, logged: set[str]) -> None:
    """Logs the stacks of ranks that hung, each once."""
    try:
        stacks = folder.stacks(attempt)
    except Unreachable as error:
        log.warning("cannot read the stacks of ranks that may have hung: %s", error)
        return
    for name, text in stacks.items():
        if name not in logged:
            logged.add(name)
            rank = name.partition("-")[2].removesuffix(".txt")
            log.error("rank %s hung: %s", rank, text)


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The workers' own exceptions by rank, without Ray's wrappers; then the controller's."""
    failures: dict[int, Any] = getattr(error, "worker_failures", None) or {}
    for _, failure in sorted(failures.items()):
        yield getattr(failure, "health_check_failure", failure)
    controller = getattr(error, "controller_failure", None)
    if controller is not None:
        yield controller
    if isinstance(error, ray.exceptions.RayActorError):
        yield error


def _is_final(cause: BaseException) -> bool:
    return isinstance(cause, ColddiffError) and not isinstance(cause, Unreachable)


def _is_death(error: BaseException) -> bool:
    """Whether Ray says that a process died; else the machine of one may be about to be lost."""
    return any(isinstance(cause, ray.exceptions.ActorDiedError) for cause in _causes(error))


def _preempted(error: BaseException) -> bool:
    """Whether Ray reports that the failure was caused by preemption of a machine."""
    return type(error).__name__ == "PreemptionError" or any(
        getattr(cause, "preempted", False) for cause in _causes(error)
    )


def _reason(error: BaseException) -> str:
    """One line; errors of our own first, as the other ranks only fail as a consequence."""
    if isinstance(error, ray.exceptions.RayActorError):
        return f"Ray Train's controller died: {_first_of(str(error))}"
    causes = list(_causes(error)) or [error]
    ours = [cause for cause in causes if isinstance(cause, ColddiffError)]
    cause = (ours or causes)[0]
    if ours:  # whole: what ends one is the way out
        return " ".join(str(cause).split()) or type(cause).__name__
    if isinstance(cause, ray.exceptions.RayActorError):
        return _first_of(str(cause)) or type(cause).__name__
    last = _lines_of(str(cause))[-1:]
    return ": ".join([type(cause).__name__, *last]).rstrip(": ")


def _first_of(text: str) -> str:
    """The first line that is not empty."""
    return next(iter(_lines_of(text)), "")


def _lines_of(text: str) -> list[str]:
    lines = (line.strip()[:LONGEST_REASON] for line in text.splitlines())
    return [line for line in lines if line]
