"""`colddiff report`: from STORAGE alone, clear about what it cannot show, replacing nothing."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from colddiff.jobs.folder import JobFolder
from colddiff.jobs.pages.read import read_run
from colddiff.report.page.details import details_from_bytes
from colddiff.report.page.told import MARK, told_of
from colddiff.stores.local_store import LocalStore
from colddiff.verbs.study.members import write_members
from tests.in_process import Done, colddiff_here
from tests.unit.report.made_runs import train_job

Here = Callable[..., Done]


@pytest.fixture
def here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Here:
    monkeypatch.setenv("COLDDIFF_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("COLDDIFF_STORAGE", str(tmp_path / "runs"))
    # Neither a cluster nor a tracker is there, and neither is asked for.
    monkeypatch.setenv("COLDDIFF_ADDRESS", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    return lambda *words: colddiff_here(monkeypatch, capsys, *words)


def test_all_formats_of_several_runs(here: Here, tmp_path: Path) -> None:
    for seed in range(2):
        train_job(tmp_path / "runs", f"train-blocks-0000000{seed}", seed=seed)
    out = tmp_path / "out"
    words = ("report", "train-*", "--over", "seed", "--format", "html,md,latex,csv", "--json")
    done = here(*words, "--out", out)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["runs"] == ["train-blocks-00000000", "train-blocks-00000001"]
    assert sorted(path.name for path in out.iterdir()) == [
        *("report.csv", "report.html", "report.md", "report.tex")
    ]
    assert MARK in (out / "report.html").read_text()
    written = (out / "report.md").read_text()
    assert "blocks: 2 seeds" in written
    facts = "train, done, evaluated at step 20, blur, T = 4, 12 px, 1 channel(s), submitted"
    assert all(f"\n- {run}: {facts}" in written for run in found["runs"])
    rows = ["| job | seed |", "| train-blocks-00000000 | 0 |", "| train-blocks-00000001 | 1 |"]
    assert all(f"\n{row}\n" in written for row in rows)
    page = (out / "report.html").read_text()
    assert page.index("What differs") < page.index('id="numbers"')
    assert "<tr><td>train-blocks-00000001</td><td>1</td></tr>" in page
    again = here(*words, "--out", out)  # our own files are replaced
    assert again.returncode == 0, again.stderr
    assert "is replaced" not in again.stderr
    one = here("report", "train-blocks-00000000", "--out", out, "--format", "html,md,latex")
    told = "report.html, report.md, report.tex of other jobs or steps was there, and is replaced"
    assert told in one.stderr


def test_a_folder_and_a_job_that_runs(here: Here, tmp_path: Path) -> None:
    folder = train_job(tmp_path / "elsewhere", state="running")
    done = here("report", folder.uri, "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert "train-blocks-00000001: running" in done.stderr
    assert "The job is running at 20 of 20." in (tmp_path / "out/report.html").read_text()


def test_a_checkpoint_is_reported_at_its_step(here: Here, tmp_path: Path) -> None:
    job, runs = "train-blocks-00000001", tmp_path / "runs"
    folder = train_job(runs, strengths=(0.9, 0.7))
    best = folder.best({10, 20})
    assert best is not None
    assert best.step == 10
    for word, step in (
        (f"{job}@best", 10),
        (f"{job}@step=20", 20),
        (f"{runs}/jobs/{job}/checkpoints/step_00000010", 10),
        (f"{runs}/jobs/{job}@last", None),
        ("train-*@best", 10),
    ):
        done = here("report", word, "--out", tmp_path / "out", "--format", "html,md", "--json")
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["runs"] == [job]
        name = f"{job}@step={step}" if step else job
        assert f"{name}: done" in done.stderr
        written = (tmp_path / "out/report.md").read_text()
        assert f"evaluated at step {step or 20}," in written
        assert f"### {name}\n" in written, "the table"
        where = f"- checkpoint: {folder.uri}/checkpoints/step_{step:08d}\n" if step else ""
        assert where in written
        record = folder.evaluation(step or 20)
        assert record is not None
        assert f"| {record['metrics']['eval/sampled/rmse']:.4f} |" in written
        page = (tmp_path / "out/report.html").read_text()
        details = folder.details(step or 20)
        assert details is not None
        sheet = details_from_bytes(details).shown[0].sheet
        assert base64.b64encode(sheet).decode() in page, "the pictures of that step"
        assert "What differs" not in page
    folder.store.put(folder.key("pictures/step_00000010/grid.png"), b"a")
    folder.store.put(folder.key("pictures/step_00000020/grid.png"), b"b")
    folder.store.delete(folder.key("evaluations/step_00000010.safetensors"))
    assert [one.data for one in read_run(folder, step=10).pictures] == [b"a"]


def test_two_steps_of_a_job_are_compared_on_one_page(here: Here, tmp_path: Path) -> None:
    job, runs = "train-blocks-00000001", tmp_path / "runs"
    folder = train_job(runs, strengths=(0.9, 0.7))
    first, last = (f"{job}@step={step}" for step in (10, 20))
    # Named in each way, of which two are the same.
    words = (first, job, last, f"{job}@last", f"{job}@best")
    done = here("report", *words, "--out", tmp_path / "out", "--format", "html,md,csv", "--json")
    assert done.returncode == 0, done.stderr
    assert f"{first}: done\n{last}: done\n" in done.stderr
    written = (tmp_path / "out/report.md").read_text()
    assert f"# {first}, {last}\n" in written
    assert f"{last} against {first}, " in written
    assert "### Jobs side by side" in written
    rows = (tmp_path / "out/report.csv").read_text().split()[1:]
    assert {row.split(",")[1] for row in rows} == {"10", "20"}
    told = told_of([read_run(folder, step=step) for step in (10, 20)])
    assert [ran.name for ran in told.jobs] == [job], "its attempts and cost once"
    page = (tmp_path / "out/report.html").read_text()
    assert "2 evaluations of 1 job" in page
    drawn = here("figure", first, job, "--out", tmp_path / "out/figure.png")
    assert f"{first}: done\n{last}: done\n" in drawn.stderr


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("train-bloks-00000001",), "did you mean 'train-blocks-00000001'?"),
        (("search*",), "no job of"),
        (("./runs",), "not the folder of a job"),
        (("train-blocks-00000001", "--metric", "rms"), "did you mean 'rmse'?"),
        (("train-blocks-00000001", "--metric", "fid"), "features=inception` adds; they have "),
        (("train-blocks-00000001", "--format", "pdf"), "--format: no 'pdf'"),
        (("train-blocks-00000001", "--format", ","), "--format: name one or more"),
        (("train-blocks-00000001", "--over", "lr"), "--over: only seed"),
        (("train-blocks-00000002",), "no results yet to report: train-blocks-00000002 is running"),
        (("mlflow:nothing",), "mlflow:nothing: no such run"),
        (("train-blocks-00000001@20",), "unknown @20; @last, @best or @step=N"),
        (("train-blocks-00000001@step=15",), "was not evaluated; there are 10, 20 (or `colddiff"),
        (
            (*(f"train-blocks-00000001@step={step}" for step in (10, 20)), "--over", "seed"),
            "--over seed: train-blocks-00000001 is named at several steps",
        ),
        (("evaluate-blocks-00000001@best",), "no checkpoints to choose from; name it without"),
    ],
)
def test_bad_input(here: Here, tmp_path: Path, words: tuple[str, ...], told: str) -> None:
    train_job(tmp_path / "runs")
    train_job(tmp_path / "runs", "train-blocks-00000002", strengths=(), state="running")
    other = JobFolder(LocalStore(tmp_path / "runs"), "evaluate-blocks-00000001")
    other.write_job({"id": other.job_id, "verb": "evaluate", "slug": "blocks", "spec": {}})
    done = here("report", *words, "--out", tmp_path / "out")
    assert done.returncode == 2, done.stderr
    assert told in done.stderr.splitlines()[-1]
    assert not (tmp_path / "out").exists()


def test_files_of_others_are_not_replaced(here: Here, tmp_path: Path) -> None:
    train_job(tmp_path / "runs")
    out = tmp_path / "out"
    out.mkdir()
    (out / "report.md").write_text("my own report")
    done = here("report", "train-blocks-00000001", "--format", "html,md", "--out", out)
    assert done.returncode == 2
    assert "was not written by `colddiff report`" in done.stderr
    assert [path.name for path in out.iterdir()] == ["report.md"]
    (tmp_path / "file").write_text("")
    for place, told in ((tmp_path / "file", "is a file"), ("s3://bucket/x", "not on this machine")):
        done = here("report", "train-blocks-00000001", "--out", place)
        assert done.returncode == 2
        assert told in done.stderr


def test_a_damaged_job_among_others_is_named(here: Here, tmp_path: Path) -> None:
    train_job(tmp_path / "runs")
    damaged = train_job(tmp_path / "runs", "train-blocks-00000009")
    damaged.store.put(damaged.key("status.json"), b"{")
    done = here("report", "train-*", "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert "left out:" in done.stderr
    assert "train-blocks-00000009/status.json" in done.stderr
    started = train_job(tmp_path / "runs", "train-blocks-00000007")
    started.store.put(started.key("attempts/1/starts/1.json"), b"[")
    found = here("report", "train-blocks-0000000[17]", "--out", tmp_path / "out", "--json")
    assert json.loads(found.stdout)["runs"] == ["train-blocks-00000001", started.job_id]
    assert "attempts/1/starts/1.json" in (tmp_path / "out/report.html").read_text()
    damaged.store.put(damaged.key("job.json"), b"{")
    for gone in (False, True):
        if gone:
            damaged.store.delete(damaged.key("job.json"))
        among = here("report", "train-*", "--out", tmp_path / "out")
        assert among.returncode == 0, among.stderr
        assert "left out: " in among.stderr
        assert damaged.job_id in among.stderr
    alone = here("report", "train-blocks-00000009", "--out", tmp_path / "alone")
    assert alone.returncode == 2
    assert not (tmp_path / "alone").exists()


def test_a_study_stands_for_its_trainings(here: Here, tmp_path: Path) -> None:
    ids = [f"train-blocks-0000000{seed}" for seed in range(3)]
    for seed, job_id in enumerate(ids[:2]):
        train_job(tmp_path / "runs", job_id, seed=seed)
    study = JobFolder(LocalStore(tmp_path / "runs"), "study-blocks-00000001")
    study.write_job({"id": study.job_id, "verb": "study", "slug": "blocks", "spec": {}})
    write_members(study, [{"id": job_id} for job_id in ids])  # the last one has not begun
    done = here("report", study.job_id, "--over", "seed", "--out", tmp_path / "out", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["runs"] == ids[:2]
    page = (tmp_path / "out/report.html").read_text()
    assert "blocks: 2 seeds" in page
    assert f"<h1>{study.job_id}</h1>" in page
    # Jobs that were named themselves are the heading of theirs.
    named = ("report", *ids[:2], "--out", tmp_path / "both", "--format", "md")
    assert here(*named).returncode == 0
    assert f"# {ids[0]}, {ids[1]}\n" in (tmp_path / "both/report.md").read_text()
