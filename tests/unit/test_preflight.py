"""Before step 0: each thing that would fail after hours is one line in the first seconds."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from colddiff.data.manifest import read_manifest
from colddiff.data.verify import verify_some
from colddiff.errors import CheckpointError
from colddiff.jobs import resolve as resolving
from colddiff.jobs.folder import JobFolder
from colddiff.jobs.in_process import run_here
from colddiff.jobs.resolve import resolve
from colddiff.jobs.status import Status
from colddiff.stores.open import open_store
from colddiff.verbs.train import preflight
from colddiff.verbs.train.preflight import check_before_training
from tests.unit.test_run import job


def attempt(plant: Callable[[Path], None], storage: Path, **fields: Any) -> Status:
    """How an attempt ends for which ``plant`` has spoilt something after the submission."""
    resolved = resolve(job(**fields), "tiny")
    folder = JobFolder(open_store(resolved.storage), resolved.id)
    folder.write_job(resolved.to_dict())
    plant(storage)
    assert run_here(resolved, 1) == 1
    status = folder.status()
    assert status is not None
    assert (status.state, status.step) == ("failed", 0)
    assert not list(folder.store.list(folder.key("checkpoints/")))
    assert "\n" not in status.message
    return status


@pytest.fixture
def own(packed: dict[str, str], tmp_path: Path) -> dict[str, str]:
    """A copy of the packed sets that a test may spoil."""
    for name, uri in packed.items():
        shutil.copytree(uri, tmp_path / name)
    return {name: str(tmp_path / name) for name in packed}


def shard_of(uri: str) -> Path:
    return Path(uri) / read_manifest(open_store(uri)).shards[0].key


def flip_a_byte(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[600] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("field", "spoil", "problem"),
    [
        ("data", lambda path: path.write_bytes(path.read_bytes()[:-512]), "the manifest says"),
        ("test_data", lambda path: path.unlink(), "is in the manifest but missing"),
        ("test_data", flip_a_byte, "with sha256"),
    ],
    ids=["training shard cut", "test shard gone", "test shard altered"],
)
def test_shards_are_what_their_manifest_says(
    storage: Path, own: dict[str, str], field: str, spoil: Callable[[Path], None], problem: str
) -> None:
    shard = shard_of(own[field])
    status = attempt(lambda _: spoil(shard), storage, **own)
    assert status.message.startswith(f"{field}: {shard} ")
    assert problem in status.message
    assert f"colddiff data verify {own[field]}" in status.message


def test_the_storage_can_be_written(storage: Path, packed: dict[str, str]) -> None:
    def in_the_way(root: Path) -> None:
        shutil.rmtree(root / "probes", ignore_errors=True)
        (root / "probes").write_text("a file where a folder is wanted")

    assert "probes" in attempt(in_the_way, storage, **packed).message


OTHER = {"kind": "torchscript", "path": __file__, "sha256": "0" * 64, "name": "other"}


def nothing(_: Path) -> None: ...


@pytest.mark.parametrize(
    ("evaluation", "problem"),
    [
        (
            {
                "features": {
                    "kind": "torchscript",
                    "path": __file__,
                    "sha256": "0" * 64,
                    "name": "x",
                }
            },
            f"expected {'0' * 64}",
        ),
    ],
    ids=["other weights"],
)
def test_an_evaluation_that_cannot_be_done_is_found_out_now(
    storage: Path, packed: dict[str, str], evaluation: dict[str, Any], problem: str
) -> None:
    assert problem in attempt(nothing, storage, **packed, evaluation=evaluation).message


INCEPTION = {"kind": "inception", "path": "/nowhere/inception.pt"}
NO_WEIGHTS = "no weights at /nowhere/inception.pt; download https://"


def test_weights_that_are_missing_are_found_out_before_anything_is_packed(storage: Path) -> None:
    wanted = job(data="digits", evaluation={"features": INCEPTION})
    with pytest.raises(CheckpointError, match=NO_WEIGHTS):
        resolve(wanted, "tiny")
    assert not (storage / "data").exists()


def test_weights_that_are_missing_where_it_runs_are_found_out_first(
    storage: Path, packed: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The machine that submits cannot look at the paths of a cluster: its preflight does."""
    monkeypatch.setattr(preflight, "_prepare_terminal", never)
    monkeypatch.setattr(preflight, "_verify_data", never)
    evaluated = job(**packed, evaluation={"features": INCEPTION})
    resolved = resolve(evaluated, "tiny", remote=True, shared_path=True)
    with pytest.raises(CheckpointError, match=NO_WEIGHTS):
        check_before_training(resolved, resolved.folder)


def test_a_finished_job_needs_no_weights_any_more(
    storage: Path, packed: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluated = job(**packed, evaluation={"features": INCEPTION})
    monkeypatch.setattr(resolving, "_has_finished", lambda *_: True)
    assert resolve(evaluated, "tiny").id


def never(*_: object) -> None:
    raise AssertionError("too early")


def test_a_sound_job_passes_quickly_and_says_how_long_it_took(
    storage: Path, packed: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    resolved = resolve(job(**packed), "tiny")
    folder = JobFolder(open_store(resolved.storage), resolved.id)
    folder.write_job(resolved.to_dict())
    caplog.set_level(logging.INFO, "colddiff")
    check_before_training(resolved, folder)
    assert "preflight checks passed in" in caplog.text


def test_a_set_too_large_to_hash_is_checked_in_part(packed: dict[str, str]) -> None:
    store = open_store(packed["data"])
    manifest = read_manifest(store)
    (entry,) = manifest.shards[:1]
    many = replace(manifest, shards=(entry,) * 50)
    hashed, bad = verify_some(store, many, budget_s=0.0)
    assert (hashed, bad) == (1, [])
    hashed, bad = verify_some(store, many, budget_s=60.0)
    assert (hashed, bad) == (50, [])
