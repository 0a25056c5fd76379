"""A checkpoint's severities searched on a real cluster: lists as trials of Ray Tune."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.in_process import Done
from tests.unit.search.tiny_lists import list_search, list_trials_of, packed_lists

pytestmark = pytest.mark.cluster


def test_lists_of_severities_on_a_cluster(
    colddiff_here: Callable[..., Done], storage: Path, tmp_path: Path
) -> None:
    checkpoint = packed_lists(tmp_path / "packed")
    job = tmp_path / "tiny.yaml"
    job.write_text(json.dumps({"search": list_search(checkpoint, max_concurrent=2)}))
    done = colddiff_here("submit", "search", job, "--json")
    assert done.returncode == 0, done.stderr
    submission = json.loads(done.stdout)
    result = json.loads(Path(submission["result"]).read_text())
    trials = list_trials_of(storage)
    assert [trial.number for trial in trials] == list(range(12))
    place = storage / "jobs" / result["id"]
    assert len(list(place.glob("results/*.json"))) == 12
    assert [best["budget"] for best in result["best"]] == [2, 4, 8]
    # The network is loaded once in a worker, whose trials share calls of it.
    found = [json.loads(path.read_text()) for path in sorted(place.glob("results/*.json"))]
    asked = sum(40 * trial.chosen.calls for trial in trials)
    assert sum(each["calls_made"] for each in found) < asked
    assert (place / "pictures" / "calls.png").is_file()
    assert not list(storage.rglob("*.pkl"))
