"""Measurements for the pictures: what D removes on a trial's path, and one image along it."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, cast

import numpy as np
import torch

from colddiff.checkpoints.references import load_checkpoint
from colddiff.data.open import open_second_set, open_transformed
from colddiff.jobs.folder import JobFolder
from colddiff.jobs.verb import VERBS
from colddiff.report.pictures import SAMPLES
from colddiff.report.search.figures import SearchPicture
from colddiff.report.search.results import Importance, Line, SearchAxis, Strip, Strips
from colddiff.report.search.sentences import FEWEST_TRIALS
from colddiff.restorers import for_inference
from colddiff.rng import streams
from colddiff.samplers import DEFAULT, find_sampler
from colddiff.sampling import sample_steps
from colddiff.spec import Unit, parse
from colddiff.stores.open import open_store
from colddiff.transforms import eight_bit, normalise
from colddiff.verbs.search.leaderboard import Leaderboard
from colddiff.verbs.search.points.space import schedules_of_degradation
from colddiff.verbs.search.points.suggest import observations
from colddiff.verbs.search.search_task import SearchTask
from colddiff.verbs.search.trials import Trial, TrialState

if TYPE_CHECKING:
    from colddiff.verbs.train.job import TrainJob

log = logging.getLogger(__name__)

MOST_VALUES = 2**20
"""Values of the images that a path is measured on: all 256 up to 64 px grey, fewer above."""
MOST_SEVERITIES = 32
PLACES = (1.0, 0.8, 0.6, 0.4, 0.2, 0.0)
"""t/T of the columns of a strip."""
STRIPS_S = 60.0
"""What the strips may take: the driver may have no GPU. Beyond it they are left out."""


def path_images(task: SearchTask) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """The search's images, evenly thinned out where they are large, with their omega."""
    most = max(1, MOST_VALUES // max(1, task.x0[0].numel()))
    every = -(-len(task.x0) // most)
    return task.x0[::every], {name: value[::every] for name, value in task.omega.items()}


def measured_path(task: SearchTask, trial: Trial) -> tuple[Line, dict[str, Line]]:
    """RMSE of D(x, t) against x at up to ``MOST_SEVERITIES`` severities, and the schedules."""
    job = _train_job(trial)
    D, T = job.degradation.build(job.shape), job.degradation.num_timesteps
    x0, omega = path_images(task)
    severities = sorted({round(T * i / MOST_SEVERITIES) for i in range(MOST_SEVERITIES + 1)})
    removed = []
    for t in severities:
        moved = D.degrade(x0, torch.full((len(x0),), t), omega) - x0
        removed.append(float(moved.double().square().mean().sqrt()) / 2)
    schedules = {}
    for name, schedule in schedules_of_degradation(job.degradation).items():
        values, shown = schedule.entries(T), severities[1:]  # a schedule begins at t = 1
        line = Line(tuple(t / T for t in shown), tuple(float(values[t - 1]) for t in shown))
        schedules[_with_unit(job, name)] = line
    return Line(tuple(t / T for t in severities), tuple(removed)), schedules


def strip_trials(
    states: Sequence[TrialState], board: Leaderboard, rungs: Sequence[int]
) -> list[tuple[str, Trial]]:
    """Best, base and worst of the finished trials, as far as they are different ones."""
    finished = {state.trial.number: state.trial for state in states if state.done(rungs)}
    others = [row.number for row in board.rows if row.number in finished and not row.base]
    base = [row.number for row in board.rows if row.number in finished and row.base]
    roles = [("best", number) for number in others[:1]]
    roles += [("base", number) for number in base]
    roles += [("worst", number) for number in others[1:][-1:]]
    return [(role, finished[number]) for role, number in roles]


def measured_strips(
    task: SearchTask, chosen: Sequence[tuple[str, Trial]], storage: str
) -> Strips | None:
    """The first validation image on the path of each trial; None where it would take too long."""
    if not chosen:
        return None
    source = open_transformed(task.splits.validation, task.base.augment, task.base.shape)
    x0 = normalise(torch.from_numpy(np.array(source.images(0, 1))))
    name = DEFAULT if DEFAULT in task.base.evaluation.samplers else "direct"
    until = time.monotonic() + STRIPS_S
    strips = []
    for role, trial in chosen:
        strip = _strip(task, role, trial, x0, storage, name, until)
        if strip is None:
            log.info("strips.png was left out: it takes more than %g s here", STRIPS_S)
            return None
        strips.append(strip)
    return Strips(PLACES, find_sampler(name).label, tuple(strips))


def stored_samples(
    task: SearchTask,
    chosen: Sequence[tuple[str, Trial]],
    storage: str,
    called: Mapping[int, str],
) -> list[SearchPicture]:
    """The sheets of samples that the trials' last evaluations drew: ``samples_best.png``, ...

    ``called``: what titles call a trial instead of its role, by number.
    """
    store, found = open_store(storage), []
    for role, trial in chosen:
        title = f"Samples of {'trial' if role != 'base' else 'the base, trial'} {trial.number}"
        said = called.get(trial.number, role)
        title += "" if said == "base" else f" ({said})"
        folder = JobFolder(store, trial.job_id)
        sheet = store.get(folder.key(f"pictures/step_{task.rungs[-1]:08d}/{SAMPLES}"))
        alt = f"{title}, from the same seeds as those of the other trials"
        found.append(SearchPicture(f"samples_{role}.png", sheet, title, alt, photo=True))
    return found


def _strip(
    task: SearchTask,
    role: str,
    trial: Trial,
    x0: torch.Tensor,
    storage: str,
    sampler: str,
    until: float,
) -> Strip | None:
    loaded = load_checkpoint(f"{storage}/jobs/{trial.job_id}@step={task.rungs[-1]}")
    D, T = loaded.degradation, loaded.degradation.num_timesteps
    images = open_second_set(D, task.base.augment)
    omega = D.draw(1, rng=streams(task.job.seed, "search/strip", range(1)), images=images)
    state = D.observe(x0, torch.full((1,), T), omega)
    states = {T: state}
    R = for_inference(loaded.restorer)
    for step in sample_steps(R, D, state, omega, sampler=sampler):
        states[step.s] = step.x_s
        if time.monotonic() > until:
            return None
    severities = [round(place * T) for place in PLACES]
    degraded = [D.degrade(x0, torch.full((1,), t), omega) for t in severities]
    nearest = [min((abs(s - t), s) for s in states)[1] for t in severities]
    return Strip(
        role,
        trial.number,
        eight_bit(torch.cat(degraded)),
        eight_bit(torch.cat([states[t] for t in nearest])),
    )


def measured_importance(
    task: SearchTask, states: Sequence[TrialState], axes: Sequence[SearchAxis]
) -> Importance | None:
    """At the highest rung that ``FEWEST_TRIALS`` trials reached; None where there are too few."""
    rungs = [
        rung
        for rung in task.rungs
        if sum(rung in state.values for state in states) >= FEWEST_TRIALS
    ]
    if not rungs or len(axes) < 2:
        return None
    # optuna takes a second to import.
    from colddiff.verbs.search.points.optuna_importance import importance_of_fields

    history = observations(states, task.rungs)
    labels = [axis.label for axis in axes]
    return importance_of_fields(task.space, labels, history, rungs[-1], task.job.seed)


def _train_job(trial: Trial) -> TrainJob:
    return cast("TrainJob", parse(VERBS["train"].spec(), trial.job, f"trial {trial.number}"))


def _with_unit(job: TrainJob, name: str) -> str:
    marks = type(job.degradation).model_fields[name].metadata
    units = [mark.name for mark in marks if isinstance(mark, Unit)]
    return f"{name} ({units[0]})" if units else name
