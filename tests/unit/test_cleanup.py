"""`colddiff gc`: what it deletes, and what it never touches, on a disk and in S3."""

from __future__ import annotations

import io
import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from colddiff.checkpoints import snapshot_places
from colddiff.cleanup.sweep import delete_all, find_all
from colddiff.cluster.operate import delete
from colddiff.jobs.folder import JobFolder
from colddiff.jobs.status import Status
from tests.conftest import S3Service
from tests.garden import TRAIN, Garden, kinds


@pytest.fixture(params=["disk", "s3"])
def garden(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Garden:
    uri = str(tmp_path / "runs")
    if request.param == "s3":
        service: S3Service = request.getfixturevalue("s3_service")
        uri = f"s3://{service.new_bucket()}/runs"
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return Garden(uri, monkeypatch, capsys)


def test_checkpoints_beyond_the_newest_go_but_never_the_best_or_a_named_one(
    garden: Garden,
) -> None:
    folder = garden.trained({1: 0.5, 2: 0.1, 3: 0.4, 4: 0.3, 5: None, 6: 0.2})
    address = f"s3://moved/elsewhere/jobs/{TRAIN}/checkpoints/step_00000003"
    garden.job("generate-a-00000002", checkpoint=address)
    garden.job("search-a-00000003", base={"checkpoint": f"{TRAIN}@step=4"})
    before = garden.keys()
    shown = json.loads(garden.run("--dry-run", "--json", "--older-than", 0).stdout)
    assert garden.keys() == before, "a dry run deletes nothing"
    found = garden.gc()
    assert shown["leftovers"] == found["leftovers"]
    assert (shown["dry_run"], found["dry_run"]) == (True, False)
    assert garden.steps() == [2, 3, 4, 6], "the best, two that jobs name, and the last"
    assert (kinds(found), found["bytes"]) == (["checkpoint"] * 2, 600)
    assert [item["where"] for item in found["leftovers"]] == [
        f"{folder.uri}/checkpoints/step_0000000{step}" for step in (1, 5)
    ]
    assert garden.gc()["leftovers"] == []


def test_keep_is_the_jobs_own_unless_it_is_given(disk: Garden) -> None:
    disk.trained({1: None, 2: None, 3: None}, keep=3)
    assert disk.gc()["leftovers"] == []
    disk.gc("--keep", 2)
    assert disk.steps() == [2, 3]
    assert disk.run("--keep", 0, "--dry-run").returncode == 2


def test_checkpoints_that_will_be_evaluated_are_kept(disk: Garden) -> None:
    disk.trained({1: None, 2: None, 3: 0.1, 4: None}, evaluate_every=2, test_data="t")
    disk.gc()
    assert disk.steps() == [2, 3, 4]


def test_a_job_that_runs_and_all_that_it_runs_is_left_alone(garden: Garden) -> None:
    garden.trained({1: None, 2: None}, state="running")
    garden.store.put(f"jobs/{TRAIN}/checkpoints/step_00000003/ema.safetensors", b"upload")
    search = garden.job("search-a-00000002", "running")
    garden.trained(
        {1: None, 2: None}, job_id="train-b-00000003", tracking={"parent": search.job_id}
    )
    garden.trained({1: None, 2: None}, job_id="train-c-00000004")
    garden.store.put(search.key("trials/0000.json"), b'{"job": "train-c-00000004"}')
    garden.trained({1: None, 2: None}, job_id="train-d-00000005")
    found = garden.gc()
    assert [item["where"] for item in found["leftovers"]] == [
        f"{garden.store.uri}/jobs/train-d-00000005/checkpoints/step_00000001"
    ]


def test_what_never_ended_goes(garden: Garden) -> None:
    folder = garden.trained({2: None}, state="stopped", attempt=3)
    upload = folder.key("checkpoints/step_00000004")
    garden.store.put(f"{upload}/ema.safetensors", b"half")
    garden.store.put(folder.key(f"ray/{TRAIN}-1-1/controller.json"), b"{}")
    garden.store.put(folder.key(f"ray/reserved/train-{'0a' * 16}"), b"")
    garden.store.put(folder.key("ray/reserved/notes of mine"), b"")
    folder.claim(1, {})
    folder.claim(2, {})
    folder.write_log(2, b"this one has begun\n")
    JobFolder(garden.store, "train-x-00000009").claim(1, {})
    garden.store.put(f"probes/{'01' * 16}", b"writable?")
    for name in ("pack.json", "shard-000000.tar"):
        garden.store.put(f"data/digits-1/train/{name}", b'{"images_sha256": "0"}')
    for name in ("manifest.json", "shard-000000.tar"):
        garden.store.put(f"data/digits-2/train/{name}", b"{}")
    garden.store.put("samples/generate-gone-1/shard-000000.tar", b"kept")
    found = garden.gc()
    assert kinds(found) == ["attempt", "attempt", "packing", "probe", "ray", "upload"]
    left = "\n".join(garden.keys())
    for gone in (
        "step_00000004",
        "/ray/train-",
        "reserved/train-",
        "attempts/1/",
        "train-x-",
        "probes/",
        "digits-1",
    ):
        assert gone not in left
    for kept in (
        "step_00000002",
        "attempts/2/log.txt",
        "attempts/3/",
        "notes of mine",
        "digits-2",
        "samples/",
    ):
        assert kept in left


def test_what_was_written_lately_is_left_alone(disk: Garden) -> None:
    disk.trained({1: None, 2: None})
    root = Path(disk.store.uri)
    (root / "jobs" / TRAIN / f".tmp-{'01' * 16}").write_bytes(b"a write that was killed")
    disk.store.put(f"probes/{'01' * 16}", b"writable?")
    assert disk.gc("--older-than", 1)["leftovers"] == []
    # By the clock of the store alone: this one is months behind that of the machine.
    late = time.time() - 2 * 3600
    for path in root.rglob("*"):
        os.utime(path, (late, late))
    (root / "probes" / ("45" * 16)).write_bytes(b"writable?")
    found = disk.gc("--older-than", 1)
    assert kinds(found) == ["checkpoint", "probe", "temporary"]
    assert not list(root.rglob(".tmp-*"))
    assert [item.key for item in disk.store.list("probes/")] == [f"probes/{'45' * 16}"]


def test_a_folder_that_a_killed_client_staged_goes(disk: Garden, tmp_path: Path) -> None:
    staged = tmp_path / "colddiff-stage-abc0123_"
    (staged / "colddiff").mkdir(parents=True)
    (staged / "colddiff" / "__init__.py").write_text("")
    # As it is while a client copies: files keep the times of the installation.
    os.utime(staged / "colddiff" / "__init__.py", (0, 0))
    (tmp_path / "colddiff-stage-link").symlink_to(tmp_path)
    assert kinds(disk.gc("--older-than", 1)) == []
    assert kinds(disk.gc()) == ["staging"]
    assert not staged.exists()


def test_snapshots_in_memory_of_deleted_jobs_go(
    disk: Garden, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshot_places, "MEMORY", tmp_path)
    snapshot_places.own_folder().mkdir(mode=0o700)
    running: set[int] = set()
    monkeypatch.setattr(snapshot_places, "process", lambda pid: pid if pid in running else None)

    def left_by(uri: str, age_s: float = 0.0) -> Path:
        place = snapshot_places.place_of(uri)
        (place.path / "1-1-1.0").mkdir(parents=True)
        (place.path / "1-1-1.0" / "00000007.safetensors").write_bytes(b"0" * 9)
        place.record(uri)
        for path in (*place.path.rglob("*"), place.path):
            os.utime(path, (time.time() - age_s,) * 2)
        return place.path

    lost, deleted = disk.job(TRAIN, "lost"), disk.job("train-b-00000002", "lost")
    kept = [left_by(lost.uri), left_by("s3://others/jobs/train-a-1", 1e6)]
    gone, by_delete = left_by(f"{disk.store.uri}/jobs/train-c-00000003"), left_by(deleted.uri)
    running.add(os.getpid())
    assert disk.gc()["leftovers"] == []
    running.clear()
    assert kinds(json.loads(disk.run("--dry-run", "--json").stdout)) == ["snapshot"]
    assert kinds(disk.gc("--older-than", 24)) == ["snapshot"]
    assert (gone.exists(), by_delete.exists()) == (False, True)
    delete(deleted)
    assert not by_delete.exists()
    assert all(path.exists() for path in kept)
    assert "snapshot" in kinds(disk.gc("--older-than", 0))
    assert [path.exists() for path in kept] == [False, True]


def test_a_damaged_record_keeps_every_checkpoint_and_is_named(disk: Garden) -> None:
    disk.trained({1: None, 2: None})
    damaged = disk.job("evaluate-a-00000002")
    disk.store.put(damaged.key("job.json"), b"{")
    found = disk.gc()
    assert found["leftovers"] == []
    assert "evaluate-a-00000002" in found["left_alone"][0]
    assert disk.steps() == [1, 2]


def test_without_a_terminal_it_asks_for_yes(disk: Garden) -> None:
    disk.trained({1: None, 2: None})
    done = disk.run("--older-than", 0)
    assert done.returncode == 2
    assert "--yes" in done.stderr
    assert disk.steps() == [1, 2]
    shown = disk.run("--dry-run", "--older-than", 0)
    assert shown.stdout.splitlines()[1].split()[:3] == ["checkpoint", "300", "B"]
    assert "would free 300 B: 1 checkpoint" in shown.stderr


def test_a_job_that_has_begun_again_keeps_what_was_left_over(disk: Garden) -> None:
    folder = disk.trained({1: None, 2: None})
    found = find_all(disk.store, older_than_s=0, keep=None, address=None)
    folder.write_status(Status("queued", 2))
    assert delete_all(found.leftovers) == []
    assert disk.steps() == [1, 2]


def test_where_nothing_is_nothing_is_made(disk: Garden) -> None:
    assert disk.gc()["leftovers"] == []
    assert not Path(disk.store.uri).exists()


def test_a_checkpoint_that_is_named_while_the_question_is_open_is_kept(
    disk: Garden, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk.trained({1: None, 2: None, 3: None})

    def confirm(question: str, **more: Any) -> bool:
        assert question == "delete 600 B: 2 checkpoints?"
        disk.job("generate-a-00000002", checkpoint=f"{TRAIN}@step=1")
        return True

    monkeypatch.setattr("typer.confirm", confirm)
    monkeypatch.setattr("sys.stdin", Terminal())
    assert disk.run("--older-than", 0).returncode == 0
    assert disk.steps() == [1, 3]


class Terminal(io.StringIO):
    """Where a person could be asked."""

    def isatty(self) -> bool:
        return True
