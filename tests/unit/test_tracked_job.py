"""What a whole training job leaves in its MLflow run, and that the run ends as the job does."""

from __future__ import annotations

import html
import json
import logging
import os
import re
import shlex
import time
from pathlib import Path
from typing import Any

import pytest
import torch

import colddiff
from colddiff.checkpoints.references import find_checkpoint
from colddiff.cli.submit import Request, read_job
from colddiff.data.open import read_manifest
from colddiff.errors import ColddiffError, Stopped, Unreachable
from colddiff.jobs.folder import JobFolder
from colddiff.jobs.resolve import resolve
from colddiff.jobs.results import UNDELIVERED, result_lines
from colddiff.stores.open import open_store
from colddiff.tracking.memory_tracker import MemoryTracker
from colddiff.tracking.mlflow_service import client
from colddiff.tracking.open import has_spooled_entries
from colddiff.tracking.system_metrics import SystemSampler
from colddiff.verbs.train import work
from colddiff.verbs.train.job import TrainJob
from colddiff.verbs.train.local_context import LocalContext
from tests.unit.test_run import QUIET, job


def tracked(folder: Path, the_job: TrainJob) -> tuple[Any, Any]:
    """The client of the storage's own database, and the one run of ``the_job`` there."""
    api = client(f"sqlite:///{folder}/mlflow.db")
    experiment = api.get_experiment_by_name("colddiff")
    assert experiment is not None
    job_id = resolve(the_job, "tiny").id
    runs = api.search_runs([experiment.experiment_id], f"tags.`colddiff.job_id` = '{job_id}'")
    assert len(runs) == 1
    return api, runs[0]


def artifacts(api: Any, run_id: str) -> set[str]:
    found: set[str] = set()
    folders = [""]
    while folders:
        for item in api.list_artifacts(run_id, folders.pop()):
            (folders.append if item.is_dir else found.add)(item.path)
    return found


def test_one_run_has_it_all_over_two_attempts(storage: Path, packed: dict[str, str]) -> None:
    fields = {**packed, "log_every": 2, "evaluate_every": 2, "tracking": {"system_every_s": 0.05}}
    colddiff.train(job(**fields), "tiny")
    result = colddiff.train(job(**fields, num_steps=6), "tiny")
    api, run = tracked(storage, job(**fields))
    assert run.info.run_id == result["tracking"]["run_id"]
    (report,) = JobFolder(open_store(str(storage)), result["id"]).reports(1)
    # Of 16 images, too few for a distance in 64 features.
    assert report.startswith("evaluation at step 2: rmse 0.")
    assert "(degraded), 0." in report
    assert "(Algorithm 2 (improved))" in report
    assert result["best"]["step"] in (2, 4, 6)
    assert f"best: step {result['best']['step']}, " in "\n".join(result["summary"])
    assert run.info.status == "FINISHED"
    assert run.data.params["degradation.kind"] == "blur"
    assert run.data.params["optimizer.lr"] == "2e-05"
    # MLflow keeps the first value of a param; the description says where the current one is.
    assert (run.data.params["num_steps"], run.data.tags["param.num_steps"]) == ("4", "6")
    assert "in tags, such as `param.num_steps`" in run.data.tags["mlflow.note.content"]
    metrics = run.data.metrics
    for name in ("loss_l1", "loss_l1/t_1_1", "loss_l1/t_4_4", "grad_norm", "lr", "images_per_s"):
        assert f"train/{name}" in metrics
    assert {"time/data_s", "time/step_s", "eval/sampled/fd_lenet"} <= set(metrics)
    steps = [row.step for row in api.get_metric_history(run.info.run_id, "train/loss_l1")]
    assert sorted(steps) == [2, 4, 6]
    assert metrics["system/cpu_utilization_percentage"] >= 0
    assert metrics["system/system_memory_usage_megabytes"] > 100
    found = artifacts(api, run.info.run_id)
    assert {"job.json", "checkpoints.json", "report.html"} <= found
    page = Path(result["report"]).read_text()
    assert "after step 6" in page
    assert '"step 2", "step 4", "step 6"' in html.unescape(page)  # over training
    assert f"report: {result['report']}" in result_lines(result["id"], result)
    assert any(name.startswith("pictures/step_00000002/") for name in found)
    series = {name.partition("+timestamp")[0] for name in found if name.startswith("images/")}
    assert {f"images/{name}+step+{step}" for name in ("grid", "loss") for step in (2, 6)} <= series
    _check_inputs_and_description(api, run, packed)
    git = resolve(job(**fields), "tiny").git
    assert run.data.tags.get("mlflow.source.git.commit") == git.get("commit")


def _check_inputs_and_description(api: Any, run: Any, packed: dict[str, str]) -> None:
    inputs = {one.tags[0].value: one.dataset for one in run.inputs.dataset_inputs}
    assert inputs.keys() == {"data", "test_data"}
    for use, dataset in inputs.items():
        assert json.loads(dataset.source)["uri"] == packed[use]
        assert read_manifest(packed[use]).digest.startswith(dataset.digest)
    tags = run.data.tags
    assert f"`{tags['colddiff.job_id']}`: Train a restorer." in tags["mlflow.note.content"]
    (words,) = re.findall(
        r"\ncolddiff submit train --name tiny (.*)\n", tags["mlflow.note.content"]
    )
    _, again = read_job("train", Request(words=tuple(shlex.split(words))))
    assert again.identity() == job(**packed).identity()
    assert not {"storage", "commit"} & tags.keys()  # others say the same
    experiment = api.get_experiment(run.info.experiment_id)
    assert "One run is one job" in experiment.tags["mlflow.note.content"]
    assert experiment.tags["mlflow.experimentKind"] == "custom_model_development"


