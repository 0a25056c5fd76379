"""What a study stands for, and what is refused before anything starts, naming the field."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from colddiff.errors import SpecError
from colddiff.jobs.attempt import Attempt
from colddiff.jobs.recipes import list_recipes, load_recipe
from colddiff.jobs.resolve import identified, resolve
from colddiff.jobs.runner import Capacity
from colddiff.jobs.segments.segment import resolved_segment
from colddiff.jobs.status import hours_text
from colddiff.jobs.verb import VERBS
from colddiff.spec import parse
from colddiff.stores.open import open_store
from colddiff.verbs.study.job import StudyJob
from colddiff.verbs.study.members import Trainings, members_of
from colddiff.verbs.study.written import written_trainings
from tests.in_process import colddiff_here
from tests.unit.study.tiny_study import LR, TRAIN, tiny_study, write_study

OWN = '''
"""A blur of the user's own."""

from typing import Literal

from colddiff.degradations import DEGRADATIONS
from colddiff.degradations.blur import BlurSpec


@DEGRADATIONS.register
class OwnBlurSpec(BlurSpec):
    """Severity t is t chained Gaussian blurs."""

    kind: Literal["own_blur"] = "own_blur"
'''


def study_of(**fields: Any) -> StudyJob:
    return parse(StudyJob, tiny_study(**fields), "study")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"jobs": []}, r"^study\.jobs: is empty: name at least one"),
        ({"jobs": "quickstart"}, r"^study\.jobs: write a list of recipes"),
        ({"jobs": [{"recipes": "quickstart"}]}, r"^study\.jobs\[0\]\.recipes: no such field; did"),
        ({"jobs": ["quickstart", 3]}, r"^study\.jobs\[1\]: expected a mapping of fields, got 3"),
        ({"jobs": [{"overrides": 3}]}, r"^study\.jobs\[0\]\.overrides: write \{path: value\} or"),
        ({"jobs": ["quikstart"]}, r"^jobs\[0\]\.recipe: no recipe 'quikstart'; did you mean 'quic"),
        ({"jobs": ["search/calls-digits"]}, r"^jobs\[0\]\.recipe: .* has no train section"),
        ({"jobs": [{}]}, r"^jobs\[0\]: names neither a recipe nor a train section"),
        (
            {"jobs": [{"recipe": "quickstart", "train": {}}]},
            r"^study\.jobs\[0\]\.train: is given b",
        ),
        ({"jobs": [{"variant": "paper"}]}, r"^study\.jobs\[0\]\.variant: needs a recipe"),
        (
            {"jobs": ["quickstart", {"recipe": "quickstart", "overrides": {LR: -1}}]},
            r"^jobs\[1\]\.overrides\.optimizer\.lr: input should be greater than 0",
        ),
        (
            {"jobs": [{"recipe": "quickstart", "overrides": {"optimizer": {"lt": 1}}}]},
            r"^jobs\[0\]\.overrides\.optimizer\.lt: no such field; did you mean 'lr'",
        ),
        (
            {"jobs": [{"recipe": "quickstart", "overrides": ["optimizer.lr"]}]},
            r"^jobs\[0\]\.overrides: 'optimizer\.lr' is not an override; use key=value",
        ),
        (
            {"jobs": [{"train": {**TRAIN, "num_steps": 0}}]},
            r"^jobs\[0\]\.train\.num_steps: input should be greater",
        ),
        ({"num_steps": 5}, r"^study\.num_steps: no such field; did you mean 'overrides.num_steps'"),
        ({"overrides": {"los": "l2"}}, r"^overrides\.los: no such field; did you mean 'loss'"),
        ({"overrides": {"seed": 3}}, r"^overrides\.seed: is set by `seeds`"),
        (
            {"jobs": [{"train": TRAIN, "overrides": ["seed=3"]}]},
            r"^jobs\[0\]\.overrides\.seed: is set by `seeds`",
        ),
        (
            {"overrides": {"limits.hours": 1}},
            r"^overrides\.limits: is the study's to set, for all its jobs together",
        ),
        ({"seeds": []}, r"^study\.seeds: is empty"),
        ({"seeds": 0}, r"^study\.seeds: a number of seeds is 1 to 1000, got 0"),
        ({"seeds": True}, r"^study\.seeds: "),
        ({"seeds": [1, 1]}, r"^study\.seeds: names a seed twice: \[1, 1\]"),
        ({"seeds": [-1]}, r"^study\.seeds\.0: input should be greater than or equal to 0"),
        ({"seeds": 2000}, r"^study\.seeds: a number of seeds is 1 to 1000"),
        ({"seeds": [0] * 1001}, r"^study\.seeds: names 1,001 seeds"),
    ],
)
def test_a_bad_study_is_refused_by_the_field(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        written_trainings(study_of(**fields))


def test_a_study_without_jobs_is_of_the_file_s_own_training() -> None:
    recipe = load_recipe("quickstart")
    study = VERBS["study"].completed(recipe.job("study", ["seeds=2"]), recipe)
    assert isinstance(study, StudyJob)
    assert written_trainings(study) == [("quickstart", recipe.train)]
    with pytest.raises(SpecError, match=r"^jobs: is required: name recipes"):
        written_trainings(parse(StudyJob, {"seeds": 2}))


@pytest.mark.parametrize("fields", [{}, {"seeds": None}])
def test_without_seeds_each_job_keeps_its_own(fields: dict[str, Any]) -> None:
    assert parse(StudyJob, {"jobs": [{"train": TRAIN}], **fields}).seeds is None


def test_nothing_is_written_for_a_bad_study(
    storage: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = sorted(storage.rglob("*"))
    for entries, field in (
        ([{}, {"overrides": {"optimizer.lt": 1}}], "jobs[1].overrides.optimizer.lt: no such field"),
        (["paper/deblur-mnist"], "jobs[0].overrides.data: is required"),
    ):
        job = write_study(tmp_path / "tiny.yaml", jobs=entries)
        wrong = colddiff_here(monkeypatch, capsys, "submit", "study", job, "--local")
        assert (wrong.returncode, wrong.stdout) == (2, "")
        assert wrong.stderr.startswith(f"colddiff: error: {field}")
    assert sorted(storage.rglob("*")) == before


def test_the_same_training_twice_is_refused(storage: Path, packed: dict[str, str]) -> None:
    train = {**TRAIN, **packed}
    entries = [{"train": train}, {"train": train, "overrides": {"num_steps": 9, "log_every": 1}}]
    with pytest.raises(
        SpecError, match=r"^jobs\[1\]: is the same training as jobs\[0\], train-job"
    ):
        resolve(study_of(jobs=entries), "twice")
    written = study_of(trainings=[{"id": "train-x", "slug": "x", "train": {}}])
    with pytest.raises(SpecError, match=r"^trainings: is written when a study is submitted"):
        resolve(written, "written")
    assert not list(open_store(str(storage)).folders("jobs/"))


@pytest.mark.usefixtures("unloaded_plugins")
def test_members_have_the_ids_of_the_same_jobs_submitted_alone(
    storage: Path, tmp_path: Path, packed: dict[str, str]
) -> None:
    (tmp_path / "own.py").write_text(OWN)
    (tmp_path / "mine.yaml").write_text(
        json.dumps({"name": "my own", "train": {**TRAIN, **packed}})
    )
    own = {"degradation": {**TRAIN["degradation"], "kind": "own_blur"}, "plugins": ["own.py"]}
    entries = [
        "mine.yaml",
        {"recipe": "quickstart", "overrides": {**packed, "ema": {"decay": 0.9}}},
        {"train": {**TRAIN, **packed, **own}, "name": "Blur"},
    ]
    (tmp_path / "study.yaml").write_text(json.dumps({"study": {"jobs": entries, "seeds": [4, 2]}}))
    recipe = load_recipe(tmp_path / "study.yaml")
    study = resolve(VERBS["study"].completed(recipe.job("study"), recipe), "s")
    members = members_of(study.job_as(StudyJob))
    assert [(m.slug, m.job.seed) for m in members] == [
        (slug, seed) for slug in ("my-own", "quickstart", "blur") for seed in (4, 2)
    ]
    assert not any(member.differs for member in members)

    def alone(path: Path | str, words: list[str], slug: str) -> str:
        job = load_recipe(path).job("train", words)
        return identified(job, slug, str(storage), pack=True)[2]

    (tmp_path / "blur.yaml").write_text(json.dumps({"train": {**TRAIN, **packed, **own}}))
    given = [f"{name}={uri}" for name, uri in packed.items()]
    assert members[0].id == alone(tmp_path / "mine.yaml", ["seed=4"], "my own")
    assert members[3].id == alone("quickstart", [*given, "ema.decay=0.9", "seed=2"], "quickstart")
    assert members[4].id == alone(tmp_path / "blur.yaml", ["seed=4"], "blur")
    assert len(study.job.plugins) == 1
    # Of the checkout where it was submitted: its driver may run where there is none.
    study = replace(study, git={"commit": "of the client", "dirty": False})
    attempt = Attempt(study, 1)
    study.folder.write_job(study.to_dict())
    trainings = Trainings(attempt, members)
    for member in members:
        segment = trainings.next()
        assert segment is not None
        found = resolved_segment(segment, study)
        assert found.id == member.id
        assert len(found.job.plugins) == (member.slug == "blur")
        assert found.job.tracking.parent == study.id
        assert found.git == study.git

    # The same trainings are the same study, however they are written.
    full: list[dict[str, Any]] = [
        {"train": {**m.data, **own_plugins(m.slug, tmp_path)}, "name": m.slug} for m in members[::2]
    ]
    full = [{**entry, "train": {**entry["train"], "seed": 0}} for entry in full]
    assert resolve(parse(StudyJob, {"jobs": full, "seeds": [4, 2]}), "s").id == study.id
    other = parse(StudyJob, {"jobs": full, "seeds": [2, 4, 6]})
    assert resolve(other, "s").id != study.id


def own_plugins(slug: str, folder: Path) -> dict[str, Any]:
    return {"plugins": [str(folder / "own.py")] if slug == "blur" else []}


def test_a_dry_run_says_what_it_takes_and_can_be_submitted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    job = write_study(tmp_path / "tiny.yaml", seeds=3, overrides={"num_steps": 10})
    words = ("--dry-run", "--rate", "8")
    dry = colddiff_here(monkeypatch, capsys, "submit", "study", job, *words)
    assert dry.returncode == 0, dry.stderr
    assert "tiny optimizer.lr=0.002, seed 0, 1, 2: 10 steps each\n" in dry.stderr
    assert "6 jobs (2 x 3 seeds), 60 steps and " in dry.stderr
    hours = 60 * 8 / 8 / 3600
    assert f"{hours_text(hours)} one after the other" in dry.stderr
    (tmp_path / "again.yaml").write_text(dry.stdout)
    recipe = load_recipe(tmp_path / "again.yaml")
    again = VERBS["study"].completed(recipe.job("study"), recipe)
    assert isinstance(again, StudyJob)
    recipe = load_recipe(job)
    first = VERBS["study"].completed(recipe.job("study"), recipe)
    assert isinstance(first, StudyJob)
    assert written_trainings(again) == written_trainings(first)
    told = colddiff_here(monkeypatch, capsys, "submit", "study", job, *words, "--json")
    data = json.loads(told.stdout)
    assert (len(data["members"]), data["total"]["steps"]) == (6, 60)
    assert data["total"]["flops"] == pytest.approx(6 * data["members"][0]["estimate"]["flops"])
    assert data["total"]["hours"] == pytest.approx(hours)
    each = [member["estimate"]["evaluations"] for member in data["members"]]
    assert (each, data["total"]["evaluations"]) == ([1] * 6, 6)
    assert "; besides, 6 evaluations" in dry.stderr


@pytest.mark.parametrize("name", [name for name in list_recipes() if name.startswith("study/")])
def test_every_study_of_the_catalogue_stands_for_trainings(name: str) -> None:
    recipe = load_recipe(name)
    study = VERBS["study"].completed(recipe.job("study"), recipe)
    assert isinstance(study, StudyJob)
    written = written_trainings(study)
    assert len(written) == len(study.jobs)
    assert all(train.data is not None for _, train in written)
    assert set(yaml.safe_load(yaml.safe_dump(study.to_dict()))) >= {"jobs", "seeds"}


def test_a_cluster_without_room_for_one_of_them_is_refused(
    storage: Path, packed: dict[str, str]
) -> None:
    train = {**TRAIN, **packed}
    entries = [
        {"train": train},
        {"train": train, "overrides": {LR: 1, "resources.cpus": 8}},
        {"train": {**train, "workers": 5, "loss": "l2"}},
    ]
    verb, small = VERBS["study"], Capacity(({"CPU": 4.0},))
    job = resolve(study_of(jobs=entries), "s").job
    verb.check_capacity(job, lambda: None)
    with pytest.raises(SpecError, match=r"^jobs\[1\]\.overrides\.resources\.cpus: job needs CPU 8"):
        verb.check_capacity(job, lambda: small)
    job = resolve(study_of(jobs=entries[::2]), "s").job
    with pytest.raises(SpecError, match=r"^jobs\[1\]\.train\.workers: job needs 5 workers"):
        verb.check_capacity(job, lambda: small)
    verb.check_capacity(job, lambda: Capacity(({"CPU": 8.0},)))


def test_an_override_that_an_entry_sets_itself_is_said_to_have_no_effect() -> None:
    entries = [{"train": TRAIN, "overrides": {LR: 1e-3}}, {"train": TRAIN, "name": "b"}]
    job = parse(StudyJob, tiny_study(jobs=entries, overrides={LR: 1e-2, "num_steps": 3}))
    line = f"overrides.{LR}: not used by jobs.0, whose own overrides name it: "
    line += f"set jobs.0.overrides.{LR}"
    assert [said for said in VERBS["study"].dry_run(job, None).lines if "not used" in said] == [
        line
    ]
    assert VERBS["study"].advice(job, lambda: None)[0] == line
