"""A storage with jobs of a test's own, and `colddiff gc` on it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from colddiff.jobs.folder import JobFolder
from colddiff.jobs.status import State, Status
from colddiff.machine.processes import this_process
from colddiff.ports import Store
from colddiff.stores.open import open_store
from tests.in_process import Done, colddiff_here

TRAIN = "train-a-00000001"


class Garden:
    """A storage with jobs of a test's own, and `colddiff gc` on it."""

    def __init__(
        self, uri: str, patch: pytest.MonkeyPatch, captured: pytest.CaptureFixture[str]
    ) -> None:
        self.store: Store = open_store(uri)
        self._patch, self._captured = patch, captured
        patch.setenv("COLDDIFF_STORAGE", uri)
        # Not the snapshots of this machine's jobs.
        patch.setattr("colddiff.checkpoints.snapshot_places.MEMORY", Path("/nowhere"))

    def job(
        self, job_id: str, state: State = "done", *, attempt: int = 1, **spec: Any
    ) -> JobFolder:
        folder = JobFolder(self.store, job_id)
        folder.claim(attempt, this_process())
        verb = job_id.partition("-")[0]
        about = {"id": job_id, "verb": verb, "slug": "a", "created": 1.0, "spec": spec}
        folder.write_job({**about, "storage": self.store.uri})
        folder.write_status(Status(state, attempt, **this_process()))
        folder.write_log(attempt, b"a line\n")
        return folder

    def trained(self, steps: dict[int, float | None], **fields: Any) -> JobFolder:
        """A train job with checkpoints, and the score of those that were evaluated."""
        folder = self.job(fields.pop("job_id", TRAIN), **{"keep": 1, **fields})
        for step, rmse in steps.items():
            for name in ("ema.safetensors", "state.json", "checkpoint.json"):
                self.store.put(folder.key(f"checkpoints/step_{step:08d}/{name}"), b"0" * 100)
            if rmse is not None:
                folder.write_evaluation(step, {"metrics": {"eval/sampled/rmse": rmse}})
        return folder

    def steps(self, job_id: str = TRAIN) -> list[int]:
        names = self.store.folders(f"jobs/{job_id}/checkpoints/")
        return [int(name.removeprefix("step_")) for name in names]

    def keys(self) -> list[str]:
        return [item.key for item in self.store.list()]

    def run(self, *words: object) -> Done:
        return colddiff_here(self._patch, self._captured, "gc", *words)

    def gc(self, *words: object) -> dict[str, Any]:
        """Deletes, whatever its age unless a test says otherwise."""
        aged = () if "--older-than" in words else ("--older-than", 0)
        done = self.run("--yes", "--json", *aged, *words)
        assert done.returncode == 0, done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        return found


def kinds(found: dict[str, Any]) -> list[str]:
    return sorted(item["kind"] for item in found["leftovers"])
