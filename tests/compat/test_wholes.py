"""What jobs of every verb leave: checkpoints, tracked names, keys of their JSON files.

New keys are welcome in JSON files, parameters and tags; those that were there stay, with the type
they had. Metrics and artifacts are the recorded ones exactly, and those named here.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.compat.conftest import Present

VERBS = ("train", "evaluate", "generate")
ADDED = ("report.html",)
"""Artifacts that runs have had since they were recorded, with the pictures by step in `images/`."""
DOUBLE = ("storage",)
"""Tags that said what another, `colddiff.storage`, says."""


@pytest.fixture(scope="module")
def before(recorded: Callable[[str], Any]) -> Any:
    return recorded("wholes.json")


def gone(before: list[str], now: list[str]) -> list[str]:
    return sorted(set(before) - set(now))


def test_the_training_has_the_id_it_had(before: Any, present: Present) -> None:
    assert present.left["id"] == before["id"]
    assert present.left["data"] == before["data"]


@pytest.mark.parametrize("verb", VERBS)
def test_metric_and_artifact_names(verb: str, before: Any, present: Present) -> None:
    kept, now = before[verb]["tracked"], present.left[verb]["tracked"]
    # A machine with GPUs samples these too.
    metrics = [name for name in now["metrics"] if not name.startswith("system/gpu_")]
    assert metrics == kept["metrics"]
    artifacts = [name for name in now["artifacts"] if not name.startswith("images/")]
    assert sorted(artifacts) == sorted([*kept["artifacts"], *ADDED])


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("what", ["params", "tags"])
def test_names_of_parameters_and_tags(verb: str, what: str, before: Any, present: Present) -> None:
    lost = gone(before[verb]["tracked"][what], present.left[verb]["tracked"][what])
    assert set(lost) <= set(DOUBLE if what == "tags" else ())


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("file", ["job", "status", "result"])
def test_keys_of_json_files(verb: str, file: str, before: Any, present: Present) -> None:
    assert gone(before[verb][file], present.left[verb][file]) == []


@pytest.mark.parametrize(("verb", "extent"), [("train", 4), ("evaluate", 8), ("generate", 8)])
def test_a_status_says_what_it_said(verb: str, extent: int, present: Present) -> None:
    folder = present.storage / "jobs" / present.ids[verb]
    status = json.loads((folder / "status.json").read_text())
    said = {name: status[name] for name in ("state", "attempt", "step", "num_steps", "message")}
    counted = {"attempt": 1, "step": extent, "num_steps": extent}
    assert said == {"state": "done", "message": "", **counted}
    assert status["heartbeat"] >= status["started"] > 0
    assert status["running_s"] > 0


def test_checkpoints(before: Any, present: Present) -> None:
    kept, now = before["checkpoints"], present.left["checkpoints"]
    for old, new in zip(kept, now, strict=True):
        for name in ("name", "files", "tensors", "losses", "commit"):
            assert new[name] == old[name]
        assert gone(old["state"], new["state"]) == []
