"""`colddiff report`: from STORAGE alone, clear about what it cannot show, replacing nothing."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from colddiff.jobs.folder import JobFolder
from colddiff.report.page.told import MARK
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


def test_a_folder_and_a_job_that_runs(here: Here, tmp_path: Path) -> None:
    folder = train_job(tmp_path / "elsewhere", state="running")
    done = here("report", folder.uri, "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert "train-blocks-00000001: running" in done.stderr
    assert "The job is running at 20 of 20." in (tmp_path / "out/report.html").read_text()


@pytest.mark.parametrize(
    "word",
    [
        "train-blocks-00000001@best",
        "train-blocks-00000001@step=20",
        "{runs}/jobs/train-blocks-00000001/checkpoints/step_00000020",
        "{runs}/jobs/train-blocks-00000001@last",
    ],
)
def test_of_a_checkpoint_its_job(here: Here, tmp_path: Path, word: str) -> None:
    train_job(tmp_path / "runs")
    words = (word.format(runs=tmp_path / "runs"), "--out", tmp_path / "out", "--json")
    done = here("report", *words)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["runs"] == ["train-blocks-00000001"]
    assert "What differs" not in (tmp_path / "out/report.html").read_text()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("train-bloks-00000001",), "did you mean 'train-blocks-00000001'?"),
        (("eval*",), "no job of"),
        (("./runs",), "not the folder of a job"),
        (("train-blocks-00000001", "--metric", "rms"), "did you mean 'rmse'?"),
        (("train-blocks-00000001", "--format", "pdf"), "--format: no 'pdf'"),
        (("train-blocks-00000001", "--format", ","), "--format: name one or more"),
        (("train-blocks-00000001", "--over", "lr"), "--over: only seed"),
        (("train-blocks-00000002",), "no results yet to report: train-blocks-00000002 is running"),
        (("mlflow:nothing",), "mlflow:nothing: no such run"),
    ],
)
def test_bad_input(here: Here, tmp_path: Path, words: tuple[str, ...], told: str) -> None:
    train_job(tmp_path / "runs")
    train_job(tmp_path / "runs", "train-blocks-00000002", strengths=(), state="running")
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
    assert "blocks: 2 seeds" in (tmp_path / "out/report.html").read_text()
