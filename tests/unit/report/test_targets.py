"""The paper's numbers beside a job of its recipe: only of the recipe as it is do they compare."""

from __future__ import annotations

from typing import Any

import pytest

from colddiff.jobs.folder import JobFolder
from colddiff.jobs.pages.targets import targets_of
from colddiff.jobs.recipes import list_recipes, load_recipe
from colddiff.report.page.paper import paper_lines
from colddiff.report.page.run import ReportedRun
from colddiff.stores.memory_store import MemoryStore

RECIPE = "paper/deblur-mnist"
FID = "paper: fid 4.69 sampled, 5.10 direct (Inception features"


def unlike(spec: dict[str, Any], verb: str = "train", trained: Any = None) -> dict[str, Any]:
    store = MemoryStore()
    if trained is not None:
        JobFolder(store, "train-x-00000000").write_job(
            {"id": "train-x-00000000", "verb": "train", "slug": "x", "spec": trained}
        )
    job = {"verb": verb, "slug": "paper-deblur-mnist", "spec": spec}
    targets, found = targets_of(JobFolder(store, "a"), job)
    assert targets["eval/sampled/fid"] == 4.69
    return found


def spec_of(*overrides: str, variant: str | None = None) -> dict[str, Any]:
    return load_recipe(RECIPE, variant).job("train", overrides).to_dict()


def test_a_training_that_is_the_recipes_or_a_variants_compares() -> None:
    runs_otherwise = ("seed=3", "data=s3://b/mnist", "workers=4", "keep=9", "resources.gpus=1")
    for spec in (spec_of(), spec_of(*runs_otherwise), spec_of(variant="paper")):
        assert unlike(spec) == {}
    older = {name: value for name, value in spec_of().items() if name != "precision"}
    assert unlike(older) == {}, "of a version that had not this field"


def test_what_was_shrunken_is_named() -> None:
    fewer = spec_of("num_steps=300", "restorer.dim=16", "evaluation.num_images=100")
    found = unlike(fewer)
    assert found == {
        "restorer.dim": (16, 64),
        "num_steps": (300, 700000),
        "evaluation.num_images": (100, None),
    }
    run = ReportedRun("a", "train", "", {}, "done", targets=load_recipe(RECIPE).targets or {})
    assert paper_lines([run]) == [f"{FID})"]
    shrunken = ReportedRun("a", "train", "", {}, "done", targets=run.targets, unlike=found)
    (line,) = paper_lines([shrunken])
    why = "not comparable, as the training is not the recipe's"
    assert line.startswith(f"{FID}; {why}: restorer.dim=16 (recipe: 64), num_steps=300 (recipe: 7")
    other = spec_of("restorer={kind: ddpm_unet}")
    assert unlike(other) == {"restorer.kind": ("ddpm_unet", "convnext_unet")}


def test_an_evaluation_is_of_the_training_that_it_names() -> None:
    checkpoint = {"checkpoint": "/runs/jobs/train-x-00000000/checkpoints/step_00000300"}
    assert unlike(checkpoint, "evaluate", spec_of("num_steps=300")) == {"num_steps": (300, 700000)}
    assert unlike(checkpoint, "evaluate", spec_of()) == {}
    assert unlike(checkpoint, "evaluate") == {}, "a training of elsewhere is not known"


@pytest.mark.parametrize("name", [name for name in list_recipes() if load_recipe(name).targets])
def test_each_recipe_with_targets_is_like_itself(name: str) -> None:
    spec = load_recipe(name).train.to_dict()
    job = {"verb": "train", "slug": name.replace("/", "-"), "spec": spec}
    targets, found = targets_of(JobFolder(MemoryStore(), "a"), job)
    assert targets
    assert found == {}
