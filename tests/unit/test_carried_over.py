"""Evaluation jobs made from a training's evaluation: each of its fields is taken or left out."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import yaml

from colddiff.evaluation.spec import OF_TRAININGS, EvaluationSpec, carried_over
from colddiff.spec import parse
from colddiff.verbs.evaluate.job import EvaluateJob
from colddiff.verbs.search.pictures.fewer_calls import evaluation_of
from colddiff.verbs.search.severities.best import best_yaml
from colddiff.verbs.search.severities.lists import SeverityList
from tests.unit.search.bases import train_job

SETTINGS: dict[str, Any] = {
    "features": {"kind": "inception"},
    "num_images": 40,
    "samplers": ["direct", "improved"],
    "severities": 4,
    "batch_size": 8,
    "seed": 3,
    "curve": [1, 2],
    "precision": "bf16",
    "generated": {"num_images": 8},
    "best": "eval/sampled/rmse",
}
"""Another value than the default for every field of a training's evaluation."""


def trained() -> Any:
    return train_job(evaluation=SETTINGS)


def kept(job: EvaluateJob, *changed: str) -> None:
    """Asserts that ``job`` has the settings that carry over, but for those ``changed``."""
    expected = carried_over(trained().evaluation.to_dict())
    found = job.to_dict()
    assert {k: found[k] for k in expected if k not in changed} == {
        k: v for k, v in expected.items() if k not in changed
    }


def test_every_field_is_of_both_or_named_as_one_of_trainings() -> None:
    assert SETTINGS.keys() == EvaluationSpec.model_fields.keys()
    shared = EvaluationSpec.model_fields.keys() & EvaluateJob.model_fields.keys()
    assert shared == EvaluationSpec.model_fields.keys() - set(OF_TRAININGS)
    evaluation, defaults = trained().evaluation, EvaluationSpec()
    assert [k for k in SETTINGS if getattr(evaluation, k) == getattr(defaults, k)] == []


def test_fewer_calls_keep_the_settings_of_the_trial() -> None:
    job = evaluation_of(trained().to_dict(), "runs/jobs/x@step=4", "images", 2, "trial 0")
    assert isinstance(job, EvaluateJob)
    kept(job, "samplers", "severities", "curve")
    assert (job.samplers, job.severities, job.curve) == (("improved",), 2, None)


def test_best_yaml_of_lists_keeps_the_settings_of_the_training() -> None:
    chosen = SeverityList((6, 3, 0), "improved")
    best = SimpleNamespace(budget=2, state=SimpleNamespace(trial=SimpleNamespace(chosen=chosen)))
    base = SimpleNamespace(checkpoint="runs/jobs/x@step=4", test_data="images")
    task = SimpleNamespace(base=base, trained=trained())
    text = best_yaml(cast("Any", task), cast("Any", [best]), draws=False)
    job = parse(EvaluateJob, yaml.safe_load(text)["evaluate"], "best.yaml")
    kept(job, "samplers", "severities", "curve")
    assert job.severities == (6, 3, 0)
