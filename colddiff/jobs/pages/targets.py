"""The published numbers that the recipe of a job aims at, and where the job departs from it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from colddiff.errors import ColddiffError
from colddiff.jobs.folder import JobFolder
from colddiff.jobs.listing.ids import slugify
from colddiff.jobs.recipes import Recipe, list_recipes, load_recipe
from colddiff.jobs.verb import VERBS
from colddiff.report.differences import OPERATION, differing_fields
from colddiff.spec import parse

AGREEING = {"data", "test_data", "seed", "plugins"} | OPERATION - {"num_steps", "evaluation"}
"""Fields that leave a training the recipe's: where the images are, how it is run, its seed."""
MEASURED_BY = ("num_images", "severities")
"""Fields of ``evaluation`` that decide what a number is of; its features are named beside it."""
_OF_JOB = re.compile(r"/jobs/([^/]+)(?:/checkpoints/step_\d+)?/?(?:@.*)?$")

Unlike = dict[str, tuple[Any, Any]]


def targets_of(folder: JobFolder, job: Mapping[str, Any]) -> tuple[dict[str, Any], Unlike]:
    """Published numbers of the recipe that ``job`` was submitted from, known by its slug.

    And by path the fields in which its training differs from the recipe's, or from the nearest of
    its variants: its own value and the recipe's.
    """
    names = [name for name in list_recipes() if slugify(name) == job.get("slug")]
    if not names:
        return {}, {}
    plain = load_recipe(names[0])
    recipes = [plain, *(load_recipe(names[0], variant) for variant in plain.variants)]
    trained = _trained(folder, job)
    found = [(_unlike(trained, recipe) if trained else {}, recipe) for recipe in recipes]
    unlike, nearest = min(found, key=lambda one: len(one[0]))
    return dict(nearest.targets or {}), unlike


def _trained(folder: JobFolder, job: Mapping[str, Any]) -> Mapping[str, Any]:
    """The spec of the training behind a job; empty where it is not in the same STORAGE."""
    spec = job.get("spec") or {}
    if job.get("verb") == "train":
        return dict(spec)
    of = _OF_JOB.search(str(spec.get("checkpoint") or ""))
    try:
        return dict(JobFolder(folder.store, of[1]).job().get("spec") or {}) if of else {}
    except ColddiffError:
        return {}


def _unlike(trained: Mapping[str, Any], recipe: Recipe) -> Unlike:
    if "train" not in recipe.sections:
        return {}
    own, wanted = _compared(trained), _compared(recipe.train.to_dict())
    # Of an unlike kind only its name is told: the fields of two kinds are others.
    kinds = {
        name: (own[name].get("kind"), wanted[name].get("kind"))
        for name in own.keys() & wanted.keys()
        if isinstance(own[name], Mapping) and isinstance(wanted[name], Mapping)
    }
    for name, (kind, other) in kinds.items():
        if kind != other:
            own[name], wanted[name] = {"kind": kind}, {"kind": other}
    ours, theirs = differing_fields([own, wanted], AGREEING)
    return {path: (ours[path], theirs[path]) for path in ours}


def _compared(spec: Mapping[str, Any]) -> dict[str, Any]:
    """A training's fields with their defaults, of its evaluation what decides its numbers."""
    try:
        found = parse(VERBS["train"].spec(), dict(spec)).to_dict()
    except ColddiffError:  # of a plugin that is not loaded, or of another version
        found = dict(spec)
    evaluation = found.get("evaluation") or {}
    return {**found, "evaluation": {name: evaluation.get(name) for name in MEASURED_BY}}
