"""One contract for all trackers."""

from __future__ import annotations

import math
import time

import pytest

from colddiff.ports import TrackedDataset, Tracker
from colddiff.tracking.memory_tracker import NullTracker
from colddiff.tracking.repeats import DESCRIPTION
from colddiff.tracking.spool import now_ms
from tests.unit.trackers.twins import Twin, png

IMAGES = TrackedDataset("digits/train", "ab" * 32, "/there/digits/train", "data", 1447)


def test_everything_that_is_logged_arrives(twin: Twin) -> None:
    tracker = twin.open()
    started = now_ms()
    tracker.log_params({"degradation.kind": "blur", "seed": "0"})
    tracker.log_metrics({"train/loss_l1": 0.25, "time/data_s": 1e-9}, step=10)
    tracker.log_metrics({"train/loss_l1": 0.125}, step=20)
    tracker.set_tags({"git": "abc"})
    tracker.set_tags({"git": "def"})
    tracker.log_artifact("grids/step_00000010.png", b"\x89PNG\x00")
    tracker.log_dataset(IMAGES)
    assert tracker.flush()
    run = twin.read()
    assert run.run_id == tracker.run_id
    assert run.params == {"degradation.kind": "blur", "seed": "0"}
    assert sorted(run.history("train/loss_l1")) == [(10, 0.25), (20, 0.125)]
    assert run.history("time/data_s") == [(10, 1e-9)]
    assert all(started <= row.time_ms <= now_ms() for row in run.metrics)
    assert run.tags["git"] == "def"
    assert run.artifacts == {"grids/step_00000010.png": b"\x89PNG\x00"}
    assert run.datasets == {"data": IMAGES}
    assert run.status == "RUNNING"
    tracker.finish("FINISHED")
    assert twin.read().status == "FINISHED"


def test_pictures_are_series_by_step_and_inputs_stand_once(twin: Twin) -> None:
    for step in (10, 20):
        tracker = twin.open()
        tracker.log_image("grid", png(step), step)
        tracker.log_dataset(IMAGES)
        tracker.finish("FINISHED")
    run = twin.read()
    assert run.images == {("grid", 10): png(10), ("grid", 20): png(20)}
    assert run.datasets == {"data": IMAGES}


def test_a_description_that_is_there_is_kept(twin: Twin) -> None:
    for text in ("the first", "another"):
        tracker = twin.open()
        tracker.set_tags({DESCRIPTION: text, "team": text})
        tracker.finish("FINISHED")
    assert twin.read().tags[DESCRIPTION] == "the first"
    assert twin.read().tags["team"] == "another"


@pytest.mark.parametrize("status", ["FAILED", "KILLED"])
def test_the_next_attempt_goes_on_with_the_same_run(twin: Twin, status: str) -> None:
    first = twin.open()
    first.log_metrics({"train/loss_l1": 1.0}, step=1)
    first.finish(status)
    assert twin.read().status == status
    second = twin.open()
    assert second.run_id == first.run_id
    assert second.flush()
    assert twin.read().status == "RUNNING"
    second.log_metrics({"train/loss_l1": 0.5}, step=2)
    second.finish("FINISHED")
    assert sorted(twin.read().history("train/loss_l1")) == [(1, 1.0), (2, 0.5)]


def test_steps_repeated_after_a_kill_are_logged_once(twin: Twin) -> None:
    first = twin.open()
    for step in range(1, 8):
        first.log_metrics({"train/loss_l1": 1 / step, "time/data_s": 0.1}, step)
    assert first.flush()
    time.sleep(0.002)  # a new process starts later
    second = twin.open()
    for step in range(5, 11):
        second.log_metrics({"train/loss_l1": 1 / step, "time/data_s": 0.2}, step)
    second.finish("FINISHED")
    run = twin.read()
    assert sorted(run.history("train/loss_l1")) == [(step, 1 / step) for step in range(1, 11)]
    assert [step for step, _ in sorted(run.history("time/data_s"))] == list(range(1, 11))


def test_a_result_measured_anew_is_kept_and_an_equal_one_is_not_repeated(twin: Twin) -> None:
    first = twin.open()
    first.log_metrics({"eval/sampled/fid": 8.0, "eval/direct/fid": float("nan")}, step=100)
    assert first.flush()
    time.sleep(0.002)
    second = twin.open()
    second.log_metrics({"eval/sampled/fid": 8.0, "eval/direct/fid": float("nan")}, step=100)
    second.log_metrics({"eval/sampled/fid": 7.5}, step=100)
    second.finish("FINISHED")
    assert sorted(twin.read().history("eval/sampled/fid")) == [(100, 7.5), (100, 8.0)]
    assert len(twin.read().history("eval/direct/fid")) == 1


def test_a_param_that_changes_becomes_a_tag(twin: Twin) -> None:
    for workers in ("1", "2", "1"):
        tracker = twin.open()
        tracker.log_params({"workers": workers, "seed": "0"})
        assert tracker.flush()
        assert twin.read().params == {"workers": "1", "seed": "0"}
    assert twin.read().tags["param.workers"] == "1"
    tracker.log_params({"workers": "4"})
    tracker.finish("FINISHED")
    assert twin.read().tags["param.workers"] == "4"


def test_numbers_that_are_none_are_logged(twin: Twin) -> None:
    tracker = twin.open()
    tracker.log_metrics({"a": math.nan, "b": math.inf, "c": -math.inf}, step=0)
    tracker.finish("FAILED")
    values = {row.key: row.value for row in twin.read().metrics}
    assert math.isnan(values["a"])
    assert values["b"] > 1e308
    assert values["c"] < -1e308


def test_logging_after_the_end_is_left_out(twin: Twin, caplog: pytest.LogCaptureFixture) -> None:
    tracker = twin.open()
    tracker.finish("FINISHED")
    tracker.log_metrics({"train/loss_l1": 1.0}, step=1)
    tracker.log_params({"a": "b"})
    tracker.set_tags({"a": "b"})
    tracker.log_artifact("a", b"")
    tracker.log_image("a", png(0), step=0)
    tracker.log_dataset(IMAGES)
    tracker.finish("FAILED")
    run = twin.read()
    assert (run.metrics, run.params, run.artifacts) == ([], {}, {})
    assert (run.images, run.datasets) == ({}, {})
    assert "a" not in run.tags
    assert run.status == "FINISHED"


def test_the_other_ranks_tracker_does_nothing() -> None:
    tracker: Tracker = NullTracker()
    tracker.log_params({"a": "b"})
    tracker.log_metrics({"a": 1.0}, step=0)
    tracker.set_tags({"a": "b"})
    tracker.log_artifact("a", b"")
    tracker.log_image("a", b"", step=0)
    tracker.log_dataset(IMAGES)
    assert tracker.flush()
    tracker.finish("FINISHED")
    assert tracker.run_id == ""
