"""A study on a real cluster: trainings with workers of their own, two at a time."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.in_process import Done
from tests.unit.study.tiny_study import LR, attempts, folder_of, write_study

pytestmark = pytest.mark.cluster


def test_a_study_on_a_cluster(
    colddiff_here: Callable[..., Done], storage: Path, tmp_path: Path
) -> None:
    entries = [{"overrides": {"workers": 2}}, {"overrides": {LR: 1e30}}]
    job = write_study(tmp_path / "tiny.yaml", jobs=entries, seeds=1)
    failed = colddiff_here("submit", "study", job)
    assert failed.returncode == 1, failed.stderr
    folder = folder_of(storage)
    members = json.loads(folder.store.get(folder.key("members.json")))["members"]
    assert [member["state"] for member in members] == ["done", "failed"]
    assert f"1 of 2 jobs failed (1 done): {members[1]['id']}" in failed.stderr
    assert "not finite" in members[1]["message"]
    # Each with Ray Train's workers, as if it had been submitted alone, and in one attempt.
    starts = storage / "jobs" / members[0]["id"] / "attempts" / "1" / "starts" / "1.json"
    assert json.loads(starts.read_text())["world_size"] == 2
    assert attempts(storage) == {member["id"]: [1] for member in members}
    assert not list(storage.rglob("*.pkl"))
