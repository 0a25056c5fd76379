"""Folders that an earlier version wrote, kept without the names of the machine it ran on."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import socket
from collections.abc import Callable, Mapping
from pathlib import Path

from tests.compat.running import RECORDED

STORAGE, HOST = "@STORAGE@", "@HOST@"
ADDRESS = re.compile(r"\b(?!127\.)\d{1,3}(\.\d{1,3}){3}\b")
LONG_AGO = 1_700_000_000
TIME = re.compile(r"\b1[789]\d{8}\.\d+\b")
TEXT = (".json", ".txt")
BELONGS_ELSEWHERE = "a-machine-of-the-past"
"""Stands for the host that wrote a folder: no process of this machine is looked for under it."""


def keep(folder: Path, storage: Path, out: Path) -> None:
    """Copies ``folder`` of ``storage`` to ``out`` with placeholders for paths and host."""
    names = {str(storage): STORAGE, f'"{socket.gethostname()}"': f'"{HOST}"'}

    def nameless(text: str) -> str:
        return ADDRESS.sub("10.0.0.1", TIME.sub(_long_ago, _replaced(text, names)))

    _copy(folder, out, nameless)


def restore(name: str, storage: Path) -> str:
    """Puts a recorded job folder into ``storage``; its id."""
    source = RECORDED / name
    job_id: str = json.loads((source / "job.json").read_text())["id"]
    _copy(source, storage / "jobs" / job_id, lambda text: _replaced(text, _names(storage)))
    return job_id


def checkpoint_of(name: str, root: Path) -> Path:
    """A recorded checkpoint whose restorer returns one grey, as a folder below ``root``."""
    out = root / "constant" / name
    if not out.exists():
        names = _names(root)
        _copy(RECORDED / "constant" / name, out, lambda text: _replaced(text, names))
    return out


def edit(checkpoint: Path, change: Callable[[str], str]) -> None:
    """Changes a checkpoint's ``state.json``, and what ``checkpoint.json`` says of it."""
    state, commit = checkpoint / "state.json", checkpoint / "checkpoint.json"
    state.write_text(change(state.read_text()))
    record = json.loads(commit.read_text())
    data = state.read_bytes()
    record["files"]["state.json"] = {
        "bytes": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
    }
    commit.write_text(json.dumps(record, indent=2))


def _names(storage: Path) -> dict[str, str]:
    return {STORAGE: str(storage), HOST: BELONGS_ELSEWHERE}


def _replaced(text: str, names: Mapping[str, str]) -> str:
    for old, new in names.items():
        text = text.replace(old, new)
    return text


def _long_ago(found: re.Match[str]) -> str:
    """A time in seconds since the epoch moved to November 2023: past on every clock."""
    return str(LONG_AGO + float(found.group()) % 100_000)


def _copy(source: Path, out: Path, change: Callable[[str], str]) -> None:
    shutil.copytree(source, out)
    for path in out.rglob("*"):
        if path.suffix in TEXT and path.name not in ("state.json", "checkpoint.json"):
            path.write_text(change(path.read_text()))
    # A checkpoint's files are known by their hashes.
    for path in out.rglob("checkpoint.json"):
        edit(path.parent, change)
