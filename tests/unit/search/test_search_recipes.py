"""The searches of the catalogue: their spaces, and falling, constant and rising paths in them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from colddiff.jobs.recipes import load_recipe
from colddiff.verbs.search.job import SearchJob
from colddiff.verbs.search.points.same_end import end_rmse, scaled_to_end
from colddiff.verbs.search.points.space import Dimension, base_point, job_at, search_space
from colddiff.verbs.search.settings import base_of, ranges_of
from colddiff.verbs.search.verb import VERB
from colddiff.verbs.train.job import TrainJob
from tests.unit.search.bases import training_searches

T, RATIO = "degradation.num_timesteps", "degradation.sigma.ratio"
RECIPES = training_searches()


def opened(name: str) -> tuple[SearchJob, TrainJob, dict[str, Dimension]]:
    recipe = load_recipe(name)
    job = VERB.completed(recipe.job("search"), recipe)
    base = base_of(job)
    space = search_space(base, job.over, ranges_of(job), job.compare)
    return job, base, {dimension.path: dimension for dimension in space}


@pytest.mark.parametrize("name", RECIPES)
def test_the_space_holds_the_base_and_paths_that_fall_rest_and_rise(name: str) -> None:
    _, base, space = opened(name)
    ratio = space[RATIO]
    assert ratio.low <= 0.2
    assert ratio.high >= 5
    point = base_point(base, list(space.values()))
    for path, dimension in space.items():
        if dimension.choices is not None:
            assert point[path] in dimension.choices
        else:
            assert dimension.low <= point[path] <= dimension.high, path
    for wanted, sign in ((0.2, -1), (1.0, 0), (5.0, 1)):
        job = job_at(base, {RATIO: wanted})
        sigma = job.degradation.to_dict()["sigma"]
        assert np.sign(sigma["end"] - sigma["start"]) == sign


@pytest.mark.parametrize("name", ["search/inpaint-mnist", "search/inpaint-celeba"])
def test_masks_on_any_path_reach_the_paper_s_end(name: str) -> None:
    """On noise: a mask removes a pixel whatever it holds, so that any image will do."""
    _, base, space = opened(name)
    D = base.degradation.build(base.shape)
    rng = torch.Generator().manual_seed(0)
    x0 = torch.rand(4, *base.shape.chw, generator=rng) * 2 - 1
    omega = D.draw(4, rng=rng)
    target = end_rmse(base, x0, omega)
    for severities in (int(space[T].low), int(space[T].high)):
        for ratio in (space[RATIO].low, 1.0, space[RATIO].high):
            point: dict[str, Any] = {T: severities, RATIO: ratio}
            found = scaled_to_end(base, point, target, x0, omega)
            assert found is not None, point
            assert found.rmse == pytest.approx(target, rel=1e-3)


def test_samples_are_compared_where_nothing_is_left() -> None:
    job, base, space = opened("search/fade-faces")
    assert (job.compare, base.evaluation.generated is None) == ("generation", False)
    # The size of the masks is free: the end does not fix it.
    assert "degradation.sigma.start" in space
