"""What of a storage has to stay: names, shapes and keys, without the values that differ."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

GIT = ("commit", "commit.dirty")
"""Tags of a job that was submitted from a checkout."""


def key_paths(data: Any, path: str = "") -> Iterator[str]:
    """Dotted paths of all keys of JSON data, with the type of each value; lists count as one."""
    if isinstance(data, dict):
        for name, value in data.items():
            yield from key_paths(value, f"{path}.{name}" if path else name)
        if not data:
            yield f"{path}: dict"
    else:
        kind = "number" if isinstance(data, int | float) else type(data).__name__
        yield f"{path}: {'bool' if isinstance(data, bool) else kind}"


def json_keys(path: Path) -> list[str]:
    """``key_paths`` of a JSON file, sorted; without git's, which a job has in a checkout only."""
    found = key_paths(json.loads(path.read_text()))
    return sorted(path for path in found if not path.startswith("git."))


def tensors(path: Path) -> dict[str, str]:
    """Name -> dtype and shape from the header of a safetensors file."""
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    return {
        name: f"{about['dtype']} {'x'.join(map(str, about['shape']))}".strip()
        for name, about in sorted(header.items())
        if name != "__metadata__"
    }


def checkpoint(folder: Path) -> dict[str, Any]:
    """Files, tensors and keys of a checkpoint's folder."""
    state = json.loads((folder / "state.json").read_text())
    return {
        "name": folder.name,
        "files": sorted(path.name for path in folder.iterdir()),
        "tensors": {path.stem: tensors(path) for path in sorted(folder.glob("*.safetensors"))},
        "state": sorted(key_paths({**state, "losses": None})),
        "losses": [step for step, _ in state["losses"]],
        "commit": json_keys(folder / "checkpoint.json"),
    }


def packed_set(folder: Path) -> dict[str, Any]:
    """Count, image format and the hashes of a packed set's tars, as they lie there."""
    manifest = json.loads((folder / "manifest.json").read_text())
    return {
        "keys": sorted(manifest),
        "format": manifest["format"],
        "count": manifest["count"],
        "image": manifest["image"],
        "settings": manifest["settings"],
        "tars": hashes(folder),
    }


def hashes(folder: Path) -> dict[str, str]:
    """sha256 of each tar in a folder."""
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.glob("*.tar"))
    }


def tracked(storage: Path, job_id: str) -> dict[str, list[str]]:
    """Names of all that the one MLflow run of a job holds, from the storage's own database."""
    with closing(sqlite3.connect(storage / "mlflow.db")) as database:

        def column(text: str, *values: str) -> list[str]:
            return sorted({str(row[0]) for row in database.execute(text, values)})

        wanted = "SELECT run_uuid FROM tags WHERE key = 'colddiff.job_id' AND value = ?"
        (run,) = column(wanted, job_id)
        (artifact_uri,) = column("SELECT artifact_uri FROM runs WHERE run_uuid = ?", run)
        names = {
            table: column(f"SELECT key FROM {table} WHERE run_uuid = ?", run)
            for table in ("metrics", "params", "tags")
        }
    artifacts = Path(urlparse(artifact_uri).path)
    files = (path for path in artifacts.rglob("*") if path.is_file())
    return {
        **names,
        # MLflow's own tags are its own affair.
        "tags": [n for n in names["tags"] if not n.startswith("mlflow.") and n not in GIT],
        "artifacts": sorted(str(path.relative_to(artifacts)) for path in files),
    }


def metric_steps(storage: Path, job_id: str, metric: str) -> list[int]:
    """Steps at which a job logged a metric to the storage's own database."""
    text = (
        "SELECT DISTINCT metrics.step FROM metrics JOIN tags USING (run_uuid) "
        "WHERE tags.key = 'colddiff.job_id' AND tags.value = ? AND metrics.key = ?"
    )
    with closing(sqlite3.connect(storage / "mlflow.db")) as database:
        return sorted(int(row[0]) for row in database.execute(text, (job_id, metric)))
