"""A segment of a checkpoint's search: one list of severities, evaluated on one set of images."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from colddiff.errors import ColddiffError, Stopped, StoreDenied
from colddiff.jobs.resolve import ResolvedJob
from colddiff.jobs.runner import Runner
from colddiff.jobs.segments.segment import Segment
from colddiff.verbs.search.severities.evaluator import open_list_evaluator
from colddiff.verbs.search.severities.journal import write_list_result
from colddiff.verbs.search.severities.lists import SeverityList

STOP_CHECK_S = 2.0


@dataclass(frozen=True, slots=True)
class ListSegment(Segment):
    """A list and its sampler on ``images``; the result is written to ``result``, by name."""

    kind: ClassVar[str] = "list"

    severities: tuple[int, ...]
    sampler: str
    images: str
    result: str
    groups: int = 0

    def run(
        self, outer: ResolvedJob, stop_requested: Callable[[], bool], runner: Runner | None = None
    ) -> str:
        asked = time.monotonic()

        def refuse_stopped() -> None:
            nonlocal asked
            # Asking the store before every call could take longer than the call.
            if time.monotonic() - asked > STOP_CHECK_S:
                asked = time.monotonic()
                if stop_requested():
                    raise Stopped(f"{self.key}: stopped before all images were evaluated")

        chosen = SeverityList(tuple(self.severities), self.sampler)
        try:
            evaluator = open_list_evaluator(outer, self.images)
            found = evaluator.measure(chosen, groups=self.groups, on_call=refuse_stopped)
            write_list_result(outer.folder, self.result, found)
        except (Stopped, StoreDenied):
            raise
        except ColddiffError as error:
            return str(error)
        return ""
