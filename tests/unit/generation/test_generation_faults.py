"""Generation when things go wrong: seeds that always fail, a store that fails, a stop."""

from __future__ import annotations

import errno
import os
import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from colddiff.data.open import open_samples
from colddiff.data.sample_plan import ShardTask
from colddiff.degradations import build_degradation
from colddiff.jobs import work_queue
from colddiff.jobs.attempt import Attempt
from colddiff.jobs.resolve import ResolvedJob
from colddiff.retry import Backoff
from colddiff.rng import stream
from colddiff.spec.plugins import load_plugin, unload_plugin
from colddiff.terminal import StandardNormal, Terminal
from colddiff.verbs.generate.missing import ShardCounts
from colddiff.verbs.generate.progress import GenerationProgress
from colddiff.verbs.generate.worker import ShardWorker
from tests.conftest import S3Service
from tests.faulty_s3 import FaultyS3
from tests.unit.generation.running import place, run
from tests.unit.generation.sets import NOISE, SHAPE, seeds, tars

BRITTLE = """
from typing import Literal
from colddiff.terminal import TERMINALS, StandardNormal


@TERMINALS.register
class Brittle(StandardNormal):
    kind: Literal["brittle"] = "brittle"

    def draw(self, D, rng, tensors, images):
        x_T, omega = super().draw(D, rng, tensors, images)
        if (x_T[:, 0, 0, 0] > 1.5).any():
            raise ValueError("this one always fails")
        return x_T, omega
"""


def test_seeds_that_always_fail_are_named_and_all_others_are_there(
    submitted: Callable[..., ResolvedJob], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(work_queue, "RETRY", Backoff(0.0, 0.0))
    plugin = tmp_path / "brittle.py"
    plugin.write_text(BRITTLE)
    rng = [stream(seed, "generation/start") for seed in range(60)]
    x_T, _ = Terminal(StandardNormal()).draw(build_degradation(NOISE, SHAPE), rng)
    shards = {seed // 10 for seed in range(60) if x_T[seed, 0, 0, 0] > 1.5}
    assert 0 < len(shards) < 6
    terminal = {"kind": "brittle"}
    loaded = load_plugin(plugin)
    try:
        resolved = submitted(plugins=[str(plugin)], terminal=terminal, num_samples=60)
        code, folder = run(resolved)
    finally:
        unload_plugin(loaded)
    status = folder.status()
    assert code == 1
    assert status
    first = min(shards)
    assert f"{10 * len(shards)} images failed" in status.message
    assert f"(seeds {10 * first}..{10 * first + 9}: ValueError: this one always" in status.message
    assert "submit the same job again to retry the failed ones" in status.message
    assert {seed // 10 for seed in seeds(place(resolved))} == set(range(6)) - shards
    assert place(resolved).size("manifest.json") is None
    half = open_samples(place(resolved), partial=True)
    assert half.manifest.count == 60 - 10 * len(shards)


def test_s3_that_fails_by_chance_gets_the_same_bytes(
    submitted: Callable[..., ResolvedJob],
    s3_service: S3Service,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    here = submitted(num_samples=95)
    run(here)
    bucket = s3_service.new_bucket()
    with FaultyS3(s3_service.endpoint, seed=3) as faulty:
        monkeypatch.setenv("AWS_ENDPOINT_URL", faulty.endpoint)
        there = submitted(num_samples=95, out=f"s3://{bucket}/samples", statistics=["lenet"])
        code, folder = run(there)
        assert code == 0, folder.status()
        assert sum(n for what, n in faulty.counts.items() if what != "served") > 0
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_service.endpoint)
    assert tars(place(there)) == tars(place(here))
    assert seeds(place(there)) == list(range(95))
    # Again: nothing is left to do, and nothing is written.
    before = {item.key for item in place(there).list()}
    assert run(there)[0] == 0
    assert {item.key for item in place(there).list()} == before


def test_a_full_disk_ends_the_job_and_says_so(
    submitted: Callable[..., ResolvedJob], monkeypatch: pytest.MonkeyPatch
) -> None:
    resolved = submitted()
    monkeypatch.setattr(work_queue, "RETRY", Backoff(0.0, 0.0))
    link = os.link

    def full(source: Any, target: Any, **options: Any) -> None:
        if str(target).endswith(".tar"):
            raise OSError(errno.ENOSPC, "No space left on device")
        link(source, target, **options)

    monkeypatch.setattr(os, "link", full)
    code, folder = run(resolved)
    status = folder.status()
    assert code == 1
    assert status
    assert "the disk is full; free some space" in status.message
    assert tars(place(resolved)) == {}


def test_a_stop_abandons_shards_in_progress_and_keeps_the_others(
    submitted: Callable[..., ResolvedJob], monkeypatch: pytest.MonkeyPatch
) -> None:
    resolved = submitted()
    began, counted = threading.Event(), threading.Event()
    count, committed = ShardWorker._count, ShardCounts.committed

    def slow(self: ShardWorker, task: ShardTask, images: float) -> None:
        if task.number == 1 and images:
            began.set()
            while not self._abandoned:
                threading.Event().wait(0.01)
        count(self, task, images)

    def noted(self: ShardCounts, *report: Any) -> None:
        committed(self, *report)
        counted.set()

    def asked(attempt: Any) -> bool:
        return began.is_set() and counted.is_set()

    with monkeypatch.context() as patch:
        patch.setattr(work_queue, "STOP_POLL_S", 0.0)
        patch.setattr(work_queue, "POLL_S", 0.05)
        patch.setattr(ShardWorker, "_count", slow)
        patch.setattr(ShardCounts, "committed", noted)
        patch.setattr(Attempt, "stop_requested", asked)
        patch.setattr(GenerationProgress, "finish_s", lambda _: 0.0)
        code, folder = run(resolved)
    status = folder.status()
    assert status
    assert (code, status.state, status.step) == (4, "stopped", 10)
    said = r"stopped with 10 of 25 images committed, \d shards? in progress abandoned; submit"
    assert re.match(said, status.message)
    kept = tars(place(resolved))
    assert list(kept) == ["shard-000000.tar"]
    assert run(resolved)[0] == 0
    assert tars(place(resolved)).items() > kept.items()
    assert seeds(place(resolved)) == list(range(25))
