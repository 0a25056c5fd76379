"""`colddiff gc` beside packings that go on, files of others, links and damaged records."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from colddiff.checkpoints.references import find_checkpoint
from colddiff.cleanup import sweep
from colddiff.cleanup.leftover import Ages
from colddiff.cleanup.sweep import delete_all, find_all
from colddiff.data import pack as packing
from colddiff.data.manifest import read_manifest
from colddiff.data.pack import CLAIM, pack
from colddiff.data.pack_settings import PackSettings
from colddiff.data.pil_images import Pixels
from colddiff.data.sources.source import SourceEntry
from colddiff.data.tars import shard_key
from colddiff.data.verify import verify
from colddiff.errors import RecordError, StoreError
from colddiff.jobs.pages.read import read_run
from colddiff.jobs.status import Status
from colddiff.machine.processes import this_process
from colddiff.stores.local_store import LocalStore
from colddiff.stores.memory_store import MemoryStore
from tests.drawn_source import Drawn
from tests.garden import TRAIN, Garden, kinds
from tests.in_process import colddiff_here

HEX = "01" * 16
SHARDS = PackSettings(shard_size=10)


def aged(root: Path) -> None:
    late = time.time() - 3 * 86400
    for path in root.rglob("*"):
        os.utime(path, (late, late), follow_symlinks=False)


def everything(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if not path.is_dir())


class Watched(Drawn):
    """Calls something when image 12, of the second shard, is loaded."""

    def __init__(self, meanwhile: Callable[[], object]) -> None:
        super().__init__()
        self.meanwhile = meanwhile

    def load(self, entry: SourceEntry) -> Pixels:
        if entry.index == 12:
            self.meanwhile()
        return super().load(entry)


def interrupted(disk: Garden) -> LocalStore:
    """A set of three shards whose packing was killed after the first, three days ago."""
    store, source = LocalStore(f"{disk.store.uri}/data/set"), Drawn()
    source.fails_at = 12
    with pytest.raises(KeyboardInterrupt):
        pack(source, store, SHARDS, workers=1)
    aged(Path(disk.store.uri))
    assert [item.key for item in store.list()] == [CLAIM, shard_key(0)]
    return store


def test_an_interrupted_packing_that_is_gone_on_with_is_left_alone(disk: Garden) -> None:
    store = interrupted(disk)
    found: list[dict[str, Any]] = []
    pack(Watched(lambda: found.append(disk.gc("--older-than", 24))), store, SHARDS, workers=1)
    assert found[0]["leftovers"] == []
    assert verify(store, read_manifest(store)) == []


def test_a_packing_that_was_gone_on_with_since_it_was_found_is_left_alone(disk: Garden) -> None:
    store = interrupted(disk)
    found = find_all(disk.store, older_than_s=3600, keep=None, address=None)
    assert [item.kind for item in found.leftovers] == ["packing"]
    pack(Watched(lambda: delete_all(found.leftovers)), store, SHARDS, workers=1)
    assert verify(store, read_manifest(store)) == []
    assert delete_all(found.leftovers) == []


def test_a_packing_renews_its_claim_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    store, claims = MemoryStore(), []

    def put(key: str, data: bytes) -> None:
        claims.extend([key] if key == CLAIM else [])
        MemoryStore.put(store, key, data)

    monkeypatch.setattr(store, "put", put)
    pack(Drawn(), store, SHARDS, workers=1)
    assert claims == [], "it is young"
    for item in list(store.list()):
        store.delete(item.key)
    monkeypatch.setattr(packing, "RENEW_S", 0.0)
    pack(Drawn(), store, SHARDS, workers=1)
    assert len(claims) == 3, "before each shard"
    assert store.size(CLAIM) is None


def test_a_packing_never_renews_the_claim_of_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "RENEW_S", 0.0)
    store, other = MemoryStore(), b'{"images_sha256": "of a run that found a colour image"}'
    source = Watched(lambda: store.put(CLAIM, other))
    source.fails_at = 22
    with pytest.raises(KeyboardInterrupt):
        pack(source, store, SHARDS, workers=1)
    assert store.get(CLAIM) == other


def test_shards_that_were_deleted_meanwhile_are_made_again() -> None:
    whole, store = MemoryStore(), MemoryStore()
    pack(Drawn(), whole, SHARDS)
    counts: list[int] = []
    source = Watched(lambda: store.delete(shard_key(0)))
    pack(source, store, SHARDS, lambda done, of: counts.append(done), workers=1)
    assert verify(store, read_manifest(store)) == []
    assert read_manifest(store) == read_manifest(whole)
    assert counts[-1] == 23


def test_what_others_put_there_is_left_alone(disk: Garden, tmp_path: Path) -> None:
    disk.trained({1: None, 2: None})
    root, elsewhere = Path(disk.store.uri), tmp_path / "elsewhere"
    elsewhere.mkdir()
    for name in (HEX, "shard-000000.tar", "report.txt"):
        (elsewhere / name).write_text("of somebody else")
    foreign = {
        "probes/my_probe.csv": "1,2",
        "jobs/mine/attempts/notes.txt": "mine",
        "jobs/yours/attempts/1/notes.txt": "yours",
        f"jobs/{TRAIN}/checkpoints/step_00000001/notes.txt": "a good one",
        f"jobs/{TRAIN}/ray/notes.txt": "mine",
        "data/set/pack.json": "x",
        "data/set/shard-000000.tar": "x",
        "data/other/shard-notes.txt": "x",
        ".tmp-notes": "x",
    }
    for key, text in foreign.items():
        (root / key).parent.mkdir(parents=True, exist_ok=True)
        (root / key).write_text(text)
    (root / "data/other/pack.json").write_text('{"images_sha256": "0"}')
    (root / f"probes/{HEX}").write_text("writable?")
    (root / f".tmp-{HEX}").write_text("half")
    for link in ("probes/lnk", "data/lnk", f"jobs/{TRAIN}/ray"):
        if not (root / link).exists():
            (root / link).symlink_to(elsewhere)
    (root / f"data/{HEX}").mkdir()
    (root / f"data/{HEX}/pack.json").write_text('{"images_sha256": "0"}')
    (root / f"data/{HEX}/shard-000000.tar").symlink_to(elsewhere / "shard-000000.tar")
    found = disk.gc()
    assert kinds(found) == ["checkpoint", "packing", "probe", "temporary"]
    assert [name for name in foreign if not (root / name).exists()] == []
    assert len(everything(elsewhere)) == 3
    assert (root / f"data/{HEX}/shard-000000.tar").is_symlink()
    assert not (root / f"probes/{HEX}").exists()
    assert not (root / "data/other/pack.json").exists()
    said = "\n".join(found["left_alone"])
    assert "data/set: its pack.json is not of `colddiff data pack`" in said
    assert f"data/{HEX}: is reached through a link" in said


def test_a_staged_folder_is_cleaned_up_without_what_it_links_to(
    disk: Garden, tmp_path: Path
) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "mine.txt").write_text("")
    for name in ("colddiff-stage-abcd1234", "colddiff-stage-of-my-own"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "job.json").write_text("{}")
        (tmp_path / name / "lnk").symlink_to(tmp_path / "elsewhere")
    assert kinds(disk.gc()) == ["staging"]
    assert (tmp_path / "elsewhere" / "mine.txt").exists()
    assert not (tmp_path / "colddiff-stage-abcd1234" / "job.json").exists()
    assert (tmp_path / "colddiff-stage-of-my-own" / "job.json").exists()


def test_a_job_whose_folder_is_a_link_is_left_alone_and_named(disk: Garden, tmp_path: Path) -> None:
    folder = disk.trained({1: None, 2: None})
    moved = tmp_path / "moved"
    Path(folder.uri).rename(moved)
    Path(folder.uri).symlink_to(moved)
    found = disk.gc()
    assert found["leftovers"] == []
    assert found["left_alone"] == [f"{TRAIN}: its folder is a link; clean it up where it is"]
    assert disk.steps() == [1, 2]


def test_a_checkpoint_that_is_named_through_a_link_is_kept(disk: Garden) -> None:
    folder = disk.trained({1: None, 2: None, 3: None})
    Path(folder.uri).with_name("best-so-far").symlink_to(folder.uri)
    disk.job("generate-a-00000002", checkpoint="best-so-far@step=1")
    disk.gc()
    assert disk.steps() == [1, 3]


def test_a_job_without_job_json_keeps_every_checkpoint(disk: Garden) -> None:
    disk.trained({1: None, 2: None})
    lost = disk.job("generate-a-00000002", checkpoint=f"{TRAIN}@step=1")
    lost.write_result({"metrics": {}})
    disk.store.delete(lost.key("job.json"))
    found = disk.gc()
    assert found["leftovers"] == []
    assert disk.steps() == [1, 2]
    assert "generate-a-00000002/job.json is missing" in found["left_alone"][0]


@pytest.mark.parametrize(
    ("spec", "evaluation", "named"),
    [
        ({}, {"provenance": [1]}, "step_00000001.json is damaged: provenance is [1], not an"),
        ({}, {"metrics": {"a": {"b": 1}}}, 'metrics.a is {"b": 1}, not a number'),
        ({"evaluation": [1]}, {}, "job.json is damaged: spec.evaluation is [1], not an object"),
        ({"evaluate_every": 0, "test_data": "t"}, {}, "spec.evaluate_every is 0, not a whole"),
        ({"keep": True}, {}, "spec.keep is true, not a whole number"),
    ],
)
def test_a_job_with_an_odd_record_is_named_and_the_others_are_cleaned_up(
    disk: Garden, spec: dict[str, Any], evaluation: dict[str, Any], named: str
) -> None:
    odd = disk.trained({1: 0.5, 2: None}, job_id="train-b-00000002", **spec)
    odd.write_evaluation(1, {"metrics": {"eval/sampled/rmse": 0.5}, **evaluation})
    disk.store.put(f"probes/{HEX}", b"writable?")
    found = disk.gc()
    assert kinds(found) == ["probe"]
    assert named in found["left_alone"][0]
    assert "delete" not in found["left_alone"][0]
    assert disk.steps(odd.job_id) == [1, 2]


def test_an_odd_evaluation_is_named_by_whoever_asks_for_the_best(disk: Garden) -> None:
    folder = disk.trained({1: 0.5, 2: None})
    folder.write_evaluation(1, {"metrics": {}, "provenance": [1]})
    with pytest.raises(RecordError, match=r"provenance is \[1\], not an object"):
        find_checkpoint(f"{folder.uri}@best")
    assert "provenance is [1], not an object" in read_run(folder).problems[0]


@pytest.mark.parametrize(
    ("result", "named"),
    [
        ({"provenance": [1]}, "result.json is damaged: provenance is [1], not an object"),
        ({"metrics": {"a": {"b": 1}}}, 'metrics.a is {"b": 1}, not a number'),
        ({"summary": 5}, "summary is 5, not a list"),
    ],
)
def test_an_odd_result_is_named_by_the_report(
    disk: Garden,
    result: dict[str, Any],
    named: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = disk.trained({})
    folder.write_result(result)
    assert named in read_run(folder).problems[0]
    done = colddiff_here(monkeypatch, capsys, "report", TRAIN, "--out", tmp_path / "page")
    assert done.returncode == 2
    assert named in done.stderr


def test_a_dry_run_writes_nothing(
    disk: Garden, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    disk.trained({1: None, 2: None})
    dead = disk.job("train-b-00000002", "running")
    process = {**this_process(), "pid": 2**22 + 1}  # beyond the greatest on Linux
    dead.claim(2, process)
    dead.write_status(Status("running", 2, **process))
    aged(Path(disk.store.uri))

    def refused(store: LocalStore, key: str, data: bytes) -> None:
        raise StoreError(f"{key}: permission denied")

    monkeypatch.setattr(LocalStore, "put", refused)
    done = disk.run("--dry-run", "--json")
    assert done.returncode == 0, done.stderr
    assert f"{dead.job_id}: taken to be running" in caplog.text
    assert kinds(json.loads(done.stdout)) == ["checkpoint"]


def test_the_clock_of_a_store_that_cannot_be_written_is_its_newest_object(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store = MemoryStore()
    store.put("a", b"")
    newest = max(item.modified for item in store.list())

    def refused(key: str, data: bytes) -> None:
        raise StoreError(f"{key}: permission denied")

    monkeypatch.setattr(store, "put", refused)
    assert Ages.unwritten(store, 10.0) == Ages(newest, 10.0)


def test_a_file_is_no_storage(disk: Garden, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("")
    for place in (tmp_path / "a.txt", "/dev/null"):
        done = disk.run("--yes", "--storage", place)
        assert done.returncode == 2
        assert f"{place} is not a folder" in done.stderr


def test_yes_asks_again_what_is_needed_before_it_deletes(
    disk: Garden, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk.trained({1: None, 2: None, 3: None})
    (Path(disk.store.uri) / f".tmp-{HEX}").write_text("half")
    calls = []

    def found(*args: Any, **named: Any) -> Any:
        calls.append(find_all(*args, **named))
        if len(calls) == 1:
            disk.job("generate-a-00000002", checkpoint=f"{TRAIN}@step=1")
            (Path(disk.store.uri) / f".tmp-{HEX}").write_text("half and more")
        return calls[-1]

    monkeypatch.setattr(sweep, "find_all", found)
    assert kinds(disk.gc()) == ["checkpoint"]
    assert disk.steps() == [1, 3]


def test_a_temporary_file_that_is_written_to_meanwhile_is_left_alone(disk: Garden) -> None:
    file = Path(disk.store.uri) / f".tmp-{HEX}"
    file.parent.mkdir()
    file.write_text("half")
    disk.store.put("keep", b"")
    found = find_all(disk.store, older_than_s=0, keep=None, address=None)
    file.write_text("half and more")
    assert len(found.leftovers) == 1
    assert delete_all(found.leftovers) == []
    assert file.exists()
