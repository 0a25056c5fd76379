"""`resources.gpus: auto` is a number before an attempt is claimed, and days on a CPU are said."""

from __future__ import annotations

import json
import logging
import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

import colddiff
from colddiff.errors import SpecError
from colddiff.jobs.device import settled, settled_job
from colddiff.jobs.in_process import InProcess
from colddiff.jobs.job import ResourcesSpec
from colddiff.jobs.resolve import ResolvedJob, resolve
from colddiff.jobs.runner import Capacity
from colddiff.jobs.submit import _log_differences, bring_to_end
from colddiff.jobs.verb import VERBS
from colddiff.machine.load import busy_machine
from colddiff.spec import parse
from colddiff.verbs.train.estimates import cpu_days, measured_rate
from tests.in_process import colddiff_here
from tests.unit import test_run
from tests.unit.search.tiny_search import tiny_search
from tests.unit.study.tiny_study import TRAIN
from tests.unit.test_train import job

CPUS = {"CPU": 8.0}
GPUS = {"CPU": 8.0, "GPU": 2.0, "accelerator_type:A100": 1.0}
AUTO = {"gpus": "auto"}
TINY = {
    "image_size": 16,
    "channels": 1,
    "degradation": "{kind: blur, num_timesteps: 4}",
    "restorer": "{kind: convnext_unet, dim: 4, dim_mults: [1, 2]}",
    "global_batch_size": 8,
    "num_steps": 1000,
}


@pytest.mark.parametrize(
    ("workers", "machines", "grows", "gpus"),
    [
        (1, [CPUS], False, 0.0),
        (1, [CPUS, GPUS], False, 1.0),
        (2, [GPUS], False, 1.0),
        ((1, 9), [GPUS], False, 1.0),
        ("all", [GPUS, GPUS], False, 1.0),
        (4, [GPUS], True, 1.0),
    ],
    ids=str,
)
def test_each_worker_takes_a_gpu_where_there_are_any(
    workers: Any, machines: list[dict[str, float]], grows: bool, gpus: float
) -> None:
    found = settled(ResourcesSpec(gpus="auto"), workers, Capacity(tuple(machines), grows))
    assert found.num_gpus == gpus


@pytest.mark.parametrize(
    ("resources", "workers", "machines", "grows", "says"),
    [
        (AUTO, 1, [CPUS], True, "the cluster has no GPU now and can add machines; say 1, or 0"),
        (AUTO, 4, [GPUS], False, r"4 workers need 4 GPUs, .* room for 2; use workers=\[1, 4\]"),
        ({**AUTO, "accelerator": "H100"}, 1, [GPUS], False, "room for 0; use resources.gpus=0"),
    ],
)
def test_what_a_person_must_choose_is_refused(
    resources: dict[str, Any],
    workers: Any,
    machines: list[dict[str, float]],
    grows: bool,
    says: str,
) -> None:
    with pytest.raises(SpecError, match=f"^resources.gpus: is auto: .*{says}"):
        settled(ResourcesSpec(**resources), workers, Capacity(tuple(machines), grows))


def test_other_words_for_a_number_of_gpus_are_refused() -> None:
    with pytest.raises(SpecError, match=r"resources.gpus: write a number or auto, got 'all'"):
        job(resources={"gpus": "all"})


def test_in_this_process_the_machine_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    for has, gpus in ((True, 1.0), (False, 0.0)):
        monkeypatch.setattr(torch.cuda, "is_available", lambda has=has: has)
        assert settled(ResourcesSpec(gpus="auto"), 1, None).num_gpus == gpus


def test_a_number_asks_no_cluster() -> None:
    def asked() -> Capacity:
        raise AssertionError

    plain = job(resources={"gpus": 0.5})
    assert settled_job(plain, asked) == plain


def test_jobs_within_jobs_are_settled_too() -> None:
    capacity = Capacity((GPUS,))
    base = {**test_run.job().to_dict(), "resources": AUTO, "workers": [1, 2]}
    search = parse(VERBS["search"].spec(), tiny_search(base=base, resources=AUTO))
    found = settled_job(search, lambda: capacity).to_dict()
    assert found["base"]["resources"]["gpus"] == found["resources"]["gpus"] == 1.0
    named = search.model_copy(update={"base": "quickstart"})  # before it is resolved: a dry run
    assert settled_job(named, lambda: capacity).to_dict()["resources"]["gpus"] == 1.0
    training = {"id": "train-a-00000000", "slug": "a", "train": base}
    study = parse(VERBS["study"].spec(), {"jobs": ["quickstart"], "trainings": [training]})
    (one,) = settled_job(study, lambda: capacity).to_dict()["trainings"]
    assert one["train"] == {**base, "resources": {"gpus": 1.0}}


