"""Evaluation off the critical path: checkpoints are evaluated once they are committed."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from colddiff.background import in_context
from colddiff.checkpoints.format import Checkpoints
from colddiff.checkpoints.kept import due_steps
from colddiff.errors import ColddiffError
from colddiff.jobs.folder import JobFolder

log = logging.getLogger(__name__)

POLL_S = 2.0


class EvaluationWatcher:
    """Within ``with``, calls ``evaluate(step)`` in a thread for each checkpoint that is due.

    Training never waits for it; due checkpoints are not pruned until they are evaluated. On exit,
    those still due are evaluated, except ``last``: the end of the job always evaluates that one.
    """

    def __init__(
        self,
        folder: JobFolder,
        every: int | None,
        last: int,
        evaluate: Callable[[int], object],
    ) -> None:
        self._folder, self._every, self._last = folder, every, last
        self._evaluate = evaluate
        self._checkpoints = Checkpoints.of(folder)
        self._ended = threading.Event()
        self._thread = threading.Thread(
            target=in_context(self._watch), name="evaluator", daemon=True
        )

    def __enter__(self) -> None:
        if self._every is not None:
            self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        if self._every is not None:
            self._thread.join()

    def _watch(self) -> None:
        failed: set[int] = set()
        while True:
            ended = self._ended.is_set()
            for step in self._due(failed):
                try:
                    self._evaluate(step)
                except Exception as error:
                    # A failed evaluation must not end the training.
                    log.warning("evaluation of step %d failed: %s", step, error)
                    failed.add(step)
            if ended:
                return
            self._ended.wait(POLL_S)

    def _due(self, failed: set[int]) -> list[int]:
        try:
            steps = self._checkpoints.steps()
            due = due_steps(steps, self._every, self._folder.evaluated_steps())
        except ColddiffError:
            return []  # the store is down; the next poll finds them
        return [step for step in due if step not in failed and step != self._last]
