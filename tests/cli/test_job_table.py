"""`colddiff list`: what tells jobs apart, in the order and of the kind that was asked for."""

from __future__ import annotations

import json
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from colddiff.jobs.folder import JobFolder, list_jobs
from colddiff.jobs.listing.ended import mark_key
from colddiff.jobs.listing.job_table import (
    JobRow,
    chosen,
    differs_text,
    in_order,
    of_text,
    page,
    read_rows,
    score_text,
    table_of,
)
from colddiff.jobs.listing.known_jobs import KnownJobs
from colddiff.jobs.status import Status
from colddiff.jobs.verb import VERBS
from colddiff.ports import Store
from colddiff.report.differences import OPERATION, short_paths
from colddiff.stores.local_store import LocalStore
from colddiff.stores.memory_store import MemoryStore
from colddiff.verbs.search.tracked import nested_run
from tests.in_process import colddiff_here
from tests.watched_store import Watched

SIGMA = {"kind": "exponential", "start": 0.3426, "end": 1.37}


def write(
    store: Store, job_id: str, *, slug: str = "blur", state: Any = "done", **spec: Any
) -> JobFolder:
    folder = JobFolder(store, job_id)
    score = spec.pop("score", None)
    seen = spec.pop("seen", 1.0)
    folder.write_job({"id": job_id, "slug": slug, "created": -seen, "spec": spec})
    folder.write_status(Status(state, attempt=1, step=9, num_steps=9, heartbeat=seen))
    if score is not None:
        folder.write_result({"metrics": {"eval/sampled/fd_lenet": score}})
    return folder


@pytest.fixture
def store() -> MemoryStore:
    store = MemoryStore()
    blur = {"kind": "blur", "num_timesteps": 20, "sigma": SIGMA}
    short = {**blur, "num_timesteps": 10, "sigma": {**SIGMA, "start": 0.5}}
    write(store, "train-blur-00000001", degradation=blur, seed=0, score=38.5, seen=2.0)
    write(store, "train-blur-00000002", degradation=short, seed=0, num_steps=99, score=31.25)
    write(store, "train-blur-00000003", degradation=blur, seed=1, state="failed", seen=3.0)
    write(store, "train-deblur-mnist-00000004", slug="deblur-mnist", seed=0, state="stopped")
    write(
        store,
        "evaluate-blur-00000005",
        checkpoint="/runs/jobs/train-blur-00000001/checkpoints/step_00000009",
    )
    write(store, "evaluate-blur-00000006", checkpoint="s3://b/p/jobs/train-x/checkpoints/step_1")
    return store


def rows_of(store: Store) -> list[JobRow]:
    return read(store, KnownJobs(store, None))


def read(store: Store, known: KnownJobs) -> list[JobRow]:
    rows, damaged = read_rows([JobFolder(store, job_id) for job_id in list_jobs(store)], known)
    assert damaged == []
    return rows


def told(rows: list[JobRow]) -> list[object]:
    return [(row.folder.job_id, row.status, row.name, row.score, row.differs) for row in rows]


def ids(rows: list[JobRow]) -> list[str]:
    return [row.folder.job_id[-1] for row in rows]


def test_jobs_of_a_name_are_told_apart_by_the_fields_that_differ(store: MemoryStore) -> None:
    told = {row.folder.job_id[-1]: differs_text(row) for row in rows_of(store)}
    # Not by num_steps, which PROGRESS shows, nor by those of other verbs and names.
    assert told == {
        "1": "degradation.num_timesteps=20, sigma.start=0.3426, seed=0",
        "2": "degradation.num_timesteps=10, sigma.start=0.5, seed=0",
        "3": "degradation.num_timesteps=20, sigma.start=0.3426, seed=1",
        "4": "",
        # Their checkpoints, which differ, stand in a column of their own.
        "5": "",
        "6": "",
    }
    assert {row.folder.job_id[-1]: of_text(row) for row in rows_of(store)} == {
        **dict.fromkeys("1234", ""),
        "5": "train-blur-00000001@step=9",
        "6": "train-x@step=1",
    }


def test_how_a_job_is_run_does_not_tell_it_apart(store: MemoryStore) -> None:
    for number, memory in enumerate((1, 2)):
        spec = {"tracking": {"images": bool(number)}, "resources": {"gpus": memory}}
        write(store, f"train-run-0000000{number}", slug="run", **spec)
    rows = chosen(rows_of(store), (), "run")
    assert [row.differs for row in rows] == [{}, {}]


