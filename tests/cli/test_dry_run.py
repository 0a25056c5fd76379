"""`submit --dry-run`: what it prints is a job file, and it looks at the data that the job names."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from colddiff.cli.submit import Request, read_job
from colddiff.data.open import pack_source
from colddiff.features.published import INCEPTION
from colddiff.jobs.listing.ids import slugify
from colddiff.jobs.recipes import load_recipe
from colddiff.jobs.verb import VERBS
from tests.forked import Forked, colddiff_main
from tests.in_process import Done, colddiff_here

UNREACHABLE = "http://127.0.0.1:9"
RECIPES = {
    "train": "quickstart",
    "evaluate": "quickstart",
    "generate": "quickstart",
    "search": "search/blur-digits",
    "study": "study/quickstart-seeds",
}


class Submit:
    """`colddiff submit` in a folder of its own."""

    def __init__(
        self, folder: Path, patch: pytest.MonkeyPatch, captured: pytest.CaptureFixture[str]
    ) -> None:
        self._patch, self._captured = patch, captured
        patch.chdir(folder)
        patch.setenv("COLDDIFF_STORAGE", str(folder / "runs"))
        patch.setenv("AWS_ENDPOINT_URL", UNREACHABLE)
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patch.setenv(name, "none")

    def __call__(self, *words: str) -> Done:
        return colddiff_here(self._patch, self._captured, "submit", *words)


@pytest.fixture
def submit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Submit:
    return Submit(tmp_path, monkeypatch, capsys)


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Packed digits of 16 px, grey: as many as a search can part."""
    uri = str(tmp_path_factory.mktemp("packed"))
    pack_source("digits", uri, split="train", image_size=16, channels=1, limit=600)
    return uri


@pytest.mark.parametrize("name", [None, "Another name"])
@pytest.mark.parametrize("verb", VERBS)
def test_what_it_prints_is_a_file_of_the_same_job(
    submit: Submit, tmp_path: Path, verb: str, name: str | None
) -> None:
    named = [] if name is None else ["--name", name]
    printed = submit(verb, RECIPES[verb], *named, "--dry-run").stdout
    file = tmp_path / "job.yaml"
    file.write_text(printed)
    # A name that the file cannot hold, as it has that of its training, is in its first line.
    words = printed.splitlines()[0].split(f"# colddiff submit {verb} FILE --name ")[1:]
    again = slugify(words[0]) if words else None
    recipe, job = read_job(verb, Request(words=(RECIPES[verb],)))
    file_recipe, file_job = read_job(verb, Request(words=(str(file),)))
    assert file_job == job
    slug = slugify(name or recipe.name)
    assert file_job.job_id(again or slugify(file_recipe.name), {}) == job.job_id(slug, {})
    if VERBS[verb].needs_checkpoint(job):
        # It is a job on the checkpoint of this training.
        trained = load_recipe("quickstart")
        assert (file_recipe.name, file_recipe.train) == (trained.name, trained.train)


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["train", "quickstart"], "data: digits is packed when the job is submitted"),
        (
            ["train", "paper/deblur-celeba"],
            "data: submitting this would fail: is required: the URI of packed shards",
        ),
        (
            ["train", "quickstart", "data={digits}"],
            "data: 600 images of 16x16 px, grey, in {digits}",
        ),
        (
            ["train", "quickstart", "data={digits}", "test_data=s3://bucket/faces"],
            "test_data: s3://bucket/faces is looked at when the job is submitted",
        ),
        (
            ["search", "search/blur-digits", "base.data={digits}"],
            "base.data: 600 images of 16x16 px, grey, in {digits}",
        ),
        (
            ["study", "study/quickstart-seeds", "overrides.data={digits}"],
            "overrides.data: 600 images of 16x16 px, grey, in {digits}",
        ),
        (
            ["generate", "checkpoint=/there", "data={digits}"],
            "data: 600 images of 16x16 px, grey, in {digits}",
        ),
        (
            ["evaluate", "checkpoint=/there", "test_data=digits"],
            "test_data: digits is packed when the job is submitted",
        ),
    ],
)
def test_it_says_what_data_is_there(
    submit: Submit, tmp_path: Path, digits: str, words: list[str], line: str
) -> None:
    done = submit(*(word.format(digits=digits) for word in words), "--dry-run")
    assert done.returncode == 0, done.stderr
    assert line.format(digits=digits) in done.stderr
    assert yaml.safe_load(done.stdout)[words[0]]
    assert list(tmp_path.iterdir()) == []  # it packs and writes nothing


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (
            ["data={digits}", "channels=3"],
            "data: {digits} has images 1x16x16, the job needs 3x16x16",
        ),
        (
            ["data={digits}", "image_size=32"],
            "data: {digits} has images 1x16x16, the job needs 1x32x32",
        ),
        (["data={digits}", "test_data=./nothing"], "test_data: "),
        (["data=folder:./nothing"], "data: folder:{here}/nothing: no such folder"),
        (["data=mnist:./nothing"], "/nothing: no such folder; use the folder of the four MNIST"),
        (["data=webdataset:."], "no .tar files found"),
    ],
)
def test_it_says_last_why_a_submission_would_fail(
    submit: Submit, tmp_path: Path, digits: str, words: list[str], says: str
) -> None:
    typed = ["train", "quickstart", *(word.format(digits=digits) for word in words)]
    told = submit(*typed, "--dry-run")
    assert told.returncode == 0
    assert yaml.safe_load(told.stdout)["train"]
    line = told.stderr.splitlines()[-1].replace("submitting this would fail: ", "", 1)
    assert says.format(digits=digits, here=tmp_path) in line
    submitted = submit(*typed, "--local")
    assert (submitted.returncode, submitted.stdout) == (2, "")
    reason = submitted.stderr.splitlines()[-1].removeprefix("colddiff: error: ")
    assert reason.partition(": ")[2] in line


