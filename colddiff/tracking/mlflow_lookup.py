"""Finds the job that logged to an MLflow run."""

from __future__ import annotations

import re

from colddiff.errors import CheckpointError
from colddiff.machine.credentials import masked
from colddiff.tracking.address import database_path
from colddiff.tracking.mlflow_run import JOB_TAG, STORAGE_TAG
from colddiff.tracking.mlflow_service import GoneError, client, translated

RUN_ID = re.compile(r"[0-9a-f]{32}")


def job_of(uri: str, run_id: str) -> tuple[str, str]:
    """(id, storage) of the job that logged to ``run_id``, as its run's tags name them.

    Raises:
        CheckpointError: no such run at ``uri``, or not a run of a colddiff job.
        TrackerError: nothing responds at ``uri``.
    """
    missing = CheckpointError(
        f"mlflow:{run_id}: no such run at {masked(uri)}; set MLFLOW_TRACKING_URI to its tracker"
    )
    database = database_path(uri)
    # MLflow would create an empty database, and print a traceback for an invalid id.
    if RUN_ID.fullmatch(run_id) is None or (database is not None and not database.exists()):
        raise missing
    api = client(uri)
    try:
        with translated(uri):
            tags = api.get_run(run_id).data.tags
    except GoneError:
        raise missing from None
    if JOB_TAG not in tags or STORAGE_TAG not in tags:
        raise CheckpointError(f"mlflow:{run_id}: not the run of a colddiff job")
    return tags[JOB_TAG], tags[STORAGE_TAG]
