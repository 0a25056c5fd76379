"""What a later version wrote is refused by naming the version to install, and left as it is."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

from colddiff import __version__
from colddiff.checkpoints.format import Checkpoints
from colddiff.checkpoints.references import find_checkpoint, load_checkpoint
from colddiff.data import manifest, sample_plan
from colddiff.errors import ColddiffError, LaterFormat, SpecError
from colddiff.jobs.folder import JobFolder
from colddiff.report.page.details import FACTS, details_from_bytes
from colddiff.stores.local_store import LocalStore
from colddiff.tracking import spool
from tests.tiny_checkpoint import tiny_checkpoint

SAID = rf"which colddiff {__version__} cannot read: install colddiff>=0\.9$"
JOB_ID = "train-a-00000001"


def later(format_: object, **fields: Any) -> bytes:
    return json.dumps({"format": format_, "colddiff": "0.9", **fields}).encode()


def of_the_job(name: str, read: Callable[[JobFolder], object]) -> Callable[[Path], object]:
    def reading(place: Path) -> object:
        folder = JobFolder(LocalStore(place), JOB_ID)
        folder.store.put(folder.key(name), later("colddiff-job-2"))
        return read(folder)

    return reading


def read_checkpoint(place: Path) -> object:
    path = Path(tiny_checkpoint(place)) / "checkpoints/step_00000003/checkpoint.json"
    path.write_bytes(later("colddiff-checkpoint-2"))
    return find_checkpoint(str(place))


def read_manifest(place: Path) -> object:
    LocalStore(place).put(manifest.KEY, later("colddiff-shards/3"))
    return manifest.read_manifest(LocalStore(place))


def read_plan(place: Path) -> object:
    LocalStore(place).put("plan.json", later("colddiff-samples/2"))
    return sample_plan.read_plan(LocalStore(place))


def read_details(place: Path) -> object:
    facts = np.frombuffer(later(2), dtype=np.uint8)
    return details_from_bytes(safetensors.numpy.save({FACTS: facts}))


RECORDS: dict[str, Callable[[Path], object]] = {
    "checkpoint.json": read_checkpoint,
    "manifest.json": read_manifest,
    "plan.json": read_plan,
    "an evaluation's details": read_details,
    "job.json": of_the_job("job.json", JobFolder.job),
    "status.json": of_the_job("status.json", JobFolder.status),
    "result.json": of_the_job("result.json", JobFolder.result),
    "claim.json": of_the_job("attempts/1/claim.json", lambda folder: folder.read_claim(1)),
    "progress.json": of_the_job("attempts/1/progress.json", lambda folder: folder.progress(1)),
    "an evaluation": of_the_job("evaluations/step_00000001.json", lambda f: f.evaluation(1)),
}


@pytest.mark.parametrize("record", RECORDS)
def test_a_later_format_names_the_version_to_install(record: str, tmp_path: Path) -> None:
    with pytest.raises(ColddiffError, match=SAID) as refused:
        RECORDS[record](tmp_path)
    assert refused.value.exit_code == 2


def test_spooled_entries_of_a_later_version_are_named(tmp_path: Path) -> None:
    with pytest.raises(ColddiffError, match=r"install colddiff>=0\.9"):
        spool.decode("spool/1.jsonl", later(2))


def test_a_training_does_not_go_on_below_a_later_versions_checkpoint(tmp_path: Path) -> None:
    checkpoints = Checkpoints(LocalStore(tiny_checkpoint(tmp_path, step=3)), "checkpoints")
    tiny_checkpoint(tmp_path, step=6)
    checkpoints.store.put(checkpoints.key(6, "checkpoint.json"), later("colddiff-checkpoint-2"))
    with pytest.raises(LaterFormat, match=SAID):
        checkpoints.newest(["ema"])
    assert checkpoints.steps() == [3, 6]


def test_an_older_or_unknown_format_names_what_is_read(tmp_path: Path) -> None:
    for found in ("colddiff-checkpoint-0", "another-checkpoint-2", 2, None):
        path = Path(tiny_checkpoint(tmp_path)) / "checkpoints/step_00000003/checkpoint.json"
        path.write_bytes(later(found))
        with pytest.raises(ColddiffError, match="this version reads 'colddiff-checkpoint-1'"):
            find_checkpoint(str(tmp_path))


def test_a_field_of_a_later_version_names_it(tmp_path: Path) -> None:
    folder = tmp_path / "jobs" / JOB_ID
    tiny_checkpoint(folder)
    step = folder / "checkpoints/step_00000003"
    state = json.loads((step / "state.json").read_text())
    state["job"]["sharpness"] = 1.0
    rewrite_state(step, state)
    (folder / "job.json").write_text(
        json.dumps(
            {
                "id": JOB_ID,
                "verb": "train",
                "slug": "a",
                "spec": {},
                "versions": {"colddiff": "9.1.4"},
            }
        )
    )
    with pytest.raises(SpecError, match=r"sharpness.*install colddiff>=9\.1\.4$"):
        load_checkpoint(str(folder))


def rewrite_state(step: Path, state: Any) -> None:
    import hashlib

    data = json.dumps(state).encode()
    (step / "state.json").write_bytes(data)
    record = json.loads((step / "checkpoint.json").read_text())
    entry = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    record["files"]["state.json"] = entry
    (step / "checkpoint.json").write_text(json.dumps(record))