def test_a_text_that_its_user_wrote_is_kept(storage: Path, packed: dict[str, str]) -> None:
    colddiff.train(job(**packed), "tiny")
    api, run = tracked(storage, job(**packed))
    api.set_tag(run.info.run_id, "mlflow.note.content", "mine")
    colddiff.train(job(**packed, num_steps=6), "tiny")
    assert tracked(storage, job(**packed))[1].data.tags["mlflow.note.content"] == "mine"


def test_checkpoints_are_registered_by_address(storage: Path, packed: dict[str, str]) -> None:
    fields = {**packed, "num_steps": 6, "keep": 2, "test_data": None}
    fields["data"] = packed["data"]
    colddiff.train(job(**fields), "tiny")
    api, run = tracked(storage, job(**fields))
    path = api.download_artifacts(run.info.run_id, "checkpoints.json")
    registered = json.loads(Path(path).read_text())
    assert [item["step"] for item in registered] == [4, 6]
    for item in registered:
        checkpoint = find_checkpoint(item["uri"])
        assert (checkpoint.step, checkpoint.weights_sha256) == (
            item["step"],
            item["weights_sha256"],
        )
    assert run.data.tags["checkpoint.uri"] == registered[-1]["uri"]
    assert run.data.tags["checkpoint.step"] == "6"


def test_no_pictures_are_drawn_where_the_job_says_so(storage: Path, packed: dict[str, str]) -> None:
    fields = {**packed, "tracking": QUIET}
    result = colddiff.train(job(**fields), "tiny")
    assert result["pictures"] == []
    assert not list(storage.rglob("pictures"))
    assert not list(storage.rglob("report.html"))
    api, run = tracked(storage, job(**fields))
    assert artifacts(api, run.info.run_id) == {"job.json", "checkpoints.json"}
    assert not [name for name in run.data.metrics if name.startswith("system/")]


def test_the_run_ends_as_the_job_does(storage: Path, packed: dict[str, str]) -> None:
    limited = {**packed, "num_steps": 100_000, "limits": {"hours": 1e-7}}
    with pytest.raises(Stopped):
        colddiff.train(job(**limited), "tiny")
    assert tracked(storage, job(**limited))[1].info.status == "KILLED"
    broken = {**packed, "seed": 1, "optimizer": {"lr": 1e30}, "num_steps": 50}
    with pytest.raises(ColddiffError, match="not finite"):
        colddiff.train(job(**broken), "tiny")
    assert tracked(storage, job(**broken))[1].info.status == "FAILED"


def test_what_a_job_logged_without_a_tracker_is_delivered_when_it_is_submitted_again(
    storage: Path,
    packed: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "colddiff")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    fields = {**packed, "tracking": {**QUIET, "required": False}}
    result = colddiff.train(job(**fields), "tiny")
    assert result["tracking"]["run_id"] == ""
    assert UNDELIVERED in caplog.messages, "the end of the job says so"
    store = open_store(str(storage))
    assert has_spooled_entries(store, result["id"])
    assert colddiff.train(job(**fields), "tiny") == result  # still away: said, no failure
    assert "its tracking entries are still spooled: tracker http://127.0.0.1:9" in caplog.text
    assert JobFolder(store, result["id"]).attempts() == [1]
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    caplog.clear()
    for _ in range(2):
        assert colddiff.train(job(**fields), "tiny") == result
    assert UNDELIVERED not in caplog.messages
    assert caplog.text.count("spooled tracking entries have been delivered") == 1
    assert not has_spooled_entries(store, result["id"])
    api, run = tracked(storage, job(**fields))
    assert run.info.status == "FINISHED"
    history = api.get_metric_history(run.info.run_id, "train/loss_l1")
    assert [row.step for row in history] == [4]


def test_the_outcome_is_written_once_what_was_logged_is_safe(
    storage: Path, packed: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """After it nothing is trained again: what is lost then is lost for good."""
    happened: list[str] = []

    class Noting(MemoryTracker):
        def flush(self, timeout_s: float = 30.0) -> bool:
            happened.append("safe")
            return True

    def write_outcome(folder: JobFolder, attempt: int, outcome: dict[str, Any]) -> None:
        happened.append("outcome")
        if happened.count("outcome") == 1:
            raise Unreachable("the store is away")

    monkeypatch.setattr(work, "_trained", lambda *_: {"step": 4})
    monkeypatch.setattr(JobFolder, "write_outcome", write_outcome)
    resolved = resolve(job(**packed), "tiny")
    work.train_rank(resolved, LocalContext(torch.device("cpu")), 1, Noting())
    assert happened == ["safe", "outcome"] * 2


def test_samples_of_the_machine_have_steps_that_go_on() -> None:
    tracker = MemoryTracker()
    with SystemSampler(tracker, time.time() - 100, 0.02):
        time.sleep(0.3)
    rows = [row for row in tracker.run.metrics if row.key == "system/process_memory_megabytes"]
    assert len(rows) >= 2
    assert {row.step for row in rows} <= {100, 101}
    resident = rows[-1].value * 1e6
    assert 1e7 < resident < os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
