"""Recipes: all of the catalogue are valid with all variants; bad files are refused clearly."""

from __future__ import annotations

import re
from pathlib import Path
from typing import cast

import pytest

from colddiff.errors import SpecError
from colddiff.jobs.recipes import catalogue, list_recipes, load_recipe
from colddiff.spec import parse
from colddiff.stores.open import open_store
from colddiff.verbs.study.job import StudyJob
from colddiff.verbs.study.written import written_trainings
from tests.conftest import S3Service

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("name", list_recipes())
def test_every_recipe_and_variant_is_valid(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.description
    assert recipe.sections
    for variant in (None, *recipe.variants):
        chosen = load_recipe(name, variant)
        assert all(chosen.job(verb) for verb in chosen.sections)
        if "train" in chosen.sections:
            # Spells out what the job cannot: how to get the data it does not bring.
            assert chosen.train.data is not None or recipe.pack


@pytest.mark.parametrize("name", list_recipes())
def test_what_was_measured_with_a_recipe_stands_on_the_page_that_it_names(name: str) -> None:
    text = (catalogue() / f"{name}.yaml").read_text()
    measured = load_recipe(name).measured
    assert (measured is None) == ("\nmeasured:\n" not in text)
    if measured is None:
        return
    page, _, section = str(measured["source"]).partition(", ")
    written = (ROOT / page).read_text()
    assert f"## {section.split(chr(34))[1]}" in written
    # In a block of commands, where a comment may follow it.
    assert re.search(rf"^{re.escape(measured['command'])}(?: |$)", written, re.M)
    numbers = re.findall(r": (-?\d+(?:\.\d+)?)(?=[,}\n])", text.partition("\nmeasured:\n")[2])
    assert len(numbers) > 3
    known = set(re.findall(r"-?\d+(?:\.\d+)?", written))
    assert [number for number in numbers if number not in known] == []


def test_the_small_inpainting_is_that_of_the_study_that_measured_it() -> None:
    members = cast(StudyJob, load_recipe("study/paper-restoration-seeds").job("study"))
    (written,) = [job for name, job in written_trainings(members) if name == "inpaint-mnist"]
    overrides = ["data=mnist:MNIST", "precision=bf16", "num_steps=300", "evaluation.num_images=300"]
    assert load_recipe("cpu/inpaint-mnist").job("train", overrides) == written


def test_overrides_reach_the_job(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("train: {seed: 3}\nvariants: {v: {train: {seed: 4, num_steps: 7}}}\n")
    assert load_recipe(path).train.seed == 3
    assert load_recipe(path, "v").train.num_steps == 7
    job = load_recipe(path).job("train", ["optimizer.lr=1e-3"])
    assert job.model_dump()["optimizer"]["lr"] == 1e-3
    assert load_recipe(path).name == "mine"


def test_a_variant_of_another_kind_replaces_it_whole(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(
        "train: {degradation: {kind: blur, sigma: {kind: constant, value: 2}}}\n"
        "variants: {v: {train: {degradation: {sigma: {kind: linear, start: 1, step: 1}}}}}\n"
    )
    assert load_recipe(path, "v").train.degradation.to_dict()["sigma"] == {
        "kind": "linear",
        "start": 1.0,
        "step": 1.0,
        "end": None,
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("train: [", "line 1: not YAML"),
        ("- a", "expected sections"),
        ("tarin: {}", "no section 'tarin'; did you mean 'train'?"),
        ("data: digits\nnum_steps: 3", "no section 'data'; put fields below `train:`"),
        ("# nothing yet\n", "bad.yaml: is empty; write a job's fields below its section"),
        ("train: 3", "train: expected a mapping of fields, got 3"),
        ("train: {}\ntargets: 3", "targets: expected numbers by name, got 3"),
        ("train: {}\nmeasured: [1]", "measured: expected numbers by name, got"),
    ],
)
def test_a_bad_file_is_one_clear_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(SpecError, match=message.replace("?", r"\?")):
        _ = load_recipe(path).train


def test_a_mistyped_job_file_points_to_the_one_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in (Path(), Path("jobs")):
        folder.mkdir(exist_ok=True)
        (folder / "blur.yaml").write_text("train: {}")
        with pytest.raises(SpecError) as caught:
            load_recipe(folder / "bler.yaml")
        assert f"; did you mean '{folder / 'blur.yaml'}'? (" in str(caught.value)
    for unlike in ("jobs/snow.yaml", "away/bler.yaml"):
        with pytest.raises(SpecError, match="no job file") as caught:
            load_recipe(unlike)
        assert "blur.yaml" not in str(caught.value)


def test_a_recipe_is_shown_in_one_line() -> None:
    recipe = load_recipe("quickstart")
    shown = repr(recipe)
    assert shown.startswith("Recipe(quickstart: train")
    assert all(name in shown for name in (*recipe.sections, *recipe.variants))
    assert len(shown.splitlines()) == 1


def test_unknown_names_point_to_the_nearest() -> None:
    with pytest.raises(SpecError, match="did you mean 'quickstart'"):
        load_recipe("quikstart")
    with pytest.raises(SpecError, match=r"no job file 'missing\.yaml'"):
        load_recipe("missing.yaml")
    with pytest.raises(SpecError, match="no variant 'paper'"):
        load_recipe("quickstart", "paper")


def test_a_job_file_may_be_in_a_bucket_as_that_of_a_search_is(s3_service: S3Service) -> None:
    place = f"s3://{s3_service.new_bucket()}/jobs/search-x"
    store = open_store(place)

    def written(text: str) -> str:
        store.put("best.yaml", text.encode())
        return f"{place}/best.yaml"

    with pytest.raises(SpecError, match="no job file 's3://"):
        load_recipe(f"{place}/best.yaml")
    uri = written("train: {seed: 3}\nvariants: {v: {train: {seed: 4}}}\n")
    assert (load_recipe(uri).name, load_recipe(uri).train.seed) == ("best", 3)
    assert load_recipe(uri, "v").train.seed == 4
    study = parse(StudyJob, {"jobs": [uri]})
    assert [job.seed for _, job in written_trainings(study)] == [3]
    for text in ("train: {plugins: [mine.py]}", "study: {jobs: [other.yaml]}"):
        with pytest.raises(SpecError, match="is relative to its job file, which is in a store"):
            load_recipe(written(text))
    assert load_recipe(written(f"study: {{jobs: ['{place}/a.yaml', quickstart]}}")).sections
    store.put("best.yaml", b"\xff\xfe\xff")
    with pytest.raises(SpecError, match=r"best\.yaml.*not UTF-8"):
        load_recipe(uri)
