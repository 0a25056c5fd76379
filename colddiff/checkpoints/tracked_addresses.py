"""Logs the addresses of a job's checkpoints, never their bytes, to its tracking run."""

from __future__ import annotations

import json

from colddiff.checkpoints.format import Checkpoints
from colddiff.errors import CheckpointError
from colddiff.ports import Tracker

NAME = "checkpoints.json"


def log_checkpoint_addresses(tracker: Tracker, checkpoints: Checkpoints) -> None:
    """Replaces ``checkpoints.json`` in the run, and the tags that name the newest checkpoint.

    An artifact and tags work with every tracker: MLflow's server rejects a registered model whose
    source is a path, and its models would need the weights themselves.
    """
    found = []
    for step in checkpoints.steps():
        try:
            files = checkpoints.files(step)
        except CheckpointError:
            continue  # pruned or damaged since it was listed
        found.append(
            {
                "step": step,
                "uri": f"{checkpoints.store.uri}/{checkpoints.key(step)}".rstrip("/"),
                "weights_sha256": files["ema"].sha256 if "ema" in files else None,
                "bytes": sum(file.bytes for file in files.values()),
            }
        )
    if not found:
        return
    tracker.log_artifact(NAME, json.dumps(found, indent=2).encode())
    tracker.set_tags(
        {"checkpoint.uri": str(found[-1]["uri"]), "checkpoint.step": str(found[-1]["step"])}
    )
