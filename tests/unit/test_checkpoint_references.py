"""A checkpoint that is named is read through its commit record, once, and held to it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from colddiff.checkpoints.export import export
from colddiff.checkpoints.kept import COMMIT
from colddiff.checkpoints.references import (
    describe_checkpoint,
    find_checkpoint,
    load_checkpoint,
    load_snapshot,
)
from colddiff.errors import CheckpointError
from colddiff.stores.local_store import LocalStore
from tests.tiny_checkpoint import tiny_checkpoint

STEP = "checkpoints/step_00000003"


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each object of a local store was read, by its path."""
    found: Counter[str] = Counter()
    get = LocalStore.get

    def counting(store: LocalStore, key: str) -> bytes:
        found[f"{store.root}/{key}"] += 1
        return get(store, key)

    monkeypatch.setattr(LocalStore, "get", counting)
    return found


@pytest.mark.parametrize(
    ("read", "names"),
    [
        (load_checkpoint, {"state.json", "ema.safetensors"}),
        (load_snapshot, {"state.json", "ema.safetensors"}),
        (lambda reference: describe_checkpoint(find_checkpoint(reference)), {"state.json"}),
        (find_checkpoint, set()),
    ],
    ids=["load_checkpoint", "load_snapshot", "describe_checkpoint", "find_checkpoint"],
)
def test_the_commit_record_and_each_file_is_read_once(
    tmp_path: Path, reads: Counter[str], read: Callable[[str], Any], names: set[str]
) -> None:
    read(tiny_checkpoint(tmp_path))
    assert reads == {f"{tmp_path}/{STEP}/{name}": 1 for name in {COMMIT, *names}}


def test_an_export_reads_each_object_of_both_places_at_most_once(
    tmp_path: Path, reads: Counter[str]
) -> None:
    source, out = tiny_checkpoint(tmp_path / "source"), tmp_path / "out"
    for again in (False, True):
        reads.clear()
        assert export(source, str(out)).fresh is not again
        assert reads[f"{source}/{STEP}/{COMMIT}"] == 1
        assert reads[f"{out}/{STEP}/{COMMIT}"] == again
        assert set(reads.values()) == {1}


def test_an_unknown_word_behind_a_reference_is_named(tmp_path: Path) -> None:
    place = tiny_checkpoint(tmp_path / "a")
    for reference in (f"{place}@bset", "train-x-00000000@bset", f"{place}@step=x"):
        with pytest.raises(CheckpointError, match=r": unknown @\w+(=x)?; @last, @best or @step=N$"):
            find_checkpoint(reference, str(tmp_path))


def test_what_changed_since_it_was_found_is_refused(tmp_path: Path) -> None:
    found = find_checkpoint(tiny_checkpoint(tmp_path / "a"))
    other = Path(tiny_checkpoint(tmp_path / "b", channels=3))
    for path in (other / STEP).iterdir():
        path.replace(tmp_path / "a" / STEP / path.name)
    with pytest.raises(CheckpointError, match=r"ema\.safetensors: has \d+ bytes, checkpoint\.json"):
        load_checkpoint(found)
    for path in (tmp_path / "a" / STEP).iterdir():
        path.unlink()
    with pytest.raises(CheckpointError, match=r"named in checkpoint\.json but missing"):
        describe_checkpoint(found)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda record: "{half", "is not JSON"),
        (lambda record: "[" * 10_000, "deeper than 64"),
        (lambda record: "[]", "is not a JSON object"),
        (lambda record: json.dumps({**record, "format": "x"}), "is of format 'x'"),
        (lambda record: json.dumps({**record, "format": [2]}), r"is of format \[2\]"),
        (lambda record: json.dumps({**record, "files": []}), "files is "),
        (lambda record: json.dumps({**record, "step": "3"}), "step is '3'"),
        (lambda record: json.dumps({**record, "files": {"ema.safetensors": 3}}), "is damaged"),
        (lambda record: json.dumps({**record, "files": {"ema.safetensors": {}}}), "is damaged"),
        (lambda record: json.dumps({**record, "files": {}}), "holds no ema, state"),
    ],
)
def test_a_damaged_commit_record_is_named(
    tmp_path: Path, change: Callable[[dict[str, Any]], str], says: str
) -> None:
    reference = tiny_checkpoint(tmp_path)
    path = tmp_path / STEP / COMMIT
    path.write_text(change(json.loads(path.read_text())))
    with pytest.raises(CheckpointError, match=says) as raised:
        load_checkpoint(reference)
    assert "step_00000003" in str(raised.value)
