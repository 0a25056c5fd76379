"""The pictures and the page of a search as it stands, from its trials and what was measured."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from colddiff.report.search.figures import SearchPicture
from colddiff.report.search.page import search_page
from colddiff.report.search.pictures import Drawn, search_pictures
from colddiff.report.search.results import (
    DrawnTrial,
    Importance,
    Line,
    SearchAxis,
    SearchResults,
    Strips,
)
from colddiff.report.search.sentences import importance_sentence, verdict_sentences
from colddiff.spec import canonical_json
from colddiff.verbs.search.confirm import PairedComparison
from colddiff.verbs.search.leaderboard import Leaderboard, short_paths, to_html
from colddiff.verbs.search.pictures.fewer_calls import DIRECT
from colddiff.verbs.search.pictures.measure import (
    measured_importance,
    measured_path,
    measured_strips,
    path_images,
    stored_samples,
    strip_trials,
)
from colddiff.verbs.search.planner import Planner
from colddiff.verbs.search.points.space import Dimension
from colddiff.verbs.search.search_task import SearchTask
from colddiff.verbs.search.trials import Trial, TrialState

log = logging.getLogger(__name__)

F = TypeVar("F")


@dataclass(frozen=True, slots=True)
class Findings:
    """What was found about the finalists after the trials."""

    comparisons: tuple[PairedComparison, ...] = ()
    failures: tuple[str, ...] = ()
    """A sentence for each training of the confirmation that failed."""
    skipped: Mapping[int, Mapping[int, float]] = field(default_factory=dict)
    """The metric by trial and number of network calls, with skipped severities."""
    job_ids: tuple[str, ...] = ()
    """Of the jobs that found it."""

    def sentences(self, metric: str) -> list[str]:
        """One for each comparison."""
        return [each.sentence(metric) for each in self.comparisons]


@dataclass(slots=True)
class Gallery:
    """The pictures and the page of one attempt at a search; what was measured is kept."""

    task: SearchTask
    storage: str
    title: str
    """Heading of the page: the id of the search."""
    paths: dict[str, tuple[Line, dict[str, Line]]] = field(default_factory=dict)
    """What D removes and the schedules, by the id of a trial's job."""
    strips: dict[tuple[tuple[str, int], ...], Strips | None] = field(default_factory=dict)
    """By the roles and numbers of the trials that they show."""
    importance: dict[tuple[tuple[tuple[int, float], ...], ...], Importance | None] = field(
        default_factory=dict
    )
    """By the values of all trials."""
    drawn: Drawn | None = None
    """The results drawn last, and their pictures."""

    def files(
        self,
        planner: Planner,
        board: Leaderboard,
        found: Findings,
        notes: Sequence[str] = (),
    ) -> tuple[str, list[SearchPicture]]:
        """The page and, with ``tracking.images``, the pictures; logs what fails and omits it."""
        drawn = self.task.job.tracking.images
        results = self.results(planner, board, found, drawn=drawn)
        pictures: list[SearchPicture] = []
        if drawn:
            pictures = search_pictures(results, self.drawn)
            self.drawn = results, list(pictures)
        if drawn and self.task.job.compare == "generation":
            chosen = strip_trials(planner.states, board, self.task.rungs)
            called = {trial.number: results.role(trial) for trial in results.named}
            sheets = guarded(
                "samples", lambda: stored_samples(self.task, chosen, self.storage, called)
            )
            pictures += sheets or []
        sentences = verdict_sentences(results, found.sentences(self.task.metric), found.failures)
        told = list(notes)
        if len(results.axes) > 1:
            most = max(
                (sum(r in t.values for t in results.trials) for r in results.rungs), default=0
            )
            told.append(importance_sentence(results.importance, most))
        page = search_page(self.title, sentences, to_html(board), pictures, told)
        return page, pictures

    def results(
        self,
        planner: Planner,
        board: Leaderboard,
        found: Findings,
        *,
        drawn: bool,
    ) -> SearchResults:
        """The search as data for the pictures. What costs time is left out unless ``drawn``."""
        task, states = self.task, planner.states
        axes = drawn_axes(task.space, [state.trial for state in states])
        ranks = {row.number: row for row in board.rows}
        one_call = task.metric.startswith(DIRECT)
        trials = []
        for state in states:
            row = ranks[state.trial.number]
            removed, schedules = self._path(state.trial) if drawn else (None, {})
            trials.append(
                DrawnTrial(
                    number=row.number,
                    base=row.base,
                    rank=row.rank,
                    finished=state.done(task.rungs),
                    point=drawn_point(task.space, axes, state.trial.point),
                    values=dict(state.values),
                    calls=None if one_call else row.calls,
                    skipped=dict(found.skipped.get(row.number, {})),
                    removed=removed,
                    schedules=schedules,
                )
            )
        return SearchResults(
            metric=task.metric,
            lower_is_better=board.lower_is_better,
            rungs=task.rungs,
            axes=axes,
            trials=tuple(trials),
            num_trials=task.job.num_trials,
            complete=planner.exhausted,
            num_images=len(path_images(task)[0]),
            base_seeds=found.comparisons[0].base if found.comparisons else (),
            strips=self._strips(states, board) if drawn else None,
            importance=self._importance(states, axes),
        )

    def _importance(
        self, states: Sequence[TrialState], axes: Sequence[SearchAxis]
    ) -> Importance | None:
        key = tuple(tuple(state.values.items()) for state in states)
        if key not in self.importance:
            self.importance[key] = guarded(
                "the importance", lambda: measured_importance(self.task, states, axes)
            )
        return self.importance[key]

    def _path(self, trial: Trial) -> tuple[Line | None, dict[str, Line]]:
        if trial.job_id not in self.paths:
            found = guarded(
                f"the path of trial {trial.number}", lambda: measured_path(self.task, trial)
            )
            if found is None:
                return None, {}
            self.paths[trial.job_id] = found
        return self.paths[trial.job_id]

    def _strips(self, states: Sequence[TrialState], board: Leaderboard) -> Strips | None:
        chosen = strip_trials(states, board, self.task.rungs)
        key = tuple((role, trial.number) for role, trial in chosen)
        if key not in self.strips:
            self.strips[key] = guarded(
                "strips.png", lambda: measured_strips(self.task, chosen, self.storage)
            )
        return self.strips[key]


