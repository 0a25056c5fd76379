"""Finished jobs of one name that differ: how to see them side by side is said."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from colddiff.jobs.folder import JobFolder
from colddiff.jobs.listing.comparable import compare_line, done_by_another_name
from colddiff.jobs.results import told_lines
from colddiff.jobs.status import Status
from colddiff.ports import Store
from colddiff.stores.memory_store import MemoryStore
from tests.cli.test_job_table import rows_of

A, B, C = (f"train-blur-0000000{n}" for n in "abc")
RESULT = {"metrics": {"eval/sampled/rmse": 0.1}, "provenance": {}, "checkpoint": "c", "best": None}


def write(
    store: Store, job_id: str, num_timesteps: int, created: float = 1.0, **more: Any
) -> JobFolder:
    folder = JobFolder(store, job_id)
    spec = {"degradation": {"kind": "blur", "num_timesteps": num_timesteps}, **more}
    state, score = spec.pop("state", "done"), spec.pop("score", 0.1)
    slug = job_id.split("-", 1)[1].rpartition("-")[0]
    folder.write_job({"id": job_id, "slug": slug, "created": created, "spec": spec})
    told = {} if score is None else {"score": score, "score_metric": "eval/sampled/rmse"}
    folder.write_status(Status(state, attempt=1, step=9, num_steps=9, **told))
    return folder


def compared(lines: Iterable[str]) -> list[str]:
    return [line.strip() for line in lines if "colddiff report" in line]


def test_the_end_of_a_job_says_how_to_compare_it_with_the_last_like_it() -> None:
    store = MemoryStore()
    folder = write(store, A, 20)
    assert compared(told_lines(folder, RESULT)) == []
    write(store, B, 10)
    line = f"colddiff report {B} {A} --out ./report    # they differ in degradation.num_timesteps"
    assert compared(told_lines(folder, RESULT)) == [line]
    assert compared(told_lines(folder, {**RESULT, "step": 9})) == [line]
    assert compared(told_lines(folder, {**RESULT, "step": 4})) == [f"{line}, and in steps: 9 and 4"]
    # A training that was not evaluated has nothing to compare.
    assert compared(told_lines(folder, {**RESULT, "metrics": {"train/loss_l1": 0.1}})) == []


def test_what_is_no_use_beside_it_is_not_named() -> None:
    store = MemoryStore()
    folder = write(store, A, 20)
    write(store, B, 10, state="failed")
    write(store, C, 10, score=None)
    write(store, "train-blur-0000000d", 20, num_steps=900)  # the same but for how it ran
    write(store, "train-blur-0000000e", 10, tracking={"parent": "search-x"})
    write(store, "train-blur-more-0000000f", 10)
    write(store, "evaluate-blur-0000000a", 10)
    assert compared(told_lines(folder, RESULT)) == []
    assert compare_line(rows_of(store)) is None


def test_an_evaluation_of_samples_is_not_compared_with_one_of_a_checkpoint() -> None:
    store = MemoryStore()
    first = write(store, "evaluate-job-0000000a", 20, checkpoint="train-a@best")
    write(store, "evaluate-job-0000000b", 20, samples="s3://bucket/out", reference="digits")
    assert compared(told_lines(first, RESULT)) == []
    assert compare_line(rows_of(store)) is None
    write(store, "evaluate-job-0000000c", 20, checkpoint="train-b@best")
    assert len(compared(told_lines(first, RESULT))) == 1


def test_the_same_job_by_another_name_is_named() -> None:
    store = MemoryStore()
    folder = write(store, "train-mine-0000000a", 20)
    write(store, "train-mine-0000000b", 10)
    write(store, "evaluate-blur-0000000a", 20)
    write(store, "train-other-0000000a", 20, state="failed")
    assert done_by_another_name(folder) is None
    write(store, A, 20)
    line = done_by_another_name(folder)
    assert line is not None
    assert line.startswith(f"{A} is the same job by another name, and done: `--name blur` reports")
    assert "`colddiff stop train-mine-0000000a` ends this one" in line


def test_a_list_says_how_to_compare_the_last_two() -> None:
    store = MemoryStore()
    for job_id, created in ((A, 3.0), (B, 1.0), (C, 2.0)):
        write(store, job_id, int(created), created)
    line = f"compare: colddiff report {C} {A} --out ./report    # they differ in "
    assert compare_line(rows_of(store)) == f"{line}degradation.num_timesteps"
