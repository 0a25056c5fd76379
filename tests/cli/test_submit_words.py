"""The words of `colddiff submit`: in any order that is clear, else the command to write."""

from __future__ import annotations

from pathlib import Path

import pytest

from colddiff.cli.submit import Request, read_job
from colddiff.jobs.verb import VERBS
from tests.in_process import colddiff_here

VERB_FIRST = "submit: the verb comes first: "


@pytest.fixture(autouse=True)
def job_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder with a job file ``mine.yaml``, which is the working folder."""
    (tmp_path / "mine.yaml").write_text("train: {seed: 3}\n")
    monkeypatch.chdir(tmp_path)


def test_a_file_may_stand_behind_the_fields() -> None:
    behind = read_job("train", Request(words=("num_steps=7", "mine.yaml")))
    assert behind == read_job("train", Request(words=("mine.yaml", "num_steps=7")))


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["seed=1", "train", "mine.yaml"], f"{VERB_FIRST}`colddiff submit train seed=1 mine.yaml`"),
        (["mine.yaml"], f"{VERB_FIRST}`colddiff submit train mine.yaml`"),
        (["mine.yaml", "evaluate"], f"{VERB_FIRST}`colddiff submit evaluate mine.yaml`"),
        (["search/blur-digits"], f"{VERB_FIRST}`colddiff submit search search/blur-digits`"),
        (["seed=1"], f"{VERB_FIRST}`colddiff submit VERB JOB seed=1`"),
        (["trian", "mine.yaml"], "submit: no verb 'trian'; did you mean 'train'? (one of evaluate"),
        (["train", "seed", "=", "1"], "key=value is one word: write it without spaces"),
        (
            ["evaluate", "train", "seed=1", "mine.yaml"],
            "'mine.yaml' is not key=value, and JOB is already 'train': write `colddiff submit "
            "evaluate mine.yaml seed=1`",
        ),
        (
            ["train", "mine.yaml", "adress=http://host:8265"],
            "adress: no field of a job: the address of a cluster is an option, `--address "
            "http://host:8265`",
        ),
        (["train", "mine.yaml", "--num_steps=10"], "written without dashes, `num_steps=10`"),
        (["train", "--num-steps", "10", "mine.yaml"], "without dashes, `num_steps=10`"),
        (["train", "train.num_steps=1"], "train.train: no such field; did you mean 'num_steps'?"),
        (["study", "study.seed=1"], "study.study: no such field; did you mean 'seeds'?"),
        (
            ["train", "num_timesteps=1"],
            "train.num_timesteps: no such field; did you mean 'degradation.num_timesteps'?",
        ),
        (["train", "optimizer.learning_rate=1"], "no such field; did you mean 'optimizer.lr'?"),
        (
            ["train", "quickstart", "degradation.sigma=5"],
            "with a 'kind', got 5; write {kind: constant, value: 5}",
        ),
        (["train", "evaluation.samplers=direct"], "samplers: should be a list: [direct], got"),
        (
            ["train", "cpu/deblur-mnist", "degradation.kind=inpaint"],
            "padding: no such field of inpaint, but of blur: setting `kind` alone keeps the other "
            "fields; replace the whole by '{kind: inpaint, num_timesteps: 20, sigma: {",
        ),
        (
            ["evaluate", "train-blur-f46166f5", "seed=1"],
            "did you mean `colddiff submit evaluate checkpoint=train-blur-f46166f5@best seed=1`?",
        ),
        (
            ["generate", "train-blur-f46166f5@step=20"],
            "did you mean `colddiff submit generate checkpoint=train-blur-f46166f5@step=20`?",
        ),
        (["evaluate", "generate-x-f46166f5"], "submit evaluate samples=generate-x-f46166f5`?"),
        (["train", "train-blur-f46166f5"], "submit train JOB --from train-blur-f46166f5@best`?"),
        (["train", "mine"], "no recipe 'mine': for the file of this folder write mine.yaml"),
    ],
    ids=" ".join,
)
def test_other_words_are_answered_with_what_to_write(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    says: str,
) -> None:
    done = colddiff_here(monkeypatch, capsys, "submit", *words)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("colddiff: error: ")
    assert says in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_in_the_place_of_a_command_is_answered_with_the_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], verb: str
) -> None:
    done = colddiff_here(monkeypatch, capsys, verb, "mine.yaml", "--dry-run")
    assert (done.returncode, done.stdout) == (2, "")
    told = f"{verb} is a job to submit: write `colddiff submit {verb} mine.yaml --dry-run`"
    assert told in done.stderr


def test_an_interrupt_before_anything_is_submitted_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("colddiff.cli.submit._resolved", interrupt)
    for place, says in (
        ([], "nothing was submitted; the job, if it runs already, continues: "),
        (["--local"], "nothing runs: the same command begins again, and keeps what was packed or"),
    ):
        done = colddiff_here(monkeypatch, capsys, "submit", "train", "quickstart", *place)
        assert done.returncode == 130
        *_, said, last = done.stderr.splitlines()
        assert said.startswith(says)
        assert last == "colddiff: interrupted"


def test_what_each_command_does_fits_in_its_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    for group in ((), ("data",), ("cluster",)):
        done = colddiff_here(monkeypatch, capsys, *group, "--help")
        told = done.stdout.partition("Commands:\n")[2].splitlines()
        assert len(told) > 2
        assert [line for line in told if "..." in line] == []