REFERENCE = "reference={typed}"
OTHER = ("degradation.kind=animorph", "degradation.other={typed}")


@pytest.mark.parametrize(
    ("words", "field"),
    [
        (["train", "quickstart", "data={there}", "test_data={typed}"], "test_data"),
        (["search", "search/blur-digits", "base.data={typed}"], "base.data"),
        (["search", "search/blur-digits", "base.test_data={typed}"], "base.test_data"),
        (["search", "search/calls-digits", "base.data={typed}"], "base.data"),
        (["search", "search/calls-digits", "base.test_data={typed}"], "base.test_data"),
        (["study", "study/quickstart-seeds", "overrides.data={typed}"], "overrides.data"),
        (["study", "study/quickstart-seeds", "overrides.test_data={typed}"], "overrides.test_data"),
        (["evaluate", "checkpoint=/there", "test_data={typed}"], "test_data"),
        (["evaluate", "samples={typed}", "reference={there}"], "samples"),
        (["evaluate", "samples={there}", "reference={typed}"], "reference"),
        (["generate", "checkpoint=/there", "data={typed}"], "data"),
        (
            ["generate", "checkpoint=/there", "num_samples=3", "statistics=[lenet]", REFERENCE],
            "reference",
        ),
        (
            ["train", "data={there}", "channels=1", "image_size=16", *OTHER],
            "degradation.other",
        ),
    ],
)
def test_every_field_that_names_images_is_looked_at_and_the_nearest_folder_named(
    submit: Submit, tmp_path: Path, digits: str, words: list[str], field: str
) -> None:
    (tmp_path / "packed").symlink_to(Path(digits).parent)
    typed = f"./pakced/{Path(digits).name}"
    told = submit(*(word.format(typed=typed, there=digits) for word in words), "--dry-run")
    assert told.returncode == 0
    assert yaml.safe_load(told.stdout)
    meant = tmp_path / "packed" / Path(digits).name
    why = f"{tmp_path / typed}: no such folder; did you mean '{meant}'?"
    assert told.stderr.splitlines()[-1] == f"{field}: submitting this would fail: {why}"


def test_what_is_wrong_with_one_folder_is_told_once(submit: Submit, tmp_path: Path) -> None:
    (tmp_path / "MNIST").mkdir()
    told = submit("study", "study/paper-restoration-small", "--dry-run")
    assert told.returncode == 0
    assert told.stderr.count("/CIFAR10: no such folder") == 1
    refused = submit("evaluate", "samples=./a", "reference=digits", "--dry-run")
    assert refused.returncode == 2
    assert "reference: 'digits' must be packed first" in refused.stderr


