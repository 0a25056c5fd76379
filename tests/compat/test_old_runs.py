"""Runs that an earlier version left behind: seen, gone on with, evaluated and sampled from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import colddiff
from tests.compat import old_layout
from tests.compat.described import metric_steps
from tests.compat.running import TINY, command, process, submit, tiny, train_tiny

MARK = 0.123456
"""A loss that no training has: where it is, a checkpoint was gone on from."""
KILLED = ("--name", "killed", "checkpoint_every=20", "log_every=1", "evaluate_every=null")


@pytest.fixture
def finished(storage: Path) -> Path:
    """The folder of a training that ended after step 4, with a marked loss in its checkpoint."""
    folder = storage / "jobs" / old_layout.restore("run", storage)
    old_layout.edit(folder / "checkpoints/step_00000004", marked)
    return folder


@pytest.fixture
def killed(storage: Path) -> Path:
    """That of one whose cluster died after step 20, an hour ago."""
    return storage / "jobs" / old_layout.restore("killed", storage)


def marked(text: str) -> str:
    state = json.loads(text)
    state["losses"][0][1] = MARK
    return json.dumps(state)


def read(path: Path) -> Any:
    return json.loads(path.read_text())


def went_on(folder: Path, step: int, first: int) -> None:
    """Fails unless a checkpoint at ``step`` continues the marked one."""
    state = read(folder / f"checkpoints/step_{step:08d}/state.json")
    losses = dict(map(tuple, state["losses"]))
    assert losses[1] == MARK
    assert [n for n in losses if n >= first] == list(range(first, step + 1))
    assert metric_steps(folder.parents[1], folder.name, "train/loss_l1") == [
        *range(first, step + 1)
    ]
    status = read(folder / "status.json")
    assert (status["state"], status["attempt"], status["step"]) == ("done", 2, step)


def test_train_goes_on_where_an_old_run_ended(finished: Path) -> None:
    result = train_tiny("num_steps=6")
    assert (result["id"], result["step"]) == (finished.name, 6)
    went_on(finished, 6, first=5)
    loaded = colddiff.load_checkpoint(finished.name)
    assert loaded.step == 6
    assert result["best_step"] in (2, 4, 6)


def test_submit_local_goes_on_where_an_old_run_ended(finished: Path) -> None:
    done = process("submit", "train", TINY, "--local", "--json", "num_steps=6")
    assert done.json["id"] == finished.name
    assert done.json["attempt"] == 2
    went_on(finished, 6, first=5)


def test_an_old_run_that_is_done_is_done(finished: Path) -> None:
    before = read(finished / "result.json")
    assert train_tiny() == before
    outcome = submit("train")
    assert (outcome["id"], outcome["attempt"]) == (finished.name, 1)
    assert [path.name for path in (finished / "attempts").iterdir()] == ["1"]


def test_a_killed_old_run_is_seen_and_taken_up(killed: Path) -> None:
    seen = command("status", killed.name, "--json").json
    assert (seen["state"], seen["attempt"], seen["exit_code"]) == ("lost", 1, 1)
    old_layout.edit(killed / "checkpoints/step_00000020", marked)
    assert submit("train", *KILLED, "num_steps=22")["id"] == killed.name
    status = read(killed / "status.json")
    assert (status["state"], status["attempt"], status["step"]) == ("done", 2, 22)
    # What the first attempt cost stays counted.
    assert status["running_s"] > 17
    losses = read(killed / "checkpoints/step_00000022/state.json")["losses"]
    assert losses[0] == [20, MARK]
    assert [step for step, _ in losses] == [20, 21, 22]
    assert metric_steps(killed.parents[1], killed.name, "train/loss_l1") == [21, 22]


def test_list_status_and_logs_read_old_folders(finished: Path, killed: Path) -> None:
    listed = {item["id"]: item for item in command("list", "--json").json}
    assert {name: item["state"] for name, item in listed.items()} == {
        finished.name: "done",
        killed.name: "lost",
    }
    assert listed[finished.name]["step"] == listed[finished.name]["num_steps"] == 4
    seen = command("status", finished.name, "--json").json
    assert (seen["state"], seen["step"], seen["exit_code"]) == ("done", 4, 0)
    assert read(Path(seen["result"])) == read(finished / "result.json")
    shown = command("logs", killed.name)
    assert shown.code == 0
    assert "terminal standard_normal ready" in shown.stdout
    assert command("logs", finished.name).code == 0
    assert command("delete", killed.name, "--yes", "--json").json["deleted"] > 10
    assert not killed.exists()


def test_an_old_checkpoint_is_evaluated_sampled_from_and_started_from(finished: Path) -> None:
    for which, step in (("", 4), ("@last", 4), ("@step=2", 2)):
        loaded = colddiff.load_checkpoint(f"{finished.name}{which}")
        assert (loaded.step, loaded.spec.num_steps) == (step, 4)
        assert loaded.terminal is not None
    best = read(finished / "result.json")["best_step"]
    assert colddiff.load_checkpoint(f"{finished}@best").step == best
    # The file's training names the checkpoint.
    evaluated = read(Path(submit("evaluate")["result"]))
    assert evaluated["step"] == 4
    old = read(finished / "evaluations/step_00000004.json")
    for name, value in old["metrics"].items():
        assert evaluated["metrics"][name] == pytest.approx(value, rel=1e-3, abs=1e-3), name
    generated = read(Path(submit("generate")["result"]))
    assert (generated["num_samples"], generated["made"]) == (8, 8)
    assert len(list(Path(generated["samples"]).glob("shard-*.tar"))) == 2
    # And another job starts from it.
    job = tiny("train", f"start_from={finished.name}", "num_steps=1", "test_data=null")
    assert colddiff.train(job, "next")["step"] == 1
