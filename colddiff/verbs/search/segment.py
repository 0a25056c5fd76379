"""Segments: the pieces of work that a search hands to its workers, such as a training to a step."""

from __future__ import annotations

import logging
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, cast

import torch

from colddiff.errors import ColddiffError, Stopped
from colddiff.jobs.folder import JobFolder
from colddiff.jobs.in_process import InProcess
from colddiff.jobs.resolve import ResolvedJob, resolve
from colddiff.jobs.results import untold
from colddiff.jobs.submit import bring_to_end
from colddiff.jobs.verb import VERBS
from colddiff.spec import parse

if TYPE_CHECKING:
    from colddiff.verbs.train.job import TrainJob

log = logging.getLogger(__name__)

POLL_S = 1.0
STOP_GRACE_S = 300.0


@dataclass(frozen=True, slots=True)
class Segment(ABC):
    """A piece of work of a search; JSON-ready, equal ones are the same work."""

    kind: ClassVar[str]
    """What a worker that gets it as JSON knows its class by."""

    key: str
    """Its name in messages, such as ``trial 3 to step 125``."""

    @abstractmethod
    def run(self, search: ResolvedJob, stop_requested: Callable[[], bool]) -> str:
        """Does the work in this process; the error that ended it, or "".

        Raises Stopped where ``stop_requested`` said so meanwhile.
        """

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; without ``kind``, its class takes it as keywords."""
        return {"kind": self.kind, **asdict(self)}


@dataclass(frozen=True, slots=True)
class TrainSegment(Segment):
    """Training job ``job`` up to optimizer step ``step``.

    A later segment of the same job extends it: nothing is trained twice.
    """

    kind: ClassVar[str] = "train"

    slug: str
    job: Mapping[str, Any]
    step: int
    tracking: Mapping[str, Any] = field(default_factory=dict)
    """Fields of the job's ``tracking`` to set, such as ``nested_run`` returns."""

    def run(self, search: ResolvedJob, stop_requested: Callable[[], bool]) -> str:
        return run_segment(self, search.storage, stop_requested)


class SegmentSource(Protocol):
    """Decides which segment is next; asked by one thread at a time."""

    def next(self) -> Segment | None:
        """The next segment; None where one has to end first."""

    def finished(self, segment: Segment, error: str) -> None:
        """Records that a segment has ended, with an error or, where that is empty, well.

        Raises ColddiffError where the search cannot go on after this error.
        """

    def interrupted(self, segment: Segment) -> None:
        """Records that a segment was stopped before its end; it is handed out again later."""

    @property
    def exhausted(self) -> bool:
        """Whether there will be no further segment."""


def resolved_segment(segment: TrainSegment, storage: str) -> ResolvedJob:
    """The training job of a segment, resolved in the search's own storage."""
    job = cast("TrainJob", parse(VERBS["train"].spec(), dict(segment.job), segment.key))
    tags = {**job.tracking.tags, **segment.tracking.get("tags", {})}
    tracking = job.tracking.model_copy(update={**segment.tracking, "tags": tags})
    changes = {"num_steps": segment.step, "tracking": tracking}
    return resolve(job.model_copy(update=changes), segment.slug, storage=storage)


def run_segment(segment: TrainSegment, storage: str, stop_requested: Callable[[], bool]) -> str:
    """Trains up to the segment's step in this process; the error that ended it, or "".

    Raises Stopped where ``stop_requested`` said so meanwhile: the training has a checkpoint then.
    """
    threads = torch.get_num_threads()
    try:
        resolved = resolved_segment(segment, storage)
        with _stopped_with(resolved.folder, stop_requested), untold():
            ended = bring_to_end(resolved, InProcess())
    except ColddiffError as error:
        return str(error)
    finally:
        torch.set_num_threads(threads)
    if ended.exit_code == Stopped.exit_code:
        raise Stopped(f"{segment.key}: {ended.message}")
    return "" if ended.exit_code == 0 else ended.message or ended.state


@contextmanager
def _stopped_with(folder: JobFolder, stop_requested: Callable[[], bool]) -> Iterator[None]:
    """Within ``with``, a request to stop the search stops the training in ``folder`` too."""
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(POLL_S):
            with suppress(ColddiffError):
                status = folder.status()
                if status is not None and not status.finished and stop_requested():
                    folder.request_stop(status.attempt, STOP_GRACE_S)
                    return

    thread = threading.Thread(target=watch, name="search-stop", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(timeout=30)