def test_a_long_difference_is_cut(store: MemoryStore) -> None:
    for number in range(2):
        write(store, f"train-long-0000000{number}", slug="long", values=[number + 0.25] * 90)
    rows = chosen(rows_of(store), (), "long")
    text = differs_text(rows[0])
    assert (len(text), text[-1]) == (60, "…")
    assert text.startswith("values=[0.25,0.25,")
    message = f"{'a' * 200}\nand more"
    rows[0].status = Status("failed", attempt=1, message=message)
    cut, whole = (table_of(rows, 0.0, cut=cut)[1][0] for cut in (True, False))
    assert (cut[4], cut[-1]) == (text, f"{'a' * 119}…")
    assert whole[4] == text  # in a pipe too, where the line is to stay readable
    assert whole[-1] == message.replace("\n", " ")


def test_fields_of_operation_are_those_of_the_job_classes() -> None:
    specs = [verb.spec() for verb in VERBS.values()]
    identity = {name for spec in specs for name in spec.identity_fields()}
    fields = {name for spec in specs for name in spec.model_fields}
    # A name that is identity in one verb is shown with those.
    assert fields - identity == OPERATION


def test_paths_are_as_long_as_it_takes_to_tell_them_apart() -> None:
    assert short_paths(["seed", "a.sigma.start", "a.sigma.end", "b.sigma.end", "b.seed"]) == [
        "seed",
        "sigma.start",
        "a.sigma.end",
        "b.sigma.end",
        "b.seed",
    ]
    # A bare `every` or `lr` says little: the field that holds it is shown with it.
    assert short_paths(["ema.every", "optimizer.lr", "degradation.sigma.step"]) == [
        "ema.every",
        "optimizer.lr",
        "sigma.step",
    ]


def test_filters(store: MemoryStore) -> None:
    rows = rows_of(store)
    assert ids(chosen(rows, ["failed", "stopped"], None)) == ["3", "4"]
    assert ids(chosen(rows, [], "deblur")) == ["4"]
    assert ids(chosen(rows, ["done"], "train-blur-*")) == ["1", "2"]
    assert ids(chosen(rows, [], "0000000[56]")) == []
    assert ids(chosen(rows, [], "*[56]")) == ["5", "6"]


def test_orders(store: MemoryStore) -> None:
    rows = chosen(rows_of(store), [], "train")
    assert ids(in_order(rows, "seen")) == ["2", "4", "1", "3"]
    assert ids(in_order(rows, "created")) == ["3", "1", "2", "4"]
    assert ids(in_order(rows, "best"))[:2] == ["2", "1"]
    assert ids(in_order(rows, "name"))[-1] == "4"
    assert ids(in_order(rows, "state")) == ["2", "1", "3", "4"]
    assert [score_text(row) for row in rows] == ["fd_lenet 38.5", "fd_lenet 31.25", "-", "-"]


def test_of_a_metric_of_which_more_is_better_the_highest_is_first() -> None:
    store = MemoryStore()
    for number, value in enumerate((20.0, 25.0)):
        folder = write(store, f"search-x-0000000{number}")
        found = {"metric": "eval/sampled/psnr", "metrics": {"search/best": value}}
        folder.write_result(found)
    assert ids(in_order(rows_of(store), "best")) == ["1", "0"]


def test_a_result_of_another_version_has_no_score() -> None:
    store = MemoryStore()
    write(store, "search-x-00000000").write_result({"metrics": {}})
    assert [score_text(row) for row in rows_of(store)] == ["-"]


def test_the_best_of_a_job_that_runs_is_in_its_status(store: MemoryStore) -> None:
    folder = write(store, "train-blur-00000007", state="stopped", score=99.0)
    status = Status("stopped", 1, score=12.5, score_metric="eval/sampled/fid")
    folder.write_status(status)
    assert score_text(chosen(rows_of(store), ["stopped"], "blur-00000007")[0]) == "fid 12.5"


def test_jobs_are_read_side_by_side(tmp_path: Path) -> None:
    """So that 500 of them on S3, three requests each, take about a second."""
    together = threading.Barrier(16, timeout=30)

    def before(operation: str, key: str) -> None:
        if operation == "get" and key.endswith("status.json"):
            together.wait()

    for number in range(16):
        write(LocalStore(tmp_path), f"train-x-000000{number:02}")
    began = time.monotonic()
    assert len(rows_of(Watched(tmp_path, before))) == 16
    assert time.monotonic() - began < 30


