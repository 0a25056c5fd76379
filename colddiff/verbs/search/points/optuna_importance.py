"""How much of the metric each searched field explains: fANOVA, with its spread over resamples."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import optuna
from optuna.importance import FanovaImportanceEvaluator
from optuna.trial import FrozenTrial, create_trial

from colddiff.report.search.results import Importance
from colddiff.rng import stream
from colddiff.verbs.search.points.optuna_suggest import distribution_of, params_of

if TYPE_CHECKING:
    from colddiff.verbs.search.points.space import Dimension
    from colddiff.verbs.search.points.suggest import Observation

RESAMPLES = 20
TREES = 32


def importance_of_fields(
    space: Sequence[Dimension],
    labels: Sequence[str],
    history: Sequence[Observation],
    step: int,
    seed: int,
) -> Importance | None:
    """Shares of the variance at rung ``step`` over the points of the space measured there.

    Hutter et al. 2014 (fANOVA), on all of them and on bootstrap resamples, of which 5 % and 95 %
    are given. None where the values do not vary, or fewer than two points lie in the space.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    trials = _trials(space, history, step)
    if len(trials) < 2 or len({trial.value for trial in trials}) < 2:
        return None
    paths = [dimension.path for dimension in space]
    whole = _shares(trials, paths, seed)
    draws = []
    for number in range(RESAMPLES):
        rng = stream(seed, "search/importance", number)
        chosen = [trials[i] for i in rng.integers(0, len(trials), len(trials))]
        if len({trial.value for trial in chosen}) > 1:
            draws.append(_shares(chosen, paths, seed))
    shares = {}
    for label, path in zip(labels, paths, strict=True):
        spread = [draw[path] for draw in draws] or [whole[path]]
        low, high = np.percentile(spread, [5, 95])
        shares[label] = (whole[path], float(low), float(high))
    return Importance("fANOVA", step, len(trials), len(draws), shares)


def _trials(
    space: Sequence[Dimension], history: Sequence[Observation], step: int
) -> list[FrozenTrial]:
    distributions = {dimension.path: distribution_of(dimension) for dimension in space}
    found = []
    for observation in history:
        params = params_of(observation.point, space)
        if params is not None and step in observation.values:
            value = observation.values[step]
            found.append(create_trial(params=params, distributions=distributions, value=value))
    return found


def _shares(trials: Sequence[FrozenTrial], paths: Sequence[str], seed: int) -> dict[str, float]:
    study = optuna.create_study(storage=optuna.storages.InMemoryStorage())
    study.add_trials(trials)
    evaluator = FanovaImportanceEvaluator(n_trees=TREES, seed=seed % 2**32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # on resamples in which a field has a single value
        found = optuna.importance.get_param_importances(
            study, evaluator=evaluator, params=list(paths), normalize=True
        )
    # A field with a single value among the trials explains nothing.
    return {path: float(found.get(path, 0.0)) for path in paths}
