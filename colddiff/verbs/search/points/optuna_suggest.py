"""Suggestions by Optuna's tree-structured Parzen estimator, from a study rebuilt each time."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import FrozenTrial, create_trial

from colddiff.spec import canonical_json

if TYPE_CHECKING:
    from colddiff.verbs.search.points.space import Dimension, Point
    from colddiff.verbs.search.points.suggest import Observation

STARTUP_TRIALS = 4
"""Points drawn at random before the model is used; Optuna's own 10 would be most of a search."""
REDRAW_STRIDE = 1_000_000_007


def tpe_point(
    space: Sequence[Dimension],
    seed: int,
    number: int,
    history: Sequence[Observation],
    *,
    redraw: int = 0,
    lower_is_better: bool = True,
) -> Point:
    """The point of trial ``number``: the same in every process for the same arguments.

    Nothing of Optuna's is stored: its study lives as long as this call. A trial at a lower rung is
    told as pruned there, one without a result as running, so that points near it are avoided.
    A point outside the space, such as the base's may be, tells the model nothing.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    sampler = optuna.samplers.TPESampler(
        seed=(seed * 1_000_003 + number + redraw * REDRAW_STRIDE) % 2**32,
        n_startup_trials=STARTUP_TRIALS,
        multivariate=True,
        constant_liar=True,
    )
    study = optuna.create_study(
        storage=optuna.storages.InMemoryStorage(),
        sampler=sampler,
        direction="minimize" if lower_is_better else "maximize",
    )
    distributions = {dimension.path: distribution_of(dimension) for dimension in space}
    for observation in history:
        told = _told(observation, space, distributions)
        if told is not None:
            study.add_trial(told)
    asked = study.ask(fixed_distributions=distributions).params
    return {dimension.path: _value(dimension, asked[dimension.path]) for dimension in space}


def distribution_of(dimension: Dimension) -> BaseDistribution:
    """The dimension as Optuna has it; a choice by its index."""
    if dimension.choices is not None:
        # By index: a choice may be anything that JSON holds, Optuna takes scalars.
        return CategoricalDistribution(range(len(dimension.choices)))
    if dimension.integer:
        low, high = math.ceil(dimension.low), math.floor(dimension.high)
        return IntDistribution(low, high, log=dimension.log)
    return FloatDistribution(dimension.low, dimension.high, log=dimension.log)


def _value(dimension: Dimension, param: Any) -> Any:
    if dimension.choices is not None:
        return dimension.choices[param]
    return dimension.rounded(param)


def _told(
    observation: Observation,
    space: Sequence[Dimension],
    distributions: dict[str, BaseDistribution],
) -> FrozenTrial | None:
    params = params_of(observation.point, space)
    if params is None:
        return None
    states = optuna.trial.TrialState
    state = {
        "asked": states.RUNNING,
        "measured": states.PRUNED,
        "done": states.COMPLETE,
        "failed": states.FAIL,
    }[observation.outcome]
    values = observation.values
    return create_trial(
        state=state,
        params=params,
        distributions=distributions,
        value=values[max(values)] if observation.outcome == "done" else None,
        intermediate_values=dict(values),
    )


def params_of(point: Mapping[str, Any], space: Sequence[Dimension]) -> dict[str, Any] | None:
    """A point in terms of ``distribution_of``; None where it lies outside the space."""
    params: dict[str, Any] = {}
    for dimension in space:
        if dimension.path not in point:
            return None
        value = point[dimension.path]
        if dimension.choices is not None:
            known = [canonical_json(choice) for choice in dimension.choices]
            if canonical_json(value) not in known:
                return None
            params[dimension.path] = known.index(canonical_json(value))
        elif dimension.low <= value <= dimension.high:
            params[dimension.path] = value
        else:
            return None
    return params