class GpuCluster(InProcess):
    """A cluster of two GPUs that runs nothing."""

    outlives_client = True
    started: ResolvedJob

    def capacity(self) -> Any:
        return Capacity((GPUS,))

    def start(self, resolved: ResolvedJob, attempt: int, accepted: Any) -> None:
        self.started = resolved
        accepted()


def test_a_dry_run_says_what_a_remote_cluster_cannot_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("colddiff.cluster.ray_jobs.RayJobs", lambda _: GpuCluster())
    monkeypatch.setenv("COLDDIFF_STORAGE", str(tmp_path))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    words = ["submit", "train", *(f"{path}={value}" for path, value in TINY.items()), "--dry-run"]

    def problems(*more: str) -> list[str]:
        done = colddiff_here(monkeypatch, capsys, *words, "--json", *more)
        assert done.returncode == 0, done.stderr
        return [line for line in json.loads(done.stdout)["problems"] if "on this machine" in line]

    named = ["--address", "http://10.9.8.7:8265"]
    storage, tracking = problems(*named)
    assert storage.startswith(f"storage: submitting this would fail: {tmp_path} is on this machine")
    assert "set MLFLOW_TRACKING_URI=http://host:port, or add --shared-path" in tracking
    assert problems() == problems(*named, "--shared-path") == problems("--local") == []


