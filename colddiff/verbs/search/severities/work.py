"""What an attempt at a checkpoint's search does: trials, the confirmation, and the results."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from typing import Any

from colddiff.checkpoints.references import describe_checkpoint, find_checkpoint
from colddiff.errors import Stopped
from colddiff.jobs.attempt import Attempt
from colddiff.jobs.segments.here import RunSegments
from colddiff.jobs.status import AGAIN
from colddiff.report.search.page import search_page
from colddiff.terminals.held import poor_samples
from colddiff.verbs.search.pictures.gallery import guarded
from colddiff.verbs.search.promotion import BASE
from colddiff.verbs.search.severities.best import best_yaml
from colddiff.verbs.search.severities.confirm import BestList, ListConfirmation
from colddiff.verbs.search.severities.evaluator import close_list_evaluators
from colddiff.verbs.search.severities.picture import list_picture
from colddiff.verbs.search.severities.planner import ListPlanner
from colddiff.verbs.search.severities.table import (
    board_html,
    board_json,
    board_markdown,
    list_board,
)
from colddiff.verbs.search.severities.task import ListTask, open_list_task

log = logging.getLogger(__name__)


def prepare_lists(attempt: Attempt) -> ListTask:
    """The task: the checkpoint described, and the validation images packed."""
    return open_list_task(attempt.resolved)


def search_lists(attempt: Attempt, task: ListTask, run_segments: RunSegments) -> dict[str, Any]:
    """Evaluates the trials, confirms the best and writes the results; returns the result.

    Raises Stopped where it was stopped before the end, ColddiffError where the base failed, or
    more than ``max_failures`` trials in a row.
    """
    began = time.monotonic()
    planner = ListPlanner(attempt, task)
    if planner.resumed:
        log.info("%d of %d trials resumed", planner.resumed, task.job.num_trials)
    best: list[BestList] = []
    failures: list[str] = []
    try:
        run_segments(attempt, planner, _Progress(attempt, planner))
        best = planner.best()
        if not planner.exhausted:
            attempt.reached(planner.done, stopped=True)
            done = f"{planner.done} of {task.job.num_trials}"
            raise Stopped(f"stopped with {done} trials done; {AGAIN}")
        best, failures = _confirmed(attempt, task, best, run_segments)
    finally:
        close_list_evaluators()
        # Also of a search that stops or fails here: its table says which trials failed, and why.
        _write(attempt, task, planner, best or planner.best(), failures)
    # A space with fewer lists than trials is done as well.
    attempt.reached(task.job.num_trials)
    return _result(attempt, task, planner, best, failures, time.monotonic() - began)


def _confirmed(
    attempt: Attempt, task: ListTask, best: list[BestList], run_segments: RunSegments
) -> tuple[list[BestList], list[str]]:
    """The best lists with their test results, and a sentence for each evaluation that failed."""
    if not task.job.confirm_best:
        return best, []
    attempt.phase("confirming")
    confirmation = ListConfirmation(attempt, task, best)
    run_segments(attempt, confirmation, lambda: None)
    if not confirmation.exhausted:
        raise Stopped(f"stopped during the confirmation; {AGAIN}")
    found = confirmation.confirmed()
    for sentence in _sentences(task, found):
        attempt.report(sentence)
    return found, confirmation.failures()


def _sentences(task: ListTask, best: Sequence[BestList]) -> list[str]:
    """What the confirmation found, for people."""
    return [
        f"at most {found.budget} calls, test {task.metric} against {difference.against}: "
        f"{difference.sentence}"
        for found in best
        for difference in found.differences
    ]


def _write(
    attempt: Attempt,
    task: ListTask,
    planner: ListPlanner,
    best: Sequence[BestList],
    failures: Sequence[str],
) -> None:
    """The tables and ``best.yaml``, whole, into the job's folder and its tracking run."""
    board = list_board(task, planner.states, best)
    sentences = "".join(f"\n{line}\n" for line in failures)
    files = {
        "leaderboard.json": board_json(board),
        "leaderboard.md": board_markdown(board) + sentences,
    }
    if best:
        about = describe_checkpoint(find_checkpoint(task.base.checkpoint))
        terminal = about.terminal_spec
        draws = terminal is not None and not poor_samples(about.job, terminal)
        files["best.yaml"] = best_yaml(task, best, draws=draws)
    # Made of all else, and not worth the result of a search: what fails is logged and missing.
    picture = guarded("calls.png", lambda: list_picture(board, task))
    shown = [picture] if picture is not None else []
    told = [*_sentences(task, best), *failures] or [board.caption]
    files["leaderboard.html"] = search_page(attempt.resolved.id, told, board_html(board), shown)
    for name, text in files.items():
        attempt.folder.store.put(attempt.folder.key(name), text.encode())
        attempt.tracker.log_artifact(name, text.encode())
    attempt.pictures.clear()  # drawn once before the confirmation, and once after it
    for drawn in shown:
        attempt.keep_picture(drawn.name, drawn.png)


def _result(
    attempt: Attempt,
    task: ListTask,
    planner: ListPlanner,
    best: Sequence[BestList],
    failures: Sequence[str],
    seconds: float,
) -> dict[str, Any]:
    return {
        "step": task.job.num_trials,
        "trials": planner.asked,
        "metric": task.metric,
        "checkpoint": task.base.checkpoint,
        "base": {
            "calls": task.space.base.calls,
            "value": planner.states[BASE].value(task.metric),
        },
        "best": [
            {
                "budget": found.budget,
                "trial": found.state.trial.number,
                "calls": found.state.trial.chosen.calls,
                "sampler": found.state.trial.sampler,
                "severities": list(found.state.trial.severities),
                "value": found.state.value(task.metric),
                "against": [difference.to_dict() for difference in found.differences],
            }
            for found in best
        ],
        "confirmation": [*_sentences(task, best), *failures],
        "confirm_best": task.job.confirm_best,
        "confirm_seeds": task.job.confirm_seeds,
        "leaderboard": f"{attempt.folder.uri}/leaderboard.md",
        "best_yaml": f"{attempt.folder.uri}/best.yaml",
        "metrics": planner.metrics(),
        "time": {"search_s": seconds},
    }


class _Progress:
    """Writes and tracks how many trials are done, and how long the rest may take."""

    def __init__(self, attempt: Attempt, planner: ListPlanner) -> None:
        self._attempt, self._planner = attempt, planner
        self._logged: dict[str, float] = {}
        self._began = time.monotonic()

    def __call__(self) -> None:
        planner = self._planner
        now = planner.metrics()
        if now != self._logged:
            self._attempt.tracker.log_metrics(now, planner.done)
            self._logged = now
        total, made = planner.task.job.num_trials, planner.done - planner.resumed
        passed = time.monotonic() - self._began
        detail = f"{planner.asked}/{total} trials asked, {planner.running} running"
        if planner.resumed:
            detail += f", {planner.resumed} resumed"
        self._attempt.progress(
            step=planner.done,
            num_steps=total,
            phase="searching",
            detail=detail,
            eta_s=passed / made * (total - planner.done) if made else None,
        )
