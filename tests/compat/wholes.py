"""Whole jobs of every verb by the present code, and what they leave: names, keys, formats."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.compat import described
from tests.compat.running import command, submit, train_tiny

PACKS: dict[str, tuple[str, ...]] = {
    "digits train": ("--split", "train"),
    "digits test": ("--split", "test"),
    "digits test 12 px, in shards": (
        *("--split", "test", "--image-size", "12", "--shard-size", "200"),
        *("--limit", "300", "--channels", "3"),
    ),
}


def pack_digits(root: Path) -> dict[str, Any]:
    """What ``data pack digits`` makes: digest, manifest and the sha256 of each tar."""
    found = {}
    for number, (name, words) in enumerate(PACKS.items()):
        out = root / f"pack-{number}"
        said = command("data", "pack", "digits", "--out", out, "--json", *words).json
        found[name] = {"digest": said["digest"], **described.packed_set(out)}
    return found


def run(storage: Path) -> dict[str, str]:
    """Trains, evaluates and generates by ``tiny.yaml``: ids by verb."""
    ids = {"train": train_tiny()["id"]}
    for verb in ("evaluate", "generate"):
        ids[verb] = submit(verb)["id"]
    return ids


def describe(storage: Path, ids: dict[str, str]) -> dict[str, Any]:
    """Names and keys of what the three jobs left in their storage."""
    # Those of the others follow from the trained weights, which no two kinds of CPU have in common.
    found: dict[str, Any] = {"id": ids["train"]}
    for verb, job_id in ids.items():
        folder = storage / "jobs" / job_id
        found[verb] = {
            "tracked": described.tracked(storage, job_id),
            "job": described.json_keys(folder / "job.json"),
            "status": sorted(json.loads((folder / "status.json").read_text())),
            "result": described.json_keys(folder / "result.json"),
        }
    folder = storage / "jobs" / ids["train"]
    found["checkpoints"] = [
        described.checkpoint(path) for path in sorted((folder / "checkpoints").iterdir())
    ]
    found["data"] = {
        str(path.parent.relative_to(storage)): json.loads(path.read_text())["count"]
        for path in sorted(storage.glob("data/*/*/manifest.json"))
    }
    return found
