"""A whole search of a checkpoint's severities in this process: its results, killed, extended."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

import colddiff
from colddiff.errors import ColddiffError
from colddiff.sampling import falling
from tests.in_process import colddiff_here, terminated_once
from tests.kills import PATIENCE_S
from tests.unit.search.tiny_lists import T, list_search, list_trials_of, packed_lists
from tests.unit.search.tiny_search import folder_of

Call = Any


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a checkpoint and the digits that its job names."""
    place = tmp_path_factory.mktemp("packed")
    packed_lists(place)
    return place


@pytest.fixture
def storage(packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    place = tmp_path / "runs"
    monkeypatch.setenv("COLDDIFF_STORAGE", str(place))
    monkeypatch.setenv("COLDDIFF_CACHE", str(tmp_path / "cache"))
    # Making the tables of a new file takes longer than any of these searches.
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{packed}/mlflow.db")
    return place


def search(packed: Path, **fields: Any) -> dict[str, Any]:
    return colddiff.search(list_search(str(packed / "checkpoint"), **fields), "tiny")


def board_of(storage: Path) -> dict[str, Any]:
    folder = folder_of(storage)
    found: dict[str, Any] = json.loads(folder.store.get(folder.key("leaderboard.json")))
    return found


def test_a_search_finds_lists_that_the_other_verbs_take(
    packed: Path, storage: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    result = search(packed)
    board, trials = board_of(storage), list_trials_of(storage)
    assert [trial.number for trial in trials] == list(range(12))
    assert trials[0].severities == tuple(range(T, -1, -1))
    assert all(falling(trial.severities, T)[0] == T for trial in trials)
    assert len({trial.chosen for trial in trials}) == 12
    assert all(row["metrics"]["fd_lenet"] > 0 for row in board["rows"])
    assert [row["rank"] for row in board["rows"]] == sorted(row["rank"] for row in board["rows"])

    by_number = {row["number"]: row for row in board["rows"]}
    for best in board["best"]:
        within = [row for row in board["rows"] if row["calls"] <= best["budget"]]
        assert best["validation"]["fd_lenet"] == min(r["metrics"]["fd_lenet"] for r in within)
        assert best["calls"] == by_number[best["trial"]]["calls"] <= best["budget"]
        assert best["test_images"] == 40
        assert all(found["se"] > 0 for found in best["against"])
    assert [best["budget"] for best in result["best"]] == [2, 4, 8]
    assert not list(storage.rglob("checkpoints"))

    folder = storage / "jobs" / result["id"]
    text = (folder / "leaderboard.md").read_text()
    assert "| at most | calls |" in text
    assert "of 40 validation images" in text
    assert '<tr class="base">' in (folder / "leaderboard.html").read_text()
    with Image.open(folder / "pictures" / "calls.png") as picture:
        assert picture.size[0] > 600
    accepted(folder / "best.yaml", board, storage, monkeypatch, capsys)


def accepted(path: Path, board: dict[str, Any], storage: Path, patch: Call, captured: Call) -> None:
    """`evaluate`, `generate` and `restore` take ``best.yaml`` as it is; numbers agree."""
    for best in board["best"]:
        variant = [] if best["budget"] == 8 else ["--variant", f"calls-{best['budget']}"]
        words = ("evaluate", path, *variant, "--local", "--json")
        done = colddiff_here(patch, captured, "submit", *words)
        assert done.returncode == 0, done.stderr
        result = json.loads(Path(json.loads(done.stdout)["result"]).read_text())
        column = {"improved": "sampled"}.get(best["sampler"], best["sampler"])
        assert result["provenance"]["severities"] == best["severities"]
        assert result["metrics"][f"eval/{column}/fd_lenet"] == pytest.approx(
            best["test"]["fd_lenet"], rel=1e-6
        )
    words = ("generate", path, "--variant", "calls-2", "num_samples=4", "--local", "--json")
    done = colddiff_here(patch, captured, "submit", *words)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["state"] == "done"

    command = path.read_text().splitlines()[0].removeprefix("# ").partition("   #")[0].split()
    picture, out = storage / "a.png", storage / "restored"
    Image.fromarray(np.zeros((16, 16), np.uint8)).save(picture)
    places = {"IMG...": str(picture), "DIR": str(out)}
    done = colddiff_here(patch, captured, *(places.get(word, word) for word in command[1:]))
    assert done.returncode == 0, done.stderr
    assert (out / "a.png").is_file()


def test_a_search_that_was_ended_goes_on_with_the_same_trials(
    packed: Path,
    tmp_path: Path,
    storage: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Killed, then terminated, then left alone."""
    fields = {"searcher": "random", "num_trials": 30, "confirm_best": 0}
    job = tmp_path / "tiny.yaml"
    job.write_text(json.dumps({"search": list_search(str(packed / "checkpoint"), **fields)}))
    words = [sys.executable, "-m", "colddiff.cli.main", "submit", "search", str(job), "--local"]
    log = tmp_path / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(words, stdout=output, stderr=output, env=dict(os.environ))
        deadline = time.monotonic() + PATIENCE_S
        while not list(storage.glob("jobs/search-*/results/0004.json")):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.02)
        process.kill()
        assert process.wait(PATIENCE_S) == -signal.SIGKILL, log.read_text()
    (place,) = storage.glob("jobs/search-*")
    kept = results_in(place)
    begun = list_trials_of(storage)
    assert 5 <= len(kept) < 30

    with terminated_once(lambda: len(list(place.glob("results/*"))) > len(kept)):
        stopped = colddiff_here(monkeypatch, capsys, *words[3:])
    assert stopped.returncode == 4, stopped.stderr
    assert f"{len(kept)} of 30 trials resumed" in stopped.stderr
    before = results_in(place)
    # A result holds how long it took: written again, it would be another.
    assert before | kept == before
    assert len(kept) < len(before) < 30
    begun_again = list_trials_of(storage)
    assert begun_again[: len(begun)] == begun

    again = colddiff_here(monkeypatch, capsys, *words[3:])
    assert again.returncode == 0, again.stderr
    assert f"{len(before)} of 30 trials resumed" in again.stderr
    assert results_in(place) | before == results_in(place)
    trials = list_trials_of(storage)
    assert trials[: len(begun_again)] == begun_again
    assert len(trials) == 30

    monkeypatch.setenv("COLDDIFF_STORAGE", str(tmp_path / "undisturbed"))
    search(packed, **fields)
    undisturbed = list_trials_of(tmp_path / "undisturbed")
    assert [trial.chosen for trial in trials] == [trial.chosen for trial in undisturbed]


def results_in(place: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in place.glob("results/*")}


def test_more_trials_extend_a_finished_search(packed: Path, storage: Path) -> None:
    first = search(packed, num_trials=8, searcher="tpe", confirm_best=0)
    assert "against" in first["best"][0]
    assert first["best"][0]["against"] == []
    records = list_trials_of(storage)
    assert search(packed, num_trials=8, searcher="tpe", confirm_best=0) == first
    more = search(packed, num_trials=11, searcher="tpe", confirm_best=0)
    assert (more["id"], more["trials"]) == (first["id"], 11)
    assert list_trials_of(storage)[:8] == records
    confirmed = search(packed, num_trials=11, searcher="tpe")
    assert confirmed["id"] == first["id"]
    assert any(best["against"] for best in confirmed["best"])
    assert confirmed["best"][0]["severities"] == more["best"][0]["severities"]


def test_only_the_samplers_or_only_the_severities(
    packed: Path, storage: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = search(packed, over=["sampler"], num_trials=100, confirm_best=0)
    trials = list_trials_of(storage)
    # Every number of calls with each of three samplers, and the space has no more.
    assert result["trials"] == len(trials) == 3 * T
    assert all(list(t.severities) == falling(t.chosen.calls, T) for t in trials)

    monkeypatch.setenv("COLDDIFF_STORAGE", str(storage / "severities"))
    search(packed, over=["severities"], base={"sampler": "naive"}, confirm_best=0)
    assert {t.sampler for t in list_trials_of(storage / "severities")} == {"naive"}


def test_a_list_that_fails_is_a_row_and_a_damaged_result_is_named(
    packed: Path, storage: Path
) -> None:
    search(packed, num_trials=6, confirm_best=0)
    (place,) = storage.glob("jobs/search-*")
    (place / "results" / "0003.json").write_text("{")
    with pytest.raises(ColddiffError, match=r"results/0003.json is not a result of this search"):
        search(packed, num_trials=7, confirm_best=0)


def test_best_yaml_is_plain_and_has_a_variant_for_each_smaller_budget(
    packed: Path, storage: Path
) -> None:
    search(packed, num_trials=6, confirm_best=0)
    (path,) = storage.glob("jobs/search-*/best.yaml")
    text = path.read_text()
    assert "&id" not in text
    data = yaml.safe_load(text)
    assert list(data["variants"]) == ["calls-2", "calls-4"]
    assert len(data["variants"]["calls-2"]["evaluate"]["severities"]) <= 3