def test_what_cannot_have_changed_is_asked_for_once(tmp_path: Path) -> None:
    """So that a list of jobs on S3 costs a request for each job that runs, and none for others."""
    asked: list[str] = []

    def before(operation: str, key: str) -> None:
        asked.append(key)

    cache, store = LocalStore(tmp_path / "home"), Watched(tmp_path / "runs", before)
    for seed in range(12):
        write(store, f"train-x-000000{seed:02}", slug="x", seed=seed)
    running = JobFolder(store, "train-x-00000000")
    running.write_status(Status("running", 2))
    asked.clear()
    first = read(store, KnownJobs(store, None))
    assert len(asked) > 2 * 12
    asked.clear()
    elsewhere = read(store, KnownJobs(store, cache))
    assert asked == ["listed.json", running.key("status.json"), running.key("job.json")]
    asked.clear()
    again = read(store, KnownJobs(store, cache))
    assert asked == [running.key("status.json")]
    assert told(first) == told(elsewhere) == told(again)
    assert [row.differs for row in again] == [{"seed": seed} for seed in range(12)]

    JobFolder(store, "train-x-00000003").write_status(Status("queued", 2))
    running.write_status(Status("done", 2, score=2.0, score_metric="eval/sampled/fid"))
    asked.clear()
    rows = {row.folder.job_id[-1]: row for row in read(store, KnownJobs(store, cache))[:4]}
    assert sorted(asked) == [
        "ended/train-x-00000000.json",
        "jobs/train-x-00000003/job.json",
        "jobs/train-x-00000003/status.json",
    ]
    assert (rows["0"].score, rows["3"].state) == (("eval/sampled/fid", 2.0), "queued")


def test_a_job_of_an_earlier_version_or_with_a_damaged_mark_is_read_itself() -> None:
    store = MemoryStore()
    marks = [b"{half", b"[]", b"{}", b'{"status": {"state": "done"}}', b'{"status": 1, "job": {}}']
    for number, mark in enumerate(marks):
        folder = write(store, f"train-x-0000000{number}", seed=number)
        store.put(mark_key(folder.job_id), mark)
    store.delete(mark_key(write(store, "train-x-00000009", seed=9).job_id))
    assert [row.differs["seed"] for row in rows_of(store)] == [0, 1, 2, 3, 4, 9]
    assert {row.state for row in rows_of(store)} == {"done"}


@pytest.mark.parametrize("damage", [b"{half", b"[]", b'{"train-x-00000000": 7}'])
def test_a_damaged_cache_is_no_problem(tmp_path: Path, damage: bytes) -> None:
    cache, store = LocalStore(tmp_path), MemoryStore()
    write(store, "train-x-00000000", slug="x", seed=0)
    read(store, KnownJobs(store, cache))
    (kept,) = cache.list("listed/")
    cache.put(kept.key, damage)
    assert [row.name for row in read(store, KnownJobs(store, cache))] == ["x"]


