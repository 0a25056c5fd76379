"""Segments in this process, one after the other."""

from __future__ import annotations

from collections.abc import Callable

from colddiff.errors import Stopped, StoreDenied
from colddiff.jobs.attempt import Attempt
from colddiff.jobs.in_process import InProcess
from colddiff.jobs.segments.segment import SegmentSource
from colddiff.retry import DENIALS

RunSegments = Callable[[Attempt, SegmentSource, Callable[[], None]], None]
"""(attempt, source, on change): runs segments until the source is exhausted or a stop is asked."""


def run_segments_here(
    attempt: Attempt, source: SegmentSource, on_change: Callable[[], None]
) -> None:
    """One segment after the other in this process."""
    denials = 0
    while not attempt.stop_requested() and (segment := source.next()) is not None:
        on_change()
        try:
            runner = InProcess(user=attempt.status.user)
            error = segment.run(attempt.resolved, attempt.stop_requested, runner)
        except Stopped:
            # SIGTERM reaches the innermost attempt of this process: it is meant for the outer one.
            attempt.request_stop()
            source.interrupted(segment)
            return
        except StoreDenied:
            denials += 1
            if denials >= DENIALS:
                raise
            source.interrupted(segment)
            continue
        denials = 0
        source.finished(segment, error)
        on_change()