def test_a_generation_of_nobody_knows_how_many_is_told_what_it_needs(
    submit: Submit, digits: str
) -> None:
    dry = submit("generate", "quickstart", "--dry-run")
    assert dry.returncode == 0
    assert "num_samples: submitting this would fail: is required" in dry.stderr
    assert "data=URI" in dry.stderr
    with_data = submit("generate", "quickstart", f"data={digits}", "--dry-run")
    assert (with_data.returncode, "num_samples: " in with_data.stderr) == (0, False)


@pytest.mark.parametrize(
    "words",
    [
        ["train", "quickstart", "evaluation.features=inception"],
        ["evaluate", "checkpoint=/there", "features=inception"],
        ["generate", "checkpoint=/there", "num_samples=3", "statistics=[inception]"],
        ["search", "search/blur-digits", "base.evaluation.features=inception"],
        ["study", "study/quickstart-seeds", "overrides.evaluation.features=inception"],
    ],
    ids=lambda words: str(words[0]),
)
def test_it_says_which_weights_are_not_here(
    submit: Submit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str]
) -> None:
    monkeypatch.setenv("COLDDIFF_FEATURES", str(tmp_path))
    weights = tmp_path / INCEPTION.file
    told = submit(*words, "--dry-run")
    assert told.returncode == 0
    (line,) = (line for line in told.stderr.splitlines() if "no weights" in line)
    assert line.startswith("not on this machine, and needed by the job: ")
    assert f"no weights at {weights}; download https://" in line
    weights.write_bytes(b"weights")
    assert "no weights" not in submit(*words, "--dry-run").stderr


def test_weights_in_s3_are_not_looked_for(submit: Submit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLDDIFF_FEATURES", "s3://bucket/features")
    told = submit("train", "quickstart", "evaluation.features=inception", "--dry-run")
    assert (told.returncode, "no weights" in told.stderr) == (0, False)


def test_below_the_job_stands_what_is_said_of_it_and_last_what_it_takes() -> None:
    words = ["evaluate_every=50", "checkpoint_every=20", "num_steps=400", "--rate", "100"]
    done = Forked(in_one_stream, "submit", "train", "quickstart", *words, "--dry-run")
    out, _ = done.communicate()
    assert done.returncode == 0
    *above, empty, head, _, _, hours, evaluations = out.splitlines()
    assert (empty, head) == ("", "estimate:")
    assert hours == "  at 100 images/s: 0:04:16"
    # Those at 100, 200 and 300, and the last; how many images is not known before they are packed.
    assert evaluations.startswith("  besides, 4 evaluations, 41 calls of the network an image: ")
    assert above[-1].startswith("evaluate_every=50: only checkpoints are evaluated")


def in_one_stream(*words: str) -> None:
    os.dup2(1, 2)
    colddiff_main(*words)


def photographs(folder: Path) -> None:
    folder.mkdir()
    for number in range(40):
        Image.fromarray(np.full((9, 7, 3), number, np.uint8)).save(folder / f"{number}.png")


def test_a_folder_of_images_is_named_as_one(submit: Submit, tmp_path: Path) -> None:
    photographs(tmp_path / "photos")
    done = submit("train", "quickstart", "data=./photos", "--dry-run")
    place = tmp_path / "photos"
    assert done.returncode == 0
    assert f"{place} is a folder of images and no packed data set: pack it" in done.stderr
    assert f"(a job takes folder:{place} itself, too)" in done.stderr


def test_it_counts_the_images_of_a_folder(submit: Submit, tmp_path: Path) -> None:
    photographs(tmp_path / "photos")
    words = ("data=folder:./photos", "channels=3", "num_steps=1", "evaluation.num_images=41")
    lines = submit("train", "quickstart", *words, "--dry-run").stderr.splitlines()
    place = tmp_path / "photos"
    train, test = (line for line in lines if str(place) in line)
    counts = [int(line.split()[1]) for line in (train, test)]
    assert sum(counts) == 40
    assert min(counts) > 0
    assert train.startswith("data: ")
    assert test.startswith("test_data: ")
    assert lines[-1].startswith("evaluation.num_images: submitting this would fail: 41 of ")
    assert lines[-1].endswith(f" of {counts[1]} test images; use at most {counts[1]}")
    assert not (tmp_path / "runs").exists()
