"""A job's one tracking run: opened, and told what the job is."""

from __future__ import annotations

from typing import Any

from colddiff import connect
from colddiff.engine.folder import JobFolder
from colddiff.ports import Tracker
from colddiff.resolve import ResolvedJob


def open_tracker(resolved: ResolvedJob, *, join: bool = False) -> Tracker:
    """The job's one tracking run; ``join`` where the driver opened it and will finish it."""
    return connect.open_tracker(
        resolved.storage,
        resolved.tracking_uri,
        resolved.job.tracking.experiment,
        resolved.id,
        join=join,
    )


def begin_tracking(resolved: ResolvedJob, folder: JobFolder) -> Tracker:
    """The job's run, with its parameters, versions, git state and ``job.json``."""
    tracker = open_tracker(resolved)
    tracker.log_params(_flat(resolved.job.to_dict()))
    tracker.set_tags(
        {"storage": resolved.storage, "commit": str(resolved.git.get("commit", ""))}
        | {f"version.{name}": number for name, number in resolved.versions.items()}
    )
    tracker.log_artifact("job.json", folder.store.get(folder.key("job.json")))
    return tracker


def _flat(data: dict[str, Any], prefix: str = "") -> dict[str, str]:
    flat: dict[str, str] = {}
    for name, value in data.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{name}.")
        elif value is not None:
            flat[f"{prefix}{name}"] = str(value)
    return flat
