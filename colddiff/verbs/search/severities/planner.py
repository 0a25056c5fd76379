"""The trials of a checkpoint's search as segments, from what is stored: none is evaluated twice."""

from __future__ import annotations

import logging

from colddiff.jobs.attempt import Attempt
from colddiff.jobs.segments.segment import Segment
from colddiff.verbs.search.failures import FailuresInARow
from colddiff.verbs.search.severities.confirm import BestList, best_lists
from colddiff.verbs.search.severities.journal import (
    ListState,
    ListTrial,
    list_states,
    read_list_trials,
    result_name,
)
from colddiff.verbs.search.severities.segment import ListSegment
from colddiff.verbs.search.severities.task import ListTask
from colddiff.verbs.search.trials import write_trial

log = logging.getLogger(__name__)


class ListPlanner:
    """``SegmentSource`` of the trials; asked by one thread at a time."""

    def __init__(self, attempt: Attempt, task: ListTask) -> None:
        self._attempt, self.task = attempt, task
        self._trials = read_list_trials(attempt.folder)
        self._searcher = task.searcher
        self._running: dict[str, int] = {}
        self._errors: dict[int, str] = {}
        self._failures = FailuresInARow(task.job.max_failures, "lists")
        self._wanted = task.job.num_trials
        self.states: list[ListState] = []
        self._refresh()
        self.resumed = self.done

    @property
    def done(self) -> int:
        """How many trials have a result."""
        return sum(state.result is not None for state in self.states)

    @property
    def asked(self) -> int:
        """How many trials were asked for."""
        return len(self._trials)

    @property
    def running(self) -> int:
        """How many trials are being evaluated."""
        return len(self._running)

    @property
    def exhausted(self) -> bool:
        return not self._running and self._idle() is None and self.asked >= self._wanted

    def best(self) -> list[BestList]:
        """The best list so far of each budget, without a confirmation."""
        job, task = self.task.job, self.task
        return best_lists(self.states, job.calls, task.metric, lower_is_better=task.lower_is_better)

    def metrics(self) -> dict[str, float]:
        """How the search stands, by metric path: ``search/trials``, ``search/calls_5``, ..."""
        found = {"search/trials": float(self.done)}
        for best in self.best():
            value = best.state.value(self.task.metric)
            if value is not None:
                found[f"search/calls_{best.budget}"] = value
        return found

    def next(self) -> ListSegment | None:
        number = self._idle()
        if number is None and self.asked < self._wanted:
            number = self._ask()
        if number is None:
            return None
        trial = self._trials[number]
        key = f"trial {number} ({trial.chosen.calls} calls, {trial.sampler})"
        self._running[key] = number
        return ListSegment(
            key, trial.severities, trial.sampler, self.task.validation, result_name(number)
        )

    def finished(self, segment: Segment, error: str) -> None:
        number = self._running.pop(segment.key)
        if error:
            self._errors[number] = error
        self._refresh()
        value = self.states[number].value(self.task.metric)
        if value is not None:
            self._failures.succeeded()
            log.info("%s: %s %.5g", segment.key, self.task.metric, value)
            return
        self._errors.setdefault(number, "it was not evaluated")
        log.warning("%s failed: %s", segment.key, self._errors[number])
        self._failures.failed(number, self._errors[number])

    def interrupted(self, segment: Segment) -> None:
        del self._running[segment.key]

    def _idle(self) -> int | None:
        """The first trial that was asked for, has no result and is not being evaluated."""
        busy = {*self._running.values(), *self._errors}
        waiting = (s.trial.number for s in self.states if s.result is None)
        return next((number for number in waiting if number not in busy), None)

    def _ask(self) -> int | None:
        """A new trial, written before anybody hears of it; None where the space has no other."""
        number = self.asked
        found = self._searcher.suggestion(number, self.states)
        if found is None:
            log.info("the space has no further list: %d trials", number)
            self._wanted = number
            return None
        point, chosen = found
        trial = ListTrial(number, chosen.severities, chosen.sampler, dict(point), self.done)
        if write_trial(self._attempt.folder, trial):
            self._trials.append(trial)
        else:
            # An earlier driver that had not died yet wrote this number: its record stands.
            self._trials = read_list_trials(self._attempt.folder)
        self._refresh()
        return number

    def _refresh(self) -> None:
        self.states = list_states(
            self._attempt.folder, self._trials, self.task.metric, self._errors, self.states
        )
