"""JSON that colddiff wrote and somebody changed: manifests, checkpoints, states and jobs."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

from colddiff.checkpoints.references import describe_checkpoint, find_checkpoint, load_checkpoint
from colddiff.cli.jobs import commands, listed
from colddiff.data.manifest import left_out_of, manifest_bytes, read_manifest
from colddiff.data.open import open_shards
from colddiff.data.verify import verify
from colddiff.degradations import DEGRADATIONS
from colddiff.jobs.folder import JobFolder
from colddiff.jobs.follow import AttemptWatch
from colddiff.jobs.listing.job_table import table_of
from colddiff.jobs.status import Status
from colddiff.restorers import RESTORERS
from colddiff.stores.local_store import LocalStore
from colddiff.stores.memory_store import MemoryStore
from tests.fuzz.harness import Target
from tests.fuzz.odd import json_like
from tests.fuzz.tars import whole_tar
from tests.tiny_checkpoint import tiny_checkpoint

KINDS = (*DEGRADATIONS, *RESTORERS, "linear", "constant", "exponential", "table")


def manifest(folder: Path) -> Target:
    """``manifest.json`` of a data set."""
    from colddiff.data.sources.webdataset_source import index_tars

    store = MemoryStore()
    store.put("a.tar", whole_tar())
    document = json.loads(manifest_bytes(index_tars(store)))
    document["settings"]["left_out"] = [{"why": "others", "count": 2, "first": ["a", "b"]}]
    document["settings"]["skipped"] = [["a.png", "is broken"]]

    def check(data: Any) -> None:
        store.put("manifest.json", data)
        found = read_manifest(store)
        left_out_of(found)
        verify(store, found)
        open_shards(store, str(folder / "cache")).images(0, min(found.count, 4))

    check(json.dumps(document).encode())
    return Target("manifest", json_like(document), check)


def checkpoint(folder: Path) -> Target:
    """``checkpoint.json``, the record that commits a checkpoint."""
    place = tiny_checkpoint(folder / "checkpoint")
    record = _only(folder / "checkpoint", "checkpoint.json")

    def check(data: Any) -> None:
        record.write_bytes(data)
        load_checkpoint(place)

    document = json.loads(record.read_bytes())
    check(json.dumps(document).encode())
    return Target("checkpoint", json_like(document, tuple(document["files"])), check)


def state(folder: Path) -> Target:
    """``state.json`` of a checkpoint, whose commit record agrees with it."""
    place = tiny_checkpoint(folder / "state")
    path = _only(folder / "state", "state.json")
    record = path.with_name("checkpoint.json")
    commit = json.loads(record.read_bytes())

    def check(data: Any) -> None:
        path.write_bytes(data)
        digest = hashlib.sha256(data).hexdigest()
        commit["files"]["state.json"] = {"bytes": len(data), "sha256": digest}
        record.write_text(json.dumps(commit))
        describe_checkpoint(find_checkpoint(place))
        load_checkpoint(place)

    document = json.loads(path.read_bytes())
    document["losses"] = [[1, 0.5], [2, 0.25]]
    check(json.dumps(document).encode())
    return Target("state", json_like(document, KINDS), check)


JOB_ID = "train-job-0123abcd"
RUNNING = Status(
    state="done", attempt=1, step=3, num_steps=3, heartbeat=1.7e9, started=1.7e9, running_s=5.0,
    loss=0.5, images_per_s=10.0, score=1.5, score_metric="eval/sampled/fd_lenet", host="elsewhere",
    pid=7, reports=1, message="done",
)  # fmt: skip
CLAIM = {"host": "elsewhere", "pid": 7, "time": 1.7e9}
RESULT = {
    "id": JOB_ID, "step": 3, "checkpoint": "step_00000003", "time": {"running_s": 5.0},
    "metrics": {"eval/sampled/fd_lenet": 1.5}, "images_per_s": 3.5, "verb": "train",
}  # fmt: skip


def job_files(folder: Path) -> Target:
    """``status.json`` and what lies beside it in a job's folder."""
    from dataclasses import asdict

    from hypothesis import strategies as st

    from tests.tiny_checkpoint import tiny_job

    storage = folder / "storage"
    job = JobFolder(LocalStore(storage), JOB_ID)
    description = {
        "id": JOB_ID, "verb": "train", "slug": "job", "spec": tiny_job().to_dict(),
        "created": 1.7e9, "storage": "/elsewhere", "tracking_uri": "",
    }  # fmt: skip
    documents: dict[str, Any] = {
        "status.json": asdict(RUNNING),
        "job.json": description,
        "result.json": RESULT,
        "attempts/1/claim.json": CLAIM,
        "attempts/1/progress.json": {"step": 2, "evaluated": 1},
        "attempts/1/reports.json": {"lines": ["a", "b"]},
    }
    whole = {name: json.dumps(document).encode() for name, document in documents.items()}

    def check(drawn: Any) -> None:
        name, data = drawn
        shutil.rmtree(storage, ignore_errors=True)
        for known, content in {**whole, name: data}.items():
            job.store.put(job.key(known), content)
        _read_job(job, str(storage))

    check(("status.json", whole["status.json"]))
    states = ("queued", "running", "done", "failed", "stopped", "lost")
    # Half of them are of the status, the file that all commands read.
    drawn_from = [*documents.items(), *[("status.json", asdict(RUNNING))] * 5]
    inputs = st.one_of(
        [st.tuples(st.just(name), json_like(document, states)) for name, document in drawn_from]
    )
    return Target("status", inputs, check)


def _read_job(job: JobFolder, storage: str) -> None:
    """What `list`, `status` and a submit read of it; a running attempt is looked at once."""
    from colddiff.jobs.listing.job_table import in_order, read_rows
    from colddiff.jobs.listing.known_jobs import KnownJobs
    from colddiff.jobs.submit import newest_attempt, submission_of

    rows, _ = read_rows([job], KnownJobs(job.store, None))
    for row in in_order(rows, "created"):
        table_of([row], 2e9)
        listed._row_as_data(row)
    status = job.status()
    newest_attempt(job, status)
    submission_of(job, status)
    job.progress(1)
    if status is not None and not status.finished:
        AttemptWatch(job, status.attempt, None).look()
    else:
        commands.status([JOB_ID], storage=storage)


def _only(folder: Path, name: str) -> Path:
    (found,) = folder.rglob(name)
    return found