def test_a_cache_that_cannot_be_written_is_no_problem(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    store = MemoryStore()
    write(store, "train-x-00000000", slug="x", seed=0)
    cache = LocalStore(tmp_path / "file" / "home")
    assert [row.name for row in read(store, KnownJobs(store, cache))] == ["x"]


def test_a_page_is_the_newest_or_the_first_of_the_order(store: MemoryStore) -> None:
    rows = chosen(rows_of(store), [], "train")
    for sort, shown in (("seen", ["1", "3"]), ("best", ["2", "1"]), ("name", ["2", "1"])):
        found, more = page(in_order(rows, sort), sort, 2)
        assert (ids(found), more) == (shown, 2)
    for limit in (0, 4, 9):
        assert page(rows, "seen", limit) == (rows, 0)


def test_a_job_without_its_workers_is_waiting(tmp_path: Path) -> None:
    running = Status(state="running", attempt=1, phase="training")
    folder = JobFolder(MemoryStore(), "train-x-00000000")

    def row(status: Status) -> JobRow:
        return JobRow(folder, status, {}, None)

    waiting = replace(running, phase="waiting")
    rows = [row(running), row(waiting), row(replace(waiting, state="stopped"))]
    assert [found.state for found in rows] == ["running", "waiting", "stopped"]
    assert chosen(rows, ["waiting"], None) == [rows[1]]


def test_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def listed(*words: str) -> Any:
        return colddiff_here(
            monkeypatch, capsys, "list", *words, COLDDIFF_STORAGE=str(tmp_path / "runs")
        )

    store = LocalStore(tmp_path / "runs")
    failed = Status("failed", attempt=1, message="why " * 50)
    write(store, "train-cut-00000001").write_status(failed)
    assert listed().stdout.rstrip().endswith(failed.message.rstrip())  # read by grep, say
    store.clear("jobs/train-cut-00000001/")
    write(store, "train-blur-00000001", seed=0, score=38.5, seen=2.0)
    write(store, "train-blur-00000002", seed=1, state="failed")
    first, *lines = listed().stdout.splitlines()
    assert first.split() == ["ID", "STATE", "PROGRESS", "BEST", "DIFFERENT", "LAST", "SEEN"]
    assert [line.split()[0] for line in lines] == ["train-blur-00000001", "train-blur-00000002"]
    assert "fd_lenet 38.5" in lines[0]
    assert "seed=1" in lines[1]
    (row,) = json.loads(listed("--state", "done", "--json").stdout)
    assert (row["differs"], row["best"]["value"], row["name"]) == ({"seed": 0}, 38.5, "blur")
    assert (row["state"], row["result"] is not None) == ("done", True)
    assert "no such jobs" in listed("--name", "celeba").stderr
    newest = listed("--limit", "1")
    assert [line.split()[0] for line in newest.stdout.splitlines()[1:]] == ["train-blur-00000002"]
    assert "1 more; --limit 0 shows all" in newest.stderr
    assert len(json.loads(listed("--limit", "1", "--sort", "name", "--json").stdout)) == 1
    wrong = listed("--state", "dnoe")
    assert (wrong.returncode, "did you mean 'done'?" in wrong.stderr) == (2, True)
    assert listed("--sort", "age").returncode == 2


def test_jobs_that_other_jobs_run_are_counted_and_shown_on_demand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def listed(*words: str) -> Any:
        return colddiff_here(
            monkeypatch, capsys, "list", *words, COLDDIFF_STORAGE=str(tmp_path / "runs")
        )

    def first_words(done: Any) -> list[str]:
        return [line.split()[0] for line in done.stdout.splitlines()]

    store = LocalStore(tmp_path / "runs")
    search, own = "search-blur-00000009", {"parent": "search-blur-00000009", "tags": {}}
    trial = nested_run(search, 1)
    write(store, search)
    write(store, "train-blur-00000001", tracking=own)  # one that somebody put beside it
    write(store, "train-blur-00000002", tracking=trial)
    write(store, "evaluate-blur-00000003", tracking=trial, state="failed", checkpoint="x")
    gone = nested_run("search-gone-00000008", 1)
    write(store, "train-blur-00000004", tracking=gone)
    done = listed("--sort", "name")
    assert set(first_words(done)[1:]) == {search, "train-blur-00000001", "train-blur-00000004"}
    assert done.stderr == "2 jobs of searches and studies not shown: --all\n"
    assert len(first_words(listed("--all"))) == 6
    failed = listed("--state", "failed")
    assert (failed.stdout, failed.stderr.startswith("1 job of searches")) == ("", True)
    found = {row["id"]: row["part_of"] for row in json.loads(listed("--json").stdout)}
    assert {job_id for job_id, outer in found.items() if outer == search} == {
        *("train-blur-00000002", "evaluate-blur-00000003")
    }


def test_a_job_says_of_which_checkpoint_or_samples_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def told(*words: str) -> str:
        storage = str(tmp_path / "runs")
        done = colddiff_here(monkeypatch, capsys, *words, COLDDIFF_STORAGE=storage)
        return str(done.stdout)

    store, trained = LocalStore(tmp_path / "runs"), "train-quickstart-00000001"
    address = f"/runs/jobs/{trained}/checkpoints/step_00000040"
    write(store, "evaluate-job-00000005", slug="job", checkpoint=address, num_images=64)
    write(store, "evaluate-job-00000006", slug="job", checkpoint=address, num_images=80)
    samples = "s3://b/p/samples/generate-job-00000008"
    write(store, "evaluate-job-00000007", slug="job", samples=samples)
    write(store, "search-quickstart-00000009", slug="quickstart", base={"checkpoint": address})
    write(store, trained, slug="quickstart")
    header, *lines = told("list").splitlines()
    assert header.split()[:3] == ["ID", "OF", "STATE"]
    assert {line.split()[0][-1]: line.split()[1] for line in lines} == {
        **dict.fromkeys("569", f"{trained}@step=40"),
        "7": "generate-job-00000008",
        "1": "-",
    }
    assert all(line.count("@step=40") < 2 for line in lines)
    found = {row["id"][-1]: row["of"] for row in json.loads(told("list", "--json"))}
    assert (found["7"], found["1"]) == ({"samples": samples}, {})
    assert f"checkpoint={trained}@step=40" in told("status", "evaluate-job-00000005")
    assert f"base.checkpoint={trained}@step=40" in told("status", "search-quickstart-00000009")