def drawn_axes(space: Sequence[Dimension], trials: Sequence[Trial]) -> tuple[SearchAxis, ...]:
    """The dimensions as axes; among the choices are those that only the base has."""
    labels = short_paths([dimension.path for dimension in space])
    axes = []
    for dimension, label in zip(space, labels, strict=True):
        if dimension.choices is None:
            ends = (dimension.low, dimension.high)
            axes.append(SearchAxis(label, dimension.log, None, ends))
            continue
        known = dict.fromkeys(map(_choice, dimension.choices))
        known |= dict.fromkeys(
            _choice(trial.point[dimension.path])
            for trial in trials
            if dimension.path in trial.point
        )
        axes.append(SearchAxis(label, choices=tuple(known)))
    return tuple(axes)


def drawn_point(
    space: Sequence[Dimension], axes: Sequence[SearchAxis], point: Mapping[str, Any]
) -> tuple[float, ...]:
    """A point in the order of ``axes``: choices by index, NaN where it has no number."""
    found = []
    for dimension, axis in zip(space, axes, strict=True):
        value = point.get(dimension.path)
        if value is not None and axis.choices is not None:
            found.append(float(axis.choices.index(_choice(value))))
        else:
            found.append(float(value) if isinstance(value, int | float) else math.nan)
    return tuple(found)


def guarded(what: str, make: Callable[[], F]) -> F | None:
    """What ``make`` returns; None, with a warning naming it, where it fails."""
    try:
        return make()
    except Exception as error:
        log.warning("%s could not be made: %s: %s", what, type(error).__name__, error)
        return None


def _choice(value: Any) -> str:
    return value if isinstance(value, str) else canonical_json(value)
