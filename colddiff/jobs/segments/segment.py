"""Segments: the pieces of work that a job hands out, such as a training up to a step.

A search hands out its trials, a study the trainings it names. Their own job is the *outer* one.
"""

from __future__ import annotations

import logging
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from typing import Any, ClassVar, Protocol

import torch

from colddiff.errors import ColddiffError, Stopped, StoreDenied
from colddiff.jobs.folder import JobFolder
from colddiff.jobs.in_process import InProcess
from colddiff.jobs.job import Job
from colddiff.jobs.resolve import STAGED, ResolvedJob, resolve
from colddiff.jobs.results import untold
from colddiff.jobs.runner import Runner
from colddiff.jobs.submit import Submission, bring_to_end
from colddiff.jobs.verb import VERBS
from colddiff.retry import call_with_retry
from colddiff.spec import parse
from colddiff.spec.plugins import plugin_digest

log = logging.getLogger(__name__)

POLL_S = 1.0
OUTAGE_S = 600.0
"""How long a store or tracker that is unreachable is waited for."""
STOP_GRACE_S = 300.0


@dataclass(frozen=True, slots=True)
class Segment(ABC):
    """A piece of work of an outer job; JSON-ready, equal ones are the same work."""

    kind: ClassVar[str]
    """What a worker that gets it as JSON knows its class by."""

    key: str
    """Its name in messages, such as ``trial 3 to step 125``."""

    @abstractmethod
    def run(
        self, outer: ResolvedJob, stop_requested: Callable[[], bool], runner: Runner | None = None
    ) -> str:
        """Does the work; the error that ended it, or "".

        In this process, unless it is a job and ``runner`` has workers elsewhere. Raises Stopped
        where ``stop_requested`` said so meanwhile, StoreDenied where the store denies this process
        access: others may have it.
        """

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; without ``kind``, its class takes it as keywords."""
        return {"kind": self.kind, **asdict(self)}


@dataclass(frozen=True, slots=True)
class JobSegment(Segment):
    """Training job ``job`` up to optimizer step ``step``.

    A later segment of the same job extends it: nothing is trained twice. A job of another ``verb``
    is done whole, and ``step`` only says of which checkpoint.
    """

    kind: ClassVar[str] = "job"

    slug: str
    job: Mapping[str, Any]
    step: int
    tracking: Mapping[str, Any] = field(default_factory=dict)
    """Fields of the job's ``tracking`` to set, such as ``nested_run`` returns."""
    verb: str = "train"
    """Of the job: ``train``, or another whose job is done whole."""
    plugins: Sequence[str] | None = None
    """sha256 of those plugins of the outer job that this one has; None for all of them."""

    def run(
        self, outer: ResolvedJob, stop_requested: Callable[[], bool], runner: Runner | None = None
    ) -> str:
        return run_segment(self, outer, stop_requested, runner)


class SegmentSource(Protocol):
    """Decides which segment is next; asked by one thread at a time."""

    def next(self) -> Segment | None:
        """The next segment; None where one has to end first."""

    def finished(self, segment: Segment, error: str) -> None:
        """Records that a segment has ended, with an error or, where that is empty, well.

        Raises ColddiffError where the outer job cannot go on after this error.
        """

    def interrupted(self, segment: Segment) -> None:
        """Records that a segment was stopped before its end; it is handed out again later."""

    @property
    def exhausted(self) -> bool:
        """Whether there will be no further segment."""


def resolved_segment(segment: JobSegment, outer: ResolvedJob) -> ResolvedJob:
    """The job of a segment, in the storage of the outer job and with its plugins."""
    plugins = tuple(
        plugin
        for plugin in outer.job.plugins
        if segment.plugins is None or plugin_digest(STAGED / plugin) in segment.plugins
    )
    found = tuple(str(STAGED / plugin) for plugin in plugins)
    job: Job = parse(VERBS[segment.verb].spec(), dict(segment.job), segment.key)
    tags = {**job.tracking.tags, **segment.tracking.get("tags", {})}
    tracking = job.tracking.model_copy(update={**segment.tracking, "tags": tags})
    extent = {"num_steps": segment.step} if segment.verb == "train" else {}
    changes = {"tracking": tracking, "plugins": found, **extent}
    resolved = resolve(job.model_copy(update=changes), segment.slug, storage=outer.storage)
    # As they were staged: its workers may be on other machines, with working folders of their own,
    # and no checkout, where the code of the outer job came from.
    staged = resolved.job.model_copy(update={"plugins": plugins})
    return replace(resolved, job=staged, git=outer.git)


def run_segment(
    segment: JobSegment,
    outer: ResolvedJob,
    stop_requested: Callable[[], bool],
    runner: Runner | None = None,
) -> str:
    """Does the segment's work; the error that ended it, or "".

    Driven by this process, and done by it unless ``runner`` has workers elsewhere. Raises
    Stopped where ``stop_requested`` said so meanwhile: the training has a checkpoint then.
    """
    threads = torch.get_num_threads()

    def work() -> Submission:
        with untold():  # the outer job has said what is to be said of its trainings
            resolved = resolved_segment(segment, outer)
        with _stopped_with(resolved.folder, stop_requested), untold():
            return bring_to_end(resolved, runner or InProcess())

    def done() -> Submission:
        # Others may have access: a denial is no outage, which is waited for.
        return call_with_retry(work, segment.key, OUTAGE_S, at_once=(StoreDenied,))

    try:
        ended = done()
        while ended.state == "lost" and not stop_requested():
            # It was attached to an attempt whose driver was killed together with the outer job's.
            ended = done()
    except StoreDenied:
        raise
    except ColddiffError as error:
        return str(error)
    finally:
        torch.set_num_threads(threads)
    if ended.state == "lost" or ended.exit_code == Stopped.exit_code:
        raise Stopped(f"{segment.key}: {ended.message}")
    return "" if ended.exit_code == 0 else ended.message or ended.state


@contextmanager
def _stopped_with(folder: JobFolder, stop_requested: Callable[[], bool]) -> Iterator[None]:
    """Within ``with``, a request to stop the outer job stops the one in ``folder`` too."""
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(POLL_S):
            with suppress(ColddiffError):
                status = folder.status()
                if status is not None and not status.finished and stop_requested():
                    folder.request_stop(status.attempt, STOP_GRACE_S)
                    return

    thread = threading.Thread(target=watch, name="outer-stop", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(timeout=30)