def test_an_attempt_is_recorded_with_numbers_and_attached_to_with_auto(
    storage: Path, packed: Mapping[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "colddiff")
    plain = resolve(test_run.job(**packed), "tiny")
    resolved = resolve(test_run.job(**packed, resources=AUTO), "tiny")
    assert resolved.id == plain.id
    cluster = GpuCluster()
    assert bring_to_end(resolved, cluster, detach=True).exit_code == 0
    assert cluster.started.job_as(type(resolved.job)).to_dict()["resources"]["gpus"] == 1.0
    assert resolved.folder.job()["spec"]["resources"]["gpus"] == 1.0
    _log_differences(resolved.folder, resolved)
    assert "resources: different" not in caplog.text
    _log_differences(resolved.folder, plain)
    assert "resources: different" in caplog.text


@pytest.mark.parametrize(
    ("cpus", "machines", "says"),
    [
        (
            1,
            (CPUS, GPUS),
            r"about 1,720 days \(8.9e\+18 FLOP, 1 core, .* has 2 GPUs: resources.gpu",
        ),
        (8, (CPUS,), "about 215 days .* 8 cores,.*; the cluster has none: train where there are"),
        (4000, (CPUS,), None),
    ],
)
def test_days_on_a_cpu_are_said(cpus: int, machines: Any, says: str | None) -> None:
    faces = colddiff.load_recipe("paper/deblur-celeba").train
    slow = faces.model_copy(update={"resources": ResourcesSpec(cpus=cpus)})
    found = _of_days(VERBS["train"].advice(slow, lambda: Capacity(machines)))
    assert len(found) == (says is not None)
    assert not found or re.match(f"without a GPU this takes {says}", found[0])
    assumed = "an assumed 60 GFLOP/s each; `--dry-run --rate auto` measures one process here)"
    assert not found or assumed in found[0]
    on_gpu = slow.model_copy(update={"resources": ResourcesSpec(gpus=1)})
    assert not _of_days(VERBS["train"].advice(on_gpu, lambda: Capacity(machines)))


def _of_days(advice: Sequence[str]) -> list[str]:
    return [line for line in advice if "day" in line]


def test_short_jobs_ask_no_cluster_and_those_of_others_are_summed() -> None:
    def capacity() -> Capacity:
        raise AssertionError

    assert not _of_days(VERBS["train"].advice(job(), capacity))
    faces = colddiff.load_recipe("paper/deblur-celeba").train
    training = {"id": "train-a-00000000", "slug": "a", "train": faces.to_dict()}
    study = parse(VERBS["study"].spec(), {"jobs": ["quickstart"], "trainings": [training] * 3})
    (line,) = VERBS["study"].advice(study, lambda: Capacity((CPUS,)))
    assert line.startswith(
        "3 trainings of a, one after the other: without a GPU this takes about 5,"
    )
    search = parse(VERBS["search"].spec(), tiny_search(base=faces.to_dict(), num_trials=2))
    (line,) = VERBS["search"].advice(search, lambda: Capacity((CPUS,)))
    assert line.startswith("all trials and confirmations, one after the other: without a GPU")


def test_the_submission_says_it(
    storage: Path,
    packed: Mapping[str, str],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cpu_days, "DAY_S", 1e-9)
    resolved = resolve(test_run.job(**packed), "tiny")
    bring_to_end(resolved, GpuCluster(), detach=True)
    assert "without a GPU this takes about" in caplog.text


def test_a_rate_is_measured_within_its_time_and_trains_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(measured_rate, "ENOUGH_STEPS", 3)
    monkeypatch.setattr(measured_rate, "busy_machine", lambda: "others run")
    words = [f"{path}={value}" for path, value in TINY.items()]
    began = time.monotonic()
    done = colddiff_here(monkeypatch, capsys, "submit", "train", *words, "--dry-run", "--rate=auto")
    assert time.monotonic() - began < 20
    assert done.returncode == 0, done.stderr
    lines = done.stderr.splitlines()
    measured, hours = (line.strip() for line in lines[-3:-1])  # before: no data is named
    found = re.fullmatch(
        r"measured here: (\S+) images/s \(\S+ \wFLOP/s\), 8 at a time, by one .* CPU; others run",
        measured,
    )
    assert found
    assert hours.startswith(f"at {found[1]} images/s: ")
    assert "assumed" not in done.stderr


@pytest.mark.parametrize(
    ("load", "cores", "threads", "said"),
    [(9.2, 2, None, True), (1.4, 2, None, False), (9.2, 1, None, False), (9.2, 2, "1", False)],
)
def test_a_busy_machine_is_named_with_the_way_out(
    load: float, cores: int, threads: str | None, said: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if threads:
        monkeypatch.setenv("OMP_NUM_THREADS", threads)
    monkeypatch.setattr("os.getloadavg", lambda: (load, 0.0, 0.0))
    monkeypatch.setattr("os.cpu_count", lambda: cores)
    line = busy_machine()
    assert bool(line) == said
    if said:
        assert "load 9.2 on 2 cores" in line
        assert "OMP_NUM_THREADS=1" in line


def test_where_one_thread_is_faster_than_all_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    alone_s = [0.01]

    def take(self: object, size: int) -> float:
        return 0.1 if torch.get_num_threads() > 1 else alone_s[0]

    monkeypatch.setattr(measured_rate._Steps, "take", take)
    monkeypatch.setattr(measured_rate, "busy_machine", lambda: "")
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        found = measured_rate.measured_rate(job(), most_s=5.0)
        assert torch.get_num_threads() == 2
        alone_s[0] = 0.19
        assert measured_rate.measured_rate(job(), most_s=5.0).busy == ""
    finally:
        torch.set_num_threads(threads)
    assert found.images_per_s == pytest.approx(found.images / 0.1)
    assert f"with OMP_NUM_THREADS=1 it was {found.images / 0.01:.4g} images/s" in found.busy


def test_a_network_too_slow_for_the_time_is_measured_by_one_image() -> None:
    found = measured_rate.measured_rate(job(), most_s=0.0)
    assert found.images == 1
    assert found.images_per_s > 0


def test_one_step_that_waited_for_other_work_decides_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    taken = iter([1e-3, 0.6, 1e-3])  # what is done once, a step that waited, the same again
    sizes = []

    def take(steps: object, size: int) -> float:
        sizes.append(size)
        return next(taken, size * 1e-3 * (1 if len(sizes) != 6 else 100))

    monkeypatch.setattr(measured_rate._Steps, "take", take)
    found = measured_rate.measured_rate(job(), most_s=5.0)
    size = job().global_batch_size
    assert (sizes[:4], found.images) == ([1, 1, 1, size], size)
    assert found.images_per_s == pytest.approx(1000.0)


def test_a_study_measures_once() -> None:
    fields = {**TRAIN, "num_steps": 100}
    wider = {"train": {**fields, "restorer": {**TRAIN["restorer"], "dim": 8}}}
    study = parse(VERBS["study"].spec(), {"jobs": [{"train": fields}, wider], "seeds": 2})
    lines = VERBS["study"].dry_run(study, "auto").estimate
    assert sum("measured here" in line for line in lines) == 1
    assert sum("images/s:" in line for line in lines) == 2
    assert re.search(r"(: \d+:\d\d:\d\d| hours( \(\S+\))?) one after the other", lines[-1])
